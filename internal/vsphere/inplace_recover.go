package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// InterruptedInPlace implements hypervisor.InPlaceRestorer.
func (c *Client) InterruptedInPlace(ctx context.Context, id hypervisor.VMID) (*hypervisor.Interrupted, error) {
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", id, err)
	}
	j, err := readJournal(vm.Config)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", id, err)
	}
	if j == nil {
		return nil, nil
	}
	found := j.interrupted(vm)
	return &found, nil
}

// RecoverInPlace implements hypervisor.InPlaceRestorer. It goes by nothing but the VM's journal and what the
// server holds, and may itself be interrupted at any moment.
func (c *Client) RecoverInPlace(
	ctx context.Context, id hypervisor.VMID, runID string,
) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	replaced, err := c.recoverInPlace(ctx, id, runID)
	var vm *hypervisor.VM
	if err == nil {
		vm, err = c.vmByID(ctx, id)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("recover the restore in place of %s: %w", id, err)
	}
	return vm, replaced, nil, nil
}

func (c *Client) recoverInPlace(
	ctx context.Context, id hypervisor.VMID, runID string,
) ([]hypervisor.Replaced, error) {
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return nil, err
	}
	j, err := readJournal(vm.Config)
	switch {
	case err != nil || j == nil:
		return nil, err
	case j.Run != runID:
		return nil, &hypervisor.InterruptedError{VM: unescapeName(vm.Name), Interrupted: j.interrupted(vm)}
	}
	line, err := c.ancestors(ctx, vmRef(id))
	if err != nil {
		return nil, err
	}
	if err := c.removeUpload(ctx, vm, line, runID); err != nil {
		return nil, err
	}
	if j.interrupted(vm).Swapped {
		return j.replaced(), c.finishInPlace(ctx, id, line, j)
	}
	switch j.Phase {
	case phaseSwapped:
		if j, err = c.swapBack(ctx, id, line, j); err != nil {
			return nil, err
		}
	case phaseStop:
		c.awaitStop(ctx, id, afterKilled)
	}
	return nil, c.undoInPlace(ctx, id, line, j)
}

// afterKilled is how long a recovery waits for a guest that was perhaps asked to shut down, to start it
// again.
const afterKilled = 5 * time.Second

// awaitStop waits for a VM whose guest may be shutting down.
func (c *Client) awaitStop(ctx context.Context, id hypervisor.VMID, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.waitPowerState(ctx, id, types.VirtualMachinePowerStatePoweredOff); err != nil {
		c.log.InfoContext(ctx, "the guest was asked to shut down, and hasn't", "vm", id, "error", err)
	}
}

// removeUpload removes the VM in the making of a run that was killed. Its lease may hold it for a while.
func (c *Client) removeUpload(ctx context.Context, vm *mo.VirtualMachine, line lineage, runID string) error {
	p := &inPlacePlan{vm: vm, line: line, datacenter: line.toDatacenter()}
	if len(p.datacenter) == 0 {
		return errors.New("the VM's datacenter can't be read")
	}
	folder, _, err := c.importFolder(ctx, p)
	if err != nil {
		return err
	}
	ref, err := c.findMade(ctx, folder, runID)
	if err != nil || ref == nil {
		return err
	}
	return c.destroyMade(ctx, *ref, c.destroyHeld)
}

// releaseTarget takes away from a VM in the making what the VM that it was made for has. A restore in place
// never lets two VMs have one disk; should it be so nevertheless, that disk must not go with the first.
func (c *Client) releaseTarget(ctx context.Context, ref types.ManagedObjectReference) error {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, ref, []string{"config.extraConfig"}, &vm); err != nil || vm.Config == nil {
		if vmGone(err) {
			return nil
		}
		return err
	}
	target := optionValue(vm.Config.ExtraConfig, targetKey)
	if target == "" {
		return nil
	}
	var holder mo.VirtualMachine
	err := c.properties(ctx, vmRef(hypervisor.VMID(target)), []string{"config.hardware", "layoutEx"}, &holder)
	if vmGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	files := map[string]bool{}
	addFiles(files, &holder)
	if len(files) == 0 {
		return nil
	}
	return c.detachDisks(ctx, ref, slices.Collect(maps.Keys(files)))
}

