package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// tick makes the client's time go by hand. What tick sends is received when what came of the one before has been
// done.
func (b *bench) tick() chan<- time.Time {
	ticks := make(chan time.Time)
	b.client.ticks = func(time.Duration) (<-chan time.Time, func()) { return ticks, func() {} }
	return ticks
}

// ticked lets the client renew its lease once.
func ticked(t *testing.T, ticks chan<- time.Time) {
	t.Helper()
	for range 2 {
		select {
		case ticks <- time.Time{}:
		case <-t.Context().Done():
			t.Fatal("nobody renews")
		}
	}
}

func (b *inPlaceBench) lease() string {
	b.Helper()
	found, err := b.client.InterruptedInPlace(b.Context(), b.vm.ID)
	must(b.T, err)
	if found == nil {
		return ""
	}
	return found.Lease
}

// started starts a restore in place, with its disks written.
func (b *inPlaceBench) started(spec hypervisor.InPlaceSpec) *inPlace {
	b.Helper()
	r, err := b.client.StartInPlace(b.Context(), spec)
	must(b.T, err)
	must(b.T, b.write(b.Context(), r, spec))
	p, ok := r.(*inPlace)
	if !ok {
		b.Fatalf("got %T", r)
	}
	return p
}

// A restore shows that it lives, from its start to its end, whatever came of its context.
func TestInPlace_lease(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	ticks := b.tick()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.client.StartInPlace(ctx, b.spec("run-1"))
	must(t, err)
	first := b.lease()
	cancel()
	ticked(t, ticks)
	second := b.lease()
	if first == "" || second == "" || first == second {
		t.Errorf("the lease was %q and is %q", first, second)
	}
	b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidState"})
	ticked(t, ticks) // one of them fails
	ticked(t, ticks)
	if got := b.lease(); got == second {
		t.Errorf("after a failure the lease still is %q", got)
	}
	must(t, r.Abort(t.Context()))
	if got := b.lease(); got != "" {
		t.Errorf("after the end there is the lease %q", got)
	}
	select {
	case ticks <- time.Time{}:
		t.Error("somebody goes on renewing")
	default:
	}
	b.untouched()
	b.sameContent("undone", b.after)
}

// tickOn has a lease renewed as soon as it was, until it is stopped, and says how often that was.
func tickOn(ticks chan<- time.Time) (stop func() int) {
	over, renewed := make(chan struct{}), make(chan int, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case ticks <- time.Time{}:
			case <-over:
				renewed <- n
				return
			}
		}
	}()
	return func() int {
		close(over)
		return <-renewed
	}
}

// However often the lease is renewed, it gets in the way of no step.
func TestInPlace_leaseInBetween(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	stop := tickOn(b.tick())
	spec := b.spec("run-1")
	spec.Hardware = true
	out := b.mustInPlace(spec)
	renewed := stop()
	b.sameContent("restored", b.before)
	b.deleteReplaced(out.replaced)
	b.untouched()
	if renewed < 2 {
		t.Errorf("renewed %d times", renewed)
	}
}

// claim takes the journal of the VM over and leaves it at that.
func (b *inPlaceBench) claim(client *Client, by string) (*recovery, *journal, error) {
	ctx := b.Context()
	found, err := client.InterruptedInPlace(ctx, b.vm.ID)
	if err != nil {
		return nil, nil, err
	}
	vm, err := client.readTarget(ctx, b.vm.ID)
	if err != nil {
		return nil, nil, err
	}
	j, err := readJournal(vm.Config)
	if err != nil {
		return nil, nil, err
	}
	r := &recovery{client: client, id: b.vm.ID, tenure: &tenure{client: client, vm: b.vm.ID, holder: by}}
	if r.line, err = client.ancestors(ctx, vmRef(b.vm.ID)); err != nil {
		return nil, nil, err
	}
	j, err = r.claim(ctx, j, *found)
	r.tenure.release()
	return r, j, err
}

// take takes the restore in place of the VM over, as another process does that saw no sign of life. ended says
// whether it also has ended it.
func (b *inPlaceBench) take(other *Client, ended bool) {
	if !ended {
		if _, _, err := b.claim(other, "run-2"); err != nil {
			b.Errorf("take over: %v", err)
		}
		return
	}
	found, err := other.InterruptedInPlace(b.Context(), b.vm.ID)
	if err == nil {
		_, _, _, err = other.RecoverInPlace(b.Context(), b.vm.ID, *found, "run-2")
	}
	if err != nil {
		b.Errorf("take over: %v", err)
	}
}

