package repository

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// benchImage makes an image of which a third is holes, a third can be compressed like the text of
// logs, and a third can't be compressed at all. It returns its path and its capacity.
func benchImage(b *testing.B) (string, int64) {
	b.Helper()
	const capacity = 384 * mib
	path := filepath.Join(b.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	words := random(1, 4096)
	for offset := int64(0); offset < capacity; offset += mib {
		chunk := random(uint64(offset/mib), mib)
		switch offset / (16 * mib) % 3 {
		case 0:
			continue
		case 1:
			text := make([]byte, 0, mib)
			for i := 0; len(text) < mib; i++ {
				at := int(chunk[i]) * 8
				text = append(text, words[at:min(at+16, mib-len(text)+at)]...)
			}
			chunk = text
		}
		if _, err := f.WriteAt(chunk, offset); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Truncate(capacity); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return path, capacity
}

// fileSource reads an image as a transport would: all of it, zeros included.
type fileSource struct {
	path     string
	capacity int64
}

func (s *fileSource) Capacity() int64 { return s.capacity }

func (s *fileSource) Extents(_ context.Context, yield func(int64, []byte) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	buf := make([]byte, mib)
	for offset := int64(0); offset < s.capacity; {
		n, err := io.ReadFull(f, buf[:min(mib, s.capacity-offset)])
		if err != nil {
			return err
		}
		if err := yield(offset, buf[:n]); err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// BenchmarkWriteDisk compares with plain copying of the same bytes, all of them flushed to disk.
func BenchmarkWriteDisk(b *testing.B) {
	path, capacity := benchImage(b)
	for _, compression := range []Compression{CompressionS2, CompressionZstd, CompressionNone} {
		b.Run(string(compression), func(b *testing.B) { benchWriteDisk(b, path, capacity, compression) })
	}
	b.Run("cp", func(b *testing.B) {
		b.SetBytes(capacity)
		for b.Loop() {
			if err := copyFile(filepath.Join(b.TempDir(), "copy"), path); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchWriteDisk(b *testing.B, path string, capacity int64, compression Compression) {
	b.SetBytes(capacity)
	var stored int64
	for b.Loop() {
		b.StopTimer()
		r, w := benchWriter(b, compression)
		b.StartTimer()
		result, err := w.WriteDisk(b.Context(), "disk.raw", &fileSource{path, capacity})
		if err != nil {
			b.Fatal(err)
		}
		stored = result.StoredBytes
		b.StopTimer()
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(stored)/mib, "stored-MiB")
}

// BenchmarkReadDisk compares with plain copying, too.
func BenchmarkReadDisk(b *testing.B) {
	path, capacity := benchImage(b)
	r, w := benchWriter(b, CompressionS2)
	result, err := w.WriteDisk(b.Context(), "disk.raw", &fileSource{path, capacity})
	if err != nil {
		b.Fatal(err)
	}
	d := diskOf("disk.raw", capacity, result)
	m := testManifest()
	m.Disks = []Disk{d}
	id, err := w.Commit(b.Context(), m, testFiles)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("repository", func(b *testing.B) {
		b.SetBytes(capacity)
		for b.Loop() {
			reader, err := r.OpenDisk(b.Context(), id, d)
			if err != nil {
				b.Fatal(err)
			}
			if err := restoreFile(b.Context(), filepath.Join(b.TempDir(), "copy"), reader); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cp", func(b *testing.B) {
		b.SetBytes(capacity)
		for b.Loop() {
			if err := copyFile(filepath.Join(b.TempDir(), "copy"), path); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchWriter(b *testing.B, compression Compression) (*Repository, *Writer) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "repository")
	r, err := Open(b.Context(), Config{Path: path, Password: secret.New(testPassword), Create: true, Compression: compression})
	if err != nil {
		b.Fatal(err)
	}
	w, err := r.NewWriter(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return r, w
}

// copyFile copies through a buffer, as a program without the file system's help has to.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // synced below
	plain := struct{ io.Writer }{out}
	if _, err := io.CopyBuffer(plain, struct{ io.Reader }{in}, make([]byte, mib)); err != nil {
		return err
	}
	return out.Sync()
}

func restoreFile(ctx context.Context, to string, src disk.Source) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // synced below
	if err := out.Truncate(src.Capacity()); err != nil {
		return err
	}
	err = src.Extents(ctx, func(offset int64, data []byte) error {
		_, err := out.WriteAt(data, offset)
		return err
	})
	if err != nil {
		return err
	}
	return out.Sync()
}
