package repository

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// blobs returns the files of the repository's blobs whose names begin with the prefix, the largest
// first. Kopia spreads a blob's name over directories.
func blobs(t *testing.T, path, prefix string) []string {
	t.Helper()
	var files []string
	sizes := map[string]int64{}
	err := filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasPrefix(blobName(path, file), prefix) && strings.HasSuffix(file, ".f") {
			info, err := e.Info()
			if err != nil {
				return err
			}
			files, sizes[file] = append(files, file), info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int { return int(sizes[b] - sizes[a]) })
	return files
}

// blobName is the name of the blob in a file.
func blobName(path, file string) string {
	name := strings.TrimPrefix(strings.TrimSuffix(file, ".f"), path)
	return strings.ReplaceAll(name, string(filepath.Separator), "")
}

func flip(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += 16 {
		b[i] ^= 0x55
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedPack(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, file string){
		"flipped": flip,
		"deleted": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"truncated": func(t *testing.T, file string) {
			if err := os.Truncate(file, 1000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
			d := firstDisk(t, r, id)
			pack := blobs(t, c.Path, "p")[0]
			damage(t, pack)
			reader, err := r.OpenDisk(t.Context(), id, d)
			if err != nil {
				t.Fatal(err)
			}
			err = reader.Extents(t.Context(), func(int64, []byte) error { return nil })
			var digest *DigestError
			if !errors.Is(err, ErrDamaged) || errors.As(err, &digest) || !strings.Contains(err.Error(), blobName(c.Path, pack)) {
				t.Errorf("error %v, want %v naming %s", err, ErrDamaged, blobName(c.Path, pack))
			}
			// What is left can still be listed.
			if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 1 {
				t.Errorf("listed %v, %v", points, err)
			}
		})
	}
}

// Directories, chunk tables and manifests are in packs of their own.
func TestDamagedMetadata(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	d := firstDisk(t, r, id)
	for _, q := range blobs(t, c.Path, "q") {
		flip(t, q)
	}
	if _, err := r.Get(t.Context(), id); !errors.Is(err, ErrDamaged) {
		t.Errorf("get: %v", err)
	}
	if _, err := r.OpenDisk(t.Context(), id, d); !errors.Is(err, ErrDamaged) {
		t.Errorf("open disk: %v", err)
	}
	if points, err := open(t, c).List(t.Context(), Filter{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("list: %v, %v", points, err)
	}
}

func TestDamagedIndex(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	index := blobs(t, c.Path, "x")[0]
	flip(t, index)
	r, err := Open(t.Context(), c)
	if err == nil {
		err = r.Close(t.Context())
		t.Fatalf("opened, closed: %v", err)
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), blobName(c.Path, index)) {
		t.Errorf("error %v, want %v naming %s", err, ErrDamaged, blobName(c.Path, index))
	}
}

// A restore point whose manifest and disks don't belong together, which only a mistake of a program
// can make, must not be restored.
func TestDigestError(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	m.SchemaVersion = SchemaVersion
	writeDisk(t, w, m, "a.raw", testSource(1))
	writeDisk(t, w, m, "b.raw", testSource(2))
	w.disks["a.raw"], w.disks["b.raw"] = w.disks["b.raw"], w.disks["a.raw"]
	if _, err := w.Commit(t.Context(), m, testFiles); err == nil {
		t.Fatal("committed disks that are not those of the manifest")
	}
	id, err := r.commit(t.Context(), m, w.disks, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := r.OpenDisk(t.Context(), id, m.Disks[0])
	if err != nil {
		t.Fatal(err)
	}
	err = reader.Extents(t.Context(), func(int64, []byte) error { return nil })
	var digest *DigestError
	if !errors.As(err, &digest) || !errors.Is(err, ErrDamaged) {
		t.Fatalf("error %v", err)
	}
	want := DigestError{ID: id, File: "a.raw", Want: wantDigest(testSource(1).bytes()), Got: wantDigest(testSource(2).bytes())}
	if *digest != want {
		t.Errorf("error %+v, want %+v", *digest, want)
	}
	other := m.Disks[0]
	other.Capacity += 512
	if _, err := r.OpenDisk(t.Context(), id, other); !errors.Is(err, ErrDamaged) {
		t.Errorf("another capacity: %v", err)
	}
}

// Data that is in the repository already is not written again. What is damaged of it is noticed at the commit,
// as far as that is possible without reading the disks, and no restore point is made.
func TestCommitOntoDamage(t *testing.T) {
	t.Parallel()
	truncate := func(t *testing.T, file string) {
		if err := os.Truncate(file, 1000); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, file string) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prefix string
		damage func(t *testing.T, file string)
	}{
		"data flipped": {"p", flip}, "data deleted": {"p", remove}, "data truncated": {"p", truncate},
		"files flipped": {"q", flip}, "files deleted": {"q", remove}, "files truncated": {"q", truncate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := testConfig(t)
			r := open(t, config)
			big := func() *source { return &source{capacity: 40 * mib, extents: []extent{{0, random(7, 40*mib)}}} }
			backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": big()}) // several packs
			w := newWriter(t, r)
			found := blobs(t, config.Path, c.prefix)
			if c.prefix == "q" || name == "data flipped" { // hashes are in one of them
				for _, file := range found {
					c.damage(t, file)
				}
			} else {
				c.damage(t, found[0])
			}
			m := testManifest()
			writeDisk(t, w, m, "disk.raw", big())
			id, err := w.Commit(t.Context(), m, testFiles)
			if !errors.Is(err, ErrSharedDamage) || !errors.Is(err, ErrDamaged) || errors.Is(err, ErrIncomplete) {
				t.Errorf("restore point %q, error %v, want %v", id, err, ErrSharedDamage)
			}
			if err != nil && !slices.ContainsFunc(found, func(file string) bool { return strings.Contains(err.Error(), blobName(config.Path, file)) }) {
				t.Errorf("error %v names none of %v", err, found)
			}
			if err := w.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
