package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// newSmallVM is a VM that is backed up quickly.
func newSmallVM(t *testing.T) (*hypervisortest.Fake, hypervisor.VM) {
	t.Helper()
	hv := hypervisortest.NewFake(t)
	return hv, hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{content(1, 1<<20), content(2, 4096)}})
}

// listed are the restore points in a repository, newest first.
func listed(t *testing.T, repo *repository.Repository) []repository.ID {
	t.Helper()
	points, err := repo.List(t.Context(), repository.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []repository.ID
	for _, p := range points {
		ids = append(ids, p.ID)
	}
	return ids
}

func mustTake(t *testing.T, m *backup.Manager, r backup.Request) *backup.Result {
	t.Helper()
	result, err := m.Take(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func keepLast(n int) *backup.Retention { return &backup.Retention{Last: n} }

// Two VMs of one identity, as a host without a vCenter may have them of which one is a copy made by hand: neither's backups
// take the place of the other's.
func TestTake_sharedIdentity(t *testing.T) {
	t.Parallel()
	hv, vm := newSmallVM(t)
	repo := openRepository(t)
	m := newManager(hv, repo)
	first := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1)})
	other := hv.AddVM(hypervisortest.VMSpec{Name: "copy", Disks: [][]byte{content(3, 4096)}})
	hv.Edit(other.ID, func(v *hypervisor.VM) { v.InstanceUUID = vm.InstanceUUID })
	want := []repository.ID{first.ID}
	for _, name := range []hypervisor.VMRef{"copy", "web"} {
		r := backup.Request{VM: name, Retention: keepLast(1)}
		check, err := m.Check(t.Context(), r)
		if err != nil || len(check.Warnings) != 1 || !strings.Contains(check.Warnings[0], "more than one virtual machine") {
			t.Errorf("%s: %+v, %v", name, check, err)
		}
		result := mustTake(t, m, r)
		if len(result.Pruned) > 0 || !slices.Equal(result.Warnings, check.Warnings) {
			t.Errorf("%s: pruned %v, warnings %q", name, result.Pruned, result.Warnings)
		}
		want = append([]repository.ID{result.ID}, want...)
	}
	// What is not known to be of one VM is pinned, also for who prunes later.
	if pruned, err := m.Prune(t.Context(), backup.PruneRequest{Retention: *keepLast(1)}); err != nil || len(pruned.Removed) > 0 {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	if got := listed(t, repo); !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
	hv.Lose(other.ID)
	if last := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1)}); !slices.Equal(last.Pruned, want[2:]) {
		t.Errorf("without the copy, pruned %v with warnings %q", last.Pruned, last.Warnings)
	}
}

// A backup with retention removes older ones that were taken with it, and nothing else.
func TestTake_prunes(t *testing.T) {
	t.Parallel()
	hv, _ := newSmallVM(t)
	hv.AddVM(hypervisortest.VMSpec{Name: "db", Disks: [][]byte{content(3, 4096)}})
	repo := openRepository(t)
	m := newManager(hv, repo)

	pinned := mustTake(t, m, backup.Request{VM: "web"})
	other := mustTake(t, m, backup.Request{VM: "db", Retention: keepLast(1)})
	partial := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1), ExcludeDisks: []string{"Hard disk 2"}})
	first := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	second := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	for _, r := range []*backup.Result{pinned, other, partial, first, second} {
		if len(r.Pruned) != 0 {
			t.Errorf("%s pruned %v", r.ID, r.Pruned)
		}
	}
	third := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	if !slices.Equal(third.Pruned, []repository.ID{first.ID}) || len(third.Warnings) != 0 {
		t.Errorf("pruned %v with warnings %v, want %v", third.Pruned, third.Warnings, first.ID)
	}
	if got, want := listed(t, repo), []repository.ID{third.ID, second.ID, partial.ID, other.ID, pinned.ID}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
	if again := mustTake(t, m, backup.Request{VM: "web"}); len(again.Pruned) != 0 {
		t.Errorf("a backup without retention pruned %v", again.Pruned)
	}
	if got := third.Manifest.Retention; got != repository.RetentionGoverned {
		t.Errorf("retention %q", got)
	}
}

// The backup that was just taken stays, even if others come from the future: a server's clock was wrong.
func TestTake_keepsWhatItTook(t *testing.T) {
	t.Parallel()
	hv, vm := newSmallVM(t)
	repo := openRepository(t)
	hv.SetClock(vm.ID, 1000*60*60*1e9)
	future := mustTake(t, newManager(hv, repo), backup.Request{VM: "web", Retention: keepLast(1)})
	hv.SetClock(vm.ID, 0)
	now := mustTake(t, newManager(hv, repo), backup.Request{VM: "web", Retention: keepLast(1)})
	if !now.Manifest.CreatedAt.Before(future.Manifest.CreatedAt) {
		t.Fatalf("%s is not before %s", now.Manifest.CreatedAt, future.Manifest.CreatedAt)
	}
	if ids := listed(t, repo); len(ids) != 2 {
		t.Errorf("there are %v, want %v and %v", ids, now.ID, future.ID)
	}
}

