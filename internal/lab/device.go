package lab

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// disksOf are the virtual disks among devices.
func disksOf(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var disks []*types.VirtualDisk
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok {
			disks = append(disks, disk)
		}
	}
	return disks
}

// backing is the file of a disk, nil when it is a raw device.
func backing(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	b, _ := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return b
}

// diskFile is the name of a disk's file, "" when it has none.
func diskFile(d *types.VirtualDisk) string {
	if b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
		return b.GetVirtualDeviceFileBackingInfo().FileName
	}
	return ""
}

// chain is a disk's file and its parents.
func chain(d *types.VirtualDisk) []string {
	var files []string
	for b := backing(d); b != nil; b = b.Parent {
		files = append(files, b.FileName)
	}
	return files
}

// slot is where a device is plugged in, as lease URLs write it: "ParaVirtualSCSIController0:1".
func slot(devices []types.BaseVirtualDevice, device types.BaseVirtualDevice) string {
	d := device.GetVirtualDevice()
	controller := object.VirtualDeviceList(devices).FindByKey(d.ControllerKey)
	c, ok := controller.(types.BaseVirtualController)
	if !ok || d.UnitNumber == nil {
		return ""
	}
	kind := reflect.TypeOf(controller).Elem().Name()
	return fmt.Sprintf("%s%d:%d", kind, c.GetVirtualController().BusNumber, *d.UnitNumber)
}

// label is what people call a device: "Hard disk 1".
func label(device types.BaseVirtualDevice) string {
	if info := device.GetVirtualDevice().DeviceInfo; info != nil {
		return info.GetDescription().Label
	}
	return ""
}
