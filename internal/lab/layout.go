package lab

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RefreshStorageInfo recomputes what the VM says about its files.
func (vm *virtualMachine) RefreshStorageInfo(ctx *simulator.Context, _ *types.RefreshStorageInfo) soap.HasFault {
	vm.lab.refreshLayout(ctx, vm.VirtualMachine)
	return &methods.RefreshStorageInfoBody{Res: new(types.RefreshStorageInfoResponse)}
}

// layout collects the files of a VM.
type layout struct {
	lab  *Lab
	keys map[string]int32 // by name; those of files that were there before stay
	next int32
	ex   types.VirtualMachineFileLayoutEx
	old  types.VirtualMachineFileLayout
}

// refreshLayout recomputes what a VM says about its files. The VM's lock is held.
func (l *Lab) refreshLayout(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	now := time.Now()
	y := layout{lab: l, keys: map[string]int32{}}
	if vm.LayoutEx != nil {
		for _, f := range vm.LayoutEx.File {
			y.keys[f.Name] = f.Key
			y.next = max(y.next, f.Key+1)
		}
	}
	y.addDirectory(directory(vm.Config.Files.VmPathName))
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		unit := types.VirtualMachineFileLayoutExDiskLayout{Key: d.Key, Chain: y.addChain(d)}
		y.ex.Disk = append(y.ex.Disk, unit)
		y.old.Disk = append(y.old.Disk, types.VirtualMachineFileLayoutDiskLayout{Key: d.Key, DiskFile: chain(d)})
	}
	if vm.Snapshot != nil {
		for _, ref := range refsIn(vm.Snapshot.RootSnapshotList) {
			if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
				ctx.WithLock(s, func() { y.addSnapshot(s) })
			}
		}
	}
	y.ex.Timestamp = now
	storage, usage := l.usage(ctx, vm, y.ex.File)
	storage.Timestamp = now
	vm.Layout, vm.LayoutEx = &y.old, &y.ex
	vm.Storage = &types.VirtualMachineStorageInfo{PerDatastoreUsage: usage, Timestamp: now}
	vm.Summary.Storage = &storage
	ctx.Update(vm, []types.PropertyChange{
		{Name: "layout", Val: vm.Layout},
		{Name: "layoutEx", Val: vm.LayoutEx},
		{Name: "storage", Val: vm.Storage},
		{Name: "summary.storage", Val: vm.Summary.Storage},
	})
	l.refreshDatastores(ctx)
}

// addDirectory adds the files of a directory.
func (y *layout) addDirectory(name string) {
	dir, ok := y.lab.path(name)
	if !ok {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // nothing there yet
	}
	for _, e := range entries {
		if !e.IsDir() && path.Ext(e.Name()) != ".vmdk" { // disks are added with their chains
			y.add(name + "/" + e.Name())
		}
	}
}

// add adds a file and returns its key.
func (y *layout) add(name string) int32 {
	for _, f := range y.ex.File {
		if f.Name == name {
			return f.Key
		}
	}
	key, ok := y.keys[name]
	if !ok {
		key = y.next
		y.next++
	}
	file, _ := y.lab.path(name)
	size := y.lab.fileSize(name, file)
	kind := fileType(name)
	y.ex.File = append(y.ex.File, types.VirtualMachineFileLayoutExFileInfo{
		Key: key, Name: name, Type: string(kind), Size: size, UniqueSize: size, Accessible: types.NewBool(true),
	})
	switch kind {
	case types.VirtualMachineFileLayoutExFileTypeNvram, types.VirtualMachineFileLayoutExFileTypeSnapshotList,
		types.VirtualMachineFileLayoutExFileTypeConfig:
		y.old.ConfigFile = append(y.old.ConfigFile, path.Base(name))
	case types.VirtualMachineFileLayoutExFileTypeLog:
		y.old.LogFile = append(y.old.LogFile, path.Base(name))
	}
	return key
}

// addChain adds the files of a disk, the bottom first, as layoutEx has them.
func (y *layout) addChain(d *types.VirtualDisk) []types.VirtualMachineFileLayoutExDiskUnit {
	files := chain(d)
	if len(files) == 0 && diskFile(d) != "" {
		files = []string{diskFile(d)}
	}
	var units []types.VirtualMachineFileLayoutExDiskUnit
	for _, file := range slices.Backward(files) {
		extent := y.lab.extentOf(file)
		if info, err := y.lab.store.Stat(file); err == nil {
			y.lab.writeEmpty(extent, info.AllocatedBytes) // what a datastore browser shows
		}
		keys := []int32{y.add(file), y.add(extent)}
		units = append(units, types.VirtualMachineFileLayoutExDiskUnit{FileKey: keys})
	}
	return units
}

