package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// fileUsers are the VMs that have files.
type fileUsers struct {
	names   map[types.ManagedObjectReference]string
	files   map[string][]types.ManagedObjectReference // by path
	unknown []string                                  // VMs of which the server has no configuration
}

// usersOf finds the VMs that have some of the disks at paths: the server itself would delete a disk that a VM
// which is off has, or give it to a second one. Asked are all VMs on the datastores of the disks.
func (c *Client) usersOf(ctx context.Context, line lineage, paths []string) (*fileUsers, error) {
	refs, err := c.vmsBeside(ctx, line, paths)
	if err != nil {
		return nil, err
	}
	objects, err := c.readFiles(ctx, refs)
	if err != nil {
		return nil, err
	}
	users := &fileUsers{
		names: map[types.ManagedObjectReference]string{}, files: map[string][]types.ManagedObjectReference{},
	}
	for _, ref := range refs {
		var vm mo.VirtualMachine
		if err := load(objects, ref, &vm); err != nil {
			if vmGone(err) {
				continue
			}
			return nil, err
		}
		users.names[ref] = unescapeName(vm.Name)
		if vm.Config == nil {
			users.unknown = append(users.unknown, unescapeName(vm.Name))
		}
		files := map[string]bool{}
		addFiles(files, &vm)
		for name := range files {
			users.files[name] = append(users.files[name], ref)
		}
	}
	slices.Sort(users.unknown)
	return users, nil
}

// readFiles reads what files VMs have. One that has gone meanwhile is missing in the result.
func (c *Client) readFiles(
	ctx context.Context, refs []types.ManagedObjectReference,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	spec := types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{{
			Type: "VirtualMachine", PathSet: []string{"name", "config.hardware.device", "layoutEx.file"},
		}},
		ReportMissingObjectsInResults: types.NewBool(true),
	}
	for _, ref := range refs {
		spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: ref})
	}
	objects, err := retrieve(ctx, c.vim, spec)
	if err != nil {
		return nil, fmt.Errorf("read which VMs have the disks: %w", classify(err))
	}
	return objects, nil
}

// vmsBeside are the VMs on the datastores of the disks at paths.
func (c *Client) vmsBeside(
	ctx context.Context, line lineage, paths []string,
) ([]types.ManagedObjectReference, error) {
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
	wanted := map[string]bool{}
	for _, p := range paths {
		name, _ := splitPath(p)
		wanted[name] = true
	}
	vms := map[types.ManagedObjectReference]bool{}
	for _, ref := range holder.Datastore {
		var store mo.Datastore
		if err := load(objects, ref, &store); err != nil {
			return nil, err
		}
		if !wanted[store.Name] {
			continue
		}
		delete(wanted, store.Name)
		for _, vm := range store.Vm {
			vms[vm] = true
		}
	}
	for name := range wanted { // it was renamed, or is not for this user to see
		return nil, fmt.Errorf("which VMs have the disks can't be told: there is no datastore %q: %w", name, hypervisor.ErrOutOfReach)
	}
	return slices.Collect(maps.Keys(vms)), nil
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

// refuseLinked refuses to remove the snapshots of a VM while others, linked clones, build on its disks as the
// snapshots keep them: what is written then to the disks below is written below those clones, too.
func (c *Client) refuseLinked(ctx context.Context, vm *mo.VirtualMachine, line lineage) error {
	disk, other, unknown, err := c.disksElsewhere(ctx, vm, line)
	if err != nil {
		return err
	}
	if other != "" {
		return fmt.Errorf("%s: %w: they can't be removed, %s is based on them (%s)", line.path(),
			hypervisor.ErrSnapshotsInTheWay, other, disk)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s: %w: they can't be removed, whether %s is based on them can't be told, whose configuration "+
			"the server can't read", line.path(), hypervisor.ErrSnapshotsInTheWay, unknown[0])
	}
	return nil
}

// disksElsewhere finds another VM that has a disk of a VM, or is based on one; empty: none is known. Whether the
// unknown ones are can't be told.
func (c *Client) disksElsewhere(
	ctx context.Context, vm *mo.VirtualMachine, line lineage,
) (disk, other string, unknown []string, err error) {
	files := map[string]bool{}
	addFiles(files, vm)
	disks := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(name string) bool { return !isDisk(name) })
	users, err := c.usersOf(ctx, line, disks)
	if err != nil {
		return "", "", nil, err
	}
	for _, disk := range disks {
		if other := users.otherThan(vm.Self, disk); other != "" {
			return disk, other, users.unknown, nil
		}
	}
	return "", "", users.unknown, nil
}

