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

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"github.com/minio/minio-go/v7"
	"github.com/zeebo/blake3"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// TestLimits has a limit delay what it is for, for longer than anybody waits.
func TestLimits(t *testing.T) {
	t.Parallel()
	const name = ownBlobPrefix + "limited"
	write := func(ctx context.Context, s *storage) error {
		return s.PutBlob(ctx, name, blobBytes(random(1, mib)), blob.PutOptions{})
	}
	read := func(ctx context.Context, s *storage) error {
		return s.GetBlob(ctx, name, 0, mib, new(buffer))
	}
	whole := func(ctx context.Context, s *storage) error {
		for range 3 {
			if err := s.GetBlob(ctx, name+"-small", 0, -1, new(buffer)); err != nil {
				return err
			}
		}
		return ctx.Err() // a limit waits no longer than it may, and goes on
	}
	for what, test := range map[string]struct {
		limits  Limits
		do      func(context.Context, *storage) error
		delayed bool
	}{
		"upload":           {Limits{Upload: 1}, write, true},
		"download":         {Limits{Download: 1}, read, true},
		"not the download": {Limits{Upload: 1}, read, false},
		"not the upload":   {Limits{Download: 1}, write, false},
		"far from it":      {Limits{Upload: 1 << 40}, write, false},
		"small blobs":      {Limits{Download: 4096}, whole, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			if err := errors.Join(write(t.Context(), r.storage),
				r.storage.PutBlob(t.Context(), name+"-small", blobBytes(random(1, 1024)), blob.PutOptions{})); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s := new(storage)
			if test.limits.Download == 0 {
				c.Limits = test.limits
				s = open(t, c).storage
			} else { // opening takes too long
				base, err := test.limits.apply(r.storage.Storage)
				if err != nil {
					t.Fatal(err)
				}
				s.Storage = base
			}
			if test.delayed {
				ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
			}
			err := test.do(ctx, s)
			switch {
			case test.delayed && ctx.Err() == nil:
				t.Errorf("it was not delayed: %v", err)
			case !test.delayed && err != nil:
				t.Error(err)
			}
		})
	}
}

// heldStorage is a storage whose writes say that they have begun, and wait.
type heldStorage struct {
	blob.Storage
	begun, held chan struct{}
}

func (s *heldStorage) PutBlob(context.Context, blob.ID, blob.Bytes, blob.PutOptions) error {
	s.begun <- struct{}{}
	<-s.held
	return nil
}

func TestStorage_writing(t *testing.T) {
	t.Parallel()
	held := &heldStorage{begun: make(chan struct{}), held: make(chan struct{})}
	s := &storage{Storage: held}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if err := s.PutBlob(t.Context(), "p", blobBytes("x"), blob.PutOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-held.begun
	}
	if n := s.writing.Load(); n != 3 {
		t.Errorf("%d writes are under way, want 3", n)
	}
	close(held.held)
	group.Wait()
	if n := s.writing.Load(); n != 0 {
		t.Errorf("%d writes are under way after the last", n)
	}
}

// TestObjectLock looks at what an S3 server says of the objects of a repository, and tries to remove one of them.
func TestObjectLock(t *testing.T) {
	t.Parallel()
	s := storagetest.NewS3(t, true)
	c, _ := connectS3(t, s, "locked")
	place := c.Place.(*S3)
	backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	place.Lock = &ObjectLock{Mode: LockCompliance, Period: 72 * time.Hour} // from now on
	r := open(t, c)
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)})
	lockOf := func(o minio.ObjectInfo) (mode string, until time.Time) {
		info, err := s.Client.StatObject(t.Context(), storagetest.S3Bucket, o.Key, minio.StatObjectOptions{VersionID: o.VersionID})
		if err := errors.Join(o.Err, err); err != nil {
			t.Fatal(err)
		}
		if mode = info.Metadata.Get("X-Amz-Object-Lock-Mode"); mode != "" {
			until, err = time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return mode, until
	}
	packs := minio.ListObjectsOptions{Prefix: place.Prefix + "p", WithVersions: true}
	locked, unlocked := 0, 0
	for o := range s.Client.ListObjects(t.Context(), storagetest.S3Bucket, packs) {
		switch mode, until := lockOf(o); {
		case mode == "":
			unlocked++
		case mode != string(LockCompliance) || time.Until(until) < 71*time.Hour || time.Until(until) > 73*time.Hour:
			t.Errorf("%s is locked by %s until %s", o.Key, mode, until)
		default:
			locked++
			err := s.Client.RemoveObject(t.Context(), storagetest.S3Bucket, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID, GovernanceBypass: true})
			if err == nil {
				t.Errorf("%s is removed", o.Key)
			}
		}
	}
	if locked == 0 || unlocked == 0 {
		t.Errorf("%d packs are locked, and %d are not", locked, unlocked)
	}
	// Maintenance renews the lock, of everything.
	if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !m.Ran {
		t.Fatalf("maintenance: %+v, %v", m, err)
	}
	for o := range s.Client.ListObjects(t.Context(), storagetest.S3Bucket, packs) {
		if mode, _ := lockOf(o); mode != string(LockCompliance) {
			t.Errorf("%s is not locked after maintenance", o.Key)
		}
	}
	cfg, err := open(t, c).rep.FormatManager().BlobCfgBlob(t.Context())
	if want, _ := place.Lock.blobs(); err != nil || cfg != want {
		t.Errorf("the repository says of its lock %+v, %v", cfg, err)
	}
}

