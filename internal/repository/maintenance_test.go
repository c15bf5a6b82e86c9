package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func init() {
	children["maintain"] = maintainOften
	children["maintain and hang"] = maintainAndHang
}

// maintainOften maintains a repository several times, as soon as nobody writes.
func maintainOften(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	for range 4 {
		if _, err := r.Maintain(ctx, MaintainOptions{Now: true, Wait: time.Minute}); err != nil {
			return err
		}
	}
	return r.Close(ctx)
}

// maintainAndHang maintains a repository, says so in the middle of it, and waits for its end.
func maintainAndHang(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	r.storage.Storage = &hangingStorage{Storage: r.storage.Storage}
	_, err = r.Maintain(ctx, MaintainOptions{Now: true})
	return err
}

// hangingStorage hangs in the third of its changes: the first two say that maintenance began, and that nothing
// uses some of the data.
type hangingStorage struct {
	blob.Storage
	changes atomic.Int64
}

func (s *hangingStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if s.changes.Add(1) < 3 {
		return s.Storage.PutBlob(ctx, id, data, o)
	}
	fmt.Println("maintaining")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// writePlain writes an object as a writer of plain Kopia does.
func writePlain(t *testing.T, w repo.RepositoryWriter, b []byte) object.ID {
	t.Helper()
	ow := w.NewObjectWriter(t.Context(), object.WriterOptions{Splitter: formatSplitter, Compressor: compressor, MetadataCompressor: compressor})
	defer ow.Close() //nolint:errcheck // always nil
	if _, err := ow.Write(b); err != nil {
		t.Fatal(err)
	}
	id, err := ow.Result()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestUnsafeMaintenanceCorrupts shows with nothing but Kopia what Maintain must never do: maintenance without
// safety beside a writer. The writer is told of success, and what it wrote can't be read.
func TestUnsafeMaintenanceCorrupts(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	src := &source{capacity: 4 * mib, extents: []extent{{0, random(1, 4*mib)}}}
	r := open(t, c)
	first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})

	ctx, writer, err := r.rep.NewWriter(t.Context(), writeOptions("test"))
	if err != nil {
		t.Fatal(err)
	}
	id := writePlain(t, writer, src.bytes()) // all of it is there already
	if err := r.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		nextSecond(t)
		maintain(t, c, maintenance.SafetyNone)
	}
	now := kopiafs.UTCTimestampFromTime(writer.Time())
	_, err = snapshot.SaveSnapshot(ctx, writer, &snapshot.Manifest{
		Source: snapshot.SourceInfo{Host: "a", UserName: "b", Path: "/c"}, StartTime: now, EndTime: now,
		RootEntry: &snapshot.DirEntry{Name: "disk.raw", Type: snapshot.EntryTypeFile, FileSize: src.capacity, ObjectID: id},
	})
	if err := errors.Join(err, writer.Flush(ctx), writer.Close(ctx)); err != nil {
		t.Fatalf("the writer was told that it failed: %v", err)
	}

	other := open(t, c)
	reader, err := other.rep.OpenObject(t.Context(), id)
	if err == nil {
		_, err = io.Copy(io.Discard, reader)
	}
	if !isMissing(err) {
		t.Errorf("what was written beside unsafe maintenance reads with %v: Kopia became safe", err)
	}
}

// TestMaintenanceBesideWriter does with ours what TestUnsafeMaintenanceCorrupts does: maintenance doesn't run, and
// later it removes nothing that is in use.
func TestMaintenanceBesideWriter(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r, other := open(t, c), open(t, c)
	first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", testSource(1)) // all of it is there already
	if err := other.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Repository{r, other} { // the process of the writer, and another
		result, err := r.Maintain(t.Context(), MaintainOptions{Now: true, Wait: 30 * time.Millisecond})
		if !errors.Is(err, ErrBusy) || result.Ran || !strings.Contains(err.Error(), c.Path) {
			t.Errorf("maintenance beside a writer: %+v, %v", result, err)
		}
	}
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		nextSecond(t)
		if result, err := other.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !result.Ran {
			t.Fatalf("maintenance: %+v, %v", result, err)
		}
	}
	for _, r := range []*Repository{r, open(t, c)} {
		if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
			t.Error("the disk differs")
		}
	}
}