// checkOwnDisks refuses to delete a VM while another one has its disks, or is based on them, which would go with it. One
// that the server can't read isn't in the way: nothing shows that it was made of a restored VM.
func (c *Client) checkOwnDisks(ctx context.Context, id hypervisor.VMID) error {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, vmRef(id), []string{"config.hardware", "layoutEx"}, &vm); err != nil {
		return err
	}
	line, err := c.ancestors(ctx, vmRef(id))
	if err != nil {
		return err
	}
	disk, other, _, err := c.disksElsewhere(ctx, &vm, line)
	if err == nil && other != "" {
		return fmt.Errorf("%w: %s (%s)", hypervisor.ErrDisksInUse, other, disk)
	}
	return err
}

// has tells whether a VM has a file.
func (u *fileUsers) has(vm types.ManagedObjectReference, file string) bool {
	return slices.Contains(u.files[file], vm)
}

// otherThan names a VM other than one that has a file; empty: none is known.
func (u *fileUsers) otherThan(vm types.ManagedObjectReference, file string) string {
	for _, ref := range u.files[file] {
		if ref != vm {
			return u.names[ref]
		}
	}
	return ""
}

// inUse says why a file must not be deleted; empty: it may be.
func (u *fileUsers) inUse(file string) string {
	if users := u.files[file]; len(users) > 0 {
		return "it is in use by " + u.names[users[0]]
	}
	if len(u.unknown) > 0 {
		return fmt.Sprintf("whether %s uses it can't be told, whose configuration the server can't read", u.unknown[0])
	}
	return ""
}

// isDisk tells whether a path is that of a disk. Where the server was to choose, and nobody knows what it
// chose, it is not.
func isDisk(file string) bool { return path.Ext(file) == ".vmdk" }

// deleteDisks deletes disks that no VM has. One that isn't there is no error.
func (c *Client) deleteDisks(ctx context.Context, line lineage, paths []string) error {
	var errs []error
	for _, name := range paths {
		if !isDisk(name) {
			continue
		}
		errs = append(errs, c.deleteLeft(ctx, line, name, c.tryDeleteDisk))
	}
	return errors.Join(errs...)
}

// deleteFile removes a file that is no disk. One that isn't there is no error.
func (c *Client) deleteFile(ctx context.Context, line lineage, name string) error {
	return c.deleteLeft(ctx, line, name, c.tryDeleteFile)
}

// deleteLeft deletes something that may still be held for a while.
func (c *Client) deleteLeft(
	ctx context.Context, line lineage, name string,
	try func(ctx context.Context, datacenter types.ManagedObjectReference, name string) error,
) error {
	dc := line.datacenter()
	if dc == nil {
		return fmt.Errorf("%s was left behind: the datacenter can't be read", name)
	}
	if err := untilDeleted(ctx, func() error { return try(ctx, dc.Self, name) }); err != nil {
		return fmt.Errorf("%s was left behind: %w", name, err)
	}
	return nil
}

// tryDeleteDisk deletes a disk. One that isn't there is no error.
func (c *Client) tryDeleteDisk(ctx context.Context, datacenter types.ManagedObjectReference, name string) error {
	_, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.DeleteVirtualDisk_Task(ctx, c.vim, &types.DeleteVirtualDisk_Task{
			This: *c.vim.ServiceContent.VirtualDiskManager, Name: name, Datacenter: &datacenter,
		})
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
	if fault.Is(err, &types.FileNotFound{}) {
		return nil
	}
	return withoutURL(err)
}

// DeleteReplaced implements hypervisor.InPlaceRestorer.
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
	line, err := c.ancestors(ctx, vmRef(id))
	if err != nil {
		return err
	}
	paths := make([]string, len(disks))
	for i, d := range disks {
		paths[i] = d.Path
	}
	users, err := c.usersOf(ctx, line, paths)
	if err != nil {
		return err
	}
	var errs []error
	var gone []hypervisor.Replaced
	for _, d := range disks {
		if reason := users.inUse(d.Path); reason != "" {
			errs = append(errs, fmt.Errorf("%s (%s) is left alone: %s", d.Path, d.Label, reason))
			continue
		}
		if err := c.deleteDisks(ctx, line, []string{d.Path}); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, d)
	}
	if err := c.ForgetKept(ctx, id, gone); err != nil { // whoever reads of them finds out that they are gone
		c.log.WarnContext(ctx, "the VM remembers disks that were deleted", "vm", id, "error", err)
	}
	return errors.Join(errs...)
}
