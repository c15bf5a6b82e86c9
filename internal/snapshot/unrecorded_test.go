package snapshot_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

func TestUniqueName(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 13, 0, 5, 0, time.FixedZone("", 3600))
	names := map[string]bool{}
	for range 1000 {
		name := snapshot.UniqueName("before update", now)
		if !strings.HasPrefix(name, "before update-20260301T120005Z-") || len(name) != len("before update")+snapshot.UniqueSuffixLen ||
			!snapshot.MadeFor(name, "before update") || snapshot.MadeFor(name, "before") {
			t.Fatalf("got %q", name)
		}
		names[name] = true
	}
	if len(names) != 1000 {
		t.Errorf("only %d of 1000 names of the same second differ", len(names))
	}
}

// FuzzMadeFor: what is said to be made for a purpose has the form of it, whatever people call their snapshots.
func FuzzMadeFor(f *testing.F) {
	f.Add("n-20260301T120005Z-1f0c93aa", "n")
	f.Add("n-20260301T120005Z-1f0c93aa\n", "n")
	f.Add("n", "n")
	f.Add("", "")
	f.Add("-20260301T120005Z-1f0c93aa", "")
	f.Add("n-20260301T120005Z-1F0C93AA", "n")
	f.Fuzz(func(t *testing.T, name, purpose string) {
		if !snapshot.MadeFor(name, purpose) {
			return
		}
		suffix, ok := strings.CutPrefix(name, purpose)
		if !ok || len(suffix) != snapshot.UniqueSuffixLen || strings.ContainsFunc(suffix, func(r rune) bool { return !strings.ContainsRune("-TZ0123456789abcdef", r) }) {
			t.Errorf("%q is said to be made for %q", name, purpose)
		}
	})
}

// TestTakeOrNothing: a snapshot that comes with an error doesn't stay, unless it can't be removed.
func TestTakeOrNothing(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		faults []hypervisortest.Fault
		cancel bool
		stays  bool
		ok     bool
	}{
		"nothing happens":      {ok: true},
		"not taken":            {faults: []hypervisortest.Fault{{At: hypervisortest.BeforeCreateSnapshot, Err: broken}}},
		"taken with an error":  {faults: []hypervisortest.Fault{{At: hypervisortest.AfterCreateSnapshot, Err: broken}}},
		"cancelled meanwhile":  {cancel: true},
		"gone, disks are left": {faults: []hypervisortest.Fault{{At: hypervisortest.AfterCreateSnapshot, Err: broken}, {At: hypervisortest.AfterRemoveSnapshot, Err: hypervisor.ErrConsolidationNeeded}}},
		"can't be removed":     {faults: []hypervisortest.Fault{{At: hypervisortest.AfterCreateSnapshot, Err: broken}, {At: hypervisortest.BeforeRemoveSnapshot, Err: broken}}, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.cancel {
				hv.Fail(hypervisortest.Fault{At: hypervisortest.AfterCreateSnapshot, Do: func(context.Context) { cancel() }})
			}
			for _, fault := range c.faults {
				hv.Fail(fault)
			}
			taken, err := newManager(hv).TakeOrNothing(ctx, snapshot.Request{VM: "web", Name: "s"})
			if (err == nil) != c.ok || (taken != nil) != (c.ok || c.stays) {
				t.Errorf("got %+v, %v", taken, err)
			}
			if n := len(snapshots(t, hv, vm)); (n == 1) != (c.ok || c.stays) {
				t.Errorf("%d snapshots are left", n)
			}
			if c.cancel && !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

// TestConsolidate: what was done is told, and nothing is done where nothing has to be.
func TestConsolidate(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	if got, err := m.Consolidate(t.Context(), "web"); err != nil || got.Needed || got.VM.InstanceUUID != vm.InstanceUUID {
		t.Errorf("got %+v, %v", got, err)
	}
	id, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "s"})
	if err == nil {
		err = hv.RemoveSnapshot(t.Context(), vm.ID, id, hypervisor.RemoveOptions{NoConsolidate: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeConsolidate, Err: hypervisor.ErrConsolidationNeeded})
	if got, err := m.Consolidate(t.Context(), "web"); got != nil || !errors.Is(err, hypervisor.ErrConsolidationNeeded) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := m.Consolidate(t.Context(), "web"); err != nil || !got.Needed {
		t.Errorf("got %+v, %v", got, err)
	}
	var notFound *hypervisor.VMNotFoundError
	if _, err := m.Consolidate(t.Context(), "nobody"); !errors.As(err, &notFound) {
		t.Errorf("got error %v", err)
	}
	id, err = hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "s"})
	if err == nil {
		err = hv.RemoveSnapshot(t.Context(), vm.ID, id, hypervisor.RemoveOptions{NoConsolidate: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID, Err: hypervisor.ErrLost})
	if _, err := m.Consolidate(t.Context(), "web"); !errors.Is(err, hypervisor.ErrLost) || !strings.Contains(err.Error(), "that is done") {
		t.Errorf("got error %v", err)
	}
}

// TestRevert_byName goes back to the newest snapshot of a name, or that was taken for what it says.
func TestRevert_byName(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	var ids []hypervisor.SnapshotID
	for _, name := range []string{"n", snapshot.UniqueName("n", time.Now()), "n2", snapshot.UniqueName("other", time.Now())} {
		id, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for name, want := range map[string]hypervisor.SnapshotID{"n": ids[1], "n2": ids[2], "other": ids[3]} {
		r := snapshot.RevertRequest{VM: "web", Name: name}
		if got, err := m.CheckRevert(t.Context(), r); err != nil || got.Snapshot.ID != want {
			t.Errorf("check %q: got %+v, %v", name, got, err)
		}
		if got, err := m.Revert(t.Context(), r); err != nil || got.Snapshot.ID != want {
			t.Errorf("%q: got %+v, %v", name, got, err)
		}
	}
	var none *snapshot.NameError
	if _, err := m.Revert(t.Context(), snapshot.RevertRequest{VM: "web", Name: "x"}); !errors.As(err, &none) || len(none.Has) != 4 || !slices.Contains(none.Has, "n2") {
		t.Errorf("got error %v", err)
	}
	if _, err := m.Revert(t.Context(), snapshot.RevertRequest{Name: "n"}); !errors.Is(err, snapshot.ErrRequest) {
		t.Errorf("without a VM: %v", err)
	}
}
