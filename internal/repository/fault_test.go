package repository

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

var errFault = errors.New("cable is out")

// faultyStorage lets one change fail, or all from that one on.
type faultyStorage struct {
	blob.Storage
	left    atomic.Int64 // changes until the fault; below that it is over
	forever bool
	after   bool // the change is made, and only its success gets lost
}

func (s *faultyStorage) change(change func() error) error {
	n := s.left.Add(-1)
	if n > 0 || n < 0 && !s.forever {
		return change()
	}
	if s.after {
		return errors.Join(change(), errFault)
	}
	return errFault
}

func (s *faultyStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	return s.change(func() error { return s.Storage.PutBlob(ctx, id, data, o) })
}

func (s *faultyStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	return s.change(func() error { return s.Storage.DeleteBlob(ctx, id) })
}

// Whichever change of the repository fails in the course of a backup, in the end there is a restore
// point and no error, or an error and no restore point.
func TestFailureAnywhere(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*faultyStorage{
		"once":                   {},
		"once, after its effect": {after: true},
		"from then on":           {forever: true},
		"from then on, after":    {forever: true, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			other := open(t, c)
			backUp(t, other, testManifest(), nil)
			r := open(t, c)
			fault.Storage = r.storage.Storage
			r.storage.Storage = fault
			listed := 1
			failures := 0
			base := &source{capacity: 3 * mib, extents: []extent{{0, random(99, 3*mib)}}}
			parent := backUp(t, other, testManifest(), map[string]disk.Source{"disk.raw": base})
			listed++
			parentDisk := firstDisk(t, other, parent)
			for n := int64(1); ; n++ {
				if n > 100 {
					t.Fatal("a backup makes more than 100 changes")
				}
				src := &source{capacity: 3 * mib, extents: []extent{{0, random(uint64(n), 4096)}, {2 * mib, random(uint64(n), 8192)}}}
				fault.left.Store(n)
				write := func(w *Writer) (DiskResult, error) { return w.WriteDisk(t.Context(), "disk.raw", src) }
				if n%2 == 0 { // the second chunk is taken over
					areas := disk.NewAreas(src.capacity, mib)
					areas.Add(disk.Extent{Length: 1})
					areas.Add(disk.Extent{Offset: 2 * mib, Length: 1})
					changed := src.extents
					write = func(w *Writer) (DiskResult, error) {
						return w.WriteChanges(t.Context(), "disk.raw", &source{capacity: src.capacity, extents: changed},
							Base{ID: parent, Disk: parentDisk, Areas: areas})
					}
					src = &source{capacity: src.capacity, extents: []extent{changed[0], {mib, base.extents[0].data[mib : 2*mib]}, changed[1]}}
				}
				id, m, err := tryBackUp(t, r, src.capacity, write)
				reached := fault.left.Load() <= 0
				fault.left.Store(1 << 40)
				if err == nil {
					listed++
					if b := readDisk(t, other, id, m.Disks[0]); !bytes.Equal(b, src.bytes()) {
						t.Errorf("change %d: the disk differs", n)
					}
				} else {
					failures++
					if !errors.Is(err, errFault) {
						t.Errorf("change %d: error %v", n, err)
					}
				}
				if points, listErr := other.List(t.Context(), Filter{}); listErr != nil || len(points) != listed {
					t.Errorf("change %d: error %v, but %d restore points instead of %d, %v", n, err, len(points), listed, listErr)
				}
				if !reached {
					break
				}
			}
			if failures < 5 {
				t.Errorf("%d faults made a backup fail", failures)
			}
		})
	}
}

// tryBackUp is a backup in which anything may fail.
func tryBackUp(
	t *testing.T, r *Repository, capacity int64, write func(w *Writer) (DiskResult, error),
) (ID, *Manifest, error) {
	t.Helper()
	w, err := r.NewWriter(t.Context())
	if err != nil {
		return "", nil, err
	}
	defer w.Close(t.Context()) //nolint:errcheck // always nil
	result, err := write(w)
	if err != nil {
		return "", nil, err
	}
	m := testManifest()
	m.Disks = []Disk{diskOf("disk.raw", capacity, result)}
	id, err := w.Commit(t.Context(), m, testFiles)
	return id, m, err
}

