package lab

import (
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Privileges on virtual machines that a specification of one may need.
const (
	addNewDisk      = "VirtualMachine.Config.AddNewDisk"
	addExistingDisk = "VirtualMachine.Config.AddExistingDisk"
	removeDisk      = "VirtualMachine.Config.RemoveDisk"
	extendDisk      = "VirtualMachine.Config.DiskExtend"
	rawDevice       = "VirtualMachine.Config.RawDevice"
	hostUSB         = "VirtualMachine.Config.HostUSBDevice"
	addRemoveDevice = "VirtualMachine.Config.AddRemoveDevice"
	editDevice      = "VirtualMachine.Config.EditDevice"
	advancedConfig  = "VirtualMachine.Config.AdvancedConfig"
	settings        = "VirtualMachine.Config.Settings"
	resource        = "VirtualMachine.Config.Resource"
)

// demandsOfSpec are what it takes to reconfigure a virtual machine (vSphere Web Services API reference,
// ReconfigVM_Task): a privilege for each kind of setting that the specification has.
func (l *Lab) demandsOfSpec(
	ctx *simulator.Context, ref types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
) []demand {
	ids := settingPrivileges(spec)
	var devices object.VirtualDeviceList
	if vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine); ok {
		ctx.WithLock(vm, func() { devices = clone(vm.Config.Hardware.Device) })
	}
	var around []demand
	for _, change := range spec.DeviceChange {
		more, others := l.demandsOfDevice(ctx, devices, change.GetVirtualDeviceConfigSpec())
		ids, around = append(ids, more...), append(around, others...)
	}
	return append([]demand{{ref, ids}}, around...)
}

// settingPrivileges are those that the settings of a specification need, without its devices.
func settingPrivileges(s *types.VirtualMachineConfigSpec) (ids []string) {
	rest := *s
	add := func(set bool, id string) {
		if set {
			ids = append(ids, id)
		}
	}
	add(s.Name != "", "VirtualMachine.Config.Rename")
	add(s.Annotation != "", "VirtualMachine.Config.Annotation")
	add(s.NumCPUs != 0 || s.NumCoresPerSocket != nil, "VirtualMachine.Config.CPUCount")
	add(s.MemoryMB != 0, "VirtualMachine.Config.Memory")
	add(s.CpuAllocation != nil || s.MemoryAllocation != nil || s.CpuAffinity != nil || s.MemoryAffinity != nil ||
		s.LatencySensitivity != nil, resource)
	add(len(s.ExtraConfig) > 0 || len(s.CpuFeatureMask) > 0, advancedConfig)
	add(s.ChangeTrackingEnabled != nil, "VirtualMachine.Config.ChangeTracking")
	add(s.SwapPlacement != "", "VirtualMachine.Config.SwapPlacement")
	add(s.Version != "", "VirtualMachine.Config.UpgradeVirtualHardware")
	add(s.ManagedBy != nil, "VirtualMachine.Config.ManagedBy")
	add(s.VAppConfig != nil, "VApp.ApplicationConfig")
	add(len(s.VmProfile) > 0, "StorageProfile.Apply")
	rest.Name, rest.Annotation, rest.NumCPUs, rest.NumCoresPerSocket, rest.MemoryMB = "", "", 0, nil, 0
	rest.CpuAllocation, rest.MemoryAllocation, rest.CpuAffinity, rest.MemoryAffinity, rest.LatencySensitivity = nil, nil, nil, nil, nil
	rest.ExtraConfig, rest.CpuFeatureMask, rest.ChangeTrackingEnabled, rest.SwapPlacement, rest.Version = nil, nil, nil, "", ""
	rest.ManagedBy, rest.VAppConfig, rest.VmProfile, rest.DeviceChange, rest.ChangeVersion = nil, nil, nil, nil, ""
	add(!isZero(rest), settings) // everything else
	return ids
}

// demandsOfDevice are what a change of a device needs: of the virtual machine, and of the network or datastore that
// the device uses.
func (l *Lab) demandsOfDevice(
	ctx *simulator.Context, devices object.VirtualDeviceList, change *types.VirtualDeviceConfigSpec,
) (ids []string, around []demand) {
	if len(change.Profile) > 0 {
		ids = append(ids, "StorageProfile.Apply")
	}
	if change.Device == nil {
		return ids, nil
	}
	if disk, ok := change.Device.(*types.VirtualDisk); ok {
		more, others := l.demandsOfDisk(devices, change, disk)
		return append(ids, more...), others
	}
	switch change.Device.(type) {
	case *types.VirtualUSB:
		ids = append(ids, hostUSB)
	case *types.VirtualPCIPassthrough:
		ids = append(ids, rawDevice)
	}
	if change.Operation == types.VirtualDeviceConfigSpecOperationEdit {
		ids = append(ids, editDevice)
	} else {
		ids = append(ids, addRemoveDevice)
	}
	if _, card := change.Device.(types.BaseVirtualEthernetCard); card && !isRemoval(change) {
		around = append(around, networkDemand(ctx, change.Device)...)
	}
	return ids, around
}

