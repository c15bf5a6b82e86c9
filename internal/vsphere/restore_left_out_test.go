package vsphere

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// hostDevices are devices that don't follow a VM to another host, and what a warning must say of each.
func hostDevices() ([]types.BaseVirtualDevice, []string) {
	device := func(key int32, backing types.BaseVirtualDeviceBackingInfo) types.VirtualDevice {
		return types.VirtualDevice{Key: key, Backing: backing}
	}
	named := func(name string) types.VirtualDeviceDeviceBackingInfo {
		return types.VirtualDeviceDeviceBackingInfo{DeviceName: name}
	}
	return []types.BaseVirtualDevice{
			&types.VirtualPCIPassthrough{VirtualDevice: device(-70, &types.VirtualPCIPassthroughDeviceBackingInfo{
				VirtualDeviceDeviceBackingInfo: named("NIC"), Id: "0000:3b:00.0", DeviceId: "10fb", SystemId: "BYPASS"})},
			&types.VirtualPCIPassthrough{VirtualDevice: device(-71, &types.VirtualPCIPassthroughVmiopBackingInfo{Vgpu: "grid_t4-8q"})},
			&types.VirtualUSB{Connected: true, Vendor: 1, Product: 2, VirtualDevice: device(-72, &types.VirtualUSBUSBBackingInfo{
				VirtualDeviceDeviceBackingInfo: named("Security key")})},
			&types.VirtualSerialPort{VirtualDevice: device(-73, &types.VirtualSerialPortDeviceBackingInfo{
				VirtualDeviceDeviceBackingInfo: named("/dev/char/serial/uart0")})},
			&types.VirtualParallelPort{VirtualDevice: device(-74, &types.VirtualParallelPortDeviceBackingInfo{
				VirtualDeviceDeviceBackingInfo: named("/dev/char/parport0")})},
		}, []string{
			"PCI device 1 passes through a device of the host (0000:3b:00.0, device ID 10fb) and is not restored.",
			"PCI device 2 is a virtual GPU of the host (profile grid_t4-8q) and is not restored.",
			`USB 1 is the USB device "Security key" of the host or of a client and is not restored.`,
			"Serial port 2 is connected to a file or a device of the host and is not restored.",
			"Parallel port 1 is connected to a file or a device of the host and is not restored.",
		}
}

