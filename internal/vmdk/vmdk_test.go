package vmdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// extents is a disk.Source in memory.
type extents struct {
	capacity int64
	parts    []part
	err      error // after the last part
}

type part struct {
	offset int64
	data   []byte
}

func (e *extents) Capacity() int64 { return e.capacity }

func (e *extents) Extents(_ context.Context, yield func(int64, []byte) error) error {
	for _, p := range e.parts {
		if err := yield(p.offset, p.data); err != nil {
			return err
		}
	}
	return e.err
}

// image is the disk as a whole, for small ones.
func (e *extents) image() []byte {
	b := make([]byte, e.capacity)
	for _, p := range e.parts {
		copy(b[p.offset:], p.data)
	}
	return b
}

// noise is data that doesn't compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed))).Read(b)
	return b
}

// text is data that compresses about 4:1.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := []string{"snapshot ", "restore ", "point ", "of ", "a ", "virtual ", "machine\n", "datastore "}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
		if r.IntN(4) == 0 {
			b = fmt.Append(b, r.Uint32())
		}
	}
	return b[:n]
}

func encode(t testing.TB, src disk.Source, o EncodeOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	stats, err := Encode(t.Context(), &out, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Bytes != int64(out.Len()) {
		t.Errorf("Stats.Bytes = %d, the stream has %d", stats.Bytes, out.Len())
	}
	return out.Bytes()
}

// decode returns the image in a stream, and how many grains it was made of.
func decode(ctx context.Context, stream io.Reader, o DecodeOptions) ([]byte, int, error) {
	d, err := NewDecoder(ctx, stream, o)
	if err != nil {
		return nil, 0, err
	}
	image, grains, last := make([]byte, d.Capacity()), 0, int64(0)
	err = d.Extents(ctx, func(offset int64, data []byte) error {
		if offset < last || offset+int64(len(data)) > d.Capacity() {
			return fmt.Errorf("extent at %d of %d bytes is out of order or place", offset, len(data))
		}
		last = offset + int64(len(data))
		copy(image[offset:], data)
		grains++
		return nil
	})
	return image, grains, err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const grain = grainSize
	tests := map[string]*extents{
		"one sector":               {512, []part{{0, noise(1, 512)}}, nil},
		"empty":                    {10 << 20, nil, nil},
		"zeros that are yielded":   {1 << 20, []part{{0, make([]byte, 1<<20)}}, nil},
		"whole grains":             {4 * grain, []part{{0, noise(2, grain)}, {grain, text(3, grain)}, {3 * grain, noise(4, grain)}}, nil},
		"one extent of many":       {1<<20 + 512, []part{{0, text(5, 1<<20+512)}}, nil},
		"last grain of one sector": {3*grain + 512, []part{{3 * grain, noise(6, 512)}}, nil},
		"last grain lacks one":     {3*grain - 512, []part{{2*grain + 100, noise(7, 200)}}, nil},
		"parts of one grain":       {2 * grain, []part{{1, noise(8, 1)}, {700, noise(9, 3)}, {grain - 1, noise(10, 2)}, {2*grain - 5, noise(11, 5)}}, nil},
		"empty extents":            {2 * grain, []part{{0, nil}, {5, nil}, {grain, noise(12, 100)}, {grain + 100, nil}}, nil},
		"a zero part and more":     {2 * grain, []part{{0, make([]byte, 100)}, {100, noise(13, 10)}, {grain, make([]byte, 9)}}, nil},
		"many tables":              {300 << 20, []part{{5, noise(14, 3)}, {32<<20 - 7, noise(15, 14)}, {299 << 20, text(16, 1<<20)}}, nil},
		"more than the window":     {64 << 20, []part{{0, text(17, 40<<20)}, {41<<20 + 3, noise(18, 5<<20)}}, nil},
	}
	for name, src := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first []byte
			for _, workers := range []int{1, 3, 0} {
				stream := encode(t, src, EncodeOptions{Workers: workers})
				if first == nil {
					first = stream
				}
				if !bytes.Equal(stream, first) {
					t.Errorf("the stream depends on the number of workers")
				}
				image, _, err := decode(t.Context(), bytes.NewReader(stream), DecodeOptions{Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(image, src.image()) {
					t.Errorf("%d workers: what comes out is not what went in", workers)
				}
			}
		})
	}
}

