package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const (
	// shutdownTimeout is how long a guest may take to shut down unless the caller says.
	shutdownTimeout = 5 * time.Minute
	// afterAsked is how long the undoing of a restore waits for a guest that is shutting down.
	afterAsked = time.Minute
	// detachAttempts is how often disks are taken away from a VM.
	detachAttempts = 5
)

// detachDisks takes disks away from a VM, all of them or those with one of the files. Their files stay.
func (c *Client) detachDisks(ctx context.Context, ref types.ManagedObjectReference, files []string) error {
	unlock, err := c.lockVM(ctx, hypervisor.VMID(ref.Value))
	if err != nil {
		return err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		var vm mo.VirtualMachine
		if err := c.properties(ctx, ref, []string{"config.hardware", "config.changeVersion"}, &vm); err != nil {
			return err
		}
		if vm.Config == nil {
			return fmt.Errorf("detach the disks of %s: %w", ref.Value, hypervisor.ErrOutOfReach)
		}
		spec := types.VirtualMachineConfigSpec{ChangeVersion: vm.Config.ChangeVersion}
		for _, d := range orderedDisks(vm.Config.Hardware.Device) {
			if files == nil || slices.Contains(files, describeBacking(d.Backing).fileName) {
				spec.DeviceChange = append(spec.DeviceChange, removal(d))
			}
		}
		if len(spec.DeviceChange) == 0 {
			return nil
		}
		if attempt > detachAttempts {
			return fmt.Errorf("detach the disks of %s: they are still there", ref.Value)
		}
		_, err := c.reconfigure(ctx, ref, spec)
		again := isAmbiguous(err) || fault.Is(err, &types.ConcurrentAccess{})
		if err != nil && (!again || pause(ctx, backoff(attempt)) != nil) {
			return fmt.Errorf("detach the disks of %s: %w", ref.Value, withoutURL(err))
		}
	}
}

// removal takes a device away; a disk's file stays.
func removal(d types.BaseVirtualDevice) *types.VirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d}
}

// bringDown stops the VM. The journal says beforehand that it ran.
func (r *inPlace) bringDown(ctx context.Context) error {
	vm, err := r.client.readTarget(ctx, r.plan.spec.VM)
	if err != nil {
		return err
	}
	state := vm.Runtime.PowerState
	if state == types.VirtualMachinePowerStatePoweredOff {
		return nil
	}
	if !r.plan.spec.PowerOff {
		if err := r.plan.checkStoppable(vm); err != nil {
			return err
		}
	}
	next := r.journal.as(phaseStop)
	next.Restart = next.Restart || state == types.VirtualMachinePowerStatePoweredOn
	if err := r.write(ctx, r.plan.spec.RunID, next, nil); err != nil {
		return err
	}
	if state == types.VirtualMachinePowerStatePoweredOn && toolsRun(vm) {
		if err := r.shutDown(ctx); err == nil || ctx.Err() != nil || !r.plan.spec.PowerOff {
			return err
		}
		if err := r.tenure.check(ctx); err != nil { // that took long
			return err
		}
	}
	return r.client.PowerOff(ctx, r.plan.spec.VM)
}

// shutDown asks the guest to shut down and waits for it.
func (r *inPlace) shutDown(ctx context.Context) error {
	timeout := r.plan.spec.ShutdownTimeout
	if timeout <= 0 {
		timeout = shutdownTimeout
	}
	askCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	until := time.Now().Add(timeout)
	err := r.client.ShutDownGuest(askCtx, r.plan.spec.VM)
	if err != nil && ctx.Err() != nil {
		if errors.Is(err, hypervisor.ErrShuttingDown) {
			r.asked = until
		}
		return err
	}
	if err != nil && askCtx.Err() != nil {
		return fmt.Errorf("%w: it had %s", hypervisor.ErrShutdown, timeout)
	}
	return err
}

