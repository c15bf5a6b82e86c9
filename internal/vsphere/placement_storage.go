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

// placeDisks chooses the datastores of the VM and of the disks in the backup, and checks that there is
// room.
func (c *Client) placeDisks(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if err := c.readStores(ctx, p); err != nil {
		return err
	}
	if p.home = spec.Datastore; p.home == "" {
		p.home, _ = splitPath(captured.config.Files.VmPathName)
	}
	if err := p.checkStore(p.home); err != nil {
		return err
	}
	disks, err := p.chooseDisks(spec, captured)
	if err != nil {
		return err
	}
	p.disks = map[int32]string{}
	need := map[string]int64{}
	known := map[hypervisor.DiskKey]bool{}
	for _, d := range disks {
		key := diskKey(d)
		known[key] = true
		store := spec.DiskDatastores[key]
		if store == "" {
			store = spec.Datastore
		}
		if store == "" {
			store, _ = splitPath(describeBacking(d.Backing).fileName)
		}
		if err := p.checkStore(store); err != nil {
			return err
		}
		p.disks[d.Key] = store
		need[store] += spaceNeeded(d, captured.DiskUsage)
	}
	for _, key := range slices.Sorted(maps.Keys(spec.DiskDatastores)) {
		if !known[key] {
			return fmt.Errorf("datastore of disk %q: no such disk is to be restored", key)
		}
	}
	for _, store := range slices.Sorted(maps.Keys(need)) {
		if free := p.stores[store].Summary.FreeSpace; need[store] > free {
			p.space = &hypervisor.InsufficientSpaceError{Datastore: store, Need: need[store], Free: free}
			break
		}
	}
	return nil
}

// chooseDisks are the disks to restore, in the order of the VM's controllers and units.
// Errors: hypervisor.ErrConfigFormat, a *hypervisor.NotAvailableError.
func (p *placement) chooseDisks(spec hypervisor.RestoreSpec, captured *capture) ([]*types.VirtualDisk, error) {
	if spec.Disks != nil && len(spec.Disks) == 0 {
		return nil, errors.New("the list of disks to restore is empty")
	}
	backup := spec.Config.Summary.Disks
	find := func(key hypervisor.DiskKey) int {
		return slices.IndexFunc(backup, func(s hypervisor.Disk) bool { return s.Key == key })
	}
	for _, key := range spec.Disks {
		if find(key) < 0 {
			return nil, &hypervisor.NotAvailableError{
				Kind: "disk in the backup", Name: string(key), Available: []string{hypervisor.ListDisks(backup)},
			}
		}
	}
	var chosen []*types.VirtualDisk
	known := map[hypervisor.DiskKey]bool{}
	p.unwanted = map[int32]bool{}
	for _, d := range orderedDisks(captured.devices()) {
		key := diskKey(d)
		i := find(key)
		if i < 0 {
			continue
		}
		known[key] = true
		if spec.Disks != nil && !slices.Contains(spec.Disks, key) {
			p.unwanted[d.Key] = true
			continue
		}
		if want, have := backup[i].Capacity, diskCapacity(d); want != have {
			return nil, fmt.Errorf("%s has %d bytes in the backup and %d in its configuration", deviceLabel(d), want, have)
		}
		chosen = append(chosen, d)
	}
	for _, s := range backup {
		if !known[s.Key] {
			return nil, fmt.Errorf("%w: disk %s of the backup is not in the captured configuration", hypervisor.ErrConfigFormat, s.Key)
		}
	}
	return chosen, nil
}

// spaceNeeded is what a disk will occupy at least: a thick disk its capacity, a thin one what it occupied
// when it was captured, as far as that is known.
func spaceNeeded(d *types.VirtualDisk, usage map[int32]int64) int64 {
	if thin := describeBacking(d.Backing).thin; thin == nil || !*thin {
		return diskCapacity(d)
	}
	return usage[d.Key]
}

// readStores reads the datastores that can be used at the target.
func (c *Client) readStores(ctx context.Context, p *placement) error {
	stores, err := c.stores(ctx, p.compute.Datastore)
	if err != nil {
		return err
	}
	maps.DeleteFunc(stores, func(_ string, ds mo.Datastore) bool {
		mode := ds.Summary.MaintenanceMode
		normal := mode == "" || mode == string(types.DatastoreSummaryMaintenanceModeStateNormal)
		return !ds.Summary.Accessible || !normal
	})
	p.stores = stores
	return nil
}

