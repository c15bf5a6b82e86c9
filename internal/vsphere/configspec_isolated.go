package vsphere

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// outsideKeys and outsidePrefixes are options of extraConfig by which a VM writes outside its own directory, takes
// devices of the host, or can be reached, whatever devices it has.
var (
	outsideKeys     = []string{"log.filename", "sched.swap.dir", "suspend.directory", "vmx.log.filename", "workingdir"}
	outsidePrefixes = []string{"remotedisplay.", "sharedfolder", "usb.autoconnect.", "usb_xhci.autoconnect."}
)

// isolateConfig turns a captured configuration into that of a VM that can only boot from its disks, and reaches and is
// reached by nobody: nothing is connected, or can be by its guest.
func isolateConfig(config *types.VirtualMachineConfigInfo) {
	for _, device := range config.Hardware.Device {
		isolateDevice(device)
	}
	if b := config.BootOptions; b != nil {
		b.EnterBIOSSetup = nil // where it would stay
		b.BootOrder = slices.DeleteFunc(b.BootOrder, func(d types.BaseVirtualMachineBootOptionsBootableDevice) bool {
			_, disk := d.(*types.VirtualMachineBootOptionsBootableDiskDevice)
			return !disk
		})
	}
	if config.Tools != nil {
		config.Tools.ToolsUpgradePolicy = string(types.UpgradePolicyManual) // which puts a medium into the drive
	}
	config.ExtraConfig = slices.DeleteFunc(config.ExtraConfig, func(o types.BaseOptionValue) bool {
		key := strings.ToLower(o.GetOptionValue().Key)
		return slices.Contains(outsideKeys, key) ||
			slices.ContainsFunc(outsidePrefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	})
}

// isolateDevice disconnects a device. Drives lose their medium besides.
func isolateDevice(device types.BaseVirtualDevice) {
	dev := device.GetVirtualDevice()
	switch d := device.(type) {
	case *types.VirtualDisk:
		return
	case *types.VirtualUSBController:
		d.AutoConnectDevices = types.NewBool(false)
		return
	case *types.VirtualUSBXHCIController:
		d.AutoConnectDevices = types.NewBool(false)
		return
	case *types.VirtualMachineVMCIDevice:
		d.AllowUnrestrictedCommunication = types.NewBool(false) // with other VMs of the host
		return
	case *types.VirtualCdrom:
		d.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: clientDevice()}
	case *types.VirtualFloppy:
		d.Backing = &types.VirtualFloppyRemoteDeviceBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: clientDevice()}
	case types.BaseVirtualEthernetCard, *types.VirtualSerialPort:
	default:
		if dev.Connectable == nil { // it can't be connected
			return
		}
	}
	dev.Connectable = &types.VirtualDeviceConnectInfo{}
}