// dropSnapshots removes the VM's snapshots, if that is allowed, and sees to it that no delta disk stays.
func (r *inPlace) dropSnapshots(ctx context.Context) error {
	c, id := r.client, r.plan.spec.VM
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		var vm mo.VirtualMachine
		if err := c.readVM(ctx, c.reads.trees, id, &vm); err != nil {
			return err
		}
		names := snapshotNames(&vm)
		switch {
		case len(names) == 0 && !vm.Runtime.ConsolidationNeeded:
			return nil
		case !r.plan.spec.RemoveSnapshots:
			return fmt.Errorf("%w: %s", hypervisor.ErrSnapshotsInTheWay, strings.Join(names, ", "))
		}
		now, err := c.readTarget(ctx, id)
		if err != nil {
			return err
		}
		if err := c.refuseLinked(ctx, now, r.plan.line); err != nil {
			return err
		}
		if err := r.tenure.check(ctx); err != nil {
			return err
		}
		switch {
		case len(names) == 0:
			return c.consolidate(ctx, id, &vm)
		case attempt > readAttempts:
			return fmt.Errorf("remove the snapshots: the server reports success, but there still are %s",
				strings.Join(names, ", "))
		}
		_, err = c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.RemoveAllSnapshots_Task(ctx, c.vim, &types.RemoveAllSnapshots_Task{
				This: vmRef(id), Consolidate: types.NewBool(true),
			})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		if err != nil && (!isAmbiguous(err) || pause(ctx, backoff(attempt)) != nil) {
			return fmt.Errorf("remove the snapshots: %w", withoutURL(err))
		}
	}
}

// findUsers reads which VMs have the restored disks: none should.
func (r *inPlace) findUsers(ctx context.Context) (err error) {
	r.users, err = r.client.usersOf(ctx, r.plan.line, r.journal.paths(restoredPath))
	return err
}

// exchange is the moment at which the VM gets the restored disks: one change, which the server carries out
// as a whole or not at all, of the VM as it was when it was last looked at.
func (r *inPlace) exchange(ctx context.Context) error {
	next := r.journal.as(phaseDone)
	switch at, err := r.client.logPosition(ctx, vmRef(r.plan.spec.VM)); {
	case err == nil:
		next.Swapped = &at
	case ctx.Err() != nil:
		return err
	default: // then nobody can tell later whether it was started since
		r.client.log.InfoContext(ctx, "read the log of the VM", "vm", r.plan.spec.VM, "error", err)
	}
	err := r.tryExchange(ctx, next)
	if isRefusal(ctx, err) && r.journal != next && dropPolicies(next.Disks) {
		r.warnings = append(r.warnings, fmt.Sprintf(
			"The disks have the datastore's storage policy: the server doesn't give them their own (%v).", err))
		err = r.tryExchange(ctx, next)
	}
	if err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	return nil
}

// dropPolicies removes the storage policies from a journal's disks if there are any.
func dropPolicies(disks []journalDisk) (dropped bool) {
	for i := range disks {
		dropped = dropped || disks[i].Policy != ""
		disks[i].Policy = ""
	}
	return dropped
}

func (r *inPlace) tryExchange(ctx context.Context, next *journal) error {
	build := func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		next.Phase = phaseDone
		next.Boot = bootNames(vm.Config)
		if r.plan.spec.Hardware || len(next.Boot) > 0 {
			next.Phase = phaseSwapped
		}
		r.before, r.own = vm.Config, map[string]*types.VirtualDisk{}
		for i, d := range r.plan.disks {
			own, err := r.swappable(vm, d)
			if err != nil {
				return types.VirtualMachineConfigSpec{}, err
			}
			r.own[d.slot] = own
			next.Disks[i].Own = describeBacking(own.Backing).fileName
		}
		return swapSpec(vm, next.Disks, restoredPath, r.own, r.users)
	}
	err := r.write(ctx, r.plan.spec.RunID, next, build)
	r.swapped = r.journal == next
	return err
}