// TestRestore_namesWhatIsLeftOut has a VM with all that a restore doesn't bring back: a warning names each, and
// the rest of the VM is as it was.
func TestRestore_namesWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	devices, want := hostDevices()
	b, content := richBench(t, "web", pvscsiAndNVMe(), devices...)
	ref := vmRef(b.vm.ID)
	b.reconfigure(ref, types.VirtualMachineConfigSpec{
		CpuAffinity: &types.VirtualMachineAffinityInfo{AffinitySet: []int32{0, 1}},
		ManagedBy:   &types.ManagedByInfo{ExtensionKey: "com.example.appliance", Type: "node"},
		RepConfig:   &types.ReplicationConfigSpec{VmReplicationId: "GID-1"},
		DeviceGroups: &types.VirtualMachineVirtualDeviceGroups{
			DeviceGroup: []types.BaseVirtualMachineVirtualDeviceGroupsDeviceGroup{
				&types.VirtualMachineVirtualDeviceGroupsVendorDeviceGroup{DeviceGroupName: "NVSwitch"}}},
		NpivNodeWorldWideName:        []int64{1},
		ScheduledHardwareUpgradeInfo: &types.ScheduledHardwareUpgradeInfo{UpgradePolicy: "always", VersionKey: "vmx-99"},
		Files:                        &types.VirtualMachineFileInfo{SnapshotDirectory: "[LocalDS_0] elsewhere/"},
		DeviceChange:                 b.burden(),
	})
	before := b.read(t.Context(), b.vm.ID)
	c := b.mustBackUp()
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	want = append(want,
		"Hard disk 1 is restored as an ordinary disk: it is no first class disk any more (ID fcd-1), its I/O filters "+
			"(VMW_iofilter_1, replicator) are not restored, its flash read cache of 64 MB is not restored, its digest file",
		"N-port ID virtualization", "vSphere Replication", "the grouping of devices by their vendor",
		"the scheduled upgrade of the virtual hardware to vmx-99 is not restored", `the extension "com.example.appliance"`, "the directory for snapshots, [LocalDS_0] elsewhere/",
	)
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityOriginal}
	checked, err := b.client.CheckRestore(t.Context(), spec)
	must(t, err)
	restored, warnings, err := b.restore(t.Context(), c, spec)
	must(t, err)
	for what, warnings := range map[string][]string{"check": checked, "restore": warnings} {
		left := slices.Clone(want)
		for _, w := range warnings {
			if i := slices.IndexFunc(left, func(text string) bool { return strings.Contains(w, text) }); i >= 0 {
				left = slices.Delete(left, i, i+1)
			} else {
				t.Errorf("%s: unexpected warning: %s", what, w)
			}
		}
		for _, text := range left {
			t.Errorf("%s: no warning %q", what, text)
		}
	}
	after := b.read(t.Context(), restored.ID)
	for i := range 2 { // it is back on the host that has these processors
		path := fmt.Sprintf("config.cpuAffinity.affinitySet[%d]", i)
		if before[path] != after[path] || after[path] == "" {
			t.Errorf("%s is %q", path, after[path])
		}
	}
	for _, line := range differ(before, after, always) {
		if !aboutHostDevice(line) && !strings.HasPrefix(line, "config.files.snapshotDirectory:") &&
			!strings.HasPrefix(line, "config.scheduledHardwareUpgradeInfo.") {
			t.Error(line)
		}
	}
	b.sameContent("web", content)
	labtest.AssertClean(t, b.lab)
}

func aboutHostDevice(line string) bool {
	for _, kind := range []string{"VirtualPCIPassthrough", "VirtualUSB@", "VirtualParallelPort", "VirtualSerialPort@VirtualSIOController0:1"} {
		if strings.HasPrefix(line, "config.hardware.device["+kind) {
			return true
		}
	}
	return false
}

// burden attaches to the first disk what doesn't belong to its content.
func (b *bench) burden() []types.BaseVirtualDeviceConfigSpec {
	b.Helper()
	var devices object.VirtualDeviceList
	devices, err := object.NewVirtualMachine(b.client.vim, vmRef(b.vm.ID)).Device(b.Context())
	must(b, err)
	d := orderedDisks(devices)[0]
	d.VDiskId, d.Iofilter = &types.ID{Id: "fcd-1"}, []string{"VMW_iofilter_1"}
	d.IndependentFilters = []types.BaseVirtualMachineBaseIndependentFilterSpec{
		&types.VirtualMachineIndependentFilterSpec{FilterName: "replicator"}}
	d.VFlashCacheConfigInfo = &types.VirtualDiskVFlashCacheConfigInfo{ReservationInMB: 64}
	if backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		backing.DigestEnabled = types.NewBool(true)
	}
	return []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d}}
}

// TestRestore_affinity brings back what binds a VM to processors only on the host that has them.
func TestRestore_affinity(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
		CpuAffinity:    &types.VirtualMachineAffinityInfo{AffinitySet: []int32{0, 1}},
		MemoryAffinity: &types.VirtualMachineAffinityInfo{AffinitySet: []int32{1}},
	})
	c := b.mustBackUp()
	captured, err := readCapture(c.config)
	must(t, err)
	hosts, err := b.client.list(t.Context(), "HostSystem", "name")
	must(t, err)
	other := ""
	for _, h := range hosts {
		if name, ok := h.PropSet[0].Val.(string); ok && name != captured.Host && strings.HasPrefix(name, "DC0_C0") {
			other = name
		}
	}
	for host, want := range map[string]int{captured.Host: 0, other: 2} {
		warnings, err := b.client.CheckRestore(t.Context(), hypervisor.RestoreSpec{
			Config: c.config, Identity: hypervisor.IdentityCopy, Name: "copy", Host: host})
		if err != nil || len(warnings) != want {
			t.Errorf("on %s: %q, %v, want %d warnings", host, warnings, err, want)
		}
	}
}