func TestZeroGrainsAreLeftOut(t *testing.T) {
	t.Parallel()
	data := make([]byte, 20*grainSize)
	copy(data[3*grainSize+17:], "x")
	copy(data[11*grainSize:], "y")
	src := &extents{int64(len(data)), []part{{0, data[:1000]}, {1000, data[1000:]}}, nil}
	_, grains, err := decode(t.Context(), bytes.NewReader(encode(t, src, EncodeOptions{})), DecodeOptions{})
	if err != nil || grains != 2 {
		t.Errorf("%d grains, %v; want 2", grains, err)
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	src := &extents{4 << 20, []part{{0, text(1, 4<<20)}}, nil}
	sizes := map[int]int{}
	for level := -2; level <= 9; level++ {
		stream := encode(t, src, EncodeOptions{Level: level})
		sizes[level] = len(stream)
		image, _, err := decode(t.Context(), bytes.NewReader(stream), DecodeOptions{})
		if err != nil || !bytes.Equal(image, src.image()) {
			t.Errorf("level %d: %v", level, err)
		}
	}
	if sizes[0] != sizes[1] || sizes[9] >= sizes[1] || sizes[1] >= sizes[-2] {
		t.Errorf("sizes by level: %v", sizes)
	}
	for _, level := range []int{-3, 10} {
		if _, err := Encode(t.Context(), io.Discard, src, EncodeOptions{Level: level}); err == nil {
			t.Errorf("level %d is accepted", level)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	x := []byte("x")
	tests := map[string]struct {
		src  *extents
		want error
	}{
		"no capacity":        {&extents{0, nil, nil}, ErrSource},
		"odd capacity":       {&extents{513, nil, nil}, ErrSource},
		"negative capacity":  {&extents{-512, nil, nil}, ErrSource},
		"too large":          {&extents{MaxCapacity + 512, nil, nil}, ErrTooLarge},
		"before the disk":    {&extents{512, []part{{-1, x}}, nil}, ErrSource},
		"behind the disk":    {&extents{512, []part{{512, x}}, nil}, ErrSource},
		"across the end":     {&extents{512, []part{{511, []byte("xy")}}, nil}, ErrSource},
		"not in order":       {&extents{1024, []part{{600, x}, {0, x}}, nil}, ErrSource},
		"overlap":            {&extents{1024, []part{{0, []byte("xy")}, {1, x}}, nil}, ErrSource},
		"offset far outside": {&extents{1024, []part{{1<<63 - 1, x}}, nil}, ErrSource},
		"failing source":     {&extents{1 << 20, []part{{0, noise(1, 1<<20)}}, errBroken}, errBroken},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if _, err := Encode(t.Context(), &out, test.src, EncodeOptions{}); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if out.Len() == 0 {
				return
			}
			if _, _, err := decode(t.Context(), &out, DecodeOptions{}); !errors.Is(err, ErrTruncated) {
				t.Errorf("what was written decodes with error %v, want %v", err, ErrTruncated)
			}
		})
	}
}

var errBroken = errors.New("broken")

// A limitedWriter fails after some bytes.
type limitedWriter struct{ left int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, errBroken
	}
	w.left -= len(p)
	return len(p), nil
}

func TestEncodeReturnsErrorOfWriter(t *testing.T) {
	src := &extents{8 << 20, []part{{0, noise(1, 8<<20)}}, nil}
	whole := len(encode(t, src, EncodeOptions{}))
	before := runtime.NumGoroutine()
	for _, n := range []int{0, 512, 70000, whole / 2, whole - 512, whole - 1} {
		if _, err := Encode(t.Context(), &limitedWriter{n}, src, EncodeOptions{}); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: error %v", n, err)
		}
	}
	assertGoroutines(t, before)
}

