package lab_test

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// refused asserts that something fails with a fault of the type of want.
func (e *env) refused(what string, err error, want types.BaseMethodFault) {
	e.t.Helper()
	if !fault.Is(err, want) {
		e.t.Errorf("%s: %v, want %T", what, err, want)
	}
}

// devices are the VM's devices.
func (e *env) devices() object.VirtualDeviceList {
	e.t.Helper()
	list, err := e.vm.Device(e.ctx)
	e.must(err)
	return list
}

// reconfigure tries to change the VM's devices.
func (e *env) reconfigure(op types.VirtualDeviceConfigSpecOperation, fop types.VirtualDeviceConfigSpecFileOperation,
	devices ...types.BaseVirtualDevice,
) error {
	e.t.Helper()
	var spec types.VirtualMachineConfigSpec
	for _, d := range devices {
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{Operation: op, FileOperation: fop, Device: d})
	}
	return e.wait(e.vm.Reconfigure(e.ctx, spec))
}

// disk is a disk of the VM.
func (e *env) disk(key int32) *types.VirtualDisk {
	e.t.Helper()
	d, ok := e.devices().FindByKey(key).(*types.VirtualDisk)
	if !ok {
		e.t.Fatalf("no disk %d", key)
	}
	return d
}

func flat(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	b, _ := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return b
}

// newDisk describes a disk to add.
func newDisk(unit int32, file string, capacity int64) *types.VirtualDisk {
	return &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: -1, ControllerKey: 1000, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file},
				ThinProvisioned:              types.NewBool(true),
			},
		},
		CapacityInBytes: capacity,
	}
}

const (
	opAdd     = types.VirtualDeviceConfigSpecOperationAdd
	opEdit    = types.VirtualDeviceConfigSpecOperationEdit
	opRemove  = types.VirtualDeviceConfigSpecOperationRemove
	create    = types.VirtualDeviceConfigSpecFileOperationCreate
	destroy   = types.VirtualDeviceConfigSpecFileOperationDestroy
	noFile    = types.VirtualDeviceConfigSpecFileOperation("")
	extraDisk = "[LocalDS_0] web01/extra.vmdk"
)

func TestLoginIsChecked(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	u := e.URL()
	u.User = url.UserPassword(e.User(), "wrong")
	_, err := govmomi.NewClient(e.ctx, u, true)
	e.refused("wrong password", err, &types.InvalidLogin{})
	before := len(e.Status().Sessions)
	c := e.login(e.User(), e.Password())
	if got := len(e.Status().Sessions); got != before+1 {
		t.Errorf("%d sessions", got)
	}
	e.must(c.Logout(e.ctx))
	_, err = object.NewVirtualMachine(c.Client, e.vm.Reference()).PowerOff(e.ctx)
	e.refused("logged out", err, &types.NotAuthenticated{})
}

func TestPowerRules(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.refused("on while on", e.wait(e.vm.PowerOn(e.ctx)), &types.InvalidPowerState{})
	e.refused("destroy while on", e.wait(e.vm.Destroy(e.ctx)), &types.InvalidPowerState{})
	e.refused("template while on", e.vm.MarkAsTemplate(e.ctx), &types.InvalidPowerState{})
	e.must(e.vm.ShutdownGuest(e.ctx))
	e.must(e.vm.WaitForPowerState(e.ctx, types.VirtualMachinePowerStatePoweredOff))
	e.refused("off while off", e.wait(e.vm.PowerOff(e.ctx)), &types.InvalidPowerState{})
	e.refused("suspend while off", e.wait(e.vm.Suspend(e.ctx)), &types.InvalidPowerState{})
	e.refused("reset while off", e.wait(e.vm.Reset(e.ctx)), &types.InvalidPowerState{})
	e.refused("shut down while off", e.vm.ShutdownGuest(e.ctx), &types.InvalidPowerState{})

	disk := object.NewVirtualDiskManager(e.client.Client)
	dc, err := e.finder.DefaultDatacenter(e.ctx)
	e.must(err)
	e.must(e.wait(disk.DeleteVirtualDisk(e.ctx, "[LocalDS_0] web01/web01_1.vmdk", dc)))
	e.refused("on without a disk's file", e.wait(e.vm.PowerOn(e.ctx)), &types.FileNotFound{})

	e.must(e.vm.MarkAsTemplate(e.ctx))
	_, err = e.vm.PowerOn(e.ctx)
	e.refused("template on", err, &types.InvalidState{})
	_, err = e.trySnapshot("of a template", false, false)
	e.refused("snapshot of a template", err, &types.NotSupported{})
}

