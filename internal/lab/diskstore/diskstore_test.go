package diskstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func read(t *testing.T, s *Store, name string, off int64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, n) // so that bytes nobody sets are seen
	must(t, s.ReadAt(name, p, off))
	return p
}

type run struct{ off, length int64 }

func extents(t *testing.T, s *Store, name string) (r []run) {
	t.Helper()
	must(t, s.Extents(name, func(off, length int64) error {
		r = append(r, run{off, length})
		return nil
	}))
	return r
}

func changed(t *testing.T, s *Store, name string, since int64) (r []run) {
	t.Helper()
	must(t, s.Changed(name, since, func(off, length int64) error {
		r = append(r, run{off, length})
		return nil
	}))
	return r
}

func equalRuns(t *testing.T, got []run, want ...run) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got extents %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("got extents %v, want %v", got, want)
		}
	}
}

// rawImage makes a sparse image with the given bytes in it.
func rawImage(t *testing.T, size int64, at map[int64][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "seed.raw")
	f, err := os.Create(name)
	must(t, err)
	must(t, f.Truncate(size))
	for off, p := range at {
		_, err := f.WriteAt(p, off)
		must(t, err)
	}
	must(t, f.Close())
	return name
}

func TestSeed_isReadThroughAndNeverModified(t *testing.T) {
	t.Parallel()
	const size = 5*BlockSize + 512
	raw := rawImage(t, size, map[int64][]byte{BlockSize + 7: []byte("seed"), size - 3: []byte("end")})
	before, err := os.ReadFile(raw)
	must(t, err)
	s := open(t)
	must(t, s.Seed("[ds] a.vmdk", raw))
	must(t, s.WriteAt("[ds] a.vmdk", []byte("new"), BlockSize+9))
	must(t, s.WriteAt("[ds] a.vmdk", []byte("!"), size-1))

	want := bytes.Clone(before)
	copy(want[BlockSize+9:], "new")
	want[size-1] = '!'
	if got := read(t, s, "[ds] a.vmdk", 0, size); !bytes.Equal(got, want) {
		t.Error("the disk is not the seed with the writes over it")
	}
	if after, err := os.ReadFile(raw); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the seed was modified (%v)", err)
	}
	equalRuns(t, extents(t, s, "[ds] a.vmdk"), run{BlockSize, BlockSize}, run{5 * BlockSize, 512})
	i, err := s.Stat("[ds] a.vmdk")
	must(t, err)
	i.Disk = 0 // any
	if i != (Info{Capacity: size, AllocatedBytes: 2 * BlockSize}) {
		t.Errorf("got %+v", i)
	}
}

func TestSeed_refusesWhatIsNoDisk(t *testing.T) {
	t.Parallel()
	s := open(t)
	wantErr(t, s.Seed("x", rawImage(t, 1000, nil)), ErrCapacity)
	wantErr(t, s.Seed("x", rawImage(t, 0, nil)), ErrCapacity)
	wantErr(t, s.Seed("x", filepath.Join(t.TempDir(), "none")), os.ErrNotExist)
	must(t, s.Create("x", 512))
	wantErr(t, s.Seed("x", rawImage(t, 512, nil)), ErrExist)
}

// The file system's answer and the reading of the file must agree.
func TestSeed_holesByReading(t *testing.T) {
	t.Parallel()
	const size = 100 * BlockSize
	raw := rawImage(t, size, map[int64][]byte{3: {1}, 40*BlockSize - 1: {1, 1}, size - 1: {1}})
	f, err := os.Open(raw)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	byReading := &seed{data: make([]uint64, 2)}
	must(t, readExtents(f, size, byReading.mark))
	bySeeking, err := newSeed(f)
	must(t, err)
	for b := range int64(101) {
		want := b == 0 || b == 39 || b == 40 || b == 99
		if byReading.has(b) != want {
			t.Errorf("block %d: by reading: %v", b, !want)
		}
		if want && !bySeeking.has(b) {
			t.Errorf("block %d: missing by seeking", b)
		}
	}
}