// Maintenance runs when it is due, and sweeps.
func TestMaintain(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	old := time.Now().Add(-sweepAge - time.Hour)
	inside := filepath.Dir(blobs(t, c.Path, "p")[0])
	files := map[string]bool{ // true: goes
		filepath.Join(inside, "abc.f.tmp.0123456789abcdef"):        true,
		filepath.Join(c.Path, "kopia.maintenance.f.tmp.01234567"):  true,
		filepath.Join(c.Path, ".shards.tmp.01234567"):              true,
		filepath.Join(c.Path, writeTest+"123"):                     true,
		filepath.Join(c.Path, holdPrefix+strings.Repeat("ab", 16)): true,
		filepath.Join(c.Path, "young.f.tmp.0123456789abcdef"):      false,
		filepath.Join(c.Path, "notes.tmp.txt"):                     false,
		filepath.Join(inside, "letter.tmp.2024"):                   false, // somebody else's
		filepath.Join(c.Path, "of-somebody", "letter.doc.tmp.1"):   false,
	}
	if err := os.Mkdir(filepath.Join(c.Path, "of-somebody"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file := range files {
		if err := os.WriteFile(file, []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(file, "young") {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	release, err := r.Hold(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := os.Chtimes(r.holdFile(id), old, old); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	first, err := r.Maintain(t.Context(), MaintainOptions{})
	if err != nil || !first.Ran || first.Swept != 5 || first.Due.Before(start.Add(23*time.Hour)) || first.Due.After(start.Add(25*time.Hour)) {
		t.Errorf("the first time: %+v, %v", first, err)
	}
	for file, goes := range files {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) != goes {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := r.DeleteUnused(t.Context(), id); !errors.Is(err, ErrInUse) {
		t.Errorf("maintenance let go of a hold: %v", err)
	}
	again, err := open(t, c).Maintain(t.Context(), MaintainOptions{})
	if err != nil || again.Ran || !again.Due.Equal(first.Due) {
		t.Errorf("again: %+v, %v; it is due at %s", again, err, first.Due)
	}
	if now, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !now.Ran {
		t.Errorf("not due: %+v, %v", now, err)
	}
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
}

// Without locks there are backups but no maintenance.
func TestMaintain_noLocks(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	r.locker = noLocks{}
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); !errors.Is(err, errNoLocks) || m.Ran {
		t.Errorf("maintenance without a lock: %+v, %v", m, err)
	}
	if err := r.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// Where another user of Kopia maintains the repository, this one does not.
func TestMaintain_otherOwner(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	err := repo.WriteSession(t.Context(), r.rep, writeOptions("test"), func(ctx context.Context, w repo.RepositoryWriter) error {
		p := maintenance.DefaultParams()
		p.Owner = "root@nas"
		return maintenance.SetParams(ctx, w, &p)
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Maintain(t.Context(), MaintainOptions{Now: true})
	if !errors.Is(err, ErrNotOwner) || !strings.Contains(err.Error(), "root@nas") || m.Ran {
		t.Errorf("%+v, %v", m, err)
	}
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)}) // the lock is free again
}

// A process that is killed in the middle of maintenance leaves a whole repository, in nobody's way.
func TestKilledMaintenance(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	keep := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	gone := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)})
	if err := r.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	kill := hang(t, "maintain and hang", c.Path)
	if _, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	kill()
	again := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)})
	if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !m.Ran {
		t.Errorf("after the kill: %+v, %v", m, err)
	}
	fresh := open(t, c)
	for id, seed := range map[ID]uint64{keep: 1, again: 2} {
		if b := readDisk(t, fresh, id, firstDisk(t, fresh, id)); !bytes.Equal(b, testSource(seed).bytes()) {
			t.Errorf("the disk of restore point %s differs", id)
		}
	}
}

// Processes back up, delete and maintain at once: every restore point that is left is whole.
func TestConcurrentMaintenance(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	first := backUp(t, r, testManifest(), map[string]disk.Source{"same.raw": testSource(1)})
	var wait []func() error
	for _, name := range []string{"maintain", "back up", "maintain", "back up"} {
		cmd := child(t, name, c.Path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait = append(wait, func() error {
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("%s: %w: %s", name, err, stderr.String())
			}
			return nil
		})
	}
	if err := r.DeleteUnused(t.Context(), first); err != nil {
		t.Error(err)
	}
	backUp(t, r, testManifest(), map[string]disk.Source{"same.raw": testSource(1)})
	for _, w := range wait {
		if err := w(); err != nil {
			t.Error(err)
		}
	}
	fresh := open(t, c)
	points, err := fresh.List(t.Context(), Filter{})
	if err != nil || len(points) != 3 {
		t.Fatalf("listed %v, %v", points, err)
	}
	for _, p := range points {
		m, err := fresh.Get(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Disks {
			b := readDisk(t, fresh, p.ID, d)
			if d.File == "same.raw" && !bytes.Equal(b, testSource(1).bytes()) || wantDigest(b) != d.Digest {
				t.Errorf("%s of %s differs", d.File, p.ID)
			}
		}
	}
}
