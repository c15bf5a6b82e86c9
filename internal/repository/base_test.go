package repository

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/kopia/kopia/repo/maintenance"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// changedSource gives the areas of a disk in memory, in pieces of odd sizes.
type changedSource struct {
	image []byte
	areas *disk.Areas
	size  int
}

func (s *changedSource) Capacity() int64 { return int64(len(s.image)) }

func (s *changedSource) Extents(_ context.Context, yield func(int64, []byte) error) (err error) {
	s.areas.Each(func(e disk.Extent) bool {
		for at := e.Offset; at < e.End() && err == nil; at += int64(s.size) {
			if piece := s.image[at:min(at+int64(s.size), e.End())]; !disk.IsZero(piece) {
				err = yield(at, piece)
			}
		}
		return err == nil
	})
	return err
}

// mutate changes some of a disk and returns what was touched.
func mutate(rng *rand.Rand, image []byte) *disk.Areas {
	areas := disk.NewAreas(int64(len(image)), ChunkSize(int64(len(image))))
	for range 1 + rng.IntN(4) {
		at := rng.IntN(len(image))
		end := min(at+1+rng.IntN(2*mib), len(image))
		switch rng.IntN(3) {
		case 0: // to zero, whole chunks of it
			at -= at % mib
			clear(image[at:end])
		case 1: // touched, not changed
		default:
			copy(image[at:end], random(rng.Uint64(), end-at))
		}
		areas.Add(disk.Extent{Offset: int64(at), Length: int64(end - at)})
	}
	return areas
}

// writeChanges writes disk.raw from its base and enters it into m.
func writeChanges(t *testing.T, w *Writer, m *Manifest, src disk.Source, base Base) DiskResult {
	t.Helper()
	result, err := w.WriteChanges(t.Context(), "disk.raw", src, base)
	if err != nil {
		t.Fatal(err)
	}
	m.Disks = append(m.Disks, diskOf("disk.raw", src.Capacity(), result))
	return result
}

func newWriter(t *testing.T, r *Repository) *Writer {
	t.Helper()
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// What is written from a base is in every respect, down to the IDs of its objects, what writing all of the
// disk makes.
func TestWriteChanges(t *testing.T) {
	t.Parallel()
	for name, capacity := range map[string]int{"one chunk": 70_000, "several": 20*mib + 1536, "whole": 8 * mib} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, uint64(capacity)))
			r := open(t, testConfig(t))
			image := make([]byte, capacity)
			mutate(rng, image)
			mutate(rng, image)
			parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": wholeSource(image)})
			for range 8 {
				areas := mutate(rng, image)
				base := Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: areas}
				m := testManifest()
				w := newWriter(t, r)
				result := writeChanges(t, w, m, &changedSource{image, areas, 100_000}, base)
				whole, err := w.WriteDisk(t.Context(), "whole.raw", wholeSource(image))
				if err != nil {
					t.Fatal(err)
				}
				if result.Digest != wantDigest(image) || result.DataBytes != whole.DataBytes || result.ReadBytes > areas.Bytes() {
					t.Errorf("%+v, of the whole disk %+v", result, whole)
				}
				if got, want := w.disks["disk.raw"], w.disks["whole.raw"]; got.id != want.id || got.hashes != want.hashes {
					t.Errorf("stored as %s and %s, the whole disk as %s and %s", got.id, got.hashes, want.id, want.hashes)
				}
				delete(w.disks, "whole.raw")
				if parent, err = w.Commit(t.Context(), m, testFiles); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(readDisk(t, r, parent, firstDisk(t, r, parent)), image) {
					t.Error("the disk differs")
				}
			}
		})
	}
}

func wholeSource(image []byte) disk.Source {
	all := disk.NewAreas(int64(len(image)), mib)
	all.Add(disk.Extent{Length: int64(len(image))})
	return &changedSource{image, all, mib}
}

