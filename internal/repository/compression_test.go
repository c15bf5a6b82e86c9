package repository

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

const (
	zstd = compression.Name(CompressionZstd)
	s2   = compression.Name(CompressionS2)
)

func TestCompressionChoice(t *testing.T) {
	t.Parallel()
	full := (window() - workers()) / 2
	most := workers() - 1 + maxUploads
	type step struct {
		waiting, writing int
		idle             float64
		times            int
		want             compression.Name // empty: either
	}
	for name, steps := range map[string][]step{
		"the source gives no more":             {{0, 0, 0.9, 50, zstd}},
		"a burst of the source":                {{full, 0, 0.9, pressureSteps - 1, zstd}, {0, 0, 0.9, 50, zstd}},
		"workers can't keep up":                {{full, 0, 0.9, pressureSteps - 1, zstd}, {full, 0, 0.9, 50, s2}},
		"no processor is idle":                 {{0, 0, 0, pressureSteps - 1, zstd}, {0, 0, 0, 50, s2}},
		"processors are idle now and then":     {{0, 0, 0.2, 50, zstd}, {full, 0, 0, pressureSteps - 1, zstd}, {0, 0, 0, 1, s2}, {0, 0, 0.2, 50, s2}},
		"some chunks wait":                     {{full - 1, 0, 0.9, 50, zstd}, {full, 0, 0.9, pressureSteps - 1, zstd}, {full, 0, 0.9, 1, s2}, {full - 1, 0, 0.9, 50, s2}},
		"a pause":                              {{full, 0, 0, pressureSteps - 1, zstd}, {full, 0, 0, 9, s2}, {0, 0, 0.9, pressureSteps - 1, s2}, {full, 0, 0, 50, s2}},
		"the source gets slow":                 {{full, 0, 0, pressureSteps - 1, zstd}, {full, 0, 0, 9, s2}, {0, 0, 0.9, pressureSteps - 1, s2}, {0, 0, 0.9, 50, zstd}},
		"the storage is slow":                  {{full, most, 0.9, 50, zstd}},
		"the storage is slow, no time is left": {{full, most, 0, 50, zstd}},
		"writes now and then": {
			{full, 0, 0.2, pressureSteps - 1, zstd}, {full, most / 2, 0.2, 50, s2}, {full, most, 0.2, 4, s2}, {full, 0, 0.2, 50, s2},
		},
		"the storage gets slow": {
			{full, 0, 0, pressureSteps - 1, zstd}, {full, most / 2, 0, 9, s2}, {full, most, 0, pressureSteps - 1, s2},
			{full, most, 0, 2 * writesSmoothing, ""}, {full, most, 0, 50, zstd},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var idle float64
			c := newCompressionChoice(CompressionAuto, maxUploads, func() float64 { return idle })
			for i, s := range steps {
				idle = s.idle
				for n := range s.times {
					if got := c.choose(s.waiting, s.writing); got != s.want && s.want != "" {
						t.Fatalf("step %d, chunk %d: %s, want %s", i, n, got, s.want)
					}
				}
			}
		})
	}
}

// What is written in a configuration is what is done, whatever the machine does.
func TestCompressionChoice_fixed(t *testing.T) {
	t.Parallel()
	for c, want := range map[Compression]compression.Name{CompressionZstd: zstd, CompressionS2: s2, CompressionNone: ""} {
		choice := newCompressionChoice(c, 0, func() float64 { return 0 })
		for range 20 {
			if got := choice.choose(100, 0); got != want {
				t.Fatalf("%s: %q", c, got)
			}
		}
	}
}

// textSource is a disk of chunks that can be compressed, but for every fifth.
func textSource(chunks int) *source {
	src := &source{capacity: int64(chunks) * mib}
	for i := range chunks {
		data := random(uint64(i), mib)
		if i%5 != 4 {
			var text bytes.Buffer
			for n := i << 20; text.Len() < mib; n++ {
				fmt.Fprintf(&text, "line %d of the log\n", n)
			}
			data = text.Bytes()[:mib]
		}
		src.extents = append(src.extents, extent{int64(i) * mib, data})
	}
	return src
}