// changing are calls that change a VM without its journal, or files.
var changing = []string{"PUT /folder", "PowerOnVM_Task", "PowerOffVM_Task", "RemoveAllSnapshots_Task", "DeleteVirtualDisk_Task", "DeleteDatastoreFile_Task"}

// A recovery that is taken over stops, too: when the VM has its own disks, and when it has the restored ones.
func TestInPlace_recoveryTakenOver(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"destroy", "NVRAM"} {
		d := named(t, name)
		b, spec := newMortalBench(t, d)
		b.die(d, spec)
		r, j, err := b.claim(b.client, "run-2")
		must(t, err)
		j.Restart = true
		if _, _, err := b.claim(dial(t, labConfig(b.lab)), "run-3"); err != nil {
			t.Fatal(err)
		}
		was, files := b.lab.Calls(), len(b.lab.Status().Files)
		for what, step := range map[string]func() error{
			"swap back": func() error { _, err := r.swapBack(t.Context(), j); return err },
			"undo":      func() error { return r.undo(t.Context(), j) },
			"restart":   func() error { return r.restart(t.Context(), j) },
			"finish": func() error {
				return b.client.finishInPlace(t.Context(), b.vm.ID, r.line, &journal{Holder: "run-2"}, nil)
			},
		} {
			if err := step(); !errors.Is(err, hypervisor.ErrTakenOver) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		is := b.lab.Calls()
		for _, call := range append([]string{"ReconfigVM_Task"}, changing...) {
			if is[call] != was[call] {
				t.Errorf("%s: %s was called", name, call)
			}
		}
		if now := len(b.lab.Status().Files); now != files {
			t.Errorf("%s: %d files, were %d", name, now, files)
		}
	}
}

// A run that was paused for so long that another one has taken the VM over stops, wherever it was, and leaves the
// VM and all disks as the other has them.
func TestInPlace_takenOver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, at string
		nth      int32
		nvram    bool
		powerOff bool
		snaps    bool
		swapped  bool
	}{
		{name: "about to stop", at: "ReconfigVM_Task", nth: stopChange},
		{name: "the guest shuts down", at: "ShutdownGuest"},
		{name: "about to power off", at: "ShutdownGuest", powerOff: true},
		{name: "about to remove snapshots", at: "ShutdownGuest", snaps: true},
		{name: "about to swap", at: "ReconfigVM_Task", nth: swapChange},
		{name: "about to write NVRAM", at: "ReconfigVM_Task", nth: swapChange + 1, nvram: true, swapped: true},
		{name: "about to change hardware", at: "ReconfigVM_Task", nth: hardwareChange, swapped: true},
	} {
		for _, ended := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{false: ", at work", true: ", ended"}[ended], func(t *testing.T) {
				t.Parallel()
				b := newInPlaceBench(t, 1<<20, 1<<20)
				b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{Annotation: "changed since"})
				other := dial(t, labConfig(b.lab))
				spec := b.spec("run-1")
				spec.Hardware, spec.PowerOff, spec.RemoveSnapshots = true, tt.powerOff, tt.snaps
				if tt.nvram {
					spec.Config.NVRAM = []byte("variables that were captured")
				}
				if tt.snaps {
					_, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "somebody's"})
					must(t, err)
				}
				if tt.powerOff {
					b.lab.Fault(lab.Fault{Method: "ShutdownGuest", Fault: "ToolsUnavailable"})
				}
				r := b.started(spec)
				calls := int32(journalChange + 1)
				if tt.at != "ReconfigVM_Task" {
					calls = 0
				}
				var once atomic.Bool
				var called map[string]int
				b.lab.OnCall(tt.at, func(context.Context) {
					if calls++; calls != tt.nth+1 || !once.CompareAndSwap(false, true) {
						return
					}
					b.lab.OnCall(tt.at, nil)
					b.take(other, ended)
					r.tenure.mu.Lock()
					r.tenure.held = r.tenure.held.Add(-vacancy) // it was paused
					r.tenure.mu.Unlock()
					called = b.lab.Calls()
				})
				_, _, _, err := r.Swap(t.Context())
				if !once.Load() || err == nil {
					t.Fatalf("swap: %v", err)
				}
				for _, call := range changing {
					if n := b.lab.Calls()[call]; n != called[call] {
						t.Errorf("%s was called", call)
					}
				}
				was, files := b.status(benchVM), b.lab.Status().Files
				if err := r.Holds(t.Context()); !errors.Is(err, hypervisor.ErrTakenOver) {
					t.Errorf("holds: %v", err)
				}
				if err := r.Back(t.Context()); tt.swapped && !errors.Is(err, hypervisor.ErrTakenOver) {
					t.Errorf("back: %v", err)
				}
				if err := r.Finish(t.Context(), nil); tt.swapped && !errors.Is(err, hypervisor.ErrTakenOver) {
					t.Errorf("finish: %v", err)
				}
				if err := r.Abort(t.Context()); err != nil && !errors.Is(err, hypervisor.ErrTakenOver) {
					t.Errorf("abort: %v", err)
				}
				is := b.status(benchVM)
				if is.PowerState != was.PowerState || len(is.Snapshots) != len(was.Snapshots) || is.Disks[0].File != was.Disks[0].File {
					t.Errorf("the VM is %+v, was %+v", is, was)
				}
				if now := b.lab.Status().Files; len(now) != len(files) {
					t.Errorf("files %+v, were %+v", now, files)
				}
				if tt.snaps && len(is.Snapshots) != 1 {
					t.Errorf("snapshots %+v", is.Snapshots)
				}
				if !ended {
					_, kept, _, err := b.recover(t.Context(), b.vm.ID)
					must(t, err)
					b.deleteReplaced(kept)
				} else {
					kept, err := b.client.KeptDisks(t.Context(), b.vm.ID)
					must(t, err)
					b.deleteReplaced(kept)
				}
				b.sameContent("recovered", b.after)
				if !tt.snaps {
					b.untouched()
				}
			})
		}
	}
}

