package repository

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A clockPlace is a Place whose time a test sets, and that calls a function before something is written.
type clockPlace struct {
	*clockStorage
	onPut atomic.Pointer[func(id blob.ID)]
}

func newClockPlace(t *testing.T) *clockPlace {
	t.Helper()
	base, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	if err != nil {
		t.Fatal(err)
	}
	return &clockPlace{clockStorage: &clockStorage{Storage: base, clock: &testClock{}}}
}

func (p *clockPlace) String() string                                { return "clock://" }
func (p *clockPlace) connect(context.Context) (blob.Storage, error) { return p, nil }
func (p *clockPlace) lock() *ObjectLock                             { return nil }
func (p *clockPlace) around() []Place                               { return nil }

func (p *clockPlace) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if f := p.onPut.Load(); f != nil {
		(*f)(id)
	}
	return p.clockStorage.PutBlob(ctx, id, data, o)
}

func (p *clockPlace) open(t *testing.T) *Repository {
	t.Helper()
	c := placeConfig(p)
	c.now = p.clock.now
	return open(t, c)
}

// maintain maintains a repository, and lets time go by.
func (p *clockPlace) maintain(t *testing.T, r *Repository, times int, every time.Duration) {
	t.Helper()
	for range times {
		if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !m.Ran {
			t.Fatalf("maintenance: %+v, %v", m, err)
		}
		p.clock.advance(every)
	}
}

// TestPlaceMaintenanceBesideWriter does in a Place what TestUnsafeMaintenanceCorrupts does, where no lock keeps
// maintenance from running beside a writer: what the writer re-uses is deleted by another, and maintained away. The
// writer's restore point is whole, or the writer is told that there is none and takes it again.
func TestPlaceMaintenanceBesideWriter(t *testing.T) {
	t.Parallel()
	incomplete := false
	for _, runs := range []int{0, 1, 2, 5} {
		p := newClockPlace(t)
		r, other := p.open(t), p.open(t)
		first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
		p.clock.advance(30 * time.Hour)
		w := newWriter(t, r)
		m := testManifest()
		writeDisk(t, w, m, "disk.raw", testSource(1)) // all of it is there already
		if err := other.DeleteUnused(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		p.maintain(t, other, runs, 25*time.Hour)
		id, err := w.Commit(t.Context(), m, testFiles)
		if errors.Is(err, ErrIncomplete) {
			incomplete = true
			id, err = backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)}), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		wholeForDays(t, p, other, id, runs)
	}
	if !incomplete {
		t.Error("maintenance never removed what a writer was about to use")
	}
}

// wholeForDays wants a restore point to be the one that there is, and to stay whole whatever maintenance does.
func wholeForDays(t *testing.T, p *clockPlace, r *Repository, id ID, runs int) {
	t.Helper()
	p.maintain(t, r, 3, 25*time.Hour)
	fresh := p.open(t)
	if points, err := fresh.List(t.Context(), Filter{}); err != nil || len(points) != 1 || points[0].ID != id {
		t.Errorf("after %d runs: listed %v, %v", runs, points, err)
	}
	if b := readDisk(t, fresh, id, firstDisk(t, fresh, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Errorf("after %d runs: the disk differs", runs)
	}
}

// TestPlaceMaintenanceInCommit has maintenance run in the middle of a commit, at each of its writes of metadata: also
// after everything was looked up and before the restore point is in the list.
func TestPlaceMaintenanceInCommit(t *testing.T) {
	t.Parallel()
	for at, reached := int64(1), true; reached; at++ {
		p := newClockPlace(t)
		r, other := p.open(t), p.open(t)
		first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
		p.clock.advance(30 * time.Hour)
		w := newWriter(t, r)
		m := testManifest()
		writeDisk(t, w, m, "disk.raw", testSource(1))
		var puts atomic.Int64
		maintain := func(id blob.ID) {
			if id[0] == 'q' && puts.Add(1) == at {
				if err := other.Delete(t.Context(), first); err != nil {
					t.Error(err)
				}
				if _, err := other.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil {
					t.Error(err)
				}
			}
		}
		p.onPut.Store(&maintain)
		id, err := w.Commit(t.Context(), m, testFiles)
		p.onPut.Store(nil)
		if reached = puts.Load() >= at; !reached {
			break
		}
		if err != nil {
			t.Fatalf("maintenance before write %d: %v", at, err)
		}
		wholeForDays(t, p, other, id, 1)
	}
}

// TestPlaceSlowCommit doesn't rely on what was looked up long ago.
func TestPlaceSlowCommit(t *testing.T) {
	t.Parallel()
	p := newClockPlace(t)
	r := p.open(t)
	w := newWriter(t, r)
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", testSource(1))
	slow := func(id blob.ID) {
		if id[0] == 'q' { // the files, which guard looks up
			p.clock.advance(2 * time.Hour)
		}
	}
	p.onPut.Store(&slow)
	_, err := w.Commit(t.Context(), m, testFiles)
	p.onPut.Store(nil)
	if !errors.Is(err, ErrIncomplete) {
		t.Errorf("error %v, want %v", err, ErrIncomplete)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Errorf("listed %v, %v", points, err)
	}
}

// TestPlaceMaintainers lets one maintain at a time. One that was killed is in nobody's way after some hours.
func TestPlaceMaintainers(t *testing.T) {
	t.Parallel()
	p := newClockPlace(t)
	r, other := p.open(t), p.open(t)
	leased, release, err := r.leaseMaintenance(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Maintain(t.Context(), MaintainOptions{Now: true}); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	if err := leased.Err(); err != nil {
		t.Error(err)
	}
	release()
	if _, err := takeClaim(t.Context(), p, maintainClaim, maintainClaimAge); err != nil { // of one that is killed
		t.Fatal(err)
	}
	if _, err := other.Maintain(t.Context(), MaintainOptions{Now: true, Wait: time.Millisecond}); !errors.Is(err, ErrBusy) {
		t.Errorf("one may still live: %v", err)
	}
	p.clock.advance(maintainClaimAge + time.Minute)
	p.maintain(t, other, 1, 0)
	var left []blob.ID
	err = p.ListBlobs(t.Context(), ownBlobPrefix, func(b blob.Metadata) error {
		left = append(left, b.BlobID)
		return nil
	})
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestClaimLost ends maintenance that can't say any more that it goes on.
func TestClaimLost(t *testing.T) {
	t.Parallel()
	p := newClockPlace(t)
	c, err := takeClaim(t.Context(), p, maintainClaim, maintainClaimAge)
	if err != nil {
		t.Fatal(err)
	}
	fault := &faultyStorage{Storage: p, forever: true}
	c.storage = fault
	ctx, lost := context.WithCancelCause(t.Context())
	c.keep(ctx, time.Millisecond, 20*time.Millisecond, lost)
	if err := context.Cause(ctx); !errors.Is(err, errClaimLost) {
		t.Errorf("it ends with %v", err)
	}
}

// TestPlaceMakers has many make a repository at once.
func TestPlaceMakers(t *testing.T) {
	t.Parallel()
	p := newClockPlace(t)
	var all sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		all.Go(func() {
			r, err := Open(t.Context(), placeConfig(p))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.ID()
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("repositories %s at one place", ids)
		}
	}
}
