package vsphere

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// device fills in what all devices have.
func device(key, controller, unit int32, label string) types.VirtualDevice {
	return types.VirtualDevice{
		Key: key, ControllerKey: controller, UnitNumber: types.NewInt32(unit),
		DeviceInfo: &types.Description{Label: label},
	}
}

func diskOn(key, controller, unit int32, label string, backing types.BaseVirtualDeviceBackingInfo) *types.VirtualDisk {
	d := &types.VirtualDisk{VirtualDevice: device(key, controller, unit, label), CapacityInBytes: int64(key) << 20}
	d.Backing = backing
	return d
}

func flat(change func(*types.VirtualDiskFlatVer2BackingInfo)) *types.VirtualDiskFlatVer2BackingInfo {
	b := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent", Uuid: "6000C29A-0000-0000-0000-00000000000B"}
	b.FileName = "[ds1] web01/web01.vmdk"
	if change != nil {
		change(b)
	}
	return b
}

func scsi(sharing types.VirtualSCSISharing) *types.ParaVirtualSCSIController {
	c := &types.ParaVirtualSCSIController{}
	c.Key, c.BusNumber, c.SharedBus = 1000, 0, sharing
	c.DeviceInfo = &types.Description{Label: "SCSI controller 0"}
	return c
}