func TestNames_takenAndMissing(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Create("a", 512))
	must(t, s.Create("b", 512))
	wantErr(t, s.Create("a", 512), ErrExist)
	wantErr(t, s.CreateChild("b", "a"), ErrExist)
	wantErr(t, s.CreateChild("c", "none"), ErrNotExist)
	wantErr(t, s.Rename("a", "b"), ErrExist)
	wantErr(t, s.Rename("none", "c"), ErrNotExist)
	wantErr(t, s.Clone("a", "b"), ErrExist)
	wantErr(t, s.Clone("none", "c"), ErrNotExist)
	wantErr(t, s.Commit("none"), ErrNotExist)
	wantErr(t, s.Remove("none"), ErrNotExist)
	wantErr(t, s.Extend("none", 512), ErrNotExist)
	wantErr(t, s.Extents("none", nil), ErrNotExist)
	_, err := s.Mark("none")
	wantErr(t, err, ErrNotExist)
	_, err = s.Source("none")
	wantErr(t, err, ErrNotExist)
	for _, c := range []int64{-512, 0, 1, 513} {
		wantErr(t, s.Create("c", c), ErrCapacity)
	}
	wantErr(t, s.Extend("a", 513), ErrCapacity)
	must(t, s.Extend("a", 1024))
	wantErr(t, s.Extend("a", 512), ErrCapacity)
	for _, off := range []int64{-1, 1025, 1 << 62} {
		wantErr(t, s.ReadAt("a", nil, off), ErrRange)
		wantErr(t, s.WriteAt("a", nil, off), ErrRange)
	}
	wantErr(t, s.ReadAt("a", make([]byte, 2), 1023), ErrRange)
	must(t, s.Rename("a", "c"))
	if n := s.Names(); len(n) != 2 || n[0] != "b" || n[1] != "c" {
		t.Errorf("got %q", n)
	}
}

func TestExtents_endsWithTheError(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Create("a", 10*BlockSize))
	must(t, s.WriteAt("a", []byte{1}, 0))
	must(t, s.WriteAt("a", []byte{1}, 5*BlockSize))
	stop, calls := errors.New("stop"), 0
	err := s.Extents("a", func(int64, int64) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

// A run of blocks that crosses the windows in which extents are looked for is one extent.
func TestExtents_mergesAcrossWindows(t *testing.T) {
	t.Parallel()
	s := open(t)
	const at = window*BlockSize - 2*BlockSize
	must(t, s.Create("a", 4*window*BlockSize))
	must(t, s.WriteAt("a", make([]byte, 5*BlockSize), at))
	equalRuns(t, extents(t, s, "a"), run{at, 5 * BlockSize})
}

func TestHugeDisk_costsWhatIsWritten(t *testing.T) {
	const tib = 1 << 40
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	dir := t.TempDir()
	s, err := Open(dir)
	must(t, err)
	must(t, s.Create("empty", tib))
	if l, err := os.ReadDir(dir); err != nil || len(l) != 0 {
		t.Errorf("an empty disk has files: %v, %v", l, err)
	}
	must(t, s.Seed("[ds] seed.vmdk", rawImage(t, tib, map[int64][]byte{tib / 2: {1}})))
	must(t, s.WriteAt("[ds] seed.vmdk", []byte{1}, 0))
	must(t, s.WriteAt("[ds] seed.vmdk", []byte{1}, tib-1))
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 8<<20 {
		t.Errorf("two disks of 1 TiB take %d bytes of memory", n)
	}
	equalRuns(t, extents(t, s, "[ds] seed.vmdk"),
		run{0, BlockSize}, run{tib / 2, BlockSize}, run{tib - BlockSize, BlockSize})
	l, err := os.ReadDir(dir)
	if err != nil || len(l) != 1 {
		t.Fatalf("got files %v, %v", l, err)
	}
	if n := diskUsage(t, filepath.Join(dir, l[0].Name())); n > 1<<20 {
		t.Errorf("two blocks take %d bytes on disk", n)
	}
	must(t, s.Close())
	if l, err := os.ReadDir(dir); err != nil || len(l) != 0 {
		t.Errorf("Close left %v, %v", l, err)
	}
}

func TestClose_refusesEverythingAfterwards(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Create("a", 512))
	must(t, s.Close())
	wantErr(t, s.Create("b", 512), ErrClosed)
	wantErr(t, s.ReadAt("a", nil, 0), ErrNotExist)
	if _, err := Open(rawImage(t, 512, nil)); err == nil {
		t.Error("opened a store in a file")
	}
}

// Snapshots come and go while the guest writes; run it with -race. A block is always written as a
// whole and with one value, so a read that finds two values in one has seen a torn state.