// goneStorage is a storage that is gone after a number of changes. Who is refused then loses patience.
type goneStorage struct {
	blob.Storage
	left    atomic.Int64
	refused func()
}

func (s *goneStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if s.left.Add(-1) < 0 {
		s.refused()
		return errFault
	}
	return s.Storage.PutBlob(ctx, id, data, o)
}

func (s *goneStorage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	if s.left.Load() < 0 {
		s.refused()
		return errFault
	}
	return s.Storage.ListBlobs(ctx, prefix, yield)
}

// A storage that is gone at the very end leaves it open whether there is a restore point, and the error says so.
func TestCommitUncertain(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	r.commitTimeout = 100 * time.Millisecond // Kopia asks a storage that is gone until then
	gone := &goneStorage{Storage: r.storage.Storage}
	r.storage.Storage = gone
	for n, uncertain := int64(0), false; !uncertain; n++ {
		gone.left.Store(1 << 40)
		w := newWriter(t, r)
		m := testManifest()
		writeDisk(t, w, m, "disk.raw", &source{capacity: mib, extents: []extent{{0, random(uint64(n), 4096)}}})
		commit, cancel := context.WithCancel(t.Context())
		gone.refused = cancel // as above, of what comes before the last flush
		gone.left.Store(n)
		id, err := w.Commit(commit, m, testFiles)
		cancel()
		gone.left.Store(1 << 40)
		if err == nil {
			t.Fatalf("with %d changes, there is restore point %s, and before it no doubt about one", n, id)
		}
		if uncertain = errors.Is(err, ErrUncertain); uncertain && !strings.Contains(err.Error(), "restore point") {
			t.Errorf("change %d: %v", n, err)
		}
		points, listErr := r.List(t.Context(), Filter{})
		if listErr != nil || len(points) != 0 && !uncertain {
			t.Errorf("change %d: %v, but listed %v, %v", n, err, points, listErr)
		}
	}
}

// A lateStorage carries out the writing of indexes only when all is over, as a server may that has become slow.
type lateStorage struct {
	blob.Storage
	left int // indexes that it still writes at once
	late map[blob.ID][]byte
}

func (s *lateStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if strings.HasPrefix(string(id), string(indexPrefix)) {
		s.left--
	}
	if s.left >= 0 || !strings.HasPrefix(string(id), string(indexPrefix)) {
		return s.Storage.PutBlob(ctx, id, data, o)
	}
	var b bytes.Buffer
	_, err := data.WriteTo(&b)
	s.late[id] = b.Bytes()
	return errors.Join(err, ErrUnreachable)
}

// TestCommitLate has a restore point appear after its backup had failed, and wants that to have been said.
func TestCommitLate(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	late := &lateStorage{Storage: r.storage.Storage, left: math.MaxInt, late: map[blob.ID][]byte{}}
	r.storage.Storage = late
	w := newWriter(t, r)
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", testSource(1))
	late.left = 1 // that of what the restore point consists of, but not that of its manifest
	_, err := w.Commit(t.Context(), m, testFiles)
	if !errors.Is(err, ErrUncertain) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want %v", err, ErrUncertain)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Errorf("listed %v, %v", points, err)
	}
	for id, b := range late.late {
		if err := late.Storage.PutBlob(t.Context(), id, blobBytes(b), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	points, listErr := r.List(t.Context(), Filter{})
	if listErr != nil || len(points) != 1 || err == nil || !strings.Contains(err.Error(), string(points[0].ID)) {
		t.Fatalf("listed %v, %v after error %v", points, listErr, err)
	}
	if b := readDisk(t, r, points[0].ID, firstDisk(t, r, points[0].ID)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
}
