package repository

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// verify verifies a restore point and returns what is damaged.
func verify(t *testing.T, r *Repository, id ID, level VerifyLevel) *VerifyResult {
	t.Helper()
	result, err := r.Verify(t.Context(), id, level, nil)
	if err != nil {
		t.Fatalf("%s: %v", level, err)
	}
	return result
}

// twoDisks is a restore point with disks that fill several packs, of which the first has no holes.
func twoDisks(t *testing.T, r *Repository) ID {
	t.Helper()
	w, m := newWriter(t, r), testManifest()
	writeDisk(t, w, m, "disk-1.raw", &source{capacity: 24 * mib, extents: []extent{{0, random(7, 24*mib)}}})
	writeDisk(t, w, m, "disk-2.raw", testSource(1))
	m.Disks[0].Label, m.Disks[1].Label = "Hard disk 1", "Hard disk 2"
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	sources := map[string]disk.Source{
		"disk-0.raw": testSource(1),
		"disk-1.raw": &source{capacity: 512, extents: []extent{{0, random(9, 512)}}},
		"disk-2.raw": &source{capacity: 5*mib + 512},
		"disk-3.raw": alternatingSource(),
	}
	id := backUp(t, r, testManifest(), sources)
	for level, want := range map[VerifyLevel]func(d Disk) int64{
		VerifyIndex: func(d Disk) int64 { return d.Capacity }, VerifyData: func(d Disk) int64 { return d.DataBytes },
	} {
		var last, total int64
		result, err := r.Verify(t.Context(), id, level, func(done, all int64) {
			if done < last || total != 0 && all != total || done > all {
				t.Errorf("%s: %d of %d after %d of %d", level, done, all, last, total)
			}
			last, total = done, all
		})
		if err != nil {
			t.Fatal(err)
		}
		var sum, data int64
		for _, d := range result.Manifest.Disks {
			sum += want(d)
			data += d.DataBytes
		}
		if level == VerifyIndex {
			data = 0
		}
		if len(result.Damage) > 0 || last != sum || total != sum || result.ReadBytes != data {
			t.Errorf("%s: %+v, %d of %d, want %d", level, result, last, total, sum)
		}
	}
	for _, level := range []VerifyLevel{"", VerifyRestore, "other"} {
		if result, err := r.Verify(t.Context(), id, level, nil); err == nil {
			t.Errorf("level %q: %+v", level, result)
		}
	}
	if _, err := r.Verify(t.Context(), ID(strings.Repeat("0", 32)), VerifyIndex, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a restore point that isn't there: %v", err)
	}
}

// chunkOf tells where a chunk of the first of two disks is stored.
func chunkOf(t *testing.T, r *Repository, id ID, offset int64) content.Info {
	t.Helper()
	e, err := r.entry(t.Context(), id, "disk-1.raw")
	if err != nil {
		t.Fatal(err)
	}
	var info content.Info
	err = eachChunk(t.Context(), r.rep, e.ObjectID, e.FileSize, func(part object.IndirectObjectEntry) error {
		if part.Start != offset {
			return nil
		}
		cid, _, _ := part.Object.ContentID()
		info, err = r.rep.ContentInfo(t.Context(), cid)
		return err
	})
	if err != nil || info.PackBlobID == "" {
		t.Fatalf("no chunk at %d: %v", offset, err)
	}
	return info
}

// blobFile is the file of a blob.
func blobFile(t *testing.T, path, name string) string {
	t.Helper()
	for _, file := range blobs(t, path, name[:1]) {
		if blobName(path, file) == name {
			return file
		}
	}
	t.Fatalf("no blob %s", name)
	return ""
}

// damaged changes a file, verifies at all levels, and puts back what was there.
func damaged(t *testing.T, r *Repository, id ID, file string, change func(b []byte) []byte) map[VerifyLevel]*VerifyResult {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b := change(bytes.Clone(whole)); b != nil {
		err = os.WriteFile(file, b, 0o600)
	} else {
		err = os.Remove(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	results := map[VerifyLevel]*VerifyResult{}
	for _, level := range []VerifyLevel{VerifyIndex, VerifyData} {
		results[level] = verify(t, r, id, level)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	return results
}

// What is damaged is found, and it is told what it is of. What was put back is as it should be.
func TestVerify_damaged(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := twoDisks(t, r)
	for name, test := range map[string]func(t *testing.T, c Config, r *Repository, id ID){
		"bytes": flippedBytes, "packs": lostPacks, "files": damagedFiles, "cancelled": cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, c, r, id) })
		for _, level := range []VerifyLevel{VerifyIndex, VerifyData} {
			if result := verify(t, r, id, level); len(result.Damage) > 0 {
				t.Errorf("put back: %v", result.Damage)
			}
		}
	}
}

