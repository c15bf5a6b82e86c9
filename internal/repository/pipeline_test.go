package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// settled waits until the number of goroutines is back at what it was. Those of other tests would
// disturb it: tests that use it don't run in parallel. A goroutine that has said that it is done may
// still be on its way out, which nothing but counting shows.
func settled(t *testing.T, before int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 60_000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		<-tick.C
	}
	buf := make([]byte, mib)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

func TestCancelWriteDisk(t *testing.T) {
	r := open(t, testConfig(t))
	for name, test := range map[string]struct {
		at     int
		cancel bool
		err    error
		want   error
	}{
		"cancelled at once":      {at: 0, cancel: true, want: context.Canceled},
		"cancelled in the midst": {at: 10, cancel: true, want: context.Canceled},
		"source fails":           {at: 10, err: errors.New("lease is gone")},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			src := &source{capacity: 64 * mib}
			for i := range 64 {
				src.extents = append(src.extents, extent{int64(i) * mib, random(uint64(i), mib)})
			}
			src.onYield = func(n int) error {
				if n != test.at {
					return nil
				}
				if test.cancel {
					cancel()
					<-ctx.Done()
					return nil // a source that doesn't look at ctx is stopped by yield
				}
				return test.err
			}
			w, err := r.NewWriter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want == nil {
				want = test.err
			}
			if _, err := w.WriteDisk(ctx, "disk.raw", src); !errors.Is(err, want) || !strings.Contains(err.Error(), "disk.raw") {
				t.Errorf("error %v, want %v", err, want)
			}
			m := testManifest()
			if _, err := w.Commit(t.Context(), m, testFiles); err == nil {
				t.Error("committed without the disk")
			}
			// The disk may be written again, by the same name.
			src.onYield = nil
			writeDisk(t, w, m, "disk.raw", src)
			if err := w.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
				t.Errorf("listed %v, %v", points, err)
			}
			settled(t, before)
		})
	}
}

func TestCancelExtents(t *testing.T) {
	r := open(t, testConfig(t))
	src := &source{capacity: 64 * mib, extents: []extent{{0, random(1, 64*mib)}}}
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	reader, err := r.OpenDisk(t.Context(), id, firstDisk(t, r, id))
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int64{"at once": 0, "in the midst": 20 * mib, "at the end": 63 * mib} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := reader.Extents(ctx, func(offset int64, _ []byte) error {
				if offset == at {
					cancel()
				}
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			broken := errors.New("target is full")
			err = reader.Extents(t.Context(), func(offset int64, _ []byte) error {
				if offset == at {
					return broken
				}
				return nil
			})
			if err != broken { //nolint:errorlint // as it is, says disk.Source
				t.Errorf("error %v", err)
			}
			settled(t, before)
		})
	}
}

func TestCancelCommit(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", testSource(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Commit(ctx, m, testFiles); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 0 {
		t.Errorf("listed %v, %v", points, err)
	}
	// Nothing is lost by it.
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	if b := readDisk(t, r, id, m.Disks[0]); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
}

func TestBadSources(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]*source{
		"no capacity":      {},
		"backwards":        {capacity: 4 * mib, extents: []extent{{mib, random(1, 512)}, {0, random(1, 512)}}},
		"overlap":          {capacity: 4 * mib, extents: []extent{{0, random(1, 1024)}, {512, random(1, 512)}}},
		"beyond the end":   {capacity: 4 * mib, extents: []extent{{4*mib - 512, random(1, 1024)}}},
		"far beyond":       {capacity: 4 * mib, extents: []extent{{1 << 62, random(1, 1024)}}},
		"before the start": {capacity: 4 * mib, extents: []extent{{-512, random(1, 512)}}},
	} {
		if _, err := w.WriteDisk(t.Context(), "disk.raw", src); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSeveralDisksAtOnce(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	w, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	var wg sync.WaitGroup
	results := make([]DiskResult, 6)
	for i := range results {
		wg.Go(func() {
			result, err := w.WriteDisk(t.Context(), fmt.Sprint("disk-", i), testSource(uint64(i)))
			if err != nil {
				t.Error(err)
			}
			results[i] = result
		})
	}
	wg.Wait()
	for i, result := range results {
		m.Disks = append(m.Disks, diskOf(fmt.Sprint("disk-", i), testSource(0).capacity, result))
	}
	id, err := w.Commit(t.Context(), m, testFiles)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range m.Disks {
		wg.Go(func() {
			if b := readDisk(t, r, id, d); !bytes.Equal(b, testSource(uint64(i)).bytes()) {
				t.Errorf("%s differs", d.File)
			}
		})
	}
	wg.Wait()
}

// A disk of any chunk size, with chunks that are zero in part, in whole, and at the end.
func TestChunkSizes(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	for capacity, want := range map[int64]int64{1 * tib: 1 * mib, tib + 512: 2 * mib, 4 * tib: 2 * mib, 4*tib + 512: 4 * mib} {
		if got := ChunkSize(capacity); got != want {
			t.Errorf("capacity %d: chunks of %d, want %d", capacity, got, want)
		}
	}
	capacity := int64(4*tib + 8*mib + 512)
	src := &source{capacity: capacity, extents: []extent{
		{mib + 512, random(1, 512)},
		{8 * mib, random(2, 4*mib)},
		{12 * mib, random(2, 4*mib)},
		{2 * tib, random(3, 5*mib)},
		{capacity - 512, random(4, 512)},
	}}
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
	if result.ChunkSize != 4*mib {
		t.Errorf("result %+v", result)
	}
	reader, err := r.OpenDisk(t.Context(), id, m.Disks[0])
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64][]byte{}
	err = reader.Extents(t.Context(), func(offset int64, data []byte) error {
		got[offset] = bytes.Clone(data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64][]byte{
		0: make([]byte, 4*mib), 8 * mib: src.extents[1].data, 12 * mib: src.extents[2].data,
		2 * tib: src.extents[3].data[:4*mib], 2*tib + 4*mib: make([]byte, 4*mib),
		capacity - 512: src.extents[4].data,
	}
	copy(want[0][mib+512:], src.extents[0].data)
	copy(want[2*tib+4*mib], src.extents[3].data[4*mib:])
	if len(got) != len(want) {
		t.Errorf("%d chunks, want %d", len(got), len(want))
	}
	for offset, b := range want {
		if !bytes.Equal(got[offset], b) {
			t.Errorf("the chunk at %d differs", offset)
		}
	}
}