// A spyStorage calls a function before something is written.
type spyStorage struct {
	blob.Storage
	onPut func(id blob.ID)
}

func (s *spyStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	s.onPut(id)
	return s.Storage.PutBlob(ctx, id, data, o)
}

// TestObjectLock_raise makes a lock stronger, by one at a time, and never weaker.
func TestObjectLock_raise(t *testing.T) {
	t.Parallel()
	s := storagetest.NewS3(t, true)
	with := func(l *ObjectLock) Config {
		c, _ := connectS3(t, s, "locked")
		c.Place.(*S3).Lock = l
		return c
	}
	const day = 24 * time.Hour
	plain := open(t, with(nil))
	first, second := open(t, with(&ObjectLock{LockCompliance, 3 * day})), open(t, with(&ObjectLock{LockGovernance, 4 * day}))
	claimed := false
	first.storage.Storage = &spyStorage{Storage: first.storage.Storage, onPut: func(id blob.ID) {
		if id != format.KopiaBlobCfgBlobID {
			return
		}
		_, err := takeClaim(t.Context(), plain.storage, lockClaim, lockClaimAge)
		claimed = errors.Is(err, ErrBusy)
	}}
	backUp(t, first, testManifest(), nil)
	if !claimed {
		t.Error("two can change the lock at once")
	}
	// The second one read the lock before.
	if _, err := second.NewWriter(t.Context()); !errors.Is(err, ErrWeakerLock) {
		t.Errorf("error %v, want %v", err, ErrWeakerLock)
	}
	for _, l := range []ObjectLock{{LockGovernance, 3 * day}, {LockGovernance, 9 * day}, {LockCompliance, 2 * day}} {
		_, err := Open(t.Context(), with(&l))
		if !errors.Is(err, ErrWeakerLock) || !strings.Contains(err.Error(), "compliance for 3 days") {
			t.Errorf("lock %+v: %v", l, err)
		}
	}
	backUp(t, open(t, with(&ObjectLock{LockCompliance, 5 * day})), testManifest(), nil)
	backUp(t, open(t, with(nil)), testManifest(), nil)
	cfg, err := open(t, with(nil)).rep.FormatManager().BlobCfgBlob(t.Context())
	if cfg.RetentionPeriod != 5*day || cfg.RetentionMode != blob.RetentionMode(LockCompliance) || err != nil {
		t.Errorf("it is locked by %+v, %v", cfg, err)
	}
}

// TestObjectLock_invalid refuses locks that can't be had.
func TestObjectLock_invalid(t *testing.T) {
	t.Parallel()
	for _, l := range []ObjectLock{{}, {LockGovernance, 24 * time.Hour}, {"LEGAL", 72 * time.Hour}} {
		if _, err := l.blobs(); err == nil {
			t.Errorf("%+v is fine", l)
		}
	}
}

// TestIndexCache opens a repository again, and reads no index; and one whose cache was damaged, and reads it again.
func TestIndexCache(t *testing.T) {
	t.Parallel()
	c, _ := startS3(t)(t, "cached")
	c.Cache = Cache{Directory: t.TempDir(), Size: mib}
	id := backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(c.Cache.Directory, "*"+cacheSuffix))
		if err != nil || len(names) == 0 {
			t.Fatalf("it holds %v, %v", names, err)
		}
		return names
	}
	open(t, c)
	names := files()
	for i, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if b[i%len(b)] ^= 1; i%2 == 1 {
			b = b[:len(b)/2]
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, c)
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
	for _, name := range files() {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum := blake3.Sum256(b[:len(b)-blake3Size])
		if !bytes.Equal(sum[:], b[len(b)-blake3Size:]) {
			t.Errorf("%s is still damaged", name)
		}
	}

	// What the storage has is damaged, which this process doesn't need.
	var index []blob.ID
	err := r.remote.ListBlobs(t.Context(), indexPrefix, func(m blob.Metadata) error {
		index = append(index, m.BlobID)
		return nil
	})
	for _, name := range index {
		err = errors.Join(err, r.remote.PutBlob(t.Context(), name, blobBytes("damaged"), blob.PutOptions{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range []VerifyLevel{VerifyIndex, VerifyData} {
		if found, err := r.Verify(t.Context(), id, level, nil); err != nil || len(found.Damage) == 0 {
			t.Errorf("a repository that nobody can open is verified at %q: %+v, %v", level, found, err)
		}
	}

	c.Cache.Size = 100
	cache := newIndexCache(c.Cache)
	cache.makeRoom()
	if left, err := filepath.Glob(filepath.Join(c.Cache.Directory, "*")); err != nil || len(left) != 0 {
		t.Errorf("there is room for %v, %v", left, err)
	}
}

// TestEncryption makes repositories that are encrypted in every way, and opens none in another.
func TestEncryption(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Encryption = "rot13"
	if _, err := Open(t.Context(), c); err == nil {
		t.Error("any encryption will do")
	}
	c.Encryption = EncryptionChaCha
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
	c.Encryption = ""
	open(t, c)
	c.Encryption = EncryptionAES
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrNoRepository) || !strings.Contains(err.Error(), "CHACHA20") {
		t.Errorf("another encryption: %v", err)
	}
}
