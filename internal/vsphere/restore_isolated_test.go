package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// Nobody meets an isolated copy: it is connected to nothing and can't be, and has none of the labels by which others
// choose VMs. It may be tried while it is in the making.
func TestRestore_isolated(t *testing.T) {
	t.Parallel()
	floppy := &types.VirtualFloppy{VirtualDevice: types.VirtualDevice{Key: -70, ControllerKey: 400, UnitNumber: types.NewInt32(0),
		Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true},
		Backing: &types.VirtualFloppyImageBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{
			FileName: strings.Replace(richISO, ".iso", ".flp", 1)}}}}
	sound := &types.VirtualEnsoniq1371{VirtualSoundCard: types.VirtualSoundCard{VirtualDevice: types.VirtualDevice{Key: -71,
		Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true},
		Backing:     &types.VirtualSoundCardDeviceBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "/dev/dsp"}}}}}
	b, content := richBench(t, "web", pvscsiAndNVMe(), floppy, sound)
	b.bootFromMedia()
	if open := b.openings(t.Context(), vmRef(b.vm.ID)); !slices.Equal(open, []string{
		"boot order *types.VirtualMachineBootOptionsBootableCdromDevice", "boot order *types.VirtualMachineBootOptionsBootableEthernetDevice",
		"connected *types.VirtualCdrom", "connected *types.VirtualE1000e", "connected *types.VirtualEnsoniq1371", "connected *types.VirtualFloppy",
		"connected *types.VirtualSerialPort", "connected *types.VirtualVmxnet3", "enters the firmware's setup",
		"image [LocalDS_0] helper/install.flp", "image [LocalDS_0] helper/install.iso",
		"option RemoteDisplay.vnc.enabled", "option log.fileName", "takes USB devices", "takes USB devices", "talks to other VMs", "upgrades its tools",
	}) {
		t.Errorf("the original: %q", open)
	}
	c := b.mustBackUp()
	b.renameAway() // no network of the captured names is there
	before := b.read(t.Context(), b.vm.ID)
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityCopy, Name: "web copy", Disconnect: true}
	var unavailable *hypervisor.NotAvailableError
	if _, err := b.client.CheckRestore(t.Context(), spec); !errors.As(err, &unavailable) || unavailable.Kind != "network" {
		t.Errorf("not isolated: %v", err)
	}
	over := errors.New("over")
	var copied reading
	var open []string
	spec.Isolated = true
	spec.Verify = func(ctx context.Context, vm hypervisor.VMID) error {
		must(t, b.client.PowerOn(ctx, vm))
		copied, open = b.read(ctx, vm), b.openings(ctx, vmRef(vm))
		return over
	}
	if _, warnings, err := b.restore(t.Context(), c, spec); !errors.Is(err, over) || len(warnings) > 0 {
		t.Fatalf("%q, %v", warnings, err)
	}
	if len(open) > 0 {
		t.Errorf("the copy: %q", open)
	}
	if copied["runtime.powerState"] != "poweredOn" || copied["tags"] != "" || copied["config.uuid"] == before["config.uuid"] {
		t.Errorf("power state %s, tags %q, UUID %s", copied["runtime.powerState"], copied["tags"], copied["config.uuid"])
	}
	for path, value := range copied {
		if strings.HasPrefix(path, "customValue[") {
			t.Errorf("%s is %s", path, value)
		}
	}
	for _, line := range differ(before, b.read(t.Context(), b.vm.ID), always) {
		t.Error("the original: " + line)
	}
	b.sameContent("web", content)
	labtest.AssertClean(t, b.lab)
}

// bootFromMedia has the VM boot from anything but its first disk, and reach out by what isn't a device.
func (b *bench) bootFromMedia() {
	b.Helper()
	var vm mo.VirtualMachine
	must(b, b.client.properties(b.Context(), vmRef(b.vm.ID), []string{"config"}, &vm))
	boot := vm.Config.BootOptions
	slices.Reverse(boot.BootOrder) // the CD-ROM comes first
	boot.EnterBIOSSetup = types.NewBool(true)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{BootOptions: boot, ExtraConfig: []types.BaseOptionValue{
		&types.OptionValue{Key: "log.fileName", Value: "/vmfs/volumes/logs/web.log"},
		&types.OptionValue{Key: "RemoteDisplay.vnc.enabled", Value: "TRUE"},
	}})
}

// openings are what a VM may boot from beside its disks, or reach others by.
func (b *bench) openings(ctx context.Context, ref types.ManagedObjectReference) []string {
	b.Helper()
	var vm mo.VirtualMachine
	must(b, b.client.properties(ctx, ref, []string{"config"}, &vm))
	var open []string
	found := func(is bool, format string, args ...any) {
		if is {
			open = append(open, fmt.Sprintf(format, args...))
		}
	}
	disks := 0
	for _, device := range vm.Config.Hardware.Device {
		dev := device.GetVirtualDevice()
		c := dev.Connectable
		found(c != nil && (c.Connected || c.StartConnected || c.AllowGuestControl), "connected %T", device)
		switch d := device.(type) {
		case *types.VirtualDisk:
			disks++
		case *types.VirtualCdrom, *types.VirtualFloppy:
			image, is := dev.Backing.(types.BaseVirtualDeviceFileBackingInfo)
			if is {
				found(true, "image %s", image.GetVirtualDeviceFileBackingInfo().FileName)
			}
		case *types.VirtualUSBController:
			found(*d.AutoConnectDevices, "takes USB devices")
		case *types.VirtualUSBXHCIController:
			found(*d.AutoConnectDevices, "takes USB devices")
		case *types.VirtualMachineVMCIDevice:
			found(*d.AllowUnrestrictedCommunication, "talks to other VMs")
		}
	}
	found(disks != 3, "has %d disks", disks)
	found(len(vm.Config.BootOptions.BootOrder) == 0, "boots from anything")
	for _, entry := range vm.Config.BootOptions.BootOrder {
		_, disk := entry.(*types.VirtualMachineBootOptionsBootableDiskDevice)
		found(!disk, "boot order %T", entry)
	}
	setup := vm.Config.BootOptions.EnterBIOSSetup
	found(setup != nil && *setup, "enters the firmware's setup")
	found(vm.Config.Tools.ToolsUpgradePolicy != "manual", "upgrades its tools")
	for _, o := range vm.Config.ExtraConfig {
		key := o.GetOptionValue().Key
		found(key == "log.fileName" || strings.HasPrefix(key, "RemoteDisplay."), "option %s", key)
	}
	slices.Sort(open)
	return open
}
