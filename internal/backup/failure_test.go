package backup_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// phases are the points that a backup goes through, and what has been reached when it fails there.
var phases = []hypervisortest.Fault{
	{At: hypervisortest.BeforeFindVM},
	{At: hypervisortest.BeforeSnapshots},
	{At: hypervisortest.BeforeOpenPointInTime},
	{At: hypervisortest.DuringOpenPointInTime},
	{At: hypervisortest.BeforeOpenDisk},
	{At: hypervisortest.BeforeOpenDisk, Skip: 1},
	{At: hypervisortest.DuringRead},
	{At: hypervisortest.DuringRead, Skip: 5},
}

func TestTake_failures(t *testing.T) {
	t.Parallel()
	for _, fault := range phases {
		for _, how := range []string{"error", "cancel"} {
			t.Run(string(fault.At)+"/"+how, func(t *testing.T) {
				t.Parallel()
				hv, _ := newVM(t)
				repo := openRepository(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				fault, want := fault, errBroken
				if how == "cancel" {
					want = context.Canceled
					fault.Do = func(context.Context) { cancel() }
				} else {
					fault.Err = errBroken
				}
				hv.Fail(fault)
				m := newManager(hv, repo)
				if result, err := m.Take(ctx, backup.Request{VM: "web"}); !errors.Is(err, want) || result != nil {
					t.Errorf("got %v, %v, want error %v", result, err, want)
				}
				wantClean(t, hv, repo, 0)
				if _, err := m.Take(t.Context(), backup.Request{VM: "web"}); err != nil {
					t.Errorf("second attempt: %v", err)
				}
				wantClean(t, hv, repo, 1)
			})
		}
	}
}

// The backup stands, the snapshot doesn't go: that is a warning, and the next backup cleans up.
func TestTake_snapshotStays(t *testing.T) {
	t.Parallel()
	hv, _ := newVM(t)
	repo := openRepository(t)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeClose, Err: errBroken})
	m := newManager(hv, repo)
	result, err := m.Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], backup.SnapshotPrefix) {
		t.Errorf("warnings %q don't name the snapshot", result.Warnings)
	}
	if left := hv.Leftovers(backup.SnapshotPrefix); len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	result, err = m.Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "removed") {
		t.Errorf("warnings %q", result.Warnings)
	}
	wantClean(t, hv, repo, 2)
}

// The snapshot is gone and only delta disks stay: no next backup removes them, so nobody may be told so.
func TestTake_consolidationNeeded(t *testing.T) {
	t.Parallel()
	hv, _ := newVM(t)
	repo := openRepository(t)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeClose, Err: hypervisor.ErrConsolidationNeeded})
	result, err := newManager(hv, repo).Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "are consolidated") ||
		strings.Contains(result.Warnings[0], "next backup") {
		t.Errorf("warnings %q", result.Warnings)
	}
}

// A failure of which something stays behind says so.
func TestTake_failsAndSnapshotStays(t *testing.T) {
	t.Parallel()
	hv, _ := newVM(t)
	repo := openRepository(t)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringRead, Err: hypervisor.ErrLost})
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeClose, Err: errBroken})
	m := newManager(hv, repo)
	_, err := m.Take(t.Context(), backup.Request{VM: "web"})
	if !errors.Is(err, hypervisor.ErrLost) || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), backup.SnapshotPrefix) {
		t.Errorf("got error %v", err)
	}
	if _, err := m.Take(t.Context(), backup.Request{VM: "web"}); err != nil {
		t.Fatal(err)
	}
	wantClean(t, hv, repo, 1)
}

func TestTake_severalAtOnce(t *testing.T) {
	t.Parallel()
	hv, _ := newVM(t)
	hv.AddVM(hypervisortest.VMSpec{Name: "db", Disks: [][]byte{content(3, capacity1)}})
	repo := openRepository(t)
	m := newManager(hv, repo)
	errs := make(chan error)
	names := []hypervisor.VMRef{"web", "db", "web"} // also one VM twice at the same time
	for _, name := range names {
		go func() {
			_, err := m.Take(t.Context(), backup.Request{VM: name})
			errs <- err
		}()
	}
	for range names {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	wantClean(t, hv, repo, len(names))
}

func TestDelete(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	repo := openRepository(t)
	result, err := newManager(hv, repo).Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	hv.Lose(vm.ID)
	m := newManager(nil, repo) // needs no hypervisor any more
	if points, err := m.List(t.Context(), repository.Filter{VM: vm.InstanceUUID}); err != nil || len(points) != 1 || points[0].ID != result.ID {
		t.Errorf("list: %v, %v", points, err)
	}
	for range 2 {
		if err := m.Delete(t.Context(), result.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := m.Get(t.Context(), result.ID); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
}
