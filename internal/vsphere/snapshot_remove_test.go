package vsphere

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// chain takes snapshots one after the other.
func chain(t *testing.T, c *Client, vm hypervisor.VMID, names ...string) []hypervisor.SnapshotID {
	t.Helper()
	ids := make([]hypervisor.SnapshotID, len(names))
	for i, name := range names {
		id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: name, Description: "of a test"})
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = id
	}
	return ids
}

func names(all []hypervisor.Snapshot) string {
	var out []string
	for _, s := range all {
		out = append(out, s.Path)
	}
	return strings.Join(out, " ")
}

func TestRemoveSnapshot(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		remove  int
		options hypervisor.RemoveOptions
		want    string
	}{
		"root":                 {0, hypervisor.RemoveOptions{}, "b b/c"},
		"middle":               {1, hypervisor.RemoveOptions{}, "a a/c"},
		"leaf":                 {2, hypervisor.RemoveOptions{}, "a a/b"},
		"middle with children": {1, hypervisor.RemoveOptions{Children: true}, "a"},
		"all":                  {0, hypervisor.RemoveOptions{Children: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			ids := chain(t, c, vm, "a", "b", "c")
			for range 2 { // the second time there is nothing to remove, which is no error
				if err := c.RemoveSnapshot(t.Context(), vm, ids[tt.remove], tt.options); err != nil {
					t.Fatal(err)
				}
			}
			if got := names(list(t, c, vm)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.want == "" {
				labtest.AssertClean(t, l)
			}
		})
	}
}

func TestRemoveSnapshot_gone(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	if err := c.RemoveSnapshot(t.Context(), vm, "snapshot-99999", hypervisor.RemoveOptions{}); err != nil {
		t.Errorf("a snapshot that is gone: %v", err)
	}
	if err := c.RemoveSnapshot(t.Context(), "vm-99999", "snapshot-99999", hypervisor.RemoveOptions{}); err != nil {
		t.Errorf("a VM that is gone: %v", err)
	}
}

// TestRemoveSnapshot_others removes by a handle that is of another VM by now: a server that was restored from its
// backup, or a host that was installed anew, gives handles out again.
func TestRemoveSnapshot_others(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01", "web02")
	ours, theirs := find(t, c, "web01").ID, find(t, c, "web02").ID
	chain(t, c, ours, "a")
	ids := chain(t, c, theirs, "b", "c")
	for _, options := range []hypervisor.RemoveOptions{{}, {Children: true}, {NoConsolidate: true}} {
		if err := c.RemoveSnapshot(t.Context(), ours, ids[0], options); err != nil {
			t.Errorf("%+v: %v", options, err)
		}
	}
	if got := names(list(t, c, theirs)); got != "b b/c" {
		t.Errorf("the other VM has %q left", got)
	}
	if got := names(list(t, c, ours)); got != "a" {
		t.Errorf("the VM has %q left", got)
	}
}

func TestRemoveSnapshot_consolidation(t *testing.T) {
	t.Parallel()
	t.Run("left to others", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ids := chain(t, c, vm, "a")
		if err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{NoConsolidate: true}); err != nil {
			t.Fatal(err)
		}
		if n := l.Calls()["ConsolidateVMDisks_Task"]; n != 0 {
			t.Errorf("consolidated %d times", n)
		}
		if got := l.Status().VMs[0].Disks[0].Chain; len(got) != 2 {
			t.Errorf("the chain is %v, want a delta", got)
		}
		// Whoever removes it once more, now without that option, gets rid of the delta.
		if err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		labtest.AssertClean(t, l)
	})
	t.Run("after a few attempts", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ids := chain(t, c, vm, "a")
		if err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{NoConsolidate: true}); err != nil {
			t.Fatal(err)
		}
		l.Fault(lab.Fault{Method: "ConsolidateVMDisks_Task", Fault: "FileLocked", Count: 2})
		told := make(chan struct{})
		tell := sync.OnceFunc(func() { close(told) })
		ctx, stop := progress.Follow(t.Context(), func(s progress.State) {
			if strings.Contains(s.Phase, "lets go of the disks") {
				tell()
			}
		})
		defer stop()
		attempts := 0
		l.OnCall("ConsolidateVMDisks_Task", func(context.Context) {
			if attempts++; attempts < 2 {
				return
			}
			select {
			case <-told:
			case <-time.After(time.Minute):
				t.Error("it isn't told what is waited for")
			}
		})
		if err := c.RemoveSnapshot(ctx, vm, ids[0], hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		labtest.AssertClean(t, l)
	})
	t.Run("impossible", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ids := chain(t, c, vm, "a")
		if err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{NoConsolidate: true}); err != nil {
			t.Fatal(err)
		}
		l.Fault(lab.Fault{Method: "ConsolidateVMDisks_Task", Fault: "NoDiskSpace", Count: 1})
		err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{})
		var space *hypervisor.InsufficientSpaceError
		if !errors.Is(err, hypervisor.ErrConsolidationNeeded) || !errors.As(err, &space) {
			t.Fatalf("got %v, want ErrConsolidationNeeded for want of space", err)
		}
	})
}