// toDatacenter is the lineage down to the datacenter; empty: there is none on the way.
func (l lineage) toDatacenter() lineage {
	i := slices.IndexFunc(l, func(e mo.ManagedEntity) bool { return e.Self.Type == "Datacenter" })
	return l[:i+1]
}

// swapBack gives a VM that is off its own disks back.
func (c *Client) swapBack(ctx context.Context, id hypervisor.VMID, line lineage, j *journal) (*journal, error) {
	if err := c.putBackNVRAM(ctx, id, line, j); err != nil {
		return nil, err
	}
	next := j.as(phaseStop)
	build := func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		if state := vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
			return types.VirtualMachineConfigSpec{},
				fmt.Errorf("the VM is %s: somebody else has started it", powerStates[state])
		}
		return swapSpec(vm, j.Disks, func(d journalDisk) string { return d.Own }, nil)
	}
	_, err := c.change(ctx, id, j.Run, next, build)
	return next, err
}

// undoInPlace removes what a restore that didn't swap the disks has made, and starts the VM again if it was
// stopped for it. The journal goes last.
func (c *Client) undoInPlace(ctx context.Context, id hypervisor.VMID, line lineage, j *journal) error {
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	addFiles(used, vm)
	var unused []string
	for _, d := range j.Disks {
		if !used[d.Restored] {
			unused = append(unused, d.Restored)
		}
	}
	if err := c.deleteDisks(ctx, line, unused); err != nil {
		return err
	}
	if !slices.Equal(bootNames(vm.Config), j.Boot) && len(j.Boot) > 0 {
		next := j.as(j.Phase)
		if _, err := c.change(ctx, id, j.Run, next, bootSpecOf(j.Boot)); err != nil {
			return err
		}
	}
	return errors.Join(c.restart(ctx, id, j), c.finishInPlace(ctx, id, line, j))
}

// addFiles adds all files of a VM's disks, those of its snapshots included.
func addFiles(files map[string]bool, vm *mo.VirtualMachine) {
	if vm.Config != nil {
		for _, d := range orderedDisks(vm.Config.Hardware.Device) {
			for _, name := range chainFiles(d.Backing) {
				files[name] = true
			}
		}
	}
	if vm.LayoutEx != nil {
		for _, f := range vm.LayoutEx.File {
			files[f.Name] = true
		}
	}
}

// restart starts a VM that ran before the restore stopped it.
func (c *Client) restart(ctx context.Context, id hypervisor.VMID, j *journal) error {
	if !j.Restart {
		return nil
	}
	return c.PowerOn(ctx, id)
}

// finishInPlace removes the journal, and what only it knows of.
func (c *Client) finishInPlace(ctx context.Context, id hypervisor.VMID, line lineage, j *journal) error {
	if j.NVRAM != "" {
		if err := c.deleteFile(ctx, line, j.NVRAM); err != nil {
			return err
		}
	}
	_, err := c.change(ctx, id, j.Run, nil, nil)
	if errors.Is(err, errNoJournal) {
		return nil
	}
	return err
}

