package repository

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A testClock is set by a test, for Kopia and for the storage.
type testClock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// clockStorage is a storage whose clock a test sets.
type clockStorage struct {
	blob.Storage
	clock   *testClock
	written sync.Map // blob.ID → time.Time
}

func (s *clockStorage) at(m blob.Metadata) blob.Metadata {
	if at, ok := s.written.Load(m.BlobID); ok {
		m.Timestamp, _ = at.(time.Time)
	}
	return m
}

func (s *clockStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	err := s.Storage.PutBlob(ctx, id, data, o)
	if err == nil {
		s.written.Store(id, s.clock.now())
		if o.GetModTime != nil {
			*o.GetModTime = s.clock.now()
		}
	}
	return err
}

func (s *clockStorage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := s.Storage.GetMetadata(ctx, id)
	return s.at(m), err
}

func (s *clockStorage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	return s.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error { return yield(s.at(m)) })
}

// openWithClock opens a repository that lives in the time of a clock.
func openWithClock(t *testing.T, path string, clock *testClock) *Repository {
	t.Helper()
	base, err := filesystem.New(t.Context(), &filesystem.Options{Path: path}, false)
	if err != nil {
		t.Fatal(err)
	}
	s := registerStorage(&clockStorage{Storage: base, clock: clock}, false)
	dir, file, err := writeClientConfig(s)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := repo.Open(t.Context(), file, testPassword, &repo.Options{
		DisableRepositoryLog: true, TimeNowFunc: clock.now, OnFatalError: func(error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	direct, ok := opened.(repo.DirectRepository)
	if !ok {
		t.Fatalf("%T is not a direct repository", opened)
	}
	r := &Repository{
		path: path, directory: path, workDir: dir, storage: s, rep: direct, working: make(chan struct{}, workers()),
		locker: fileLocker{path}, patience: lockPatience, idle: newIdleMeter(), commitTimeout: commitTimeout,
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return r
}

// The space of a deleted restore point comes back with maintenance once a day, not before ReclaimDelay and soon
// after, and nothing that others use goes with it.
func TestSpaceComesBack(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	open(t, c)
	clock := &testClock{}
	r := openWithClock(t, c.Path, clock)
	keep := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	large := &source{capacity: 24 * mib, extents: []extent{{0, random(9, 24*mib)}}}
	gone := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": large, "same.raw": testSource(1)})
	clock.advance(30 * time.Hour)
	space, err := r.SpaceOf(t.Context(), []ID{gone})
	if err != nil || space < 24*mib {
		t.Fatalf("it takes %d bytes, %v", space, err)
	}
	if err := r.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	before, err := r.size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	freed := time.Duration(-1) // never
	for day := range 5 {
		if _, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil {
			t.Fatal(err)
		}
		size, err := r.size(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if before-size >= space*8/10 { // the rest is in packs that were put together meanwhile
			freed = time.Duration(day) * 24 * time.Hour
			break
		}
		clock.advance(24*time.Hour + time.Minute)
	}
	if freed < ReclaimDelay || freed > ReclaimDelay+24*time.Hour+time.Minute {
		t.Errorf("most of %d bytes came back after %s, want %s or a day more", space, freed, ReclaimDelay)
	}
	for _, r := range []*Repository{r, open(t, c)} {
		if b := readDisk(t, r, keep, firstDisk(t, r, keep)); !bytes.Equal(b, testSource(1).bytes()) {
			t.Error("the disk that stays differs")
		}
	}
}

// TestMaintain_clock maintains with a clock that is wrong. That is what is said, and not that something is damaged.
func TestMaintain_clock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		c := Config{
			Path: filepath.Join(t.TempDir(), "repository"), Create: true, Password: secret.New(testPassword),
			now: func() time.Time { return time.Now().Add(ahead) },
		}
		_, err := open(t, c).Maintain(t.Context(), MaintainOptions{Now: true})
		if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "clock of this machine") {
			t.Errorf("by %s: %v", ahead, err)
		}
	}
}
