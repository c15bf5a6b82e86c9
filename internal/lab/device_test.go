package lab_test

import (
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi/vim25/types"
)

// TestDeviceKeys checks that devices get the keys, labels and units of a real host.
func TestDeviceKeys(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	add := func(d types.BaseVirtualDevice, fop types.VirtualDeviceConfigSpecFileOperation) types.BaseVirtualDeviceConfigSpec {
		return &types.VirtualDeviceConfigSpec{Operation: opAdd, FileOperation: fop, Device: d}
	}
	on := func(key, controller int32) *types.VirtualDisk {
		d := newDisk(-1, "", 1<<20)
		d.Key, d.ControllerKey, d.UnitNumber = key, controller, nil
		return d
	}
	ahci, nvme := &types.VirtualAHCIController{}, &types.VirtualNVMEController{}
	ahci.Key, nvme.Key = -10, -20
	cd := &types.VirtualCdrom{}
	cd.Key, cd.ControllerKey = -30, 200
	cd.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{}
	spec := types.VirtualMachineConfigSpec{
		// Children may stand before their controllers.
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			add(on(-11, -10), create), add(on(-12, -10), create), add(on(-21, -20), create),
			add(ahci, noFile), add(nvme, noFile), add(cd, noFile),
		},
		BootOptions: &types.VirtualMachineBootOptions{BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: -21},
		}},
	}
	e.must(e.wait(e.vm.Reconfigure(e.ctx, spec)))
	want := map[int32]string{
		15000: "SATA controller 0", 16000: "Hard disk 3", 16001: "Hard disk 4", 31000: "NVME controller 0", 32000: "Hard disk 5",
		3000: "CD/DVD drive 1", 2000: "Hard disk 1", 4000: "Network adapter 1", 4001: "Network adapter 2",
	}
	devices := e.devices()
	for key, label := range want {
		d := devices.FindByKey(key)
		if d == nil {
			t.Errorf("no device %d (%s)", key, label)
			continue
		}
		if got := d.GetVirtualDevice().DeviceInfo.GetDescription().Label; got != label {
			t.Errorf("device %d is %q, want %q", key, got, label)
		}
	}
	order := e.properties().Config.BootOptions.BootOrder
	if disk, ok := order[0].(*types.VirtualMachineBootOptionsBootableDiskDevice); len(order) != 1 || !ok || disk.DeviceKey != 32000 {
		t.Errorf("boot order %+v", order)
	}
	e.refused("boot from what isn't there", e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{
		BootOptions: &types.VirtualMachineBootOptions{BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2015},
		}},
	})), &types.InvalidArgument{})
	e.refused("remove a controller in use", e.reconfigure(opRemove, noFile, devices.FindByKey(15000)), &types.ResourceInUse{})
	e.refused("disk without a controller", e.reconfigure(opAdd, create, on(-1, 1003)), &types.MissingController{})
	e.refused("edit what isn't there", e.reconfigure(opEdit, noFile, on(2011, 1000)), &types.InvalidDeviceSpec{})
}

func TestRawDeviceMapping(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	d := newDisk(2, "", 1<<20)
	d.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{
		VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[LocalDS_0] web01/rdm.vmdk"},
		CompatibilityMode:            string(types.VirtualDiskCompatibilityModePhysicalMode),
		DiskMode:                     string(types.VirtualDiskModePersistent),
		DeviceName:                   "vml.0200",
		LunUuid:                      "0200",
	}
	e.must(e.reconfigure(opAdd, noFile, d))
	_, err := e.trySnapshot("rdm", false, false)
	e.refused("snapshot with a physical RDM", err, &types.SnapshotIncompatibleDeviceInVm{})
	if got := e.status("web01").Disks; len(got) != 3 || got[2].Key != 2002 {
		t.Errorf("%+v", got)
	}
}

func TestMACAddresses(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	taken := e.status("web01").NICs[0].MAC
	spec := foreignSpec("other")
	card, _ := spec.DeviceChange[2].GetVirtualDeviceConfigSpec().Device.(types.BaseVirtualEthernetCard)
	card.GetVirtualEthernetCard().MacAddress = taken
	card.GetVirtualEthernetCard().AddressType = string(types.VirtualEthernetCardMacTypeAssigned)
	_, err := e.createVM(spec)
	e.must(err)
	if got := e.status("other").NICs[0].MAC; got == taken {
		t.Error("an assigned address is given out twice")
	}
	spec.Name = "manual"
	card.GetVirtualEthernetCard().AddressType = string(types.VirtualEthernetCardMacTypeManual)
	_, err = e.createVM(spec)
	e.must(err)
	if got := e.status("manual").NICs[0].MAC; got != taken {
		t.Errorf("a manual address became %s", got)
	}
	spec.Name, card.GetVirtualEthernetCard().MacAddress = "nonsense", "00:11"
	_, err = e.createVM(spec)
	e.refused("half an address", err, &types.InvalidDeviceSpec{})
}
