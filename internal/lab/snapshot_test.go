package lab_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// snapshot takes a snapshot without memory and returns it.
func (e *env) snapshot(name string) types.ManagedObjectReference {
	e.t.Helper()
	ref, err := e.trySnapshot(name, false, false)
	e.must(err)
	return ref
}

func (e *env) trySnapshot(name string, memory, quiesce bool) (types.ManagedObjectReference, error) {
	e.t.Helper()
	task, err := e.vm.CreateSnapshot(e.ctx, name, "about "+name, memory, quiesce)
	e.must(err)
	info, err := task.WaitForResult(e.ctx)
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		e.t.Fatalf("result is %T", info.Result)
	}
	return ref, nil
}

// wait waits for a task and returns its fault.
func (e *env) wait(task *object.Task, err error) error {
	e.t.Helper()
	e.must(err)
	return task.Wait(e.ctx)
}

// status is what the lab says about a VM.
func (e *env) status(name string) lab.VMStatus {
	e.t.Helper()
	for _, vm := range e.Status().VMs {
		if vm.Name == name {
			return vm
		}
	}
	e.t.Fatalf("no VM %q", name)
	return lab.VMStatus{}
}

// properties reads all properties of the VM.
func (e *env) properties() mo.VirtualMachine {
	e.t.Helper()
	var vm mo.VirtualMachine
	e.must(e.vm.Properties(e.ctx, e.vm.Reference(), nil, &vm))
	return vm
}

func (e *env) write(disk int, offset int64, text string) {
	e.t.Helper()
	e.must(e.WriteDisk("web01", disk, offset, []byte(text)))
}

func (e *env) read(disk int, offset int64, n int) string {
	e.t.Helper()
	p := make([]byte, n)
	e.must(e.ReadDisk("web01", disk, offset, p))
	return string(p)
}

func TestSnapshotChain(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	before := e.status("web01")
	s1 := e.snapshot("one")
	e.write(0, 100, "after one")
	s2 := e.snapshot("two")

	vm := e.status("web01")
	want := []string{
		"[LocalDS_0] web01/web01-000002.vmdk", "[LocalDS_0] web01/web01-000001.vmdk", "[LocalDS_0] web01/web01.vmdk",
	}
	if got := vm.Disks[0]; fmt.Sprint(got.Chain) != fmt.Sprint(want) || got.UUID != before.Disks[0].UUID || got.Key != 2000 {
		t.Errorf("%+v", got)
	}
	var snap mo.VirtualMachineSnapshot
	e.must(e.vm.Properties(e.ctx, s2, []string{"config", "vm", "childSnapshot"}, &snap))
	backing, ok := snap.Config.Hardware.Device[10].GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok || backing.FileName != want[1] || backing.Parent == nil || backing.Parent.FileName != want[2] {
		t.Errorf("frozen: %+v", snap.Config.Hardware.Device[10])
	}
	if len(vm.Snapshots) != 2 || vm.Snapshots[1].Parent != s1.Value || !vm.Snapshots[1].Current ||
		vm.Snapshots[0].Description != "about one" || vm.Snapshots[0].State != "poweredOff" {
		t.Errorf("%+v", vm.Snapshots)
	}
	o := e.properties()
	if o.LayoutEx == nil || len(o.LayoutEx.Snapshot) != 2 || len(o.LayoutEx.Disk[0].Chain) != 3 {
		t.Fatalf("layout: %+v", o.LayoutEx)
	}
	if size := object.SnapshotSize(s2, &s1, o.LayoutEx, false); size < 64<<10 || size > 1<<20 {
		t.Errorf("size of the second snapshot is %d", size)
	}
	if e.read(0, 100, 9) != "after one" {
		t.Error("the running VM lost a write")
	}
}

func TestRemoveMiddle(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	s1 := e.snapshot("one")
	e.write(0, 0, "one-two")
	s2 := e.snapshot("two")
	e.write(0, 4096, "two-now")
	e.must(e.wait(e.vm.RemoveSnapshot(e.ctx, s1.Value, false, nil)))
	vm := e.status("web01")
	if got := strings.Join(vm.Disks[0].Chain, " < "); got != "[LocalDS_0] web01/web01-000002.vmdk < [LocalDS_0] web01/web01.vmdk" {
		t.Errorf("chain: %s", got)
	}
	var snap mo.VirtualMachineSnapshot
	e.must(e.vm.Properties(e.ctx, s2, []string{"config"}, &snap))
	if b, ok := snap.Config.Hardware.Device[10].GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo); !ok ||
		b.FileName != "[LocalDS_0] web01/web01.vmdk" || b.Parent != nil {
		t.Errorf("frozen disk of two: %+v", b)
	}
	if e.read(0, 0, 7) != "one-two" || e.read(0, 4096, 7) != "two-now" {
		t.Error("bytes lost")
	}
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s2.Value, true)))
	if e.read(0, 0, 7) != "one-two" || e.read(0, 4096, 7) == "two-now" {
		t.Error("revert to two is not two")
	}
	e.must(e.wait(e.vm.RemoveAllSnapshot(e.ctx, nil)))
	vm = e.status("web01")
	if len(vm.Snapshots) != 0 || vm.Disks[0].File != "[LocalDS_0] web01/web01.vmdk" || len(vm.Disks[0].Chain) != 1 {
		t.Errorf("%+v", vm)
	}
	for _, f := range e.Status().Files {
		if strings.Contains(f.Name, "-0000") || strings.Contains(f.Name, "Snapshot") {
			t.Errorf("left over: %s", f.Name)
		}
	}
	if o := e.properties(); o.Snapshot != nil || len(o.RootSnapshot) != 0 {
		t.Errorf("snapshots: %+v", o.Snapshot)
	}
}

