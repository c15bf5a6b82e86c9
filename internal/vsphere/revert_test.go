package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// A revertBench is a lab with a VM that has a snapshot, and something written since.
type revertBench struct {
	*testing.T
	lab    *lab.Lab
	client *Client
	vm     hypervisor.VMID
	id     hypervisor.SnapshotID
	then   []byte // content of the disk in the snapshot
	now    []byte
}

func newRevertBench(t *testing.T, spec hypervisor.SnapshotSpec) *revertBench {
	t.Helper()
	b := &revertBench{T: t}
	b.lab, b.client = labWith(t, "web01")
	b.vm = find(t, b.client, "web01").ID
	b.id = b.snapshot(spec)
	b.then = readLabDisk(t, b.lab, "web01", 0)
	b.write("evil")
	b.now = readLabDisk(t, b.lab, "web01", 0)
	return b
}

func (b *revertBench) snapshot(spec hypervisor.SnapshotSpec) hypervisor.SnapshotID {
	b.Helper()
	id, err := b.client.CreateSnapshot(b.Context(), b.vm, spec)
	b.must(err)
	return id
}

func (b *revertBench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *revertBench) write(text string) {
	b.Helper()
	b.must(b.lab.WriteDisk("web01", 0, 4096, []byte(text)))
}

func (b *revertBench) reconfigure(spec types.VirtualMachineConfigSpec) {
	b.Helper()
	task, err := b.client.vm(b.vm).Reconfigure(b.Context(), spec)
	b.must(err)
	b.must(task.Wait(b.Context()))
}

func (b *revertBench) config() *types.VirtualMachineConfigInfo {
	b.Helper()
	var m mo.VirtualMachine
	b.must(b.client.properties(b.Context(), vmRef(b.vm), []string{"config"}, &m))
	return m.Config
}

func (b *revertBench) device(key int32) types.BaseVirtualDevice {
	b.Helper()
	d := object.VirtualDeviceList(b.config().Hardware.Device).FindByKey(key)
	if d == nil {
		b.Fatalf("there is no device %d", key)
	}
	return d
}

// wantReverted checks the disk's bytes and the current snapshot.
func (b *revertBench) wantReverted(reverted bool) {
	b.Helper()
	want := b.now
	if reverted {
		want = b.then
	}
	if !bytes.Equal(readLabDisk(b.T, b.lab, "web01", 0), want) {
		b.Errorf("the disk is not as it should be; reverted: %t", reverted)
	}
	for _, s := range list(b.T, b.client, b.vm) {
		if reverted && s.Current != (s.ID == b.id) {
			b.Errorf("current: %+v", s)
		}
	}
	for _, task := range b.lab.Status().Tasks {
		if task.State == "running" || task.State == "queued" {
			b.Errorf("task %s runs still", task.Name)
		}
	}
}

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
	from, to := connectedTo(port), connectedTo(card.GetVirtualDevice().Backing)
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
		fmt.Sprintf("Network adapter 1 goes back from %s to %s.", from, to),
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