// assertGoroutines fails unless the number of goroutines comes back to what it was. Those that have
// been waited for may need a moment to be gone.
func assertGoroutines(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, were %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func TestNoGoroutineStaysBehind(t *testing.T) {
	src := &extents{32 << 20, []part{{0, text(1, 32<<20)}}, nil}
	stream := encode(t, src, EncodeOptions{})
	before := runtime.NumGoroutine()

	d, err := NewDecoder(t.Context(), bytes.NewReader(stream), DecodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Extents(t.Context(), func(int64, []byte) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("an error of yield comes back as %v", err)
	}
	if err := d.Extents(t.Context(), func(int64, []byte) error { return nil }); err == nil {
		t.Error("a second pass is allowed")
	}

	ctx, cancel := context.WithCancel(t.Context())
	if d, err = NewDecoder(ctx, bytes.NewReader(stream), DecodeOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Extents(ctx, func(int64, []byte) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancellation: %v", err)
	}
	if _, err := NewDecoder(ctx, bytes.NewReader(stream), DecodeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a decoder made after cancellation: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	canceling := &funcSource{32 << 20, func(yield func(int64, []byte) error) error {
		for offset := int64(0); offset < 32<<20; offset += grainSize {
			if offset == 16<<20 {
				cancel()
			}
			if err := yield(offset, src.parts[0].data[:grainSize]); err != nil {
				return err
			}
		}
		return nil
	}}
	var out bytes.Buffer
	if _, err := Encode(ctx, &out, canceling, EncodeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("encode after cancellation: %v", err)
	}
	if _, _, err := decode(t.Context(), &out, DecodeOptions{}); !errors.Is(err, ErrTruncated) {
		t.Errorf("a cancelled stream decodes with error %v", err)
	}
	assertGoroutines(t, before)
}

// A funcSource makes its data as it goes.
type funcSource struct {
	capacity int64
	extents  func(yield func(int64, []byte) error) error
}

func (f *funcSource) Capacity() int64 { return f.capacity }

func (f *funcSource) Extents(_ context.Context, yield func(int64, []byte) error) error {
	return f.extents(yield)
}

// A 16 TiB disk with little data must cost neither time nor memory: only its grain directory, of
// 2 MiB.
func TestHugeSparseDisk(t *testing.T) {
	const capacity = 16<<40 - 512
	data := text(1, 3<<20)
	offsets := []int64{0, 1<<40 + 13, 9<<40 - 100, capacity - int64(len(data))}
	src := &extents{capacity: capacity}
	for _, o := range offsets {
		src.parts = append(src.parts, part{o, data})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reader, writer := io.Pipe()
	go func() {
		_, err := Encode(t.Context(), writer, src, EncodeOptions{Workers: 2})
		writer.CloseWithError(err)
	}()
	d, err := NewDecoder(t.Context(), reader, DecodeOptions{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	sums := map[int64]int64{} // bytes that are right, by extent
	err = d.Extents(t.Context(), func(offset int64, got []byte) error {
		want := make([]byte, len(got))
		for i, o := range offsets {
			from, to := max(offset, o), min(offset+int64(len(got)), o+int64(len(data)))
			if from < to {
				sums[int64(i)] += int64(copy(want[from-offset:to-offset], data[from-o:]))
			}
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("grain at %d differs", offset)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	for i := range offsets {
		if sums[int64(i)] != int64(len(data)) {
			t.Errorf("extent %d: %d bytes came back", i, sums[int64(i)])
		}
	}
	// Everything ever allocated, including what was collected since.
	if n := after.TotalAlloc - before.TotalAlloc; n > 40<<20 {
		t.Errorf("%d MiB allocated", n>>20)
	}
}

// Memory must not depend on the amount of data.
func TestMemoryIsBounded(t *testing.T) {
	const total = 256 << 20
	grain, rest := text(1, grainSize), noise(2, grainSize)
	src := &funcSource{total, func(yield func(int64, []byte) error) error {
		for offset := int64(0); offset < total; offset += 2 * grainSize {
			if err := errors.Join(yield(offset, grain), yield(offset+grainSize, rest)); err != nil {
				return err
			}
		}
		return nil
	}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reader, writer := io.Pipe()
	go func() {
		_, err := Encode(t.Context(), writer, src, EncodeOptions{Workers: 2})
		writer.CloseWithError(err)
	}()
	d, err := NewDecoder(t.Context(), reader, DecodeOptions{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Extents(t.Context(), func(int64, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("%d MiB allocated for %d MiB of data", n>>20, total>>20)
	}
}