// deleteDisks deletes disks that no VM has. One that isn't there is no error.
func (c *Client) deleteDisks(ctx context.Context, line lineage, paths []string) error {
	var errs []error
	for _, name := range paths {
		if path.Ext(name) != ".vmdk" { // where the server was to choose, and nobody knows what it chose
			continue
		}
		if err := c.deleteDisk(ctx, line, name); err != nil {
			errs = append(errs, fmt.Errorf("%s was left behind: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Client) deleteDisk(ctx context.Context, line lineage, name string) error {
	dc := line.datacenter()
	if dc == nil {
		return errors.New("the datacenter can't be read")
	}
	busy, cancel := context.WithTimeout(ctx, appearTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		_, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.DeleteVirtualDisk_Task(ctx, c.vim, &types.DeleteVirtualDisk_Task{
				This: *c.vim.ServiceContent.VirtualDiskManager, Name: name, Datacenter: &dc.Self,
			})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		if err == nil || fault.Is(err, &types.FileNotFound{}) {
			return nil
		}
		if !mayDeleteLater(err) || pause(busy, backoff(attempt)) != nil {
			return withoutURL(err)
		}
	}
}

// DeleteReplaced implements hypervisor.InPlaceRestorer. The server itself would delete a disk that a VM which
// is off has, so all VMs on the datastores are asked beforehand.
func (c *Client) DeleteReplaced(ctx context.Context, id hypervisor.VMID, disks []hypervisor.Replaced) error {
	if err := c.deleteReplaced(ctx, id, disks); err != nil {
		return fmt.Errorf("delete the replaced disks of %s: %w", id, err)
	}
	return nil
}

func (c *Client) deleteReplaced(ctx context.Context, id hypervisor.VMID, disks []hypervisor.Replaced) error {
	if len(disks) == 0 {
		return nil
	}
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return err
	}
	line, err := c.ancestors(ctx, vmRef(id))
	if err != nil {
		return err
	}
	used, err := c.filesInUse(ctx, line, disks)
	if err != nil {
		return err
	}
	addFilesOf(used, vm)
	var errs []error
	for _, d := range disks {
		if name, ok := used[d.Path]; ok {
			errs = append(errs, fmt.Errorf("%s (%s) is in use by %s", d.Path, d.Label, name))
			continue
		}
		errs = append(errs, c.deleteDisks(ctx, line, []string{d.Path}))
	}
	return errors.Join(errs...)
}

// filesInUse are the files of all VMs on the datastores of disks, with the names of the VMs.
func (c *Client) filesInUse(
	ctx context.Context, line lineage, disks []hypervisor.Replaced,
) (map[string]string, error) {
	dc := line.datacenter()
	if dc == nil {
		return nil, errors.New("the datacenter can't be read")
	}
	var holder mo.Datacenter
	if err := c.properties(ctx, dc.Self, []string{"datastore"}, &holder); err != nil {
		return nil, err
	}
	objects, err := c.propertiesOf(ctx, holder.Datastore, types.PropertySpec{
		Type: "Datastore", PathSet: []string{"name", "vm"},
	})
	if err != nil {
		return nil, err
	}
	users := map[types.ManagedObjectReference]bool{}
	for _, ref := range holder.Datastore {
		var store mo.Datastore
		if err := load(objects, ref, &store); err != nil {
			return nil, err
		}
		wanted := slices.ContainsFunc(disks, func(d hypervisor.Replaced) bool {
			name, _ := splitPath(d.Path)
			return name == store.Name
		})
		if wanted {
			for _, vm := range store.Vm {
				users[vm] = true
			}
		}
	}
	refs := slices.Collect(maps.Keys(users))
	objects, err = c.propertiesOf(ctx, refs, types.PropertySpec{
		Type: "VirtualMachine", PathSet: []string{"name", "config.hardware.device", "layoutEx.file"},
	})
	if err != nil {
		return nil, err
	}
	used := map[string]string{}
	for _, ref := range refs {
		var vm mo.VirtualMachine
		if err := load(objects, ref, &vm); err != nil {
			if vmGone(err) {
				continue
			}
			return nil, err
		}
		addFilesOf(used, &vm)
	}
	return used, nil
}

func addFilesOf(used map[string]string, vm *mo.VirtualMachine) {
	files := map[string]bool{}
	addFiles(files, vm)
	for name := range files {
		used[name] = unescapeName(vm.Name)
	}
}