// TestCapture_surroundings names what is kept with the inventory or the cluster under the VM's ID.
func TestCapture_surroundings(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	vm := vmRef(b.vm.ID)
	manager := object.NewAuthorizationManager(b.client.vim)
	role, err := manager.AddRole(t.Context(), "Web operator", []string{"VirtualMachine.Interact.PowerOn"})
	must(t, err)
	must(t, manager.SetEntityPermissions(t.Context(), vm, []types.Permission{
		{Principal: `EXAMPLE\web`, Group: true, RoleId: role, Propagate: true}}))
	add := types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	rule := &types.ClusterAntiAffinityRuleSpec{ClusterRuleInfo: types.ClusterRuleInfo{Name: "apart"}, Vm: []types.ManagedObjectReference{vm}}
	group := &types.ClusterVmGroup{ClusterGroupInfo: types.ClusterGroupInfo{Name: "licensed"}, Vm: []types.ManagedObjectReference{vm}}
	cluster := object.NewClusterComputeResource(b.client.vim, b.path("/DC0/host/DC0_C0"))
	task, err := cluster.Reconfigure(t.Context(), &types.ClusterConfigSpecEx{
		RulesSpec:           []types.ClusterRuleSpec{{ArrayUpdateSpec: add, Info: rule}},
		GroupSpec:           []types.ClusterGroupSpec{{ArrayUpdateSpec: add, Info: group}},
		DrsVmConfigSpec:     []types.ClusterDrsVmConfigSpec{{ArrayUpdateSpec: add, Info: &types.ClusterDrsVmConfigInfo{Key: vm}}},
		DasVmConfigSpec:     []types.ClusterDasVmConfigSpec{{ArrayUpdateSpec: add, Info: &types.ClusterDasVmConfigInfo{Key: vm}}},
		VmOrchestrationSpec: []types.ClusterVmOrchestrationSpec{{ArrayUpdateSpec: add, Info: &types.ClusterVmOrchestrationInfo{Vm: vm}}},
	}, true)
	must(t, err)
	_, err = b.client.waitTask(t.Context(), task)
	must(t, err)
	c := b.mustBackUp()
	want := []string{
		`the DRS rule "apart", which the VM is part of, is not captured.`,
		`membership in the cluster's group "licensed" is not captured.`,
		"the cluster's DRS override for the VM is not captured.",
		"the cluster's HA override for the VM is not captured.",
		"the cluster's restart order override for the VM is not captured.",
		`the role "Web operator" of EXAMPLE\web on the VM is not captured.`,
	}
	if !slices.Equal(c.config.Warnings, want) {
		t.Errorf("warnings %q, want %q", c.config.Warnings, want)
	}
}

// TestOpenPointInTime_refused has VMs that no backup of could be restored as what they were.
func TestOpenPointInTime_refused(t *testing.T) {
	t.Parallel()
	b, _ := richBench(t, "web", pvscsiAndNVMe(), &types.VirtualTPM{VirtualDevice: types.VirtualDevice{Key: -80}})
	_, err := b.backUp(t.Context())
	var obstacle *hypervisor.ObstacleError
	if !errors.As(err, &obstacle) || len(obstacle.Obstacles) != 1 || obstacle.Obstacles[0].Kind != hypervisor.ObstacleTPM {
		t.Errorf("a VM with a vTPM: %v", err)
	}
	labtest.AssertClean(t, b.lab)
}
