package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zlib"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// sample is a small disk of two tables and a last grain that is cut.
func sample() *extents {
	return &extents{40<<20 + 512, []part{
		{0, text(1, grainSize)}, {grainSize, noise(2, grainSize)}, {33 << 20, text(3, 100)}, {40 << 20, noise(4, 512)},
	}, nil}
}

// record makes a grain's record as it stands in a stream.
func record(sector uint64, data []byte) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(data)
	_ = w.Close()
	return rawRecord(sector, uint32(z.Len()), z.Bytes())
}

func rawRecord(sector uint64, size uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, sector)
	b = binary.LittleEndian.AppendUint32(b, size)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&(sectorSize-1))...)
}

// A stream that is cut anywhere must not pass for a whole one.
func TestDecodeTruncated(t *testing.T) {
	t.Parallel()
	stream := encode(t, sample(), EncodeOptions{})
	lengths := []int{0, 1, len(stream) - 1}
	for n := sectorSize; n < len(stream); n += sectorSize {
		lengths = append(lengths, n)
	}
	for _, n := range append(lengths, 511, 513, 70000, 70001) {
		if _, _, err := decode(t.Context(), bytes.NewReader(stream[:n]), DecodeOptions{}); !errors.Is(err, ErrTruncated) {
			t.Errorf("%d of %d bytes: error %v", n, len(stream), err)
		}
	}
}

func TestDecodeSlowReader(t *testing.T) {
	t.Parallel()
	src := sample()
	image, _, err := decode(t.Context(), iotest.HalfReader(bytes.NewReader(encode(t, src, EncodeOptions{}))), DecodeOptions{})
	if err != nil || !bytes.Equal(image, src.image()) {
		t.Errorf("a reader that gives a little at a time: %v", err)
	}
}

func TestDecodeReturnsErrorOfReader(t *testing.T) {
	t.Parallel()
	stream := encode(t, sample(), EncodeOptions{})
	for _, n := range []int{0, 512, 60000, 65536, 90000, len(stream) - 100, len(stream)} {
		r := io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(errBroken))
		_, _, err := decode(t.Context(), r, DecodeOptions{})
		if !errors.Is(err, errBroken) || errors.Is(err, ErrTruncated) {
			t.Errorf("after %d bytes: error %v", n, err)
		}
	}
}

// put returns a change that writes a value into the header.
func put(offset int, value any) func([]byte) []byte {
	return func(b []byte) []byte {
		_, _ = binary.Encode(b[offset:], binary.LittleEndian, value)
		return b
	}
}

func TestDecodeRefusesHeader(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"magic":                    {put(0, uint32(1)), ErrFormat},
		"version 0":                {put(4, uint32(0)), ErrFormat},
		"version 4":                {put(4, uint32(4)), ErrFormat},
		"not compressed":           {put(8, uint32(flagMarkers|flagNewlines)), ErrFormat},
		"no markers":               {put(8, uint32(flagCompressed|flagNewlines)), ErrFormat},
		"unknown flag":             {put(8, uint32(flagCompressed|flagMarkers|1<<20)), ErrFormat},
		"no capacity":              {put(12, uint64(0)), ErrFormat},
		"capacity over the limit":  {put(12, uint64(MaxCapacity/sectorSize+1)), ErrTooLarge},
		"capacity overflows":       {put(12, uint64(1<<63)), ErrTooLarge},
		"grain of no power of two": {put(20, uint64(100)), ErrFormat},
		"no grain":                 {put(20, uint64(0)), ErrFormat},
		"small grain":              {put(20, uint64(4)), ErrFormat},
		"large grain":              {put(20, uint64(4096)), ErrFormat},
		"grain overflows":          {put(20, uint64(1<<63)), ErrFormat},
		"descriptor behind grains": {put(28, uint64(120)), ErrFormat},
		"descriptor far away":      {put(28, uint64(1<<63)), ErrFormat},
		"large descriptor":         {put(36, uint64(1<<40)), ErrFormat},
		"table length":             {put(44, uint32(1024)), ErrFormat},
		"directory in the header":  {put(56, uint64(0)), ErrFormat},
		"directory behind grains":  {put(56, uint64(128)), ErrFormat},
		"no overhead":              {put(64, uint64(0)), ErrFormat},
		"large overhead":           {put(64, uint64(1<<50)), ErrFormat},
		"text mode":                {put(73, [4]byte{'\n', ' ', '\n', '\n'}), ErrFormat},
		"compression":              {put(77, uint16(2)), ErrFormat},
	}
	stream := encode(t, sample(), EncodeOptions{})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewDecoder(t.Context(), bytes.NewReader(test.change(slices.Clone(stream))), DecodeOptions{})
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
	if _, err := NewDecoder(t.Context(), bytes.NewReader(stream), DecodeOptions{MaxCapacity: 1 << 20}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the caller's limit: %v", err)
	}
}

