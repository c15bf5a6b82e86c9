package vsphere

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Keys of the controllers that every VM has; they can't be created, only referred to.
const (
	pciControllerKey = 100
	ideControllerKey = 200 // the second is 201
	ps2ControllerKey = 300
	sioControllerKey = 400
)

// newDevices turns captured devices into devices to add. New keys are the captured ones, negated:
// the server replaces negative keys and follows references between them.
func newDevices(
	devices []types.BaseVirtualDevice, r rebuild,
) ([]types.BaseVirtualDeviceConfigSpec, []string) {
	keys := newKeys(devices)
	var controllers, others []types.BaseVirtualDeviceConfigSpec
	var warnings []string
	for _, device := range devices {
		label := deviceLabel(device)
		spec := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: device}
		var warning string
		var kept bool
		switch d := device.(type) {
		case types.BaseVirtualController:
			kept = !defaultDevice(device)
			d.GetVirtualController().Device = nil // the server fills it
		case *types.VirtualDisk:
			kept, warning = rewriteDisk(d, r)
			spec.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
		case types.BaseVirtualEthernetCard:
			kept, warning = rewriteNIC(device, r)
		default:
			kept, warning = rewriteOther(device, r)
		}
		if warning != "" {
			warnings = append(warnings, fmt.Sprintf("%s %s", label, warning))
		}
		if !kept {
			continue
		}
		dev := device.GetVirtualDevice()
		dev.DeviceInfo = nil // labels and summaries are the server's
		dev.Key = keys[dev.Key]
		if dev.ControllerKey != 0 {
			dev.ControllerKey = keys[dev.ControllerKey]
		}
		if dev.Connectable != nil {
			dev.Connectable.Connected, dev.Connectable.Status = false, ""
		}
		if _, ok := device.(types.BaseVirtualController); ok {
			controllers = append(controllers, spec)
			continue
		}
		others = append(others, spec)
	}
	return append(controllers, others...), warnings
}

// newKeys maps captured device keys to those of the specification.
func newKeys(devices []types.BaseVirtualDevice) map[int32]int32 {
	keys := map[int32]int32{}
	for _, device := range devices {
		key := device.GetVirtualDevice().Key
		switch d := device.(type) {
		case *types.VirtualPCIController:
			keys[key] = pciControllerKey
		case *types.VirtualIDEController:
			keys[key] = ideControllerKey + d.BusNumber
		case *types.VirtualPS2Controller:
			keys[key] = ps2ControllerKey
		case *types.VirtualSIOController:
			keys[key] = sioControllerKey
		default:
			keys[key] = -key
		}
	}
	return keys
}

// defaultDevice reports whether the server creates the device by itself. A specification that asks
// for one of them is refused.
func defaultDevice(device types.BaseVirtualDevice) bool {
	switch device.(type) {
	case *types.VirtualIDEController, *types.VirtualPS2Controller, *types.VirtualPCIController,
		*types.VirtualSIOController, *types.VirtualKeyboard, *types.VirtualPointingDevice,
		*types.VirtualMachineVMCIDevice, *types.VirtualMachineVideoCard:
		return true
	}
	return false
}

// rewriteDisk gives a disk an empty backing of its own: of what the captured backing says only the
// mode, the provisioning and the identity belong to the new disk.
func rewriteDisk(d *types.VirtualDisk, r rebuild) (kept bool, warning string) {
	fileName, ok := r.disks[d.Key]
	switch {
	case ok:
	case !r.unwanted[d.Key]:
		return false, "is not in the backup and is not restored."
	case r.identity == hypervisor.IdentityOriginal:
		return false, "is not among the disks to restore: the VM comes back as the original without it."
	default:
		return false, "" // a copy of the other disks is what was asked for
	}
	old := describeBacking(d.Backing)
	warning = diskExtras(d)
	backing := &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: fileName},
		DiskMode:                     old.mode,
		ThinProvisioned:              old.thin,
		EagerlyScrub:                 old.eager,
		WriteThrough:                 old.writeThrough,
		Sharing:                      old.sharing,
	}
	if backing.DiskMode == "" {
		backing.DiskMode = string(types.VirtualDiskModePersistent)
	}
	if r.identity == hypervisor.IdentityOriginal {
		backing.Uuid = old.uuid
	}
	if old.raw {
		warning = "was a raw device mapping and is restored as an ordinary virtual disk."
	}
	capacity := diskCapacity(d)
	*d = types.VirtualDisk{
		VirtualDevice:       d.VirtualDevice,
		CapacityInBytes:     capacity,
		CapacityInKB:        capacity / 1024,
		StorageIOAllocation: d.StorageIOAllocation,
		VirtualDiskFormat:   d.VirtualDiskFormat, // the size of its sectors
		GuestReadOnly:       d.GuestReadOnly,
	}
	d.Backing = backing
	return true, warning
}