// A large disk has chunks of several blocks, and block hashes in more than one piece, most of them of zeros.
func TestWriteChanges_large(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	const capacity = tib + 3*mib + 512
	src := &source{capacity: capacity, extents: []extent{
		{0, random(1, 512)}, {5 * mib, random(2, 2*mib)}, {tib / 2, random(3, mib)}, {capacity - 512, random(4, 512)},
	}}
	parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	areas := disk.NewAreas(capacity, 2*mib)
	changed := &source{capacity: capacity, extents: []extent{{6 * mib, random(5, mib)}, {tib / 4, random(6, mib)}}}
	for _, e := range append(changed.extents, src.extents[2]) { // the third becomes zero
		areas.Add(disk.Extent{Offset: e.offset, Length: int64(len(e.data))})
	}
	m := testManifest()
	w := newWriter(t, r)
	result := writeChanges(t, w, m, changed, Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: areas})
	want := writeDisk(t, w, m, "whole.raw", &source{capacity: capacity, extents: []extent{
		src.extents[0], {5 * mib, src.extents[1].data[:mib]}, changed.extents[0], changed.extents[1], src.extents[3],
	}})
	if w.disks["disk.raw"].id != w.disks["whole.raw"].id || w.disks["disk.raw"].hashes != w.disks["whole.raw"].hashes {
		t.Errorf("%+v, of the whole disk %+v", result, want)
	}
	if _, err := w.Commit(t.Context(), m, testFiles); err != nil {
		t.Fatal(err)
	}
}

// What is read of unchanged chunks has to be what the base has.
func TestSample(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	src := testSource(1)
	image := src.bytes()
	parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	unchanged := []disk.Extent{{Length: 512}, {Offset: 5 * mib, Length: 1}, {Offset: 9 * mib, Length: mib}, {Offset: 12*mib + 1024, Length: 1}}
	for name, c := range map[string]struct {
		at   int64 // a byte that changed unnoticed, or -1
		want int64 // the block that the error names, or -1
	}{
		"nothing":                        {-1, -1},
		"outside of the sample":          {3 * mib, -1},
		"within data":                    {100, 0},
		"within zeros":                   {5*mib + 77, 5 * mib},
		"in the last block":              {12*mib + 1535, 12 * mib},
		"in a chunk like the one before": {9*mib + 1, 9 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := slices.Clone(image)
			if c.at >= 0 {
				now[c.at]++
			}
			base := Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: disk.NewAreas(src.capacity, mib), Sample: disk.NewAreas(src.capacity, mib)}
			for _, e := range unchanged {
				base.Sample.Add(e)
			}
			copy(now[mib:], "changed and tracked")
			base.Areas.Add(disk.Extent{Offset: mib, Length: 1})
			base.Areas.AddAll(base.Sample)
			w := newWriter(t, r)
			result, err := w.WriteChanges(t.Context(), "disk.raw", &changedSource{now, base.Areas, mib}, base)
			var wrong *TrackingError
			switch {
			case c.want < 0 && err != nil:
				t.Error(err)
			case c.want < 0 && c.at < 0 && result.Digest != wantDigest(now):
				t.Errorf("digest %s", result.Digest)
			case c.want >= 0 && (!errors.As(err, &wrong) || !errors.Is(err, ErrTrackingWrong) || wrong.Offset != c.want || wrong.Base != parent):
				t.Errorf("error %v, want one about %d", err, c.want)
			}
		})
	}
	// Data that becomes zero isn't yielded at all.
	base := Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: disk.NewAreas(src.capacity, mib), Sample: disk.NewAreas(src.capacity, mib)}
	base.Areas.Add(disk.Extent{Length: 1})
	base.Sample.Add(disk.Extent{Length: 1})
	_, err := newWriter(t, r).WriteChanges(t.Context(), "disk.raw", &source{capacity: src.capacity}, base)
	if !errors.Is(err, ErrTrackingWrong) {
		t.Errorf("data that became zero: %v", err)
	}
}