// A body is what follows the first 64 KiB of a stream of a disk of 40 MiB and a sector. It starts with
// two grains and ends with table, directory, footer and end.
func TestDecodeRefusesBody(t *testing.T) {
	t.Parallel()
	const last = 40 << 20 / sectorSize
	stream := encode(t, sample(), EncodeOptions{})
	start, body := stream[:overheadSectors*sectorSize], stream[overheadSectors*sectorSize:]
	end := len(body) - 5*sectorSize // directory marker, directory, footer marker, footer, end
	first, data, full := record(0, text(1, grainSize)), noise(5, 600), noise(6, grainSize)
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	zeros := make([]byte, 64*sectorSize)
	// A tail that fits behind any grains: its grain directory, which nobody looks into, is said to be early.
	footer := newHeader(40<<20 + 512)
	footer.directoryOffset = 1
	tail := cat(body[end:end+3*sectorSize], footer.appendTo(nil), marker(markerEnd, 0))
	if _, _, err := decode(t.Context(), bytes.NewReader(cat(start, first, tail)), DecodeOptions{}); err != nil {
		t.Fatal(err) // or nothing below would mean anything
	}
	flipped := slices.Clone(first)
	flipped[len(flipped)/2] ^= 1

	tests := map[string]struct {
		body []byte
		want error
	}{
		"grain twice":             {cat(first, first, tail), ErrFormat},
		"grains out of order":     {cat(record(128, full), first, tail), ErrFormat},
		"grain off its place":     {cat(record(1, full), tail), ErrFormat},
		"grain behind the disk":   {cat(record(last+128, full), tail), ErrFormat},
		"grain far away":          {cat(record(1<<63, full), tail), ErrFormat},
		"short grain":             {cat(record(0, full[:grainSize-1]), tail), ErrFormat},
		"empty grain":             {cat(record(0, nil), tail), ErrFormat},
		"long grain":              {cat(record(0, append(slices.Clone(full), 0)), tail), ErrCorrupt},
		"very long grain":         {cat(record(0, make([]byte, 64<<20)), tail), ErrCorrupt},
		"short last grain":        {cat(record(last, full[:511]), tail), ErrFormat},
		"compressed size":         {cat(rawRecord(0, 2*grainSize+1, make([]byte, 3*grainSize)), tail), ErrFormat},
		"huge compressed size":    {cat(rawRecord(0, 1<<32-1, data), tail), ErrFormat},
		"size behind the data":    {cat(rawRecord(0, 2*grainSize, data)), ErrTruncated},
		"no zlib data":            {cat(rawRecord(0, 600, data), tail), ErrCorrupt},
		"cut zlib data":           {cat(rawRecord(0, 100, record(0, full)[grainHeaderSize:][:100]), tail), ErrCorrupt},
		"flipped bit":             {cat(flipped, tail), ErrCorrupt},
		"unknown marker":          {cat(marker(5, 0), body), ErrFormat},
		"marker of a wrong size":  {cat(marker(markerTable, 5), body), ErrFormat},
		"huge table":              {cat(marker(markerTable, 1<<60), body), ErrFormat},
		"too many tables":         {cat(bytes.Repeat(cat(marker(markerTable, 4), zeros[:4*sectorSize]), 3), body), ErrFormat},
		"huge directory":          {cat(marker(markerDirectory, 1<<60), body), ErrFormat},
		"empty directory":         {cat(marker(markerDirectory, 0), body), ErrFormat},
		"two directories":         {cat(body[:end+2*sectorSize], tail), ErrFormat},
		"grain behind directory":  {cat(tail[:2*sectorSize], first, tail[2*sectorSize:]), ErrFormat},
		"grain behind footer":     {cat(tail[:4*sectorSize], first, tail[4*sectorSize:]), ErrFormat},
		"footer of another disk":  {cat(body[:end+2*sectorSize], marker(markerFooter, 1), newHeader(1<<20).appendTo(nil), marker(0, 0)), ErrFormat},
		"footer ahead":            {cat(body[:end+2*sectorSize], marker(markerFooter, 1), newHeader(40<<20+512).appendTo(nil), marker(0, 0)), ErrFormat},
		"footer of a wrong size":  {cat(body[:end+2*sectorSize], marker(markerFooter, 2), body[end+3*sectorSize:]), ErrFormat},
		"two footers":             {cat(body[:len(body)-sectorSize], body[end+2*sectorSize:]), ErrFormat},
		"progress with data":      {cat(marker(markerProgress, 1), body), ErrFormat},
		"end with data":           {cat(body[:len(body)-sectorSize], marker(markerEnd, 1)), ErrFormat},
		"end at once":             {marker(markerEnd, 0), ErrFormat},
		"no footer":               {cat(body[:end+2*sectorSize], marker(markerEnd, 0)), ErrFormat},
		"no directory":            {cat(body[:end], body[end+2*sectorSize:]), ErrFormat},
		"a byte behind the end":   {cat(body, []byte{0}), ErrFormat},
		"sectors behind the end":  {cat(body, zeros), ErrFormat},
		"garbage behind the end":  {cat(body, data), ErrFormat},
		"a stream behind the end": {cat(body, stream), ErrFormat},
		"nothing":                 {nil, ErrTruncated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := decode(t.Context(), bytes.NewReader(cat(start, test.body)), DecodeOptions{})
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// What other writers do and the encoder doesn't.
func TestDecodeAccepts(t *testing.T) {
	t.Parallel()
	src := sample()
	stream := encode(t, src, EncodeOptions{})
	body := stream[overheadSectors*sectorSize:]
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	short := &extents{grainSize + 512, []part{{grainSize, noise(1, 512)}}, nil}
	shortStream := encode(t, short, EncodeOptions{Level: 9})
	tail := shortStream[overheadSectors*sectorSize+2*sectorSize:]

	tests := map[string]struct {
		stream []byte
		want   []byte
	}{
		"progress markers": {cat(stream[:overheadSectors*sectorSize], bytes.Repeat(marker(markerProgress, 0), 4), body), src.image()},
		"version 1":        {put(4, uint32(1))(slices.Clone(stream)), src.image()},
		"version 2":        {put(4, uint32(2))(slices.Clone(stream)), src.image()},
		"no descriptor":    {put(28, [2]uint64{})(slices.Clone(stream)), src.image()},
		"no newlines": {put(8, uint32(flagCompressed|flagMarkers))(put(73, uint32(0))(slices.Clone(stream))),
			src.image()},
		"last grain is short": {cat(shortStream[:overheadSectors*sectorSize], record(128, short.parts[0].data), tail),
			short.image()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image, _, err := decode(t.Context(), bytes.NewReader(test.stream), DecodeOptions{})
			if err != nil || !bytes.Equal(image, test.want) {
				t.Errorf("error %v, or another image", err)
			}
		})
	}
}

// withTables makes a stream whose directory and tables stand in front of its grains, without an end.
// TestDecodeSkips skips grains: their content isn't looked at, but the stream's structure is.
func TestDecodeSkips(t *testing.T) {
	t.Parallel()
	src := sample()
	stream := encode(t, src, EncodeOptions{})
	want := src.image()
	var skipped, yielded int64
	d, err := NewDecoder(t.Context(), bytes.NewReader(stream), DecodeOptions{Skip: func(e disk.Extent) bool {
		skip := e.Offset/grainSize%2 == 1
		if skip {
			skipped += e.Length
			clear(want[e.Offset:e.End()])
		}
		return skip
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, d.Capacity())
	if err := d.Extents(t.Context(), func(off int64, data []byte) error {
		yielded += int64(len(data))
		copy(got[off:], data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) || skipped == 0 || yielded == 0 {
		t.Errorf("skipped %d bytes, yielded %d, not what was to be left", skipped, yielded)
	}
	all := DecodeOptions{Skip: func(disk.Extent) bool { return true }}
	for n := range int64(len(stream)) / sectorSize {
		if _, _, err := decode(t.Context(), bytes.NewReader(stream[:n*sectorSize]), all); err == nil {
			t.Errorf("a stream cut after %d sectors passed", n)
		}
	}
}

func withTables(grains int, list func(entry, at uint32) uint32) []byte {
	h := newHeader(int64(grains) * grainSize)
	h.directoryOffset = overheadSectors
	h.overhead = h.directoryOffset + h.directorySectors() + h.tables()*tableSectors
	b := h.appendTo(nil)
	b = append(b, make([]byte, (overheadSectors-1)*sectorSize)...)
	directory := make([]uint32, h.directorySectors()*sectorSize/4)
	for i := range h.tables() {
		directory[i] = uint32(h.directoryOffset + h.directorySectors() + i*tableSectors)
	}
	b = appendTable(b, directory)
	table := make([]uint32, h.tables()*tableLength)
	var body []byte
	for i := range grains {
		table[i] = list(uint32(i), uint32(h.overhead)+uint32(len(body)/sectorSize))
		body = append(body, record(uint64(i)*128, noise(uint64(i), grainSize))...)
	}
	return append(appendTable(b, table), body...)
}

func TestDecodeTablesInFront(t *testing.T) {
	t.Parallel()
	honest := func(_, at uint32) uint32 { return at }
	tests := map[string]struct {
		stream []byte
		want   error
	}{
		"complete":             {withTables(3, honest), nil},
		"and an end":           {append(withTables(3, honest), marker(0, 0)...), nil},
		"and zeros":            {append(withTables(3, honest), make([]byte, 100*sectorSize)...), nil},
		"and too many zeros":   {append(withTables(3, honest), make([]byte, 200*sectorSize)...), ErrFormat},
		"and garbage":          {append(withTables(3, honest), slices.Concat(marker(0, 0), noise(1, 512))...), ErrFormat},
		"and a part of zeros":  {append(withTables(3, honest), make([]byte, 513)...), ErrFormat},
		"a grain is missing":   {withTables(4, honest)[:len(withTables(3, honest))], ErrTruncated},
		"one more than listed": {withTables(3, func(i, at uint32) uint32 { return at * min(1, 2-i) }), ErrFormat},
		"listed elsewhere":     {withTables(3, func(_, at uint32) uint32 { return at + 7 }), ErrFormat},
		"missing with an end": {append(withTables(3, func(i, at uint32) uint32 { return at + i })[:(128+1+4+129*2)*sectorSize],
			marker(0, 0)...), ErrTruncated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := decode(t.Context(), bytes.NewReader(test.stream), DecodeOptions{})
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// compact moves the grains of an encoded stream up to its header, so that a fuzzer has fewer bytes
// to get lost in.
func compact(stream []byte) []byte {
	b := slices.Concat(stream[:sectorSize], stream[overheadSectors*sectorSize:])
	b = put(28, [2]uint64{})(put(64, uint64(1))(b))
	footer := len(b) - 2*sectorSize
	at := binary.LittleEndian.Uint64(b[footer+56:])
	return put(footer+56, at-overheadSectors+1)(b)
}

func FuzzDecode(f *testing.F) {
	small := &extents{3*grainSize + 512, []part{{0, text(1, 300)}, {grainSize, noise(2, 2000)}, {3 * grainSize, noise(3, 512)}}, nil}
	f.Add(encode(f, small, EncodeOptions{}))
	stream := compact(encode(f, small, EncodeOptions{}))
	if _, _, err := decode(f.Context(), bytes.NewReader(stream), DecodeOptions{}); err != nil {
		f.Fatal(err)
	}
	f.Add(stream)
	for n := sectorSize; n < len(stream); n += sectorSize {
		f.Add(stream[:n])
	}
	f.Add(withTables(2, func(_, at uint32) uint32 { return at }))
	f.Add(put(12, uint64(1<<37))(slices.Clone(stream)))
	f.Add(put(64, uint64(3))(slices.Clone(stream)))
	f.Add(slices.Concat(stream[:sectorSize], rawRecord(0, 1<<32-1, nil)))
	f.Add(slices.Concat(stream[:sectorSize], record(0, make([]byte, 1<<20)), stream[sectorSize:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := NewDecoder(t.Context(), bytes.NewReader(b), DecodeOptions{Workers: 2})
		if err != nil {
			assertTyped(t, err)
			return
		}
		next, total := int64(0), 0
		err = d.Extents(t.Context(), func(offset int64, data []byte) error {
			if offset < next || offset+int64(len(data)) > d.Capacity() {
				t.Fatalf("extent at %d of %d bytes, after %d, capacity %d", offset, len(data), next, d.Capacity())
			}
			next = offset + int64(len(data))
			total += len(data)
			return nil
		})
		// Deflate gives at most about 1032 bytes for one.
		if total > 1100*len(b) {
			t.Fatalf("%d bytes out of %d", total, len(b))
		}
		if err != nil {
			assertTyped(t, err)
		}
	})
}

func assertTyped(t *testing.T, err error) {
	t.Helper()
	for _, kind := range []error{ErrFormat, ErrTruncated, ErrCorrupt, ErrTooLarge} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Fatalf("error of no kind: %v", err)
}

// FuzzRoundTrip takes its bytes as a list of extents: gap, length, and a byte to fill them with.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint16(3), []byte{0, 255, 1, 9, 128, 0, 255, 255, 7})
	f.Add(uint16(1000), []byte{200, 200, 1, 0, 200, 2, 100, 1, 3, 255, 255, 4})
	f.Fuzz(func(t *testing.T, sectors uint16, script []byte) {
		src := &extents{capacity: (int64(sectors) + 1) * sectorSize}
		offset := int64(0)
		for ; len(script) >= 3; script = script[3:] {
			offset += int64(script[0]) * 97
			length := min(int64(script[1])*1021, src.capacity-offset)
			if length < 0 {
				break
			}
			src.parts = append(src.parts, part{offset, bytes.Repeat(script[2:3], int(length))})
			offset += length
		}
		for _, adapt := range []bool{false, true} {
			var out bytes.Buffer
			if _, err := Encode(context.Background(), &out, src, EncodeOptions{Workers: 2, Adapt: adapt}); err != nil {
				t.Fatal(err)
			}
			image, _, err := decode(t.Context(), &out, DecodeOptions{Workers: 2})
			if err != nil || !bytes.Equal(image, src.image()) {
				t.Fatal(fmt.Errorf("other bytes, or an error: %w", err))
			}
		}
	})
}
