package repository

import (
	"context"
	"fmt"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// scattered is a disk with pieces of data at even distances, which are made as they are read.
type scattered struct {
	capacity int64
	pieces   int64
	size     int64
	data     []byte // of which each piece is a part
}

func newScattered(capacity, pieces, size int64) *scattered {
	return &scattered{capacity: capacity, pieces: pieces, size: size, data: random(1, int(size+pieces*512))}
}

func (s *scattered) Capacity() int64 { return s.capacity }

func (s *scattered) offset(n int64) int64 {
	return s.capacity / s.pieces * n / maxChunkSize * maxChunkSize
}

func (s *scattered) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	for n := range s.pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(s.offset(n), s.data[n*512:n*512+s.size]); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkLargeDisk shows what the capacity of a disk costs: the same data on a small and on a large one.
func BenchmarkLargeDisk(b *testing.B) {
	for _, capacity := range []int64{tib / 64, tib, 16 * tib} {
		src := newScattered(capacity, 64, 4*mib)
		b.Run(fmt.Sprintf("%d GiB", capacity>>30), func(b *testing.B) { benchLargeDisk(b, src) })
	}
}

func benchLargeDisk(b *testing.B, src *scattered) {
	r, w := benchWriter(b, CompressionZstd)
	m := testManifest()
	result, err := w.WriteDisk(b.Context(), "disk.raw", src)
	if err != nil {
		b.Fatal(err)
	}
	m.Disks = []Disk{diskOf("disk.raw", src.capacity, result)}
	id, err := w.Commit(b.Context(), m, testFiles)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	write := func(b *testing.B, write func(file string) error) {
		for b.Loop() {
			n++
			if err := write(fmt.Sprint(n)); err != nil {
				b.Fatal(err)
			}
		}
	}
	w, err = r.NewWriter(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("all again", func(b *testing.B) {
		write(b, func(file string) error {
			_, err := w.WriteDisk(b.Context(), file, src)
			return err
		})
	})
	areas := disk.NewAreas(src.capacity, ChunkSize(src.capacity))
	areas.Add(disk.Extent{Offset: src.capacity / 3, Length: 1})
	b.Run("changes", func(b *testing.B) {
		write(b, func(file string) error {
			changed := &source{capacity: src.capacity, extents: []extent{{src.capacity / 3, random(uint64(n), 512)}}}
			_, err := w.WriteChanges(b.Context(), file, changed, Base{ID: id, Disk: m.Disks[0], Areas: areas})
			return err
		})
	})
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			w, err := r.NewWriter(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			result, err := w.WriteDisk(b.Context(), "disk.raw", src)
			if err != nil {
				b.Fatal(err)
			}
			m.Disks = []Disk{diskOf("disk.raw", src.capacity, result)}
			b.StartTimer()
			if _, err := w.Commit(b.Context(), m, testFiles); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			reader, err := r.OpenDisk(b.Context(), id, m.Disks[0])
			if err != nil {
				b.Fatal(err)
			}
			if err := reader.Extents(b.Context(), func(int64, []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	if err := r.Close(context.WithoutCancel(b.Context())); err != nil {
		b.Fatal(err)
	}
}