// Restore points from the future take nobody's place.
func TestPrune_future(t *testing.T) {
	t.Parallel()
	hv, vm := newSmallVM(t)
	repo := openRepository(t)
	m := newManager(hv, repo)
	hv.SetClock(vm.ID, 1000*time.Hour)
	future := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	hv.SetClock(vm.ID, time.Minute) // as clocks are
	first := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	second := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(2)})
	if got, want := listed(t, repo), []repository.ID{future.ID, second.ID, first.ID}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
	pruned, err := m.Prune(t.Context(), backup.PruneRequest{VM: "web", Retention: *keepLast(1)})
	if err != nil || len(pruned.Removed) != 1 || pruned.Removed[0].ID != first.ID || !slices.Equal(pruned.Verdicts[0].Reasons, []string{"future"}) {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	if got, want := listed(t, repo), []repository.ID{future.ID, second.ID}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

// stubborn is a repository in which some restore points can't be deleted.
type stubborn struct {
	*repository.Repository
	errs map[repository.ID]error
}

func (s stubborn) DeleteUnused(ctx context.Context, id repository.ID) error {
	if err := s.errs[id]; err != nil {
		return err
	}
	return s.Repository.DeleteUnused(ctx, id)
}

// What can't be pruned is a warning: the backup stands, and others are pruned all the same. What is in use waits.
func TestTake_pruningFails(t *testing.T) {
	t.Parallel()
	hv, _ := newSmallVM(t)
	repo := openRepository(t)
	m := newManager(hv, repo)
	var old []repository.ID
	for range 3 {
		old = append(old, mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(9)}).ID)
	}
	m = newManager(hv, stubborn{repo, map[repository.ID]error{old[0]: errBroken, old[1]: repository.ErrInUse}})
	result := mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1)})
	if !slices.Equal(result.Pruned, old[2:]) {
		t.Errorf("pruned %v, want %v", result.Pruned, old[2:])
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], errBroken.Error()) {
		t.Errorf("warnings %v", result.Warnings)
	}
	release, err := repo.Hold(t.Context(), old[1])
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	pruned, err := newManager(nil, repo).Prune(t.Context(), backup.PruneRequest{VM: "web", Retention: *keepLast(1)})
	if err != nil || len(pruned.Removed) != 1 || pruned.Removed[0].ID != old[0] || len(pruned.InUse) != 1 || pruned.InUse[0].ID != old[1] {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	if got, want := listed(t, repo), []repository.ID{result.ID, old[1]}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

// Nobody waits for maintenance more than once.
func TestPrune_busy(t *testing.T) {
	t.Parallel()
	hv, _ := newSmallVM(t)
	repo := openRepository(t)
	var taken []repository.ID
	errs := map[repository.ID]error{}
	for range 3 {
		result := mustTake(t, newManager(hv, repo), backup.Request{VM: "web", Retention: keepLast(9)})
		taken = append(taken, result.ID)
	}
	errs[taken[1]] = fmt.Errorf("delete: %w", repository.ErrBusy) // the first to be deleted
	pruned, err := newManager(nil, stubborn{repo, errs}).Prune(t.Context(), backup.PruneRequest{VM: "web", Retention: *keepLast(1)})
	if !errors.Is(err, repository.ErrBusy) || len(pruned.Removed) != 0 || len(listed(t, repo)) != 3 {
		t.Errorf("removed %v, error %v", pruned.Removed, err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	hv, vm := newSmallVM(t)
	hv.AddVM(hypervisortest.VMSpec{Name: "db", Disks: [][]byte{content(3, 4096)}})
	repo := openRepository(t)
	m := newManager(hv, repo)
	var web, db []repository.ID
	for range 3 {
		web = append(web, mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(9)}).ID)
		db = append(db, mustTake(t, m, backup.Request{VM: "db", Retention: keepLast(9)}).ID)
	}
	m = newManager(nil, repo) // needs no hypervisor
	for _, bad := range []backup.Retention{{}, {Last: 1, Daily: -1}} {
		if _, err := m.Prune(t.Context(), backup.PruneRequest{VM: "web", Retention: bad}); !errors.Is(err, backup.ErrRequest) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	request := backup.PruneRequest{VM: strings.ToUpper(vm.InstanceUUID), Retention: *keepLast(2), DryRun: true}
	dry, err := m.Prune(t.Context(), request)
	if err != nil || len(dry.Verdicts) != 3 || len(dry.Removed) != 0 || len(dry.Going()) != 1 || dry.Going()[0].ID != web[0] {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if ids := listed(t, repo); len(ids) != 6 {
		t.Fatalf("a dry run left %v", ids)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Prune(cancelled, request); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	all, err := m.Prune(t.Context(), backup.PruneRequest{Retention: *keepLast(1)})
	if err != nil || len(all.Verdicts) != 6 || len(all.Removed) != 4 {
		t.Errorf("all: %+v, %v", all, err)
	}
	if got, want := listed(t, repo), []repository.ID{db[2], web[2]}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

// Several back up and prune the same VM at once: all that is left is what one of them would have kept, and it is
// whole.
func TestTake_pruneConcurrently(t *testing.T) {
	t.Parallel()
	hv, _ := newSmallVM(t)
	repo := openRepository(t)
	var group errgroup.Group
	results := make([]*backup.Result, 8)
	for i := range results {
		group.Go(func() (err error) {
			results[i], err = newManager(hv, repo).Take(t.Context(), backup.Request{VM: "web", Retention: keepLast(2)})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := newManager(nil, repo).Prune(t.Context(), backup.PruneRequest{VM: "web", Retention: *keepLast(2)}); err != nil {
		t.Fatal(err)
	}
	ids := listed(t, repo)
	if len(ids) != 2 {
		t.Fatalf("there are %v", ids)
	}
	for _, id := range ids {
		m, err := repo.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for n, d := range m.Disks {
			if !bytes.Equal(stored(t, repo, id, d), [][]byte{content(1, 1<<20), content(2, 4096)}[n]) {
				t.Errorf("%s of %s differs", d.File, id)
			}
		}
	}
}
