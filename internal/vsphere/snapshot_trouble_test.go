package vsphere

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestCreateSnapshot_busy has somebody else's tasks in the way.
func TestCreateSnapshot_busy(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"TaskInProgress", "call:TaskInProgress"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: fault, Count: 3})
			if _, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			if got := list(t, c, vm); len(got) != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("another client", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		other := dial(t, labConfig(l))
		vm := find(t, c, "web01").ID
		var wg sync.WaitGroup
		for i := range 10 {
			for _, client := range []*Client{c, other} {
				wg.Go(func() {
					if _, err := client.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: fmt.Sprint(i)}); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if got := list(t, c, vm); len(got) != 20 {
			t.Errorf("%d snapshots, want 20", len(got))
		}
	})
	t.Run("until the deadline", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ctx, cancel := context.WithCancel(t.Context())
		l.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "TaskInProgress", Count: 2})
		var calls int
		l.OnCall("CreateSnapshotEx_Task", func(context.Context) {
			if calls++; calls == 2 {
				cancel()
			}
		})
		id, err := c.CreateSnapshot(ctx, vm, hypervisor.SnapshotSpec{Name: "a"})
		if id != "" || !errors.Is(err, context.Canceled) {
			t.Fatalf("got %q and %v, want context.Canceled", id, err)
		}
	})
}

// TestCreateSnapshot_interrupted ends the context at different moments. Whatever comes of it, the caller
// must know whether there is a snapshot.
func TestCreateSnapshot_interrupted(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RetrievePropertiesEx", "CreateSnapshotEx_Task", "CreateFilter", "WaitForUpdatesEx", "CancelTask"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if method == "CancelTask" {
				l.OnCall("CreateFilter", func(context.Context) { cancel() })
			}
			l.OnCall(method, func(context.Context) { cancel() })
			id, err := c.CreateSnapshot(ctx, vm, hypervisor.SnapshotSpec{Name: "a"})
			if method == "RetrievePropertiesEx" && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
			got := list(t, c, vm)
			if len(got) == 0 != (id == "") || len(got) == 1 && got[0].ID != id {
				t.Errorf("told %q and %v, but there is %+v", id, err, got)
			}
			if id != "" {
				if err := c.RemoveSnapshot(t.Context(), vm, id, hypervisor.RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
			labtest.AssertClean(t, l)
		})
	}
}

func TestCreateSnapshot_deadline(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	l.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "InvalidState", Delay: time.Minute, Count: 1})
	id, err := c.CreateSnapshot(expireAt(t, l, "WaitForUpdatesEx"), vm, hypervisor.SnapshotSpec{Name: "a"})
	if id != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %q and %v, want context.DeadlineExceeded", id, err)
	}
	if got := list(t, c, vm); len(got) != 0 {
		t.Errorf("there is %+v", got)
	}
}

// TestCreateSnapshot_lostAnswer breaks the connection when the server has begun, and before it has.
func TestCreateSnapshot_lostAnswer(t *testing.T) {
	t.Parallel()
	spec := hypervisor.SnapshotSpec{Name: "a%", Description: "b"}
	for _, begun := range []bool{true, false} {
		t.Run(fmt.Sprintf("begun %t", begun), func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			other := dial(t, labConfig(l))
			vm := find(t, c, "web01").ID
			chain(t, c, vm, "a%") // of the same name, but not the one
			var theirs hypervisor.SnapshotID
			if begun {
				var once atomic.Bool
				l.OnCall("CreateSnapshotEx_Task", func(context.Context) {
					if once.CompareAndSwap(false, true) {
						var err error
						if theirs, err = other.CreateSnapshot(t.Context(), vm, spec); err != nil {
							t.Error(err)
						}
					}
				})
				// The fault hits the call that is being made, whose snapshot the hook took in its place.
				l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "drop", Count: 1, After: 1})
			} else {
				l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "drop", Count: 1})
			}
			id, err := c.CreateSnapshot(t.Context(), vm, spec)
			if begun && (err != nil || id != theirs) {
				t.Errorf("got %q and %v, want %q", id, err, theirs)
			}
			if !begun && (err == nil || id != "") {
				t.Errorf("got %q and %v, want an error", id, err)
			}
			want := map[bool]int{true: 2, false: 1}[begun]
			if got := list(t, c, vm); len(got) != want {
				t.Errorf("there are %d snapshots, want %d", len(got), want)
			}
		})
	}
}

// TestCreateSnapshot_forgotten has a vCenter that is restarted, and knows nothing any more of the task that a host
// carries out; also where the answer to the call was lost, so that the task had to be looked for.
func TestCreateSnapshot_forgotten(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer lost %t", lost), func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Delay: 3 * time.Second})
			if lost {
				l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "lost"})
			}
			l.OnCall("WaitForUpdatesEx", func(context.Context) { l.ForgetTasks() })
			id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a", Description: "b"})
			if err != nil {
				t.Error(err)
			}
			if got := list(t, c, vm); len(got) != 1 || got[0].ID != id {
				t.Errorf("told %q, but there is %+v", id, got)
			}
		})
	}
}

// TestCreateSnapshot_unreadTask loses the answer, and then can't read at first which task there is.
func TestCreateSnapshot_unreadTask(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Delay: 4 * time.Second})
	l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "lost"})
	l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "call:SystemError", After: 2})
	id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a", Description: "b"})
	if err != nil {
		t.Error(err)
	}
	if got := list(t, c, vm); len(got) != 1 || got[0].ID != id {
		t.Errorf("told %q, but there is %+v", id, got)
	}
}

// TestCreateSnapshot_untaken has a proxy that says for a while that the server is down.
func TestCreateSnapshot_untaken(t *testing.T) {
	t.Parallel()
	for n, fails := range map[int]bool{createAttempts - 1: false, createAttempts: true} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "503", Count: n})
			id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a"})
			if (err != nil) != fails || (id == "") != fails {
				t.Errorf("got %q and %v", id, err)
			}
			if got := list(t, c, vm); (len(got) == 0) != fails {
				t.Errorf("there is %+v", got)
			}
		})
	}
}

func TestCreateSnapshot_sessionEnds(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"CreateSnapshotEx_Task", "CreateFilter", "WaitForUpdatesEx", "RetrievePropertiesEx"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			end := sessionKiller(t, l)
			var ended atomic.Bool
			l.OnCall(method, func(context.Context) {
				if ended.CompareAndSwap(false, true) {
					end()
				}
			})
			if _, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			if got := list(t, c, vm); len(got) != 1 {
				t.Errorf("got %+v, want one snapshot", got)
			}
		})
	}
}
