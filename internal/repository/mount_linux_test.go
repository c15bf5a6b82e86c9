package repository

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// mountTemp mounts a file system in memory of the given size in bytes.
func mountTemp(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skip("mounting a tmpfs needs CAP_SYS_ADMIN: run the tests as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := mountTemp(t, "64m")
	c := testConfig(t)
	c.Path = filepath.Join(dir, "repository")
	writable, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	id := backUp(t, writable, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	early, err := writable.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	m.SchemaVersion = SchemaVersion
	for range 19 { // more manifests than Kopia reads without wanting to merge them
		if _, err := writable.commit(t.Context(), m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	check := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v, want %v naming %s", name, err, ErrReadOnly, dir)
		}
	}
	_, err = early.WriteDisk(t.Context(), "disk.raw", testSource(2))
	check("write disk", err)
	_, err = early.Commit(t.Context(), testManifest(), testFiles)
	if err == nil {
		t.Error("committed to a read-only directory")
	}
	if err := errors.Join(early.Close(t.Context()), writable.Close(t.Context())); err != nil {
		t.Error(err)
	}

	r := open(t, c)
	_, err = r.NewWriter(t.Context())
	check("new writer", err)
	check("delete", r.Delete(t.Context(), id))
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 20 {
		t.Errorf("listed %d, %v", len(points), err)
	}
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
	c.Path = filepath.Join(dir, "other")
	_, err = Open(t.Context(), c)
	check("make", err)
}

func TestReadOnlyEmpty(t *testing.T) {
	t.Parallel()
	dir := mountTemp(t, "1m")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c := testConfig(t)
	c.Path = dir
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want %v naming %s", err, ErrReadOnly, dir)
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Path = mountTemp(t, "26m")
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, w, m, "small.raw", testSource(1))
	large := &source{capacity: 64 * mib, extents: []extent{{0, random(5, 64*mib)}}}
	_, err = w.WriteDisk(t.Context(), "large.raw", large)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), c.Path) || !strings.Contains(err.Error(), "large.raw") {
		t.Errorf("error %v, want %v naming %s", err, ErrFull, c.Path)
	}
	if _, err := w.Commit(t.Context(), m, testFiles); err == nil {
		t.Error("committed without one of the disks")
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}

	// Now without any space at all.
	fill(t, c.Path)
	w, err = r.NewWriter(t.Context())
	if err == nil {
		_, err = w.WriteDisk(t.Context(), "small.raw", testSource(1))
	}
	if err == nil {
		_, err = w.Commit(t.Context(), m, testFiles)
	}
	if w != nil {
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("error %v, want %v", err, ErrFull)
	}
	points, err := open(t, c).List(t.Context(), Filter{})
	if err != nil || len(points) != 1 || points[0].ID != id {
		t.Errorf("listed %v, %v", points, err)
	}
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
	if err := os.Remove(filepath.Join(c.Path, "ballast")); err != nil {
		t.Fatal(err)
	}
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
}

// fill takes all space that is left in a directory.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for size := mib; size > 0; size /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