func TestShutdownNeedsTools(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{rawDisk(t, 1<<20)}, ToolsNotRunning: true}}})
	e.refused("shut down", e.vm.ShutdownGuest(e.ctx), &types.ToolsUnavailable{})
}

func TestReconfigureIsAtomic(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	before := e.status("web01")
	files := len(e.Status().Files)
	spec := types.VirtualMachineConfigSpec{Annotation: "half", DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: opAdd, FileOperation: create, Device: newDisk(5, "", 1<<20)},
		&types.VirtualDeviceConfigSpec{Operation: opAdd, Device: newDisk(6, "[LocalDS_0] web01/not-there.vmdk", 0)},
	}}
	e.refused("attach what isn't there", e.wait(e.vm.Reconfigure(e.ctx, spec)), &types.FileNotFound{})
	if after := e.status("web01"); string(after.Config) != string(before.Config) {
		t.Errorf("changed from %s\nto %s", before.Config, after.Config)
	}
	if got := len(e.Status().Files); got != files {
		t.Errorf("%d files, there were %d", got, files)
	}
}

func TestReconfigureRefusals(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	try := func(spec types.VirtualMachineConfigSpec) error { return e.wait(e.vm.Reconfigure(e.ctx, spec)) }
	e.refused("stale version", try(types.VirtualMachineConfigSpec{ChangeVersion: "1", Annotation: "x"}), &types.ConcurrentAccess{})
	e.must(try(types.VirtualMachineConfigSpec{ChangeVersion: e.properties().Config.ChangeVersion, Annotation: "x"}))
	e.refused("guest", try(types.VirtualMachineConfigSpec{GuestId: "nonsenseGuest"}), &types.InvalidArgument{})
	e.refused("hardware", try(types.VirtualMachineConfigSpec{Version: "vmx-99"}), &types.VirtualHardwareVersionNotSupported{})
	e.refused("firmware while on", try(types.VirtualMachineConfigSpec{Firmware: "bios"}), &types.InvalidPowerState{})
	e.refused("less memory while on", try(types.VirtualMachineConfigSpec{MemoryMB: 1024}), &types.MemoryHotPlugNotSupported{})
	e.refused("fewer CPUs while on", try(types.VirtualMachineConfigSpec{NumCPUs: 1}), &types.CpuHotPlugNotSupported{})
	e.refused("unit 7", e.reconfigure(opAdd, create, newDisk(7, "", 1<<20)), &types.InvalidDeviceSpec{})
	e.refused("taken unit", e.reconfigure(opAdd, create, newDisk(0, "", 1<<20)), &types.InvalidDeviceSpec{})
	e.refused("no capacity", e.reconfigure(opAdd, create, newDisk(2, "", 0)), &types.InvalidDeviceSpec{})
	e.refused("taken file", e.reconfigure(opAdd, create, newDisk(2, "[LocalDS_0] web01/web01.vmdk", 1<<20)), &types.FileAlreadyExists{})
	thick := newDisk(2, "", 100<<40)
	flat(thick).ThinProvisioned = types.NewBool(false)
	e.refused("larger than the datastore", e.reconfigure(opAdd, create, thick), &types.NoDiskSpace{})
	card := &types.VirtualVmxnet3{}
	card.Key = -2
	card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "no such network"},
	}
	e.refused("unknown network", e.reconfigure(opAdd, noFile, card), &types.InvalidDeviceBacking{})
	shrunk := e.disk(2000)
	shrunk.CapacityInBytes, shrunk.CapacityInKB = 1<<20, 1<<10
	e.refused("shrink", e.reconfigure(opEdit, noFile, shrunk), &types.InvalidDeviceOperation{})

	e.snapshot("pins the disks")
	grown := e.disk(2000)
	grown.CapacityInBytes, grown.CapacityInKB = 8<<20, 8<<10
	e.refused("extend with snapshots", e.reconfigure(opEdit, noFile, grown), &types.InvalidDeviceOperation{})
	e.refused("destroy with snapshots", e.reconfigure(opRemove, destroy, e.disk(2000)), &types.InvalidDeviceOperation{})
}