// flippedBytes are found by reading, and only so.
func flippedBytes(t *testing.T, c Config, r *Repository, id ID) {
	t.Helper()
	want := []int64{5 * mib, 6 * mib, 20 * mib}
	files := map[string][]content.Info{}
	for _, offset := range want {
		at := chunkOf(t, r, id, offset)
		file := blobFile(t, c.Path, string(at.PackBlobID))
		files[file] = append(files[file], at)
	}
	var offsets []int64
	var read int64
	for file, chunks := range files {
		results := damaged(t, r, id, file, func(b []byte) []byte {
			for _, at := range chunks {
				b[at.PackOffset+at.PackedLength/2] ^= 1
			}
			return b
		})
		if damage := results[VerifyIndex].Damage; len(damage) > 0 {
			t.Errorf("by the index: %v", damage)
		}
		for _, d := range results[VerifyData].Damage {
			offsets = append(offsets, d.Offset)
			if d.File != "disk-1.raw" || d.Disk != "Hard disk 1" || d.Length != mib || !errors.Is(d.Err, ErrDamaged) || !strings.Contains(d.String(), "in pack p") {
				t.Errorf("%v", d)
			}
		}
		read += 24*mib + 6*mib + 1536 - results[VerifyData].ReadBytes
	}
	slices.Sort(offsets)
	if !slices.Equal(offsets, want) || read != int64(len(want))*mib {
		t.Errorf("damaged at %v; %d bytes are not as they should be", offsets, read)
	}
}

// lostPacks are found without reading them.
func lostPacks(t *testing.T, c Config, r *Repository, id ID) {
	t.Helper()
	at := chunkOf(t, r, id, 3*mib)
	end := int64(at.PackOffset) + int64(at.PackedLength)
	for name, change := range map[string]func(b []byte) []byte{
		"missing": func([]byte) []byte { return nil },
		"cut off": func(b []byte) []byte { return b[:end-1] }, // and what is behind it in the pack is gone, too
	} {
		gone := map[int64]bool{}
		for offset := int64(0); offset < 24*mib; offset += mib {
			other := chunkOf(t, r, id, offset)
			gone[offset] = other.PackBlobID == at.PackBlobID && (name == "missing" || other.PackOffset >= at.PackOffset)
		}
		for level, result := range damaged(t, r, id, blobFile(t, c.Path, string(at.PackBlobID)), change) {
			got := map[int64]bool{}
			for _, d := range result.Damage {
				if d.File != "disk-1.raw" || !strings.Contains(d.String(), string(at.PackBlobID)) || d.Length%mib != 0 || d.Length == 0 {
					t.Errorf("%s, %s: %v", name, level, d)
				}
				for offset := d.Offset; offset < d.Offset+d.Length; offset += mib {
					got[offset] = true
				}
			}
			for offset, want := range gone {
				if got[offset] != want {
					t.Errorf("%s, %s: the chunk at %d is damaged: %v, want %v", name, level, offset, got[offset], want)
				}
			}
		}
	}
}