// swappable finds the VM's disk that is replaced, and makes sure that it still is the one that was found in
// the beginning.
func (r *inPlace) swappable(vm *mo.VirtualMachine, d *swapDisk) (*types.VirtualDisk, error) {
	label := deviceLabel(d.own)
	if state := vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
		return nil, fmt.Errorf("the VM is %s: somebody else has started it", powerStates[state])
	}
	if err := refuseSnapshots(vm); err != nil {
		return nil, err
	}
	own := sameSlot(vm.Config.Hardware.Device, d.slot)
	switch {
	case own == nil:
		return nil, fmt.Errorf("%s has been removed from the VM meanwhile", label)
	case len(chainFiles(own.Backing)) != 1 || baseFile(own.Backing) != baseFile(d.own.Backing):
		return nil, fmt.Errorf("%s has another file than in the beginning, %s", label,
			describeBacking(own.Backing).fileName)
	case diskCapacity(own) != diskCapacity(d.captured):
		return nil, fmt.Errorf("%s has another capacity than in the beginning, %d bytes", label,
			diskCapacity(own))
	}
	return own, nil
}

func refuseSnapshots(vm *mo.VirtualMachine) error {
	if names := snapshotNames(vm); len(names) > 0 {
		return fmt.Errorf("%w: %s", hypervisor.ErrSnapshotsInTheWay, strings.Join(names, ", "))
	}
	return nil
}

// swapSpec puts other files into a VM's disks. A disk keeps its place, and its settings unless like has
// others for its slot. A file that another VM has, as users says, is not put into this one.
func swapSpec(
	vm *mo.VirtualMachine, disks []journalDisk, file func(journalDisk) string,
	like map[string]*types.VirtualDisk, users *fileUsers,
) (types.VirtualMachineConfigSpec, error) {
	var spec types.VirtualMachineConfigSpec
	if err := refuseSnapshots(vm); err != nil {
		return spec, err
	}
	var added []types.BaseVirtualDeviceConfigSpec
	for i, d := range disks {
		now := sameSlot(vm.Config.Hardware.Device, d.Slot)
		if now == nil {
			return spec, fmt.Errorf("%s is no disk of the VM any more", d.Label)
		}
		if describeBacking(now.Backing).fileName == file(d) {
			continue
		}
		if other := users.otherThan(vm.Self, file(d)); other != "" {
			return spec, fmt.Errorf("%s, the file of %s, is in use by %s", file(d), d.Label, other)
		}
		settings := now
		if s := like[d.Slot]; s != nil {
			settings = s
		}
		old := describeBacking(settings.Backing)
		device := &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{
				Key: -int32(i) - 1, ControllerKey: now.ControllerKey, UnitNumber: now.UnitNumber, //nolint:gosec // a few disks
				// The file says what the rest is: capacity, provisioning and identity.
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file(d)},
					DiskMode:                     old.mode, Sharing: old.sharing,
					WriteThrough: old.writeThrough,
				},
			},
			StorageIOAllocation: settings.StorageIOAllocation,
			GuestReadOnly:       settings.GuestReadOnly,
		}
		spec.DeviceChange = append(spec.DeviceChange, removal(now))
		add := &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: device,
		}
		if d.Policy != "" {
			add.Profile = []types.BaseVirtualMachineProfileSpec{&types.VirtualMachineDefinedProfileSpec{ProfileId: d.Policy}}
		}
		added = append(added, add)
	}
	spec.DeviceChange = append(spec.DeviceChange, added...)
	return spec, nil
}

// verify re-reads the VM after the swap.
func (r *inPlace) verify(ctx context.Context) error {
	vm, err := r.client.readTarget(ctx, r.plan.spec.VM)
	if err != nil {
		return err
	}
	for _, d := range r.plan.disks {
		now := sameSlot(vm.Config.Hardware.Device, d.slot)
		if now == nil {
			return fmt.Errorf("%s is missing after the swap", deviceLabel(d.own))
		}
		want, have := describeBacking(d.captured.Backing), describeBacking(now.Backing)
		switch {
		case have.fileName != d.path:
			return fmt.Errorf("%s has the file %s after the swap instead of %s", deviceLabel(d.own),
				have.fileName, d.path)
		case diskCapacity(now) != diskCapacity(d.captured):
			return fmt.Errorf("%s has %d bytes after the swap instead of %d", deviceLabel(d.own),
				diskCapacity(now), diskCapacity(d.captured))
		case want.uuid != "" && !strings.EqualFold(want.uuid, have.uuid):
			return fmt.Errorf("%s has the UUID %s after the swap instead of %s", deviceLabel(d.own),
				have.uuid, want.uuid)
		}
	}
	return nil
}
