package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

func TestWaitTask_failure(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	l.Fault(lab.Fault{Method: "PowerOffVM_Task", Fault: "NoDiskSpace", Count: 1})
	started, err := c.vm(find(t, c, "web01").ID).PowerOff(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.waitTask(t.Context(), started)
	var space *hypervisor.InsufficientSpaceError
	if !errors.As(err, &space) || info == nil || info.State != types.TaskInfoStateError {
		t.Fatalf("got %+v and %v", info, err)
	}
	// A task that has ended long ago is waited for no longer.
	if _, err := c.waitTask(t.Context(), started); !errors.As(err, &space) {
		t.Fatalf("got %v", err)
	}
}

func TestWaitTask_interrupted(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Delay: time.Minute, Count: 1})
	started, err := c.vm(vm).CreateSnapshotEx(t.Context(), "a", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.OnCall("WaitForUpdatesEx", func(context.Context) { cancel() })
	info, err := c.waitTask(ctx, started)
	if !errors.Is(err, context.Canceled) || info == nil || info.State != types.TaskInfoStateError {
		t.Fatalf("got %+v and %v, want a cancelled task", info, err)
	}
	if got := list(t, c, vm); len(got) != 0 {
		t.Errorf("there is %+v", got)
	}
}

func TestWaitTask_gone(t *testing.T) {
	t.Parallel()
	_, c := labWith(t)
	ref := types.ManagedObjectReference{Type: "Task", Value: "task-99999"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.watchTask(ctx, ref); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, want an error at once", err)
	}
}

// TestWatcher_brokenConnections loses the collector again and again; nobody who waits may notice.
func TestWatcher_brokenConnections(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"CreatePropertyCollector", "CreateFilter", "WaitForUpdatesEx", "DestroyPropertyFilter"} {
		for _, fault := range []string{"drop", "503", "call:ManagedObjectNotFound", "call:NotAuthenticated"} {
			t.Run(method+" "+fault, func(t *testing.T) {
				t.Parallel()
				names := []string{"vm0", "vm1", "vm2"}
				l, c := labWith(t, names...)
				vms := make([]hypervisor.VMID, len(names))
				for i, name := range names {
					vms[i] = find(t, c, hypervisor.VMRef(name)).ID
				}
				if method != "DestroyPropertyFilter" { // which happens only by the way
					l.Fault(lab.Fault{Method: method, Fault: fault, Count: 2})
				}
				var wg sync.WaitGroup
				for i := range 6 {
					wg.Go(func() {
						_, err := c.CreateSnapshot(t.Context(), vms[i%len(vms)], hypervisor.SnapshotSpec{Name: fmt.Sprint(i)})
						if err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// TestWatcher_close has callers who wait when the connection is closed.
func TestWatcher_close(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	asking := make(chan struct{})
	var once sync.Once
	l.OnCall("WaitForUpdatesEx", func(context.Context) { once.Do(func() { close(asking) }) })
	ended := make(chan error)
	go func() { ended <- c.waitPowerState(t.Context(), vm, types.VirtualMachinePowerStateSuspended) }()
	<-asking
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Errorf("got %v, want errClosed", err)
	}
	if err := c.waitPowerState(t.Context(), vm, types.VirtualMachinePowerStateSuspended); !errors.Is(err, errClosed) {
		t.Errorf("got %v, want errClosed", err)
	}
}

// TestWatcher_changes sees a change that somebody else makes while it waits.
func TestWatcher_changes(t *testing.T) {
	t.Parallel()
	model := simulator.VPX()
	server := simulate(t, model)
	c, other := dial(t, pinned(server)), dial(t, pinned(server))
	vm := find(t, c, "/DC0/vm/DC0_H0_VM0").ID
	ended := make(chan error)
	seen := make(chan struct{})
	go func() {
		var once sync.Once
		ended <- c.watcher.watch(t.Context(), vmRef(vm), []string{"runtime.powerState"}, func(_ string, value any) bool {
			once.Do(func() { close(seen) })
			return value == types.VirtualMachinePowerStatePoweredOff
		})
	}()
	<-seen
	if err := other.PowerOff(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An expiring context is one whose deadline comes when a test wants it to.
type expiring struct {
	context.Context
	done chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.done }

func (e expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// expireAt is a context whose deadline comes when a method of the lab is called.
func expireAt(t *testing.T, l *lab.Lab, method string) context.Context {
	ctx := expiring{t.Context(), make(chan struct{})}
	expire := sync.OnceFunc(func() { close(ctx.done) })
	l.OnCall(method, func(context.Context) { expire() })
	return ctx
}

// TestWatcher_many watches more objects than a server tells of in one answer.
func TestWatcher_many(t *testing.T) {
	t.Parallel()
	model := simulator.VPX()
	model.Host, model.Machine = 0, 110 // the simulator puts 100 into an answer, as a vCenter does
	server := simulate(t, model)
	c, other := dial(t, pinned(server)), dial(t, pinned(server))
	objects, err := c.list(t.Context(), "VirtualMachine", "name")
	if err != nil || len(objects) < model.Machine {
		t.Fatalf("%d VMs, %v", len(objects), err)
	}
	refs := slices.Collect(maps.Keys(objects))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all, seen sync.WaitGroup
	for i, ref := range refs {
		seen.Add(1)
		heard := sync.OnceFunc(seen.Done)
		all.Go(func() {
			err := c.watcher.watch(ctx, ref, []string{"runtime.powerState"}, func(_ string, value any) bool {
				heard()
				return value == types.VirtualMachinePowerStatePoweredOff
			})
			heard()
			if i == 0 {
				cancel() // every answer before the one with this change is dealt with
			} else if errors.Is(err, context.Canceled) {
				return
			}
			if err != nil {
				t.Errorf("%s: %v", ref.Value, err)
			}
		})
	}
	seen.Wait()
	if err := other.PowerOff(t.Context(), hypervisor.VMID(refs[0].Value)); err != nil {
		t.Error(err)
		cancel()
	}
	all.Wait()
}