// diskCapacity is the size of a disk in bytes. Servers before API 5.5 know kilobytes only.
func diskCapacity(d *types.VirtualDisk) int64 {
	if d.CapacityInBytes != 0 {
		return d.CapacityInBytes
	}
	return d.CapacityInKB * 1024
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func rewriteNIC(device types.BaseVirtualDevice, r rebuild) (kept bool, warning string) {
	dev := device.GetVirtualDevice()
	if sriov, ok := device.(*types.VirtualSriovEthernetCard); ok {
		return false, fmt.Sprintf("passes through a physical function of the host and is not restored (MAC address %s).",
			sriov.MacAddress)
	}
	backing, ok := r.networks[dev.Key]
	if !ok {
		return false, "has no network at the target and is not restored."
	}
	dev.Backing = backing
	card, ok := device.(types.BaseVirtualEthernetCard)
	if !ok {
		return false, "is of an unknown kind and is not restored."
	}
	nic := card.GetVirtualEthernetCard()
	nic.ExternalId, nic.SubnetId = "", ""
	if r.identity != hypervisor.IdentityOriginal {
		nic.MacAddress, nic.AddressType = "", ""
	}
	if r.disconnect {
		if dev.Connectable == nil {
			dev.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true}
		}
		dev.Connectable.StartConnected = false
	}
	return true, ""
}

// rewriteOther decides about devices that are neither controllers, disks nor network adapters.
// Devices of the host don't follow a VM to another one; they are left out by name.
func rewriteOther(device types.BaseVirtualDevice, r rebuild) (kept bool, warning string) {
	dev := device.GetVirtualDevice()
	switch d := device.(type) {
	case *types.VirtualCdrom:
		return true, rewriteCdrom(d, r)
	case *types.VirtualFloppy:
		return true, rewriteFloppy(d, r)
	case *types.VirtualSerialPort:
		switch dev.Backing.(type) {
		case *types.VirtualSerialPortURIBackingInfo, *types.VirtualSerialPortPipeBackingInfo,
			*types.VirtualSerialPortThinPrintBackingInfo:
			return true, ""
		}
		return false, "is connected to a file or a device of the host and is not restored."
	case *types.VirtualParallelPort:
		return false, "is connected to a file or a device of the host and is not restored."
	case *types.VirtualUSB:
		return false, describeUSB(d)
	case *types.VirtualPCIPassthrough, *types.VirtualSCSIPassthrough:
		return false, describePassthrough(device)
	case *types.VirtualNVDIMM:
		return false, "is persistent memory, whose content is not in the backup, and is not restored."
	case *types.VirtualTPM:
		return false, "is a trusted platform module, whose secrets are not in the backup, and is not restored."
	}
	return !defaultDevice(device), ""
}

// rewriteCdrom keeps an ISO image that exists at the target. Any other medium gives way to the
// client's drive, disconnected: a missing image would stop the VM from being created or started.
func rewriteCdrom(d *types.VirtualCdrom, r rebuild) (warning string) {
	switch b := d.Backing.(type) {
	case *types.VirtualCdromRemotePassthroughBackingInfo, *types.VirtualCdromRemoteAtapiBackingInfo:
		return ""
	case *types.VirtualCdromIsoBackingInfo:
		if image, ok := r.images[d.Key]; ok {
			d.Backing = image
			return ""
		}
		warning = fmt.Sprintf("had the image %s, which isn't there; it is restored as an empty drive.", b.FileName)
	default:
		warning = "was connected to a drive of the host; it is restored as an empty drive."
	}
	d.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: clientDevice()}
	d.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true}
	return warning
}

func rewriteFloppy(d *types.VirtualFloppy, r rebuild) (warning string) {
	switch b := d.Backing.(type) {
	case *types.VirtualFloppyRemoteDeviceBackingInfo:
		return ""
	case *types.VirtualFloppyImageBackingInfo:
		if image, ok := r.images[d.Key]; ok {
			d.Backing = image
			return ""
		}
		warning = fmt.Sprintf("had the image %s, which isn't there; it is restored as an empty drive.", b.FileName)
	default:
		warning = "was connected to a drive of the host; it is restored as an empty drive."
	}
	d.Backing = &types.VirtualFloppyRemoteDeviceBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: clientDevice()}
	d.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true}
	return warning
}

// clientDevice stands for whatever a client may connect.
func clientDevice() types.VirtualDeviceRemoteDeviceBackingInfo {
	return types.VirtualDeviceRemoteDeviceBackingInfo{UseAutoDetect: types.NewBool(false)}
}

// deviceLabel is what the vSphere client shows, "Hard disk 1".
func deviceLabel(device types.BaseVirtualDevice) string {
	dev := device.GetVirtualDevice()
	if dev.DeviceInfo != nil {
		if label := dev.DeviceInfo.GetDescription().Label; label != "" {
			return label
		}
	}
	return fmt.Sprintf("%s %d", strings.TrimPrefix(deviceKind(device), "Virtual"), dev.Key)
}

// deviceKind is the name of the device's class in the API, "VirtualVmxnet3".
func deviceKind(device types.BaseVirtualDevice) string {
	return reflect.TypeOf(device).Elem().Name()
}

// deviceSlot is where a device sits, which outlives its key: "ParaVirtualSCSIController0:1" for a device on a
// controller, and the class with the bus number for a controller. Export and import leases name
// devices in this way. It is empty for a device without a place.
func deviceSlot(devices object.VirtualDeviceList, device types.BaseVirtualDevice) string {
	if c, ok := device.(types.BaseVirtualController); ok {
		return fmt.Sprintf("%s%d", deviceKind(device), c.GetVirtualController().BusNumber)
	}
	dev := device.GetVirtualDevice()
	parent := devices.FindByKey(dev.ControllerKey)
	if parent == nil || dev.UnitNumber == nil {
		return ""
	}
	c, ok := parent.(types.BaseVirtualController)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s%d:%d", deviceKind(parent), c.GetVirtualController().BusNumber, *dev.UnitNumber)
}