func TestObstacles(t *testing.T) {
	t.Parallel()
	plain := diskOn(2000, 1000, 0, "Hard disk 1", flat(nil))
	for name, tt := range map[string]struct {
		change func(*mo.VirtualMachine)
		want   string // kind device disk blocks, one per line
	}{
		"none":     {func(*mo.VirtualMachine) {}, ""},
		"template": {func(m *mo.VirtualMachine) { m.Config.Template = true }, "template   true"},
		"fault tolerance": {
			func(m *mo.VirtualMachine) { m.Config.FtInfo = &types.FaultToleranceConfigInfo{} }, "fault_tolerance   true",
		},
		"fault tolerance running": {func(m *mo.VirtualMachine) {
			m.Runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateRunning
		}, "fault_tolerance   true"},
		"fault tolerance off": {func(m *mo.VirtualMachine) {
			m.Runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateNotConfigured
		}, ""},
		"locked": {
			func(m *mo.VirtualMachine) { m.Config.Flags.SnapshotLocked = types.NewBool(true) }, "snapshots_locked   true",
		},
		"encrypted VM":   {func(m *mo.VirtualMachine) { m.Config.KeyId = &types.CryptoKeyId{} }, "encryption   false"},
		"encrypted disk": {flatDisk(func(b *types.VirtualDiskFlatVer2BackingInfo) { b.KeyId = &types.CryptoKeyId{} }), "encryption Hard disk 1 2000 false"},
		"TPM": {func(m *mo.VirtualMachine) {
			tpm := &types.VirtualTPM{VirtualDevice: device(11000, 100, 0, "Virtual TPM")}
			m.Config.Hardware.Device = append(m.Config.Hardware.Device, tpm)
		}, "vtpm Virtual TPM  false"},
		"shared SCSI bus": {func(m *mo.VirtualMachine) {
			m.Config.Hardware.Device[0] = scsi(types.VirtualSCSISharingPhysicalSharing)
		}, "shared_bus SCSI controller 0  true"},
		"shared NVMe bus": {func(m *mo.VirtualMachine) {
			nvme := &types.VirtualNVMEController{SharedBus: string(types.VirtualNVMEControllerSharingPhysicalSharing)}
			nvme.Key, nvme.DeviceInfo = 31000, &types.Description{Label: "NVME controller 0"}
			m.Config.Hardware.Device = append(m.Config.Hardware.Device, nvme)
		}, "shared_bus NVME controller 0  true"},
		"multi-writer": {
			flatDisk(func(b *types.VirtualDiskFlatVer2BackingInfo) { b.Sharing = "sharingMultiWriter" }),
			"multi_writer Hard disk 1  true",
		},
		"independent": {
			flatDisk(func(b *types.VirtualDiskFlatVer2BackingInfo) { b.DiskMode = "independent_persistent" }),
			"independent_disk Hard disk 1 2000 false",
		},
		"independent nonpersistent": {
			flatDisk(func(b *types.VirtualDiskFlatVer2BackingInfo) { b.DiskMode = "independent_nonpersistent" }),
			"independent_disk Hard disk 1 2000 false",
		},
		"physical RDM": {rdm("physicalMode"), "physical_rdm Hard disk 1  true"},
		"virtual RDM":  {rdm("virtualMode"), ""},
		"no configuration": {func(m *mo.VirtualMachine) {
			m.Config = nil
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &mo.VirtualMachine{Config: &types.VirtualMachineConfigInfo{}}
			m.Config.Hardware.Device = []types.BaseVirtualDevice{scsi(types.VirtualSCSISharingNoSharing), plain}
			tt.change(m)
			var lines []string
			for _, o := range newVM(m).Obstacles {
				lines = append(lines, fmt.Sprintf("%s %s %s %t", o.Kind, o.Device, o.Disk, o.BlocksSnapshot))
				for _, sentence := range []string{o.Reason, o.Remedy} {
					if !strings.HasSuffix(sentence, ".") || strings.ToUpper(sentence[:1]) != sentence[:1] {
						t.Errorf("%q is no sentence", sentence)
					}
				}
			}
			if got := strings.Join(lines, "\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// flatDisk changes the backing of the one disk.
func flatDisk(change func(*types.VirtualDiskFlatVer2BackingInfo)) func(*mo.VirtualMachine) {
	return func(m *mo.VirtualMachine) {
		m.Config.Hardware.Device[1] = diskOn(2000, 1000, 0, "Hard disk 1", flat(change))
	}
}

func rdm(mode string) func(*mo.VirtualMachine) {
	return func(m *mo.VirtualMachine) {
		m.Config.Hardware.Device[1] = diskOn(2000, 1000, 0, "Hard disk 1",
			&types.VirtualDiskRawDiskMappingVer1BackingInfo{CompatibilityMode: mode, DiskMode: "persistent"})
	}
}

func TestDescribeDisks(t *testing.T) {
	t.Parallel()
	bus := func(c *types.VirtualController, key, number int32) { c.Key, c.BusNumber = key, number }
	lsi, pv := &types.VirtualLsiLogicController{}, &types.ParaVirtualSCSIController{}
	ide, sata, nvme := &types.VirtualIDEController{}, &types.VirtualAHCIController{}, &types.VirtualNVMEController{}
	bus(&lsi.VirtualController, 1000, 0)
	bus(&pv.VirtualController, 1001, 1)
	bus(&ide.VirtualController, 201, 1)
	bus(&sata.VirtualController, 15000, 0)
	bus(&nvme.VirtualController, 31000, 2)
	delta := flat(func(b *types.VirtualDiskFlatVer2BackingInfo) {
		b.FileName, b.Uuid, b.Parent = "[ds 2] a/b-000001.vmdk", "", flat(nil)
	})
	got := describeDisks([]types.BaseVirtualDevice{
		diskOn(32000, 31000, 3, "Hard disk 6", flat(nil)), diskOn(16000, 15000, 0, "Hard disk 5", flat(nil)),
		diskOn(2017, 1001, 1, "Hard disk 4", flat(nil)), diskOn(2002, 1000, 15, "Hard disk 3", flat(nil)),
		diskOn(2000, 1000, 0, "Hard disk 2", delta), diskOn(3001, 201, 1, "Hard disk 1", flat(nil)),
		&types.VirtualCdrom{VirtualDevice: device(3000, 201, 0, "CD/DVD drive 1")},
		nvme, sata, pv, lsi, ide,
	})
	var lines []string
	for _, d := range got {
		lines = append(lines, fmt.Sprint(d.Key, " ", d.Label, " ", d.Address))
	}
	want := "3001 Hard disk 1 ide1:1\n2000 Hard disk 2 scsi0:0\n2002 Hard disk 3 scsi0:15\n" +
		"2017 Hard disk 4 scsi1:1\n16000 Hard disk 5 sata0:0\n32000 Hard disk 6 nvme2:3"
	if text := strings.Join(lines, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if d := got[1]; d != (hypervisor.Disk{
		Key: "2000", Label: "Hard disk 2", Address: "scsi0:0", UUID: "6000c29a-0000-0000-0000-00000000000b",
		Capacity: 2000 << 20, Datastore: "ds 2", Path: "[ds 2] a/b-000001.vmdk",
	}) {
		t.Errorf("got %+v", d)
	}
}