func TestDisksComeAndGo(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.must(e.reconfigure(opAdd, create, newDisk(2, extraDisk, 1<<20)))
	d := e.disk(2002)
	if label := d.DeviceInfo.GetDescription().Label; label != "Hard disk 3" || flat(d).Uuid == "" {
		t.Errorf("%s %+v", label, flat(d))
	}
	id := flat(d).Uuid
	e.write(2, 4096, "kept")
	e.must(e.reconfigure(opRemove, noFile, d))
	e.must(e.reconfigure(opAdd, noFile, newDisk(3, extraDisk, 0)))
	if d = e.disk(2003); d.CapacityInBytes != 1<<20 || flat(d).Uuid != id {
		t.Errorf("%d %s, want %s", d.CapacityInBytes, flat(d).Uuid, id)
	}
	if got := e.read(2, 4096, 4); got != "kept" {
		t.Errorf("disk holds %q", got)
	}
	d.CapacityInBytes, d.CapacityInKB = 2<<20, 2<<10
	e.must(e.reconfigure(opEdit, noFile, d))
	e.write(2, 2<<20-512, "end")
	e.must(e.reconfigure(opRemove, destroy, e.disk(2003)))
	if slices.ContainsFunc(e.Status().Files, func(f lab.FileStatus) bool { return f.Name == extraDisk }) {
		t.Error("the file is still there")
	}
}

func TestSnapshotRefusals(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	independent := newDisk(2, "", 1<<20)
	flat(independent).DiskMode = string(types.VirtualDiskModeIndependent_persistent)
	e.must(e.reconfigure(opAdd, create, independent))
	_, err := e.trySnapshot("memory", true, false)
	e.refused("memory with an independent disk", err, &types.MemorySnapshotOnIndependentDisk{})
	s := e.snapshot("without memory")
	if got := e.status("web01").Disks[2]; len(got.Chain) != 1 {
		t.Errorf("the independent disk has a delta: %v", got.Chain)
	}
	e.write(2, 0, "stays")
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, true)))
	if e.read(2, 0, 5) != "stays" {
		t.Error("the revert touched an independent disk")
	}
	shared := newDisk(3, "", 1<<20)
	flat(shared).Sharing = string(types.VirtualDiskSharingSharingMultiWriter)
	e.must(e.reconfigure(opAdd, create, shared))
	_, err = e.trySnapshot("multi-writer", false, false)
	e.refused("multi-writer", err, &types.SnapshotIncompatibleDeviceInVm{})
	e.must(e.reconfigure(opRemove, destroy, e.disk(2003)))

	bus := &types.ParaVirtualSCSIController{}
	bus.Key, bus.BusNumber, bus.SharedBus = -5, 1, types.VirtualSCSISharingPhysicalSharing
	d := newDisk(0, "", 1<<20)
	d.ControllerKey = -5
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: opAdd, Device: bus},
		&types.VirtualDeviceConfigSpec{Operation: opAdd, FileOperation: create, Device: d},
	}})))
	if e.devices().FindByKey(2016) == nil {
		t.Errorf("no disk 2016 on controller 1001")
	}
	_, err = e.trySnapshot("shared bus", false, false)
	e.refused("shared bus", err, &types.SnapshotIncompatibleDeviceInVm{})
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{
		Flags: &types.VirtualMachineFlagInfo{SnapshotLocked: types.NewBool(true)},
	})))
	_, err = e.trySnapshot("locked", false, false)
	e.refused("locked", err, &types.SnapshotLocked{})
	if len(e.status("web01").Snapshots) != 1 {
		t.Errorf("%+v", e.status("web01").Snapshots)
	}
}

func TestGoneObjects(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	s := e.snapshot("one")
	e.must(e.wait(e.vm.RemoveSnapshot(e.ctx, s.Value, false, nil)))
	_, err := methods.RevertToSnapshot_Task(e.ctx, e.client, &types.RevertToSnapshot_Task{This: s})
	e.refused("revert to a removed snapshot", err, &types.ManagedObjectNotFound{})
	e.refused("revert without a snapshot", func() error {
		_, err := methods.RevertToCurrentSnapshot_Task(e.ctx, e.client, &types.RevertToCurrentSnapshot_Task{This: e.vm.Reference()})
		return err
	}(), &types.NotFound{})
	e.snapshot("goes with the VM")
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	e.must(e.wait(e.vm.Destroy(e.ctx)))
	_, err = e.vm.PowerOn(e.ctx)
	e.refused("power on a removed VM", err, &types.ManagedObjectNotFound{})
	if status := e.Status(); len(status.VMs) != 0 || len(status.Files) != 0 {
		t.Errorf("left behind: %+v", status.Files)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: time.Hour})
	first, err := e.vm.CreateSnapshot(e.ctx, "slow", "", false, false)
	e.must(err)
	second, err := e.vm.CreateSnapshot(e.ctx, "second", "", false, false)
	e.must(err)
	err = second.Wait(e.ctx)
	e.refused("second task", err, &types.TaskInProgress{})
	var busy *types.TaskInProgress
	if _, ok := fault.As(err, &busy); !ok || busy.Task != first.Reference() {
		t.Errorf("busy with %+v", busy)
	}
	consolidation, err := methods.ConsolidateVMDisks_Task(e.ctx, e.client, &types.ConsolidateVMDisks_Task{This: e.vm.Reference()})
	e.must(err)
	e.refused("consolidate meanwhile", e.wait(object.NewTask(e.client.Client, consolidation.Returnval), nil), &types.TaskInProgress{})
	if recent := e.properties().RecentTask; !slices.Contains(recent, first.Reference()) {
		t.Errorf("recent tasks: %v", recent)
	}
	var task mo.Task
	e.must(first.Properties(e.ctx, first.Reference(), []string{"info"}, &task))
	if task.Info.Task != first.Reference() || task.Info.Key != first.Reference().Value {
		t.Errorf("the task %s says of itself that it is %q, %q", first.Reference().Value, task.Info.Task.Value, task.Info.Key)
	}
	e.must(first.Cancel(e.ctx))
	e.refused("cancelled task", first.Wait(e.ctx), &types.RequestCanceled{})
	if len(e.status("web01").Snapshots) != 0 {
		t.Error("the cancelled snapshot is there")
	}
	e.snapshot("third")
	off, err := e.vm.PowerOff(e.ctx)
	e.must(err)
	e.must(off.Wait(e.ctx))
	e.refused("cancel what has ended", off.Cancel(e.ctx), &types.InvalidState{})
	e.Fault(lab.Fault{Method: "PowerOnVM_Task", Delay: 3 * time.Second})
	on, err := e.vm.PowerOn(e.ctx)
	e.must(err)
	e.refused("cancel what can't be", on.Cancel(e.ctx), &types.NotSupported{})
	e.must(on.Wait(e.ctx))
}