// stores reads datastores, by name.
func (c *Client) stores(
	ctx context.Context, refs []types.ManagedObjectReference,
) (map[string]mo.Datastore, error) {
	objects, err := c.propertiesOf(ctx, refs, types.PropertySpec{
		Type: "Datastore", PathSet: []string{"name", "summary", "browser"},
	})
	if err != nil {
		return nil, err
	}
	stores := map[string]mo.Datastore{}
	for _, ref := range refs {
		var ds mo.Datastore
		if err := load(objects, ref, &ds); err != nil {
			return nil, err
		}
		stores[ds.Name] = ds
	}
	return stores, nil
}

func (p *placement) checkStore(name string) error {
	if _, ok := p.stores[name]; ok {
		return nil
	}
	return &hypervisor.NotAvailableError{Kind: "datastore", Name: name, Available: slices.Sorted(maps.Keys(p.stores))}
}

// keepsObjects reports whether a datastore keeps objects rather than files in directories, so that
// paths on it can't be chosen.
func keepsObjects(ds mo.Datastore) bool {
	switch types.HostFileSystemVolumeFileSystemType(ds.Summary.Type) {
	case types.HostFileSystemVolumeFileSystemTypeVsan, types.HostFileSystemVolumeFileSystemTypeVVOL:
		return true
	}
	return ds.Summary.Type == "vsanD"
}

// datastoreHas reports whether a directory of a datastore has a file or directory.
func (c *Client) datastoreHas(ctx context.Context, ds mo.Datastore, directory, name string) (bool, error) {
	found, err := c.searchDatastore(ctx, ds, directory, name)
	if errors.Is(err, errNoFile) {
		return false, nil
	}
	return slices.Contains(found, name), err
}

// searchDatastore lists the files in a directory whose names match a pattern.
// Error: errNoFile when there is no such directory.
func (c *Client) searchDatastore(
	ctx context.Context, ds mo.Datastore, directory, pattern string,
) ([]string, error) {
	if directory == "." {
		directory = ""
	}
	info, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.SearchDatastore_Task(ctx, c.vim, &types.SearchDatastore_Task{
			This: ds.Browser, DatastorePath: joinPath(ds.Name, directory),
			SearchSpec: &types.HostDatastoreBrowserSearchSpec{MatchPattern: []string{pattern}},
		})
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
	where := joinPath(ds.Name, path.Join(directory, pattern))
	switch {
	case fault.Is(err, &types.FileNotFound{}):
		return nil, fmt.Errorf("look for %s: %w", where, errNoFile)
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", where, withoutURL(err))
	}
	result, ok := info.Result.(types.HostDatastoreBrowserSearchResults)
	if !ok {
		return nil, fmt.Errorf("look for %s: the datastore browser gave no result", where)
	}
	var names []string
	for _, f := range result.File {
		names = append(names, f.GetFileInfo().Path)
	}
	return names, nil
}

// placeImages finds which of the images in CD-ROM and floppy drives exist at the target.
func (c *Client) placeImages(
	ctx context.Context, _ hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	p.images = map[int32]types.BaseVirtualDeviceBackingInfo{}
	for _, device := range captured.devices() {
		dev := device.GetVirtualDevice()
		var file types.VirtualDeviceFileBackingInfo
		switch b := dev.Backing.(type) {
		case *types.VirtualCdromIsoBackingInfo:
			file = b.VirtualDeviceFileBackingInfo
		case *types.VirtualFloppyImageBackingInfo:
			file = b.VirtualDeviceFileBackingInfo
		default:
			continue
		}
		datastore, name := splitPath(file.FileName)
		store, ok := p.stores[datastore]
		if !ok {
			continue
		}
		there, err := c.datastoreHas(ctx, store, path.Dir(name), path.Base(name))
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		file = types.VirtualDeviceFileBackingInfo{FileName: file.FileName}
		if _, floppy := dev.Backing.(*types.VirtualFloppyImageBackingInfo); floppy {
			p.images[dev.Key] = &types.VirtualFloppyImageBackingInfo{VirtualDeviceFileBackingInfo: file}
		} else {
			p.images[dev.Key] = &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: file}
		}
	}
	return nil
}