func TestRemoveChildrenAndConsolidateLater(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.snapshot("root")
	e.write(0, 0, "root-a")
	a := e.snapshot("a")
	e.snapshot("a/1")
	no := false
	e.must(e.wait(e.vm.RemoveSnapshot(e.ctx, a.Value, true, &no)))
	vm := e.properties()
	if !vm.Runtime.ConsolidationNeeded {
		t.Error("consolidation is not needed")
	}
	if s := e.status("web01"); len(s.Snapshots) != 1 || !s.Snapshots[0].Current || len(s.Disks[0].Chain) != 4 {
		t.Errorf("%+v", s)
	}
	var gone mo.VirtualMachineSnapshot
	if err := e.vm.Properties(e.ctx, a, []string{"config"}, &gone); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("removed snapshot: %v", err)
	}
	res, err := methods.ConsolidateVMDisks_Task(e.ctx, e.client, &types.ConsolidateVMDisks_Task{This: e.vm.Reference()})
	e.must(err)
	e.must(object.NewTask(e.client.Client, res.Returnval).Wait(e.ctx))
	vm = e.properties()
	if vm.Runtime.ConsolidationNeeded || len(e.status("web01").Disks[0].Chain) != 2 || e.read(0, 0, 6) != "root-a" {
		t.Errorf("%+v", e.status("web01").Disks)
	}
}

func TestRevert(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.write(1, 65536, "good")
	s := e.snapshot("good")
	e.write(1, 65536, "evil")
	old := e.properties().Config
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{
		Annotation: "broken", NumCPUs: 4, MemoryMB: 4096,
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "guestinfo.role", Value: "db"}},
	})))
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, true)))
	vm := e.properties()
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff || e.read(1, 65536, 4) != "good" {
		t.Errorf("power %s, disk %q", vm.Runtime.PowerState, e.read(1, 65536, 4))
	}
	now := vm.Config
	if now.Annotation != old.Annotation || now.Hardware.NumCPU != 2 || now.Hardware.MemoryMB != 2048 ||
		vm.Summary.Config.NumCpu != 2 || len(now.ExtraConfig) != len(old.ExtraConfig) {
		t.Errorf("%+v", now)
	}
	deltas := 0
	for _, f := range e.Status().Files {
		if strings.HasSuffix(f.Name, "-delta.vmdk") {
			deltas++
		}
	}
	if deltas != 2 {
		t.Errorf("%d deltas of two disks after a revert", deltas)
	}
	// A snapshot with memory leads back to a running VM, unless told otherwise.
	e.must(e.wait(e.vm.PowerOn(e.ctx)))
	m, err := e.trySnapshot("memory", true, false)
	e.must(err)
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, m.Value, false)))
	if state := e.properties().Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("power state is %s", state)
	}
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, m.Value, true)))
	if state := e.properties().Runtime.PowerState; state != types.VirtualMachinePowerStateSuspended {
		t.Errorf("power state is %s", state)
	}
	task, err := e.vm.RevertToSnapshot(e.ctx, "good", true)
	e.must(e.wait(task, err))
	if st := e.status("web01"); !st.Snapshots[0].Current {
		t.Errorf("%+v", st.Snapshots)
	}
}

func TestSnapshotNamesAndRename(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	s := e.snapshot(`50% a/b\c %2f`)
	if got := e.status("web01").Snapshots[0].Name; got != `50%25 a%2fb%5cc %2f` {
		t.Errorf("name is %q", got)
	}
	_, err := methods.RenameSnapshot(e.ctx, e.client, &types.RenameSnapshot{This: s, Name: "new", Description: "text"})
	e.must(err)
	if got := e.status("web01").Snapshots[0]; got.Name != "new" || got.Description != "text" {
		t.Errorf("%+v", got)
	}
	_, err = methods.RenameSnapshot(e.ctx, e.client, &types.RenameSnapshot{This: s})
	if !fault.Is(err, &types.InvalidArgument{}) {
		t.Errorf("rename to nothing: %v", err)
	}
}

func TestQuiesceIsHonest(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	_, err := e.trySnapshot("quiesced", false, true)
	e.must(err)
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	_, err = e.trySnapshot("off", false, true)
	e.must(err)
	got := e.status("web01").Snapshots
	if !got[0].Quiesced || got[1].Quiesced {
		t.Errorf("%+v", got)
	}
	e.must(e.AddVM(e.ctx, lab.VMSpec{Name: "off", Disks: []string{rawDisk(t, 1<<20)}, PoweredOff: true}))
	e.vm = e.find("off")
	if status := e.properties().Guest.ToolsRunningStatus; status != "guestToolsNotRunning" {
		t.Errorf("Tools of a VM that never ran: %s", status)
	}
	_, err = e.trySnapshot("off", false, true)
	e.must(err)
	if e.status("off").Snapshots[0].Quiesced {
		t.Error("a VM that is off was quiesced")
	}
}

func TestTooDeep(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{rawDisk(t, 1<<20)}}}})
	for i := range 32 {
		e.snapshot(fmt.Sprint("level ", i+1))
	}
	if _, err := e.trySnapshot("one too many", false, false); !fault.Is(err, &types.TooManySnapshotLevels{}) {
		t.Errorf("level 33: %v", err)
	}
	want := bytes.Repeat([]byte("x"), 512)
	e.must(e.WriteDisk("web01", 0, 0, want))
	e.must(e.wait(e.vm.RemoveAllSnapshot(e.ctx, nil)))
	if got := e.read(0, 0, 512); got != string(want) {
		t.Error("bytes lost")
	}
}
