package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
			if c.fault.Fault == "lost" && c.fault.Count == 2 { // the answer, and then that to the question what became of it
				c.fault.Count = 1
				b.lab.OnCall("RevertToSnapshot_Task", func(context.Context) {
					b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "lost"})
				})
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

// A revert that was carried out before is not taken for one of which the server has heard nothing.
func TestRevert_again(t *testing.T) {
	t.Parallel()
	b := newRevertBench(t, hypervisor.SnapshotSpec{Name: "a"})
	for _, fault := range []lab.Fault{{}, {Method: "RevertToSnapshot_Task", Fault: "drop"}} {
		if fault.Method != "" {
			b.write("evil once more")
			b.lab.Fault(fault)
		}
		_, _, err := b.client.RevertToSnapshot(t.Context(), b.vm, b.id, hypervisor.RevertOptions{})
		b.must(err)
		b.wantReverted(true)
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
