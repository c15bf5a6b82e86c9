package vmdk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A waitingWriter takes time for each write. In a bubble of synctest that means: until all others wait.
type waitingWriter struct{ bytes.Buffer }

func (w *waitingWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Second)
	return w.Buffer.Write(p)
}

// A waitingSource gives its data only when what it gave before was written.
type waitingSource struct{ *extents }

func (s waitingSource) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	return s.extents.Extents(ctx, func(offset int64, data []byte) error {
		for n := 0; n < len(data); n += grainSize {
			time.Sleep(time.Second)
			if err := yield(offset+int64(n), data[n:min(n+grainSize, len(data))]); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestAdapt compresses for a writer that doesn't keep up, and doesn't for one that waits for more.
func TestAdapt(t *testing.T) {
	t.Parallel()
	src := &extents{16 << 20, []part{{0, text(1, 12<<20)}, {13<<20 + 7, noise(2, 1<<20)}}, nil}
	small := len(encode(t, src, EncodeOptions{}))
	check := func(stream []byte) {
		t.Helper()
		image, _, err := decode(t.Context(), bytes.NewReader(stream), DecodeOptions{})
		if err != nil || !bytes.Equal(image, src.image()) {
			t.Errorf("%v, or other bytes", err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var slow waitingWriter
		if _, err := Encode(t.Context(), &slow, src, EncodeOptions{Adapt: true, Workers: 2}); err != nil {
			t.Fatal(err)
		}
		// What is in the buffers and in the window before the first is waited for is not compressed.
		if n := slow.Len(); n > small+(aheadBuffers+1)*aheadSize+8*grainSize {
			t.Errorf("a slow writer gets %d bytes instead of some %d", n, small)
		}
		check(slow.Bytes())
	})
	synctest.Test(t, func(t *testing.T) {
		var fast bytes.Buffer
		if _, err := Encode(t.Context(), &fast, waitingSource{src}, EncodeOptions{Adapt: true, Workers: 2}); err != nil {
			t.Fatal(err)
		}
		if n := fast.Len(); n < 13<<20 {
			t.Errorf("a writer that waits gets %d bytes: they are compressed", n)
		}
		check(fast.Bytes())
	})
}

// TestAdapt_change follows a writer that gets slow, and fast again.
func TestAdapt_change(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w waitingWriter
		a := newAheadWriter(&w)
		defer a.close()
		for range aheadBuffers + 1 {
			if _, err := a.Write(make([]byte, aheadSize)); err != nil {
				t.Fatal(err)
			}
		}
		if !a.slow {
			t.Error("it isn't slow with a full queue")
		}
		time.Sleep(time.Minute)
		if _, err := a.Write(make([]byte, aheadSize)); err != nil {
			t.Fatal(err)
		}
		if a.slow {
			t.Error("it is slow with an empty queue")
		}
		if err := a.flush(); err != nil || w.Len() != (aheadBuffers+2)*aheadSize {
			t.Errorf("%v, %d bytes were written", err, w.Len())
		}
	})
}

// TestAhead_fails gives the writer's first error, and writes nothing after it.
func TestAhead_fails(t *testing.T) {
	t.Parallel()
	w := &limitedWriter{aheadSize + 1}
	a := newAheadWriter(w)
	err := error(nil)
	for n := 0; err == nil && n < 100; n++ {
		_, err = a.Write(make([]byte, aheadSize))
	}
	if !errors.Is(err, errBroken) || !errors.Is(a.flush(), errBroken) {
		t.Errorf("got error %v", err)
	}
}

// What is left uncompressed, qemu-img reads too.
func TestAdaptForQEMU(t *testing.T) {
	t.Parallel()
	qemu := tool(t, "qemu-img", "qemu-utils")
	for name, raw := range images(t) {
		vmdk := filepath.Join(t.TempDir(), "disk.vmdk")
		if err := os.WriteFile(vmdk, encode(t, openSource(t, raw), EncodeOptions{Adapt: true}), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, qemu, "check", "-f", "vmdk", vmdk)
		back := filepath.Join(t.TempDir(), "back.raw")
		run(t, qemu, "convert", "-f", "vmdk", "-O", "raw", vmdk, back)
		assertSameFile(t, name, back, raw)
	}
}