// TestRevert_troubles has reverts meet what a server and a network do. Whatever it is, what is told is so.
func TestRevert_troubles(t *testing.T) {
	t.Parallel()
	var denied *hypervisor.PermissionError
	for _, c := range []struct {
		fault    lab.Fault
		fails    bool
		sentinel error
	}{
		{fault: lab.Fault{Fault: "TaskInProgress", Count: 2}},
		{fault: lab.Fault{Fault: "call:TaskInProgress", Count: 2}},
		{fault: lab.Fault{Fault: "drop"}},                           // nothing has happened: again
		{fault: lab.Fault{Fault: "lost"}},                           // it has
		{fault: lab.Fault{Fault: "lost", Count: 2}},                 // the first has, so that there is no second
		{fault: lab.Fault{Fault: "503", Count: 2}},                  // a proxy
		{fault: lab.Fault{Fault: "call:NotAuthenticated"}},          // the session ended
		{fault: lab.Fault{Fault: "drop", Count: -1}, fails: true},   // for good
		{fault: lab.Fault{Fault: "InvalidState"}, fails: true},      // the task fails
		{fault: lab.Fault{Fault: "call:InvalidState"}, fails: true}, // the call fails
		{fault: lab.Fault{Fault: "NoPermission"}, fails: true},      // the user may not
		{fault: lab.Fault{Fault: "call:NoPermission"}, fails: true}, //
		{fault: lab.Fault{Fault: "InsufficientResourcesFault"}, fails: true},
		{fault: lab.Fault{Fault: "ManagedObjectNotFound"}, fails: true},
		{fault: lab.Fault{Fault: "NoDiskSpace"}, fails: true},
	} {
		t.Run(fmt.Sprintf("%s %d", c.fault.Fault, c.fault.Count), func(t *testing.T) {
			t.Parallel()
			b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
			c.fault.Method = "RevertToSnapshot_Task"
			once := c.fault.Fault == "lost" && c.fault.Count == 2
			if once {
				c.fault.Count = 1
				b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "lost", After: 6})
			}
			b.lab.Fault(c.fault)
			vm, _, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{})
			if (err != nil) != c.fails || (vm == nil) != c.fails {
				t.Fatalf("got %v and %v", vm, err)
			}
			if strings.HasSuffix(c.fault.Fault, "NoPermission") &&
				(!errors.As(err, &denied) || denied.Privilege != "VirtualMachine.State.RevertToSnapshot") {
				t.Errorf("got %v", err)
			}
			b.wantReverted(!c.fails)
			if n := b.lab.Calls()["RevertToSnapshot_Task"]; c.fault.Fault == "lost" && n != 1 {
				t.Errorf("%d reverts", n)
			}
		})
	}
}

// TestRevert_interrupted ends the context at different moments.
func TestRevert_interrupted(t *testing.T) {
	t.Parallel()
	for _, method := range []string{
		"RetrievePropertiesEx", "RevertToSnapshot_Task", "CreateFilter", "WaitForUpdatesEx", "CancelTask",
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answer lost %t", method, lost), func(t *testing.T) {
				t.Parallel()
				b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var begun atomic.Bool
				b.lab.OnCall(method, func(context.Context) {
					if begun.Load() || method == "RetrievePropertiesEx" {
						cancel()
					}
				})
				b.lab.OnCall("RevertToSnapshot_Task", func(context.Context) {
					begun.Store(true)
					if method == "RevertToSnapshot_Task" || method == "CancelTask" {
						cancel()
					}
				})
				if lost && method != "RetrievePropertiesEx" {
					b.lab.Fault(lab.Fault{Method: "RevertToSnapshot_Task", Fault: "lost"})
				}
				vm, _, err := b.client.RevertToSnapshot(ctx, b.vm, b.id, hypervisor.RevertOptions{})
				if method == "RetrievePropertiesEx" && vm != nil {
					t.Error("it was reverted although the context had ended before")
				}
				if ctx.Err() == nil || err != nil && !errors.Is(err, context.Canceled) || vm == nil && err == nil {
					t.Errorf("got %v and %v", vm, err)
				}
				b.wantReverted(vm != nil)
			})
		}
	}
}

// TestRevert_slow cancels a task that takes its time and then fails.
func TestRevert_slow(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	b.lab.Fault(lab.Fault{Method: "RevertToSnapshot_Task", Fault: "InvalidState", Delay: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.lab.OnCall("RevertToSnapshot_Task", func(context.Context) { cancel() })
	vm, _, err := b.client.RevertToSnapshot(ctx, b.vm, b.id, hypervisor.RevertOptions{})
	if vm != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v and %v", vm, err)
	}
	b.wantReverted(false)
}

// TestRevert_unverified has the server say that it reverted although the current snapshot is another.
func TestRevert_unverified(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	other := b.snapshot(hypervisor.SnapshotSpec{Name: "b"})
	before, err := b.client.revertState(t.Context(), b.vm, b.id)
	b.must(err)
	done, err := b.client.verifyReverted(t.Context(), b.vm, b.id, before, nil)
	if done || err == nil || !strings.Contains(err.Error(), string(other)) {
		t.Errorf("got %t and %v", done, err)
	}
	b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "call:NoPermission"})
	if done, err := b.client.verifyReverted(t.Context(), b.vm, other, before, nil); !done || err == nil {
		t.Errorf("got %t and %v", done, err)
	}
	// Somebody takes a snapshot right after the revert.
	b.snapshot(hypervisor.SnapshotSpec{Name: "c"})
	if done, err := b.client.verifyReverted(t.Context(), b.vm, other, before, nil); !done || err != nil {
		t.Errorf("with a new snapshot on top: got %t and %v", done, err)
	}
}