func TestRemoveSnapshot_troubles(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"TaskInProgress", "call:TaskInProgress", "drop", "503", "call:NotAuthenticated"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			ids := chain(t, c, vm, "a", "b")
			l.Fault(lab.Fault{Method: "RemoveSnapshot_Task", Fault: fault, Count: 1})
			if err := c.RemoveSnapshot(t.Context(), vm, ids[1], hypervisor.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := names(list(t, c, vm)); got != "a" {
				t.Errorf("got %q, want a", got)
			}
		})
	}
	t.Run("permission", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ids := chain(t, c, vm, "a")
		l.Fault(lab.Fault{Method: "RemoveSnapshot_Task", Fault: "call:NoPermission", Count: 1})
		var denied *hypervisor.PermissionError
		err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{})
		if !errors.As(err, &denied) {
			t.Fatalf("got %v, want a PermissionError", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		ids := chain(t, c, vm, "a")
		ctx, cancel := context.WithCancel(t.Context())
		l.OnCall("RemoveSnapshot_Task", func(context.Context) { cancel() })
		if err := c.RemoveSnapshot(ctx, vm, ids[0], hypervisor.RemoveOptions{}); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		l.OnCall("RemoveSnapshot_Task", nil)
		if err := c.RemoveSnapshot(t.Context(), vm, ids[0], hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		labtest.AssertClean(t, l)
	})
}

func TestRemoveSnapshot_parallel(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	ids := chain(t, c, vm, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := c.RemoveSnapshot(t.Context(), vm, id, hypervisor.RemoveOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	labtest.AssertClean(t, l)
}

func TestRenameSnapshot(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		name, description string
		want              error
	}{
		"both":               {"new", "other", nil},
		"name only":          {"new", "of a test", nil},
		"description only":   {"a", "other", nil},
		"nothing":            {"a", "of a test", nil},
		"special characters": {`100% a/b\c %2f`, `50% / \`, nil},
		"no description":     {"new", "", hypervisor.ErrNotSupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			ids := chain(t, c, vm, "a", "b")
			err := c.RenameSnapshot(t.Context(), vm, ids[0], tt.name, tt.description)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				tt.name, tt.description = "a", "of a test"
			}
			got := list(t, c, vm)
			if got[0].Name != tt.name || got[0].Description != tt.description || got[1].Path != tt.name+"/b" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestRenameSnapshot_troubles(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	ids := chain(t, c, vm, "a")
	for i, fault := range []string{"TaskInProgress", "drop", "503"} {
		l.Fault(lab.Fault{Method: "RenameSnapshot", Fault: fault, Count: 1})
		want := strings.Repeat("n", i+1)
		if err := c.RenameSnapshot(t.Context(), vm, ids[0], want, "x"); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		if got := list(t, c, vm)[0].Name; got != want {
			t.Errorf("%s: the name is %q, want %q", fault, got, want)
		}
	}
	if err := c.RenameSnapshot(t.Context(), vm, "snapshot-99999", "b", "x"); !errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		t.Errorf("got %v, want ErrSnapshotNotFound", err)
	}
	var gone *hypervisor.VMNotFoundError
	if err := c.RenameSnapshot(t.Context(), "vm-99999", ids[0], "b", "x"); !errors.As(err, &gone) {
		t.Errorf("got %v, want a VMNotFoundError", err)
	}
}

// loseFiles makes the server unable to read the files of a VM, as it is with a datastore that is lost. It shows no
// configuration then, and no snapshots. It returns a function that brings them back.
func loseFiles(t *testing.T, l *lab.Lab, id hypervisor.VMID) (undo func()) {
	t.Helper()
	var snapshots *types.VirtualMachineSnapshotInfo
	back := editVM(t, l, id, func(vm *simulator.VirtualMachine) {
		snapshots, vm.Snapshot = vm.Snapshot, nil
		vm.Config = nil
		vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateInaccessible
	})
	return func() {
		back()
		editVM(t, l, id, func(vm *simulator.VirtualMachine) { vm.Snapshot = snapshots })
	}
}

// TestSnapshots_inaccessible has a datastore that can't be reached: that no snapshot can be seen doesn't mean that
// there is none.
func TestSnapshots_inaccessible(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	id := chain(t, c, vm, "a")[0]
	undo := loseFiles(t, l, vm)
	for name, do := range map[string]func() error{
		"list":   func() error { _, err := c.Snapshots(t.Context(), vm); return err },
		"rename": func() error { return c.RenameSnapshot(t.Context(), vm, id, "b", "of a test") },
		"remove": func() error { return c.RemoveSnapshot(t.Context(), vm, id, hypervisor.RemoveOptions{}) },
		"revert": func() error { _, err := c.RevertChanges(t.Context(), vm, id); return err },
		"list all": func() error {
			for one, err := range c.SnapshotsBelow(t.Context(), "") {
				return errors.Join(one.Err, err)
			}
			return nil
		},
		"consolidate": func() error {
			needed, err := c.Consolidate(t.Context(), vm)
			if err == nil && needed {
				t.Error("it consolidated")
			}
			return err
		},
	} {
		err := do()
		if !errors.Is(err, hypervisor.ErrOutOfReach) || errors.Is(err, hypervisor.ErrSnapshotNotFound) {
			t.Errorf("%s: got %v, want ErrOutOfReach", name, err)
		}
	}
	undo()
	if got := list(t, c, vm); len(got) != 1 || got[0].ID != id {
		t.Errorf("there is %+v afterwards", got)
	}
}
