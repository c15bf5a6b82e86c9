package repository

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const testPassword = "correct horse battery staple"

// extent is data at an offset of a disk.
type extent struct {
	offset int64
	data   []byte
}

// source is a disk in memory, of which only the data takes any.
type source struct {
	capacity int64
	extents  []extent
	onYield  func(n int) error // before the nth
}

func (s *source) Capacity() int64 { return s.capacity }

func (s *source) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	for i, e := range s.extents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.onYield != nil {
			if err := s.onYield(i); err != nil {
				return err
			}
		}
		if err := yield(e.offset, e.data); err != nil {
			return err
		}
	}
	return nil
}

// bytes is the whole content of the disk.
func (s *source) bytes() []byte {
	b := make([]byte, s.capacity)
	for _, e := range s.extents {
		copy(b[e.offset:], e.data)
	}
	return b
}

// random returns n bytes that can't be compressed, always the same for a seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// testSource is a small disk with everything that matters: holes, zeros that are yielded, a chunk
// made of pieces, the same chunk twice in a row, and a last block that is not a whole one.
func testSource(seed uint64) *source {
	same := random(seed+100, mib)
	return &source{capacity: 12*mib + 1536, extents: []extent{
		{0, random(seed, 512)},
		{4096, random(seed+1, 3*mib)},
		{3*mib + 8192, make([]byte, 70000)},
		{3*mib + 8192 + 70000, random(seed+2, 10)},
		{5 * mib, make([]byte, 2*mib)},
		{8 * mib, same},
		{9 * mib, same},
		{12*mib + 1024, random(seed+3, 512)},
	}}
}

// alternatingSource is a disk whose chunks are full and nearly empty in turn, and many enough for
// every buffer to be used again.
func alternatingSource() *source {
	src := &source{capacity: 80 * mib}
	for i := range uint64(80) {
		n := mib
		if i%2 == 1 {
			n = 512
		}
		src.extents = append(src.extents, extent{int64(i)*mib + mib - int64(n), random(i, n)})
	}
	for i := range src.extents { // some at the start of their chunks
		if i%4 == 1 {
			src.extents[i].offset -= src.extents[i].offset % mib
		}
	}
	return src
}

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{Path: filepath.Join(t.TempDir(), "repository"), Password: secret.New(testPassword), Create: true}
}

func open(t *testing.T, c Config) *Repository {
	t.Helper()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func testManifest() *Manifest {
	return &Manifest{
		ProviderVersion: "test",
		CreatedAt:       time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC),
		Description:     "before the change",
		Tags:            map[string]string{"env": "prod", "terraform.x": "y", "": "empty"},
		VM: VM{
			Name: "web01", Path: "/DC0/vm/web01", Server: "vcenter-a",
			BIOSUUID: "421c0b7a-0000-4000-8000-000000000001", InstanceUUID: "501c0b7a-0000-4000-8000-000000000002",
		},
		Consistency: "filesystem",
		Config:      ConfigFile{Format: "test", File: "config.json", NVRAM: "nvram"},
	}
}

var testFiles = map[string][]byte{"config.json": []byte(`{"cpus":2}`), "nvram": {0, 1, 2, 3}}

// diskOf is a manifest's entry of a disk that was written.
func diskOf(file string, capacity int64, result DiskResult) Disk {
	return Disk{
		Key: file, File: file, Capacity: capacity, Digest: result.Digest, Hashes: result.Hashes,
		ChunkSize: result.ChunkSize, DataBytes: result.DataBytes,
	}
}

// writeDisk writes a disk and enters it into m.
func writeDisk(t *testing.T, w *Writer, m *Manifest, file string, src disk.Source) DiskResult {
	t.Helper()
	result, err := w.WriteDisk(t.Context(), file, src)
	if err != nil {
		t.Fatal(err)
	}
	m.Disks = append(m.Disks, diskOf(file, src.Capacity(), result))
	return result
}