func (l *Lab) demandsOfDisk(
	devices object.VirtualDeviceList, change *types.VirtualDeviceConfigSpec, disk *types.VirtualDisk,
) (ids []string, around []demand) {
	file := diskFile(disk)
	switch disk.Backing.(type) {
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo, *types.VirtualDiskRawDiskVer2BackingInfo:
		ids = append(ids, rawDevice)
	}
	switch {
	case isRemoval(change):
		ids = append(ids, removeDisk)
		if change.FileOperation == types.VirtualDeviceConfigSpecFileOperationDestroy {
			around = l.onDatastore(file, "Datastore.FileManagement")
		}
	case change.Operation == types.VirtualDeviceConfigSpecOperationAdd && change.FileOperation == "":
		ids = append(ids, addExistingDisk)
	case change.Operation == types.VirtualDeviceConfigSpecOperationAdd:
		ids = append(ids, addNewDisk)
		around = l.onDatastore(file, "Datastore.AllocateSpace")
	default:
		now, ok := devices.FindByKey(disk.Key).(*types.VirtualDisk)
		if ok && diskCapacityOf(disk) > diskCapacityOf(now) {
			ids = append(ids, extendDisk)
			around = l.onDatastore(file, "Datastore.AllocateSpace")
		}
		if ok && file != "" && file != diskFile(now) {
			ids = append(ids, addExistingDisk, removeDisk)
		}
		ids = append(ids, editDevice)
	}
	return ids, around
}

// diskCapacityOf is the capacity of a disk in bytes, in whichever unit it is given.
func diskCapacityOf(d *types.VirtualDisk) int64 { return max(d.CapacityInBytes, d.CapacityInKB*1024) }

// networkDemand is what it takes to connect an adapter to its network.
func networkDemand(ctx *simulator.Context, device types.BaseVirtualDevice) []demand {
	var network types.ManagedObjectReference
	switch b := device.GetVirtualDevice().Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		for _, entity := range ctx.Map.All("Network") {
			if entity.Entity().Name == b.DeviceName {
				network = entity.Reference()
			}
		}
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		for _, entity := range ctx.Map.All("DistributedVirtualPortgroup") {
			if p, ok := entity.(*simulator.DistributedVirtualPortgroup); ok && p.Key == b.Port.PortgroupKey {
				network = entity.Reference()
			}
		}
	}
	if network.Value == "" {
		return nil // the call says what is wrong with it
	}
	return []demand{{network, []string{"Network.Assign"}}}
}

// demandsOfImport are what it takes to create a virtual machine by an import (vSphere Web Services API reference,
// ImportVApp and CreateVM_Task): its settings need no privileges of their own, but its disks, its devices of the
// host and its advanced settings do, on the folder that it gets into.
func (l *Lab) demandsOfImport(ctx *simulator.Context, r *types.ImportVApp) ([]demand, bool) {
	spec, ok := r.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return nil, false
	}
	folder := *l.rootFolder()
	if r.Folder != nil {
		folder = *r.Folder
	}
	ids := []string{"VirtualMachine.Inventory.Create"}
	if len(spec.ConfigSpec.ExtraConfig) > 0 {
		ids = append(ids, advancedConfig)
	}
	var around []demand
	if files := spec.ConfigSpec.Files; files != nil {
		around = append(around, l.onDatastore(files.VmPathName, "Datastore.AllocateSpace")...)
	}
	for _, change := range spec.ConfigSpec.DeviceChange {
		more, others := l.demandsOfDevice(ctx, nil, change.GetVirtualDeviceConfigSpec())
		for _, id := range more {
			if slices.Contains([]string{addNewDisk, addExistingDisk, rawDevice, hostUSB}, id) {
				ids = append(ids, id)
			}
		}
		around = append(around, others...)
	}
	pool := demand{r.This, []string{"VApp.Import", "Resource.AssignVMToPool"}}
	return append([]demand{pool, {folder, ids}}, around...), true
}