func TestWriteChanges_refused(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	src := testSource(1)
	parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	good := firstDisk(t, r, parent)
	areas := disk.NewAreas(src.capacity, mib)
	areas.Add(disk.Extent{Offset: mib, Length: mib})
	for name, c := range map[string]struct {
		src  disk.Source
		base func(b *Base)
		is   error
	}{
		"data outside of the areas": {src: src},
		"another capacity":          {src: &source{capacity: src.capacity + 1}},
		"another granularity":       {base: func(b *Base) { b.Areas = disk.NewAreas(src.capacity, 2*mib) }},
		"sample of another disk":    {base: func(b *Base) { b.Sample = disk.NewAreas(src.capacity+1, mib) }},
		"no areas":                  {base: func(b *Base) { b.Areas = nil }},
		"no hashes":                 {base: func(b *Base) { b.Disk.Hashes = "" }},
		"hashes of no disk":         {base: func(b *Base) { b.Disk.Hashes = "nvram" }, is: ErrIncomplete},
		"no such disk":              {base: func(b *Base) { b.Disk.File = "other.raw" }, is: ErrIncomplete},
		"no such restore point":     {base: func(b *Base) { b.ID = "0123456789abcdef0123456789abcdef" }, is: ErrIncomplete},
	} {
		if c.src == nil {
			c.src = &source{capacity: src.capacity}
		}
		base := Base{ID: parent, Disk: good, Areas: areas}
		if c.base != nil {
			c.base(&base)
		}
		_, err := newWriter(t, r).WriteChanges(t.Context(), "disk.raw", c.src, base)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || c.is == nil && errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, d := range map[string]Disk{
		"smaller": {Capacity: src.capacity - 1, ChunkSize: mib, Hashes: "h"}, "no hashes": {Capacity: src.capacity, ChunkSize: mib},
		"other chunks": {Capacity: src.capacity, ChunkSize: 2 * mib, Hashes: "h"},
	} {
		if d.IsBaseFor(src.capacity) {
			t.Errorf("%s: may be the base", name)
		}
	}
	if !good.IsBaseFor(src.capacity) {
		t.Error("may not be the base")
	}
}

// A base whose data maintenance removes while its successor is made is noticed, before or at the commit.
func TestBaseGone(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"before it is read": true, "before the commit": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			src := testSource(1)
			parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
			base := Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: disk.NewAreas(src.capacity, mib)}
			remove := func() {
				nextSecond(t)
				if err := r.Delete(t.Context(), parent); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					nextSecond(t)
					maintain(t, c, maintenance.SafetyNone)
				}
			}
			if before {
				remove()
			}
			m := testManifest()
			w := newWriter(t, r)
			result, err := w.WriteChanges(t.Context(), "disk.raw", &source{capacity: src.capacity}, base)
			if !before {
				if err != nil {
					t.Fatal(err)
				}
				remove()
				m.Disks = []Disk{diskOf("disk.raw", src.capacity, result)}
				_, err = w.Commit(t.Context(), m, testFiles)
			}
			if !errors.Is(err, ErrIncomplete) {
				t.Errorf("error %v, want %v", err, ErrIncomplete)
			}
			if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
				t.Errorf("listed %v, %v", points, err)
			}
		})
	}
}

// What is taken over and was marked as deleted since is brought back, and survives the next maintenance.
func TestBaseMarkedAsDeleted(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	src := testSource(1)
	parent := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	base := Base{ID: parent, Disk: firstDisk(t, r, parent), Areas: disk.NewAreas(src.capacity, mib)}
	nextSecond(t)
	m := testManifest()
	w := newWriter(t, r)
	writeChanges(t, w, m, &source{capacity: src.capacity}, base)
	if err := r.Delete(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	mark := maintenance.SafetyFull
	mark.MinContentAgeSubjectToGC = 0
	maintain(t, c, mark)
	nextSecond(t)
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	nextSecond(t)
	maintain(t, c, maintenance.SafetyNone)
	other := open(t, c)
	if b := readDisk(t, other, id, firstDisk(t, other, id)); !bytes.Equal(b, src.bytes()) {
		t.Error("the disk differs")
	}
	// Its hashes are there, too: it is as good a base as any.
	m = testManifest()
	w = newWriter(t, other)
	base.ID = id
	if result := writeChanges(t, w, m, &source{capacity: src.capacity}, base); result.Digest != wantDigest(src.bytes()) {
		t.Errorf("digest %s", result.Digest)
	}
}

// A backup that ends in the midst of its changes leaves no goroutine and no restore point behind.
func TestCancelWriteChanges(t *testing.T) {
	r := open(t, testConfig(t))
	src := &source{capacity: 64 * mib, extents: []extent{{0, random(1, 64*mib)}}}
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	base := Base{ID: id, Disk: firstDisk(t, r, id), Areas: disk.NewAreas(src.capacity, mib)}
	base.Areas.Add(disk.Extent{Length: src.capacity / 2})
	broken := errors.New("lease is gone")
	for name, cancelled := range map[string]bool{"cancelled": true, "source fails": false} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			changed := &source{capacity: src.capacity}
			for i := range 32 {
				changed.extents = append(changed.extents, extent{int64(i) * mib, random(uint64(i), mib)})
			}
			want := broken
			if cancelled {
				want = context.Canceled
			}
			changed.onYield = func(n int) error {
				if n == 20 && cancelled {
					cancel()
				} else if n == 20 {
					return broken
				}
				return nil
			}
			w := newWriter(t, r)
			if _, err := w.WriteChanges(ctx, "disk.raw", changed, base); !errors.Is(err, want) || errors.Is(err, ErrIncomplete) {
				t.Errorf("error %v, want %v", err, want)
			}
			settled(t, before)
		})
	}
}

