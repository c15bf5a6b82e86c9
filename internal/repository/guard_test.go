package repository

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// maintain runs full maintenance, as another process would do.
func maintain(t *testing.T, c Config, safety maintenance.SafetyParameters) {
	t.Helper()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	err = repo.DirectWriteSession(t.Context(), r.rep, writeOptions("maintenance"),
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			return snapshotmaintenance.Run(ctx, w, maintenance.ModeFull, true, safety)
		})
	if err := errors.Join(err, r.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// nextSecond waits until the clock shows another second: Kopia orders changes of a content by it.
func nextSecond(t *testing.T) {
	t.Helper()
	now := time.Now()
	select {
	case <-time.After(now.Truncate(time.Second).Add(1100 * time.Millisecond).Sub(now)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// Data of a disk that is marked as deleted between its write and the commit is brought back: the
// restore point survives the next maintenance.
func TestCommitRevivesDeletedData(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	nextSecond(t)
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", testSource(1)) // writes nothing that isn't there
	if err := r.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	mark := maintenance.SafetyFull
	mark.MinContentAgeSubjectToGC = 0
	maintain(t, c, mark)
	nextSecond(t)
	if deleted := countDeleted(t, r, w.disks["disk.raw"]); deleted == 0 {
		t.Fatal("maintenance has marked nothing as deleted")
	}
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	if deleted := countDeleted(t, r, w.disks["disk.raw"]); deleted != 0 {
		t.Errorf("%d contents are still marked as deleted", deleted)
	}
	nextSecond(t)
	maintain(t, c, maintenance.SafetyNone)
	other := open(t, c)
	if b := readDisk(t, other, id, firstDisk(t, other, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
}

// countDeleted counts the disk's contents that are marked as deleted.
func countDeleted(t *testing.T, r *Repository, d *writtenDisk) (n int) {
	t.Helper()
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids, err := r.rep.VerifyObject(t.Context(), d.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		info, err := r.rep.ContentInfo(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if info.Deleted {
			n++
		}
	}
	return n
}

// Data that is gone for good by the time of the commit is not committed.
func TestCommitRefusesMissingData(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]*source{
		"several chunks": testSource(1),
		"one chunk":      {capacity: 512, extents: []extent{{0, random(1, 512)}}}, // found by its index alone
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refusesMissingData(t, src)
		})
	}
}

func refusesMissingData(t *testing.T, src *source) {
	t.Helper()
	c := testConfig(t)
	r := open(t, c)
	first := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	nextSecond(t)
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", src)
	if err := r.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	nextSecond(t)
	maintain(t, c, maintenance.SafetyNone)
	nextSecond(t)
	maintain(t, c, maintenance.SafetyNone)
	if id, err := w.Commit(t.Context(), m, testFiles); !errors.Is(err, ErrIncomplete) {
		t.Errorf("restore point %s, error %v, want %v", id, err, ErrIncomplete)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Errorf("listed %v, %v", points, err)
	}
	// As the error says: take it again.
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	other := open(t, c)
	if b := readDisk(t, other, id, firstDisk(t, other, id)); !bytes.Equal(b, src.bytes()) {
		t.Error("the disk differs")
	}
}

func TestCommitChecksManifest(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := testManifest()
	writeDisk(t, w, good, "disk.raw", testSource(1))
	for name, change := range map[string]func(m *Manifest, files map[string][]byte){
		"no name":            func(m *Manifest, _ map[string][]byte) { m.VM.Name = "" },
		"no path":            func(m *Manifest, _ map[string][]byte) { m.VM.Path = "" },
		"no server":          func(m *Manifest, _ map[string][]byte) { m.VM.Server = "" },
		"no time":            func(m *Manifest, _ map[string][]byte) { m.CreatedAt = time.Time{} },
		"no disk":            func(m *Manifest, _ map[string][]byte) { m.Disks = nil },
		"unknown disk":       func(m *Manifest, _ map[string][]byte) { m.Disks[0].File = "other.raw" },
		"disk twice":         func(m *Manifest, _ map[string][]byte) { m.Disks = append(m.Disks, m.Disks[0]) },
		"other capacity":     func(m *Manifest, _ map[string][]byte) { m.Disks[0].Capacity += 512 },
		"other digest":       func(m *Manifest, _ map[string][]byte) { m.Disks[0].Digest = wantDigest(nil) },
		"other chunks":       func(m *Manifest, _ map[string][]byte) { m.Disks[0].ChunkSize *= 2 },
		"other data":         func(m *Manifest, _ map[string][]byte) { m.Disks[0].DataBytes-- },
		"parent":             func(m *Manifest, _ map[string][]byte) { m.Parent = "x" },
		"no configuration":   func(_ *Manifest, files map[string][]byte) { delete(files, "config.json") },
		"no NVRAM":           func(_ *Manifest, files map[string][]byte) { delete(files, "nvram") },
		"manifest as file":   func(_ *Manifest, files map[string][]byte) { files["backup.json"] = nil },
		"disk as file":       func(_ *Manifest, files map[string][]byte) { files["disk.raw"] = nil },
		"file elsewhere":     func(_ *Manifest, files map[string][]byte) { files["../x"] = nil },
		"config is the disk": func(m *Manifest, _ map[string][]byte) { m.Config.File = "disk.raw" },
	} {
		m := *good
		m.Disks = append([]Disk(nil), good.Disks...)
		files := map[string][]byte{}
		for k, v := range testFiles {
			files[k] = v
		}
		change(&m, files)
		if id, err := w.Commit(t.Context(), &m, files); err == nil {
			t.Errorf("%s: committed %s", name, id)
		}
	}
	for _, file := range []string{"", ".", "..", "a/b", `a\b`, "a\x00b", "a\nb", "backup.json", "disk.raw", "\xff", string(bytes.Repeat([]byte("x"), 256))} {
		if _, err := w.WriteDisk(t.Context(), file, testSource(1)); err == nil {
			t.Errorf("wrote a disk to %q", file)
		}
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Errorf("listed %v, %v", points, err)
	}
	if _, err := w.Commit(t.Context(), good, testFiles); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context(), good, testFiles); !errors.Is(err, errWriterDone) {
		t.Errorf("second commit: %v", err)
	}
	if _, err := w.WriteDisk(t.Context(), "late.raw", testSource(1)); !errors.Is(err, errWriterDone) {
		t.Errorf("a disk after the commit: %v", err)
	}
}

// A restore point of a later version is listed and refused.
func TestSchemaVersion(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	m := testManifest()
	m.SchemaVersion = SchemaVersion + 1
	id, err := r.commit(t.Context(), m, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), id); !errors.Is(err, ErrSchemaVersion) || errors.Is(err, ErrDamaged) {
		t.Errorf("error %v, want %v", err, ErrSchemaVersion)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 1 {
		t.Errorf("listed %v, %v", points, err)
	}
}
