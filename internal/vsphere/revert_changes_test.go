package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

func deviceChange(
	op types.VirtualDeviceConfigSpecOperation, fop types.VirtualDeviceConfigSpecFileOperation, d types.BaseVirtualDevice,
) types.BaseVirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: op, FileOperation: fop, Device: d}
}

func extraDisk(unit int32, file, mode string) *types.VirtualDisk {
	d := &types.VirtualDisk{CapacityInBytes: 1 << 20}
	d.Key, d.ControllerKey, d.UnitNumber = -1-unit, 1000, &unit
	backing := &types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: types.NewBool(true), DiskMode: mode}
	backing.FileName = file
	d.Backing = backing
	return d
}

// TestRevertChanges changes much of a VM and looks for a sentence about each thing, before the revert and
// after it, and for none about what was reverted.
func TestRevertChanges(t *testing.T) {
	t.Parallel()
	const (
		add    = types.VirtualDeviceConfigSpecOperationAdd
		edit   = types.VirtualDeviceConfigSpecOperationEdit
		remove = types.VirtualDeviceConfigSpecOperationRemove
		create = types.VirtualDeviceConfigSpecFileOperationCreate
	)
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "zero"})
	option := func(key, value string) types.BaseOptionValue { return &types.OptionValue{Key: key, Value: value} }
	b.must(b.client.PowerOff(t.Context(), b.vm))
	cd := &types.VirtualCdrom{}
	cd.Key, cd.ControllerKey, cd.Backing = -30, 200, &types.VirtualCdromAtapiBackingInfo{}
	b.reconfigure(types.VirtualMachineConfigSpec{
		Annotation: "good", ExtraConfig: []types.BaseOptionValue{option("guestinfo.a", "1"), option("guestinfo.gone", "2")},
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			deviceChange(add, create, extraDisk(1, "[LocalDS_0] web01/swapped.vmdk", "")),
			deviceChange(add, create, extraDisk(2, "[LocalDS_0] web01/removed.vmdk", "")),
			deviceChange(add, create, extraDisk(3, "[LocalDS_0] web01/independent.vmdk", "independent_persistent")),
			deviceChange(add, "", cd),
		},
	})
	b.id = b.snapshot(hypervisor.SnapshotSpec{Name: "good"})
	before := b.config()

	card, port := b.device(4000), b.device(4001).GetVirtualDevice().Backing
	to := connectedTo(card.GetVirtualDevice().Backing, nil)
	card.GetVirtualDevice().Backing = port
	card.GetVirtualDevice().Connectable.StartConnected = false
	drive, _ := b.device(3000).(*types.VirtualCdrom)
	iso := &types.VirtualCdromIsoBackingInfo{}
	iso.FileName = "[LocalDS_0] web01/web01.vmx" // any file
	drive.Backing = iso
	newCard := &types.VirtualVmxnet3{}
	newCard.Key, newCard.Backing = -40, port
	b.reconfigure(types.VirtualMachineConfigSpec{
		Annotation: "a secret", NumCPUs: before.Hardware.NumCPU + 2, MemoryMB: int64(before.Hardware.MemoryMB) + 1024,
		Version: "vmx-20", CpuAllocation: &types.ResourceAllocationInfo{Reservation: types.NewInt64(777)},
		ExtraConfig: []types.BaseOptionValue{
			option("guestinfo.a", "hunter2"), option("guestinfo.gone", ""), option("guestinfo.new", "hunter3"),
		},
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			deviceChange(remove, "", b.device(2001)), deviceChange(remove, "", b.device(2002)),
			deviceChange(edit, "", card), deviceChange(edit, "", drive),
		},
	})
	b.reconfigure(types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		deviceChange(add, create, extraDisk(1, "[LocalDS_0] web01/other.vmdk", "")),
		deviceChange(add, create, extraDisk(4, "[LocalDS_0] web01/added.vmdk", "")),
		deviceChange(add, "", newCard),
	}})
	cpus, memory := before.Hardware.NumCPU, before.Hardware.MemoryMB
	want := []string{
		fmt.Sprintf("The number of CPUs goes back from %d to %d.", cpus+2, cpus),
		fmt.Sprintf("The memory goes back from %d to %d MiB.", memory+1024, memory),
		fmt.Sprintf("The hardware version goes back from vmx-20 to %s.", before.Version),
		"The annotation goes back to that of the snapshot.",
		"Hard disk 4 (scsi0:3) is independent: its content stays as it is now.",
		"Hard disk 2 (scsi0:1) goes back to the file [LocalDS_0] web01/swapped.vmdk; its file [LocalDS_0] web01/other.vmdk stays.",
		"Hard disk 3 (scsi0:4) isn't in the snapshot and leaves the VM; its file [LocalDS_0] web01/added.vmdk stays.",
		"Hard disk 3 (scsi0:2) comes back, with the file [LocalDS_0] web01/removed.vmdk.",
		fmt.Sprintf("Network adapter 1 goes back from distributed port group %q to %s.", "DC0_DVPG0", to),
		"Network adapter 3 isn't in the snapshot and leaves the VM.",
		`CD/DVD drive 1 goes back from [LocalDS_0] web01/web01.vmx to a device of the host.`,
		"Settings of Network adapter 1 go back: connectable.startConnected (false to true).",
		"Other settings go back: cpuAllocation.reservation (777 to 0).",
		"Advanced settings go back: guestinfo.a, guestinfo.gone.",
		"Advanced settings that the snapshot doesn't have are removed: guestinfo.new.",
	}
	check := func(what string, got []string, err error) {
		t.Helper()
		b.must(err)
		rest := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return slices.Contains(want, s) })
		if len(rest) != 0 || len(got) != len(want) {
			t.Errorf("%s:\n\t%s\nwant, in any order,\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		if all := strings.Join(got, "\n"); strings.Contains(all, "hunter") || strings.Contains(all, "secret") {
			t.Errorf("%s: a value is told that may be a secret", what)
		}
	}
	changes, err := b.client.RevertChanges(t.Context(), b.vm, b.id)
	check("preview", changes, err)
	if got := b.config().Annotation; got != "a secret" {
		t.Errorf("the preview changed the VM: %q", got)
	}
	vm, undone, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{})
	check("revert", undone, err)
	if len(vm.Disks) != 4 || vm.CPUs != int(cpus) || b.config().Annotation != "good" {
		t.Errorf("reverted to %+v", vm)
	}
	for _, file := range []string{"other", "added"} {
		if !slices.ContainsFunc(b.lab.Status().Files, func(f lab.FileStatus) bool { return f.Name == "[LocalDS_0] web01/"+file+".vmdk" }) {
			t.Errorf("the file %s.vmdk doesn't stay", file)
		}
	}
	again, err := b.client.RevertChanges(t.Context(), b.vm, b.id)
	if err != nil || len(again) != 1 || !strings.Contains(again[0], "is independent") {
		t.Errorf("after the revert: %q, %v", again, err)
	}
}
