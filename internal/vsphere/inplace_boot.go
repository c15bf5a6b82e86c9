package vsphere

import (
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Kinds of entries of a boot order that a journal keeps.
const (
	bootDisk    = "disk "
	bootNetwork = "network "
	bootCdrom   = "cdrom"
	bootFloppy  = "floppy"
)

// bootOrder are the entries of a VM's boot order.
func bootOrder(config *types.VirtualMachineConfigInfo) []types.BaseVirtualMachineBootOptionsBootableDevice {
	if config.BootOptions == nil {
		return nil
	}
	return config.BootOptions.BootOrder
}

// bootNames is a VM's boot order by slots, which stay when keys don't.
func bootNames(config *types.VirtualMachineConfigInfo) []string {
	devices := object.VirtualDeviceList(config.Hardware.Device)
	var names []string
	for _, entry := range bootOrder(config) {
		switch e := entry.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			if d := devices.FindByKey(e.DeviceKey); d != nil {
				names = append(names, bootDisk+deviceSlot(devices, d))
			}
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			if d := devices.FindByKey(e.DeviceKey); d != nil {
				names = append(names, bootNetwork+deviceSlot(devices, d))
			}
		case *types.VirtualMachineBootOptionsBootableCdromDevice:
			names = append(names, bootCdrom)
		case *types.VirtualMachineBootOptionsBootableFloppyDevice:
			names = append(names, bootFloppy)
		}
	}
	return names
}

// bootEntries is the reverse of bootNames. What isn't in the VM is left out.
func bootEntries(
	names []string, devices object.VirtualDeviceList,
) []types.BaseVirtualMachineBootOptionsBootableDevice {
	at := func(slot string) (key int32, ok bool) {
		for _, d := range devices {
			if deviceSlot(devices, d) == slot {
				return d.GetVirtualDevice().Key, true
			}
		}
		return 0, false
	}
	var order []types.BaseVirtualMachineBootOptionsBootableDevice
	for _, name := range names {
		if slot, ok := strings.CutPrefix(name, bootDisk); ok {
			if key, ok := at(slot); ok {
				order = append(order, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: key})
			}
		}
		if slot, ok := strings.CutPrefix(name, bootNetwork); ok {
			if key, ok := at(slot); ok {
				order = append(order, &types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: key})
			}
		}
		switch name {
		case bootCdrom:
			order = append(order, &types.VirtualMachineBootOptionsBootableCdromDevice{})
		case bootFloppy:
			order = append(order, &types.VirtualMachineBootOptionsBootableFloppyDevice{})
		}
	}
	return order
}

// bootSpecOf brings a boot order back.
func bootSpecOf(names []string) specBuilder {
	return func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		var spec types.VirtualMachineConfigSpec
		if order := bootEntries(names, vm.Config.Hardware.Device); len(order) > 0 {
			spec.BootOptions = &types.VirtualMachineBootOptions{BootOrder: order}
		}
		return spec, nil
	}
}