// compressions are how the chunks of the only disk of a restore point are compressed, by Kopia's own account.
func compressions(t *testing.T, r *Repository, id ID) []compression.Name {
	t.Helper()
	d := firstDisk(t, r, id)
	e, err := r.entry(t.Context(), id, d.File)
	if err != nil {
		t.Fatal(err)
	}
	var names []compression.Name
	err = eachChunk(t.Context(), r.rep, e.ObjectID, d.Capacity, func(e object.IndirectObjectEntry) error {
		cid, _, _ := e.Object.ContentID()
		info, err := r.rep.ContentInfo(t.Context(), cid)
		if err != nil {
			return err
		}
		names = append(names, compression.HeaderIDToName[info.CompressionHeaderID])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// idleShare is an idleMeter that says what it is told.
func idleShare(share float64) *idleMeter {
	m := newIdleMeter()
	m.next, m.idle = m.now().AddDate(1, 0, 0), share
	return m
}

// A restore point of chunks that are compressed in several ways is read by this program and by stock Kopia, and what
// is there in one compression isn't stored again in another.
func TestCompressionMixed(t *testing.T) {
	t.Parallel()
	const chunks = 40
	src := textSource(chunks)
	c := testConfig(t)
	r := open(t, c)
	r.idle = idleShare(0)
	mixed := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	got := compressions(t, r, mixed)
	count := map[compression.Name]int{}
	for i, name := range got {
		count[name]++
		if (name == "") != (i%5 == 4) {
			t.Errorf("chunk %d is compressed with %q", i, name)
		}
	}
	if count[zstd] == 0 || count[zstd] >= pressureSteps || count[s2] != chunks-chunks/5-count[zstd] {
		t.Errorf("compressed with %v", got)
	}
	want := src.bytes()
	if !bytes.Equal(readDisk(t, r, mixed, firstDisk(t, r, mixed)), want) {
		t.Error("the disk differs")
	}

	c.Create = false
	for _, c.Compression = range []Compression{CompressionAuto, CompressionZstd, CompressionS2, CompressionNone} {
		r := open(t, c)
		m := testManifest()
		w, err := r.NewWriter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		result := writeDisk(t, w, m, "disk.raw", src)
		id, err := w.Commit(t.Context(), m, testFiles)
		if err != nil {
			t.Fatal(err)
		}
		if result.StoredBytes >= mib || !slices.Equal(compressions(t, r, id), got) {
			t.Errorf("%s: stored %d bytes again", c.Compression, result.StoredBytes)
		}
	}

	k := connectKopia(t, c.Path)
	k.run(t, "snapshot", "verify", "--verify-files-percent=100")
	target := filepath.Join(t.TempDir(), "restored")
	k.run(t, "snapshot", "restore", string(mixed), target)
	if b, err := os.ReadFile(filepath.Join(target, "disk.raw")); err != nil || !bytes.Equal(b, want) {
		t.Errorf("the disk differs after kopia restored it: %d bytes, %v", len(b), err)
	}
}

// Chunks are compressed as the configuration says; by default, as the machine and the storage leave time for it.
func TestCompressionOfChunks(t *testing.T) {
	t.Parallel()
	src := textSource(12)
	for name, test := range map[string]struct {
		compression Compression
		idle        float64
		writing     int // by others
		want        compression.Name
	}{
		"none":            {compression: CompressionNone},
		"s2":              {compression: CompressionS2, idle: 1, want: s2},
		"zstd":            {compression: CompressionZstd, want: zstd},
		"storage is slow": {compression: CompressionAuto, writing: workers(), want: zstd},
		"default":         {writing: workers(), want: zstd},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			c.Compression = test.compression
			r := open(t, c)
			r.idle = idleShare(test.idle)
			r.storage.writing.Add(int64(test.writing))
			id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
			for i, got := range compressions(t, r, id) {
				if i%5 != 4 && got != test.want {
					t.Errorf("chunk %d is compressed with %q", i, got)
				}
			}
		})
	}
	c := testConfig(t)
	c.Compression = "zstd-better"
	if r, err := Open(t.Context(), c); err == nil {
		_ = r.Close(t.Context())
		t.Error("opened with another compression")
	}
}