// TestRevert_obstacles refuses VMs that can't be reverted before anything is asked of the server.
func TestRevert_obstacles(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	b.reconfigure(types.VirtualMachineConfigSpec{Flags: &types.VirtualMachineFlagInfo{SnapshotLocked: types.NewBool(true)}})
	var obstacle *hypervisor.ObstacleError
	if _, err := b.client.RevertChanges(t.Context(), b.vm, b.id); !errors.As(err, &obstacle) {
		t.Errorf("preview: %v", err)
	}
	if _, _, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{}); !errors.As(err, &obstacle) {
		t.Errorf("revert: %v", err)
	}
	if n := b.lab.Calls()["RevertToSnapshot_Task"]; n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	b.wantReverted(false)
}

// TestRevert_question has a VM that wants to know something before it resumes, for which its task waits.
func TestRevert_question(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a", Memory: true})
	b.lab.Fault(lab.Fault{Method: "RevertToSnapshot_Task", Delay: time.Minute})
	var begun atomic.Bool
	b.lab.OnCall("RevertToSnapshot_Task", func(context.Context) { begun.Store(true) })
	b.lab.OnCall("WaitForUpdatesEx", func(context.Context) {
		ctx := *b.lab.Model().Service.Context
		vm, ok := ctx.Map.Get(vmRef(b.vm)).(*simulator.VirtualMachine)
		if !begun.Load() || !ok {
			return
		}
		ctx.WithLock(vm, func() {
			ctx.Update(vm, []types.PropertyChange{{Name: "runtime.question", Val: types.VirtualMachineQuestionInfo{
				Id: "1", Text: "the CPU has changed: resume?",
			}}})
		})
	})
	vm, _, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{})
	if vm != nil || err == nil || !strings.Contains(err.Error(), "the CPU has changed") {
		t.Errorf("got %v and %v", vm, err)
	}
}

// TestRevert_answerAfterwards can't read the VM any more when it is reverted.
func TestRevert_answerAfterwards(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	var reverted atomic.Bool
	b.lab.OnCall("RevertToSnapshot_Task", func(context.Context) { reverted.Store(true) })
	b.lab.OnCall("RetrievePropertiesEx", func(context.Context) {
		if reverted.CompareAndSwap(true, false) {
			b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "call:NoPermission", Count: 2})
		}
	})
	vm, _, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{})
	if vm == nil || err == nil {
		t.Errorf("got %v and %v", vm, err)
	}
	b.wantReverted(true)
}

// TestRevert_manyAtOnce reverts while snapshots are taken and removed.
func TestRevert_manyAtOnce(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	other := dial(t, labConfig(b.lab))
	errs := make(chan error)
	const each = 4
	for n := range each {
		for _, c := range []*Client{b.client, other} {
			go func() {
				_, _, err := c.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{Stay: true})
				errs <- err
			}()
			go func() {
				id, err := c.CreateSnapshot(t.Context(), b.vm, hypervisor.SnapshotSpec{Name: fmt.Sprint(n)})
				if err == nil {
					err = c.RemoveSnapshot(t.Context(), b.vm, id, hypervisor.RemoveOptions{})
				}
				errs <- err
			}()
		}
	}
	for range each * 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	b.must(b.client.RemoveSnapshot(t.Context(), b.vm, b.id, hypervisor.RemoveOptions{}))
	b.now = b.then
	b.wantReverted(false)
	labtest.AssertClean(t, b.lab)
}