func (y *layout) addSnapshot(s *simulator.VirtualMachineSnapshot) {
	y.lab.mu.Lock()
	p := y.lab.points[s.Self]
	y.lab.mu.Unlock()
	if p == nil {
		return
	}
	ex := types.VirtualMachineFileLayoutExSnapshotLayout{Key: s.Self, DataKey: y.add(p.data), MemoryKey: -1}
	files := []string{p.data}
	if p.memory != "" {
		ex.MemoryKey = y.add(p.memory)
		files = append(files, p.memory)
	}
	for _, d := range disksOf(s.Config.Hardware.Device) {
		unit := types.VirtualMachineFileLayoutExDiskLayout{Key: d.Key, Chain: y.addChain(d)}
		ex.Disk = append(ex.Disk, unit)
		files = append(files, diskFile(d))
	}
	y.ex.Snapshot = append(y.ex.Snapshot, ex)
	y.old.Snapshot = append(y.old.Snapshot, types.VirtualMachineFileLayoutSnapshotLayout{Key: s.Self, SnapshotFile: files})
}

// fileType is what layoutEx says a file is.
func fileType(name string) types.VirtualMachineFileLayoutExFileType {
	switch ext := path.Ext(name); ext {
	case ".vmx":
		return types.VirtualMachineFileLayoutExFileTypeConfig
	case ".vmdk":
		if descriptorOf(name) != "" {
			return types.VirtualMachineFileLayoutExFileTypeDiskExtent
		}
		return types.VirtualMachineFileLayoutExFileTypeDiskDescriptor
	case ".nvram":
		return types.VirtualMachineFileLayoutExFileTypeNvram
	case ".log":
		return types.VirtualMachineFileLayoutExFileTypeLog
	case ".vmsn":
		return types.VirtualMachineFileLayoutExFileTypeSnapshotData
	case ".vmsd":
		return types.VirtualMachineFileLayoutExFileTypeSnapshotList
	case ".vmem":
		if strings.Contains(name, "-Snapshot") {
			return types.VirtualMachineFileLayoutExFileTypeSnapshotMemory
		}
		return types.VirtualMachineFileLayoutExFileTypeSuspendMemory
	case ".vmss":
		return types.VirtualMachineFileLayoutExFileTypeSuspend
	case ".vswp":
		return types.VirtualMachineFileLayoutExFileTypeSwap
	}
	return types.VirtualMachineFileLayoutExFileTypeConfig
}

// usage sums up files: what is committed, and what thin disks may still take.
func (l *Lab) usage(
	ctx *simulator.Context, vm *simulator.VirtualMachine, files []types.VirtualMachineFileLayoutExFileInfo,
) (types.VirtualMachineStorageSummary, []types.VirtualMachineUsageOnDatastore) {
	var sum types.VirtualMachineStorageSummary
	var list []types.VirtualMachineUsageOnDatastore
	on := func(name string) *types.VirtualMachineUsageOnDatastore {
		ds := l.datastoreOf(name)
		if ds == nil {
			return new(types.VirtualMachineUsageOnDatastore)
		}
		for i := range list {
			if list[i].Datastore == ds.Self {
				return &list[i]
			}
		}
		list = append(list, types.VirtualMachineUsageOnDatastore{Datastore: ds.Self})
		return &list[len(list)-1]
	}
	for _, f := range files {
		u := on(f.Name)
		u.Committed += f.Size
		sum.Committed += f.Size
		if path.Ext(f.Name) == ".vmdk" {
			u.Unshared += f.Size
			sum.Unshared += f.Size
		}
	}
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		if info, err := l.store.Stat(diskFile(d)); err == nil {
			left := max(info.Capacity-info.AllocatedBytes, 0)
			on(diskFile(d)).Uncommitted += left
			sum.Uncommitted += left
		}
	}
	refs := make([]types.ManagedObjectReference, len(list))
	for i, u := range list {
		refs[i] = u.Datastore
	}
	if len(refs) > 0 && !slices.Equal(refs, vm.Datastore) {
		ctx.Update(vm, []types.PropertyChange{{Name: "datastore", Val: refs}})
	}
	return sum, list
}

// datastoreOf is the datastore of a file's name, nil when there is none.
func (l *Lab) datastoreOf(name string) *simulator.Datastore {
	var p object.DatastorePath
	if !p.FromString(name) {
		return nil
	}
	for _, entity := range l.model.Map().All("Datastore") {
		if ds, ok := entity.(*simulator.Datastore); ok && ds.Name == p.Datastore {
			return ds
		}
	}
	return nil
}

// storeFault is the fault for an error of the disk store.
func storeFault(name string, err error) types.BaseMethodFault {
	switch {
	case errors.Is(err, diskstore.ErrExist):
		return &types.FileAlreadyExists{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrNotExist):
		return &types.FileNotFound{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrInUse), errors.Is(err, diskstore.ErrFrozen):
		return &types.FileLocked{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrCapacity):
		return &types.InvalidArgument{InvalidProperty: "capacityInBytes"}
	}
	return &types.CannotAccessFile{FileFault: fileFault(name)}
}
