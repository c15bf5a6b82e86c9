package vmdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tool finds an external program or skips the test.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian package %s)", name, debian)
	}
	return path
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// A fileSource is a raw image, read in pieces of an awkward size.
type fileSource struct {
	f        *os.File
	capacity int64
}

func openSource(t *testing.T, path string) *fileSource {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &fileSource{f, info.Size()}
}

func (s *fileSource) Capacity() int64 { return s.capacity }

func (s *fileSource) Extents(_ context.Context, yield func(int64, []byte) error) error {
	b := make([]byte, 1<<20-77)
	for offset := int64(0); ; {
		n, err := s.f.ReadAt(b, offset)
		if n > 0 {
			if err := yield(offset, b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		offset += int64(n)
	}
}

// images makes raw images: file systems with real files in them, and odd ones.
func images(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	files := filepath.Join(dir, "files")
	for i := range 60 {
		path := filepath.Join(files, fmt.Sprintf("dir%d/file%d", i%7, i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		data := text(uint64(i), 1000+i*9999)
		if i%3 == 0 {
			data = noise(uint64(i), 500+i*7777)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	made := map[string]string{}
	for name, capacity := range map[string]int64{
		"ext4": 96 << 20, "ext4 odd": 70<<20 + 512, "ext4 less one sector": 64<<20 - 512,
	} {
		path := filepath.Join(dir, name+".raw")
		truncate(t, path, capacity)
		run(t, tool(t, "mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-d", files, path)
		truncate(t, path, capacity) // mke2fs leaves the size as it is, but this test relies on it
		made[name] = path
	}
	for name, e := range map[string]*extents{
		"one sector":       {512, []part{{0, noise(1, 512)}}, nil},
		"empty":            {33 << 20, nil, nil},
		"noise to the end": {8 << 20, []part{{0, noise(2, 8<<20)}}, nil},
		"noise, odd":       {8<<20 + 3*512, []part{{0, noise(3, 8<<20+3*512)}}, nil},
		"sparse, 5 tables": {4*32<<20 + 512, []part{{2*32<<20 + 5, text(4, 100)}, {4 * 32 << 20, noise(5, 512)}}, nil},
	} {
		path := filepath.Join(dir, name+".raw")
		truncate(t, path, e.capacity)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range e.parts {
			if _, err := f.WriteAt(p.data, p.offset); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		made[name] = path
	}
	return made
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What we write, qemu-img reads.
func TestEncodeForQEMU(t *testing.T) {
	t.Parallel()
	qemu := tool(t, "qemu-img", "qemu-utils")
	for name, raw := range images(t) {
		vmdk := filepath.Join(t.TempDir(), "disk.vmdk")
		if err := os.WriteFile(vmdk, encode(t, openSource(t, raw), EncodeOptions{}), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, qemu, "check", "-f", "vmdk", vmdk)
		run(t, qemu, "compare", "-f", "vmdk", "-F", "raw", vmdk, raw)
		back := filepath.Join(t.TempDir(), "back.raw")
		run(t, qemu, "convert", "-f", "vmdk", "-O", "raw", vmdk, back)
		assertSameFile(t, name, back, raw)
	}
}

// What qemu-img writes, we read; and nothing that is cut off goes unnoticed.
func TestDecodeFromQEMU(t *testing.T) {
	t.Parallel()
	qemu := tool(t, "qemu-img", "qemu-utils")
	for name, raw := range images(t) {
		vmdk := filepath.Join(t.TempDir(), "disk.vmdk")
		run(t, qemu, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk)
		stream, err := os.ReadFile(vmdk)
		if err != nil {
			t.Fatal(err)
		}
		image, grains, err := decode(t.Context(), bytes.NewReader(stream), DecodeOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(image, want) {
			t.Errorf("%s: the image differs", name)
		}
		end := len(bytes.TrimRight(stream, "\x00"))
		for _, n := range []int{end - 1, end - sectorSize, end / 2, 100, 0} {
			if grains == 0 && n > 600 {
				continue // nothing but the header is there to be cut off
			}
			if _, _, err := decode(t.Context(), bytes.NewReader(stream[:max(0, n)]), DecodeOptions{}); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: cut to %d of %d bytes: error %v", name, n, len(stream), err)
			}
		}
	}
}

func assertSameFile(t *testing.T, name, got, want string) {
	t.Helper()
	a, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("%s: the image differs (%d and %d bytes)", name, len(a), len(b))
	}
}
