package lab

import (
	"fmt"
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// scsiUnit is the unit number that a SCSI controller takes itself.
const scsiUnit = 7

// controllerKey is the key that a real host gives a controller, and how many of its kind there can be.
func controllerKey(device types.BaseVirtualDevice, bus int32) (key, limit int32) {
	switch device.(type) {
	case types.BaseVirtualSCSIController:
		return 1000 + bus, 4
	case types.BaseVirtualSATAController:
		return 15000 + bus, 4
	case *types.VirtualNVMEController:
		return 31000 + bus, 4
	case *types.VirtualUSBController:
		return 7000 + bus, 1
	case *types.VirtualUSBXHCIController:
		return 14000 + bus, 1
	}
	return 18000 + bus, 8
}

// controllerName is the label of a controller.
func controllerName(device types.BaseVirtualDevice, bus int32) (label, summary string) {
	switch device.(type) {
	case *types.ParaVirtualSCSIController:
		return fmt.Sprintf("SCSI controller %d", bus), "VMware paravirtual SCSI"
	case *types.VirtualLsiLogicSASController:
		return fmt.Sprintf("SCSI controller %d", bus), "LSI Logic SAS"
	case *types.VirtualLsiLogicController:
		return fmt.Sprintf("SCSI controller %d", bus), "LSI Logic"
	case *types.VirtualBusLogicController:
		return fmt.Sprintf("SCSI controller %d", bus), "BusLogic"
	case types.BaseVirtualSATAController:
		return fmt.Sprintf("SATA controller %d", bus), "AHCI"
	case *types.VirtualNVMEController:
		return fmt.Sprintf("NVME controller %d", bus), fmt.Sprintf("NVME controller %d", bus)
	case *types.VirtualUSBController:
		return "USB controller", "Auto connect Disabled"
	case *types.VirtualUSBXHCIController:
		return "USB xHCI controller ", "USB xHCI controller"
	}
	return fmt.Sprintf("Controller %d", bus), "Controller"
}

// unitsOf are how many units a controller has, and the first key of its devices.
func unitsOf(controller types.BaseVirtualDevice) (units, firstKey int32) {
	c, ok := controller.(types.BaseVirtualController)
	if !ok {
		return 0, 0
	}
	bus := c.GetVirtualController().BusNumber
	switch controller.(type) {
	case *types.ParaVirtualSCSIController:
		return 64, 2000 + 16*bus
	case types.BaseVirtualSCSIController:
		return 16, 2000 + 16*bus
	case types.BaseVirtualSATAController:
		return 30, 16000 + 30*bus
	case *types.VirtualNVMEController:
		return 15, 32000 + 15*bus
	case *types.VirtualIDEController:
		return 2, 3000 + 2*bus
	}
	return 0, 0
}

// freeBus is the lowest bus number, or the wanted one, that no controller of the same kind has; -1 when
// there is none.
func freeBus(devices []types.BaseVirtualDevice, device types.BaseVirtualDevice, wanted int32) int32 {
	taken := func(bus int32) bool {
		key, _ := controllerKey(device, bus)
		return object.VirtualDeviceList(devices).FindByKey(key) != nil
	}
	_, limit := controllerKey(device, 0)
	if wanted >= 0 && wanted < limit && !taken(wanted) {
		return wanted
	}
	for bus := range limit {
		if !taken(bus) {
			return bus
		}
	}
	return -1
}

// unitTaken says whether a device stands on a controller's unit.
func unitTaken(devices []types.BaseVirtualDevice, controller, unit int32) bool {
	return slices.ContainsFunc(devices, func(d types.BaseVirtualDevice) bool {
		v := d.GetVirtualDevice()
		return v.ControllerKey == controller && v.UnitNumber != nil && *v.UnitNumber == unit
	})
}

// freeKey is the first key from one on that no device has.
func freeKey(devices []types.BaseVirtualDevice, key int32) int32 {
	for object.VirtualDeviceList(devices).FindByKey(key) != nil {
		key++
	}
	return key
}

// freeLabel is the first label of a kind, counted from 1, that no device has: "Hard disk 2".
func freeLabel(devices []types.BaseVirtualDevice, kind string) string {
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s %d", kind, i)
		if !slices.ContainsFunc(devices, func(d types.BaseVirtualDevice) bool { return label(d) == name }) {
			return name
		}
	}
}

// kindOf is the label's text, the first key, and the controller of devices that don't stand on a
// storage controller; ok is false for a device that nothing is known of.
func kindOf(device types.BaseVirtualDevice) (kind string, key, controller, unit int32) {
	switch device.(type) {
	case types.BaseVirtualEthernetCard:
		return "Network adapter", 4000, 100, 7
	case *types.VirtualFloppy:
		return "Floppy drive", 8000, 400, 0
	case *types.VirtualSerialPort:
		return "Serial port", 9000, 400, 0
	case *types.VirtualParallelPort:
		return "Parallel port", 10000, 400, 0
	case *types.VirtualTPM:
		return "Virtual TPM", 11000, 100, 0
	case *types.VirtualPCIPassthrough:
		return "PCI device", 13000, 100, 0
	case *types.VirtualUSB:
		return "USB", 7100, 0, 0
	case *types.VirtualWDT:
		return "Watchdog timer", 18000, 100, 0
	case *types.VirtualPrecisionClock:
		return "Precision clock", 19000, 0, 0
	}
	return "Device", 20000, 0, 0
}

// relinkControllers lists on every controller the devices that stand on it.
func relinkControllers(devices []types.BaseVirtualDevice) {
	for _, d := range devices {
		c, ok := d.(types.BaseVirtualController)
		if !ok {
			continue
		}
		controller := c.GetVirtualController()
		controller.Device = nil
		for _, other := range devices {
			if v := other.GetVirtualDevice(); v.ControllerKey == controller.Key && v.Key != controller.Key {
				controller.Device = append(controller.Device, v.Key)
			}
		}
	}
}