func TestFaults(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "ApplicationQuiesceFault", After: 1})
	e.snapshot("passes")
	_, err := e.trySnapshot("fails", false, false)
	e.refused("task", err, &types.ApplicationQuiesceFault{})
	e.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "call:NoPermission"})
	_, err = e.vm.CreateSnapshot(e.ctx, "call", "", false, false)
	e.refused("call", err, &types.NoPermission{})
	e.Fault(lab.Fault{Method: "RefreshStorageInfo", Fault: "drop"})
	if _, err := methods.RefreshStorageInfo(e.ctx, e.client, &types.RefreshStorageInfo{This: e.vm.Reference()}); err == nil {
		t.Error("a dropped connection is no error")
	}
	e.Fault(lab.Fault{Method: "RefreshStorageInfo", Fault: "503"})
	if _, err := methods.RefreshStorageInfo(e.ctx, e.client, &types.RefreshStorageInfo{This: e.vm.Reference()}); err == nil {
		t.Error("503 is no error")
	}
	e.Fault(lab.Fault{Method: "PowerOffVM_Task", Fault: "lost"})
	if _, err := e.vm.PowerOff(e.ctx); err == nil {
		t.Error("a lost answer is no error")
	}
	e.must(e.vm.WaitForPowerState(e.ctx, types.VirtualMachinePowerStatePoweredOff)) // it did act
	if unhit := e.UnhitFaults(); len(unhit) != 0 {
		t.Errorf("not hit: %+v", unhit)
	}
	e.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: "HostNotReachable"})
	if unhit := e.UnhitFaults(); len(unhit) != 1 {
		t.Errorf("not hit: %+v", unhit)
	}
	if calls := e.Calls(); calls["CreateSnapshot_Task"] != 3 || calls["RefreshStorageInfo"] != 2 {
		t.Errorf("%v", calls)
	}
}

func TestTwoLabs(t *testing.T) {
	t.Parallel()
	a, b := newEnv(t, lab.Options{}), newEnv(t, lab.Options{})
	ids := []string{a.client.ServiceContent.About.InstanceUuid, b.client.ServiceContent.About.InstanceUuid}
	if ids[0] == ids[1] || ids[0] == "" || a.Fingerprint() == b.Fingerprint() {
		t.Errorf("%v", ids)
	}
	a.snapshot("only here")
	if len(b.status("web01").Snapshots) != 0 || a.status("web01").BIOSUUID == b.status("web01").BIOSUUID {
		t.Errorf("%+v", b.status("web01"))
	}
}

func TestESX(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{ESX: true})
	e.write(0, 0, "esx")
	s := e.snapshot("one")
	e.write(0, 0, "xse")
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, true)))
	if e.read(0, 0, 3) != "esx" {
		t.Error("not reverted")
	}
	var host mo.HostSystem
	h, err := e.finder.DefaultHostSystem(e.ctx)
	e.must(err)
	e.must(h.Properties(e.ctx, h.Reference(), []string{"vm"}, &host))
	if len(host.Vm) != 1 {
		t.Errorf("%v", host.Vm)
	}
}