// One that still uploads ends that: who has taken the VM over waits for it.
func TestInPlace_takenOverWhileWriting(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	ticks := b.tick()
	spec := b.spec("run-1")
	r, err := b.client.StartInPlace(t.Context(), spec)
	must(t, err)
	b.lab.Fault(lab.Fault{Method: "POST /nfc", Fault: "hang"})
	b.lab.OnCall("POST /nfc", func(context.Context) {
		b.take(dial(t, labConfig(b.lab)), false)
		ticks <- time.Time{}
	})
	if err := b.write(t.Context(), r, spec); !errors.Is(err, hypervisor.ErrTakenOver) {
		t.Errorf("write: %v", err)
	}
	must(t, r.Abort(t.Context()))
	_, kept, _, err := b.recover(t.Context(), b.vm.ID)
	if err != nil || len(kept) > 0 {
		t.Errorf("kept %+v, %v", kept, err)
	}
	b.sameContent("taken over", b.after)
	b.untouched()
}

// A journal that is gone after a long pause may have been ended by another run: then nothing is touched.
func TestInPlace_journalGoneAfterPause(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	r := b.started(b.spec("run-1"))
	b.lab.OnCall("ShutdownGuest", func(context.Context) {
		b.lab.OnCall("ShutdownGuest", nil)
		b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
			ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: journalKey, Value: ""}}})
	})
	if _, _, _, err := r.Swap(t.Context()); !errors.Is(err, errNoJournal) {
		t.Errorf("swap: %v", err)
	}
	if err := r.Holds(t.Context()); err != nil {
		t.Errorf("nobody can have it yet: %v", err)
	}
	r.tenure.held = r.tenure.held.Add(-vacancy)
	err := r.Abort(t.Context())
	if !errors.Is(err, hypervisor.ErrTakenOver) || !strings.Contains(err.Error(), r.plan.disks[0].path) {
		t.Errorf("abort: %v", err)
	}
	there := func(f lab.FileStatus) bool { return f.Name == r.plan.disks[0].path }
	if !slices.ContainsFunc(b.lab.Status().Files, there) || b.power() != "poweredOff" {
		t.Errorf("the VM is %s, files %+v", b.power(), b.lab.Status().Files)
	}
}

// While the server works on a VM, its lease can't be renewed, and whoever looks at it is told.
func TestInPlace_busy(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	r := b.started(b.spec("run-1"))
	busy := func() bool {
		found, err := b.client.InterruptedInPlace(t.Context(), b.vm.ID)
		must(t, err)
		return found.Busy
	}
	if busy() {
		t.Error("it is busy")
	}
	b.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = dial(t, labConfig(b.lab)).CreateSnapshot(ctx, b.vm.ID, hypervisor.SnapshotSpec{Name: "takes long"})
	}()
	for !busy() {
		if t.Context().Err() != nil {
			break
		}
	}
	cancel()
	<-ended
	if busy() {
		t.Error("it is busy for ever")
	}
	must(t, r.Abort(t.Context()))
}