// objectPack is the pack that a file of a restore point is in.
func objectPack(t *testing.T, r *Repository, id ID, name string) content.Info {
	t.Helper()
	e, err := r.entry(t.Context(), id, name)
	if err != nil {
		t.Fatal(err)
	}
	var info content.Info
	err = eachContent(t.Context(), r.rep, e.ObjectID, e.FileSize, func(_ object.IndirectObjectEntry, cid content.ID) error {
		info, err = r.rep.ContentInfo(t.Context(), cid)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// damagedFiles are the configuration, firmware variables, hashes and the manifest.
func damagedFiles(t *testing.T, c Config, r *Repository, id ID) {
	t.Helper()
	for _, name := range []string{"config.json", "nvram", "disk-1.raw.hashes", manifestFile} {
		at := objectPack(t, r, id, name)
		file := blobFile(t, c.Path, string(at.PackBlobID))
		found := damaged(t, r, id, file, func(b []byte) []byte {
			b[at.PackOffset+at.PackedLength/2] ^= 1
			return b
		})[VerifyData].Damage
		if len(found) != 1 || found[0].File != name || found[0].Length != 0 || (found[0].Disk != "") != strings.HasPrefix(name, "disk") {
			t.Errorf("%s: %v", name, found)
		}
		if found := damaged(t, r, id, file, func([]byte) []byte { return nil })[VerifyIndex].Damage; len(found) == 0 {
			t.Errorf("%s: nothing is missing without its pack", name)
		}
	}
}

func cancelled(t *testing.T, _ Config, r *Repository, id ID) {
	t.Helper()
	for _, level := range []VerifyLevel{VerifyIndex, VerifyData} {
		ctx, cancel := context.WithCancel(t.Context())
		result, err := r.Verify(ctx, id, level, func(done, _ int64) {
			if done > 3*mib {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %+v, %v", level, result, err)
		}
	}
}

// A disk that isn't the one that was backed up, which only a mistake of a program can make: it is told where it
// differs.
func TestVerify_content(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w := newWriter(t, r)
	m := testManifest()
	m.SchemaVersion = SchemaVersion
	good, other := testSource(1), testSource(1)
	other.extents[0].data = random(99, 512)                                     // in the first block
	other.extents = append(other.extents[:5:5], other.extents[6:]...)           // the block at 8 MiB is zero
	other.extents = slices.Insert(other.extents, 5, extent{7 * mib, []byte{1}}) // and that at 7 MiB isn't
	writeDisk(t, w, m, "disk.raw", good)
	writeDisk(t, w, m, "other.raw", other)
	m.Disks = m.Disks[:1]
	m.Disks[0].Label = "Hard disk 1"
	swapped := map[string]*writtenDisk{"disk.raw": {
		id: w.disks["other.raw"].id, hashes: w.disks["disk.raw"].hashes, capacity: good.capacity, result: w.disks["disk.raw"].result,
	}}
	id, err := r.commit(t.Context(), m, swapped, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if result := verify(t, r, id, VerifyIndex); len(result.Damage) > 0 {
		t.Errorf("by the index: %v", result.Damage)
	}
	result := verify(t, r, id, VerifyData)
	want := []Damage{
		{File: "disk.raw", Disk: "Hard disk 1", Offset: 0, Length: mib},
		{File: "disk.raw", Disk: "Hard disk 1", Offset: 7 * mib, Length: 2 * mib},
	}
	if len(result.Damage) != len(want) {
		t.Fatalf("%v", result.Damage)
	}
	for i, d := range result.Damage {
		if !errors.Is(d.Err, errContent) {
			t.Error(d.Err)
		}
		d.Err = nil
		if d != want[i] {
			t.Errorf("got %+v, want %+v", d, want[i])
		}
	}
	// Without the hashes, only that it differs can be told.
	m.Disks[0].Hashes = ""
	swapped["disk.raw"].result.Hashes = "unused"
	if id, err = r.commit(t.Context(), m, swapped, testFiles); err != nil {
		t.Fatal(err)
	}
	result = verify(t, r, id, VerifyData)
	var digest *DigestError
	if len(result.Damage) != 1 || !errors.As(result.Damage[0].Err, &digest) || result.Damage[0].Length != 0 {
		t.Errorf("%v", result.Damage)
	}
}

// A storage that can't be read says nothing about what is stored there.
func TestVerify_unreadable(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root reads every file: run the tests as another user")
	}
	c := testConfig(t)
	r := open(t, c)
	id := twoDisks(t, r)
	at := chunkOf(t, r, id, 3*mib)
	if err := os.Chmod(blobFile(t, c.Path, string(at.PackBlobID)), 0); err != nil {
		t.Fatal(err)
	}
	if result, err := r.Verify(t.Context(), id, VerifyData, nil); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := os.Stat(filepath.Join(c.Path, formatFile)); err != nil {
		t.Error(err)
	}
}