// A base that is damaged doesn't stand in the way: the whole disk can be written.
func TestBaseDamaged(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string]string{"hashes": "p", "chunk table": "q"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			src := testSource(1)
			id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
			base := Base{ID: id, Disk: firstDisk(t, r, id), Areas: disk.NewAreas(src.capacity, mib)}
			w := newWriter(t, r)
			for _, file := range blobs(t, c.Path, prefix) {
				flip(t, file)
			}
			_, err := w.WriteChanges(t.Context(), "disk.raw", &source{capacity: src.capacity}, base)
			if !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v, want %v and %v", err, ErrIncomplete, ErrDamaged)
			}
		})
	}
}

// A base whose hashes and chunks are not those of one disk is refused: by its digest if nothing of it is read, and
// by the chunks themselves where they are.
func TestBaseMixedUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mix   func(a, b *writtenDisk)
		image *source // what the disk is by its hashes
		read  bool
	}{
		"hashes of another disk":              {func(a, b *writtenDisk) { a.hashes = b.hashes }, testSource(1), false},
		"hashes of another disk, all is read": {func(a, b *writtenDisk) { a.hashes = b.hashes }, testSource(2), true},
		"chunks of another disk, all is read": {func(a, b *writtenDisk) { a.id = b.id }, testSource(1), true},
		"data in place of zeros": {func(a, b *writtenDisk) {
			a.hashes, a.result.Digest = b.hashes, b.result.Digest
		}, &source{capacity: testSource(1).capacity}, false},
		"data in place of zeros, all is read": {func(a, b *writtenDisk) {
			a.hashes, a.result.Digest = b.hashes, b.result.Digest
		}, &source{capacity: testSource(1).capacity}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, testConfig(t))
			w := newWriter(t, r)
			m := testManifest()
			m.SchemaVersion = SchemaVersion
			other := disk.Source(testSource(2))
			if len(c.image.extents) == 0 {
				other = c.image
			}
			writeDisk(t, w, m, "disk.raw", testSource(1))
			writeDisk(t, w, m, "other.raw", other)
			c.mix(w.disks["disk.raw"], w.disks["other.raw"])
			m.Disks[0].Digest = w.disks["disk.raw"].result.Digest
			id, err := r.commit(t.Context(), m, w.disks, testFiles)
			if err != nil {
				t.Fatal(err)
			}
			capacity := c.image.capacity
			base := Base{ID: id, Disk: firstDisk(t, r, id), Areas: disk.NewAreas(capacity, mib), Sample: disk.NewAreas(capacity, mib)}
			var src disk.Source = &source{capacity: capacity}
			if c.read {
				base.Areas.Add(disk.Extent{Length: capacity})
				base.Sample.Add(disk.Extent{Length: capacity})
				src = wholeSource(c.image.bytes())
			}
			_, err = newWriter(t, r).WriteChanges(t.Context(), "disk.raw", src, base)
			if !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v, want %v and %v", err, ErrIncomplete, ErrDamaged)
			}
		})
	}
}