// backUp commits a restore point with the given disks.
func backUp(t *testing.T, r *Repository, m *Manifest, disks map[string]disk.Source) ID {
	t.Helper()
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for file, src := range disks {
		writeDisk(t, w, m, file, src)
	}
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// readDisk reads a disk as a whole, checking the rules of a disk.Source.
func readDisk(t *testing.T, r *Repository, id ID, d Disk) []byte {
	t.Helper()
	reader, err := r.OpenDisk(t.Context(), id, d)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, reader.Capacity())
	var end int64
	err = reader.Extents(t.Context(), func(offset int64, data []byte) error {
		if offset < end || offset+int64(len(data)) > d.Capacity {
			t.Errorf("yields %d+%d behind %d, capacity %d", offset, len(data), end, d.Capacity)
		}
		if disk.IsZero(data) {
			t.Errorf("yields zeros at %d+%d", offset, len(data))
		}
		end = offset + int64(len(data))
		copy(b[offset:], data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantDigest is the digest of b, from the definition.
func wantDigest(b []byte) disk.Digest {
	blocks := disk.Blocks{}
	for i := 0; i < len(b); i += disk.BlockSize {
		if block := b[i:min(i+disk.BlockSize, len(b))]; !disk.IsZero(block) {
			blocks[int64(i/disk.BlockSize)] = disk.HashBlock(block)
		}
	}
	return blocks.Digest(int64(len(b)))
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	sources := map[string]*source{
		"disk-0.raw": testSource(1),
		"disk-1.raw": {capacity: 512, extents: []extent{{0, random(9, 512)}}},       // one small chunk
		"disk-2.raw": {capacity: 5*mib + 512},                                       // nothing but zeros
		"disk-3.raw": {capacity: mib},                                               // one chunk of zeros
		"disk-4.raw": {capacity: 3 * mib, extents: []extent{{0, random(7, 3*mib)}}}, // full
		"disk-5.raw": alternatingSource(),
	}
	m := testManifest()
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for file, src := range sources {
		result := writeDisk(t, w, m, file, src)
		if want := wantDigest(src.bytes()); result.Digest != want {
			t.Errorf("%s: digest %s, want %s", file, result.Digest, want)
		}
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Fatalf("before the commit: %v, %v", points, err)
	}
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}

	// Another process has to see the same as this one.
	c.Create = false
	for _, r := range []*Repository{r, open(t, c)} {
		got, err := r.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Disks) != len(sources) || got.VM != m.VM || !got.CreatedAt.Equal(m.CreatedAt) ||
			got.SchemaVersion != SchemaVersion || got.Config != m.Config {
			t.Errorf("got manifest %+v", got)
		}
		for _, d := range got.Disks {
			if b := readDisk(t, r, id, d); !bytes.Equal(b, sources[d.File].bytes()) {
				t.Errorf("%s differs", d.File)
			}
		}
		for name, want := range testFiles {
			if b, err := r.ReadFile(t.Context(), id, name); err != nil || !bytes.Equal(b, want) {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		if _, err := r.ReadFile(t.Context(), id, "other"); err == nil {
			t.Error("read a file that there isn't")
		}
	}
}

func TestResultNumbers(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	m := testManifest()
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	src := testSource(3)
	result := writeDisk(t, w, m, "a", src)
	var read int64
	for _, e := range src.extents {
		read += int64(len(e.data))
	}
	// Chunks 0 to 3, 8, 9 and the last one of 1536 bytes hold data.
	if want := int64(6*mib + 1536); result.ReadBytes != read || result.DataBytes != want {
		t.Errorf("read %d, data %d; want %d, %d", result.ReadBytes, result.DataBytes, read, want)
	}
	// Five chunks of random data can't be compressed; the sixth is the fifth again.
	if result.StoredBytes < 4*mib || result.StoredBytes > 6*mib {
		t.Errorf("stored %d", result.StoredBytes)
	}
	// The same data again costs the zero chunk's and the table's index entries at most.
	again := writeDisk(t, w, m, "b", testSource(3))
	if again.StoredBytes > 10_000 || again.Digest != result.Digest {
		t.Errorf("the same disk again: %+v", again)
	}
	if _, err := w.Commit(t.Context(), m, testFiles); err != nil {
		t.Fatal(err)
	}
}

func firstDisk(t *testing.T, r *Repository, id ID) Disk {
	t.Helper()
	m, err := r.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return m.Disks[0]
}

// A pass over a disk that delivered everything succeeds, however slow the goroutines behind it are to end.
func TestReadManyTimes(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": &source{capacity: 4096, extents: []extent{{0, random(1, 4096)}}}})
	reader, err := r.OpenDisk(t.Context(), id, firstDisk(t, r, id))
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := reader.Extents(t.Context(), func(int64, []byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}
