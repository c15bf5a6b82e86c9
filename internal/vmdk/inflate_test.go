package vmdk

import (
	"bytes"
	"compress/flate" // another implementation than the one that is used here
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"testing"
)

// inflate decompresses with an inflater that has been used before, into a grain that isn't empty.
func inflate(f *inflater, stream []byte) ([]byte, error) {
	data := bytes.Repeat([]byte{0xa5}, grainSize+inflateMargin)
	n, err := f.inflate(data, stream)
	return data[:n], err
}

// deflate makes a zlib stream of a level.
func deflate(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// grains are what a disk may have, at their full length: matches of all lengths and distances, literals of all kinds.
func grains() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := map[string][]byte{
		"text": text(1, grainSize), "noise": noise(2, grainSize), "zeros": make([]byte, grainSize),
		"few symbols": make([]byte, grainSize), "skewed": make([]byte, grainSize), "copies": noise(3, grainSize),
	}
	for i := range grainSize {
		all["few symbols"][i] = byte(r.IntN(3))
		all["skewed"][i] = byte(min(r.ExpFloat64()*9, 255)) // codes of all lengths
	}
	for at := 40000; at < grainSize; { // far and near, long and short
		length := min(3+r.IntN(300), grainSize-at)
		from := at - 1 - r.IntN(32768)
		for i := range length {
			all["copies"][at+i] = all["copies"][from+i]
		}
		at += length
	}
	for distance := 1; distance <= 17; distance++ {
		b := noise(uint64(distance), grainSize)
		for i := distance; i < grainSize; i++ {
			if i%1000 > 20 {
				b[i] = b[i-distance]
			}
		}
		all[fmt.Sprint("distance ", distance)] = b
	}
	return all
}

func TestInflate(t *testing.T) {
	t.Parallel()
	f := new(inflater)
	for name, data := range grains() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.DefaultCompression} {
			for _, n := range []int{0, 1, 100, grainSize} {
				stream := deflate(t, level, data[:n])
				stream = append(stream, data[:n%41]...) // something behind it
				if got, err := inflate(f, stream); err != nil || !bytes.Equal(got, data[:n]) {
					t.Fatalf("%s, level %d: %d bytes of %d, %v", name, level, len(got), n, err)
				}
			}
		}
		for i, level := range []int{flate.HuffmanOnly, flate.BestSpeed, flate.NoCompression} {
			stream := deflate(t, level, append(bytes.Clone(data), data[:1+300*i]...))
			if _, err := inflate(f, stream); !errors.Is(err, errLong) {
				t.Errorf("%s, level %d: %d bytes too many: %v", name, level, 1+300*i, err)
			}
		}
	}
}

// A block that ends right behind the last byte of a grain, or behind too many, with no other block behind it.
func TestInflateRoom(t *testing.T) {
	t.Parallel()
	for text, stream := range map[string][]byte{
		"ab":  {0x78, 0x01, 0x4b, 0x4c, 0x02, 0x00, 0x01, 0x26, 0x00, 0xc4},
		"abc": {0x78, 0x01, 0x4b, 0x4c, 0x4a, 0x06, 0x00, 0x02, 0x4d, 0x01, 0x27},
	} {
		for room := range 5 {
			n, err := new(inflater).inflate(make([]byte, room+inflateMargin), stream)
			if room < len(text) && !errors.Is(err, errLong) || room >= len(text) && (err != nil || n != len(text)) {
				t.Errorf("%s, room for %d: %d bytes, %v", text, room, n, err)
			}
		}
	}
}

// A stream that ends early, or in which a bit is another, is refused.
func TestInflateDamaged(t *testing.T) {
	t.Parallel()
	f := new(inflater)
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.BestCompression} {
		stream := deflate(t, level, text(7, 200))
		for n := range stream {
			if _, err := inflate(f, stream[:n]); err == nil {
				t.Errorf("level %d: %d of %d bytes", level, n, len(stream))
			}
		}
		for bit := range 8 * len(stream) {
			damaged := bytes.Clone(stream)
			damaged[bit/8] ^= 1 << (bit % 8)
			want, err := readZlib(damaged)
			if got, gotErr := inflate(f, damaged); (gotErr == nil) != (err == nil) || err == nil && !bytes.Equal(got, want) {
				t.Errorf("level %d: bit %d is another: %v, others say %v", level, bit, gotErr, err)
			}
		}
	}
}

func readZlib(stream []byte) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(stream))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func TestInflateRefuses(t *testing.T) {
	t.Parallel()
	f := new(inflater)
	for name, test := range map[string]struct {
		stream []byte
		want   error
	}{
		"nothing":                {nil, errShort},
		"half a header":          {[]byte{0x78}, errShort},
		"no block":               {[]byte{0x78, 0x01}, errShort},
		"an end that is cut":     {[]byte{0x78, 0x01, 3}, errShort},
		"another method":         {[]byte{0x77, 0x09, 3, 0, 0, 0, 0, 1}, errZlib},
		"a window of 64 KiB":     {[]byte{0x88, 0x1c, 3, 0, 0, 0, 0, 1}, errZlib},
		"a damaged header":       {[]byte{0x78, 0x02, 3, 0, 0, 0, 0, 1}, errZlib},
		"a dictionary":           {[]byte{0x78, 0x20, 3, 0, 0, 0, 0, 1}, errZlib},
		"a block of kind 3":      {[]byte{0x78, 0x01, 7, 0, 0, 0, 0, 1}, errDeflate},
		"stored, another length": {[]byte{0x78, 0x01, 1, 1, 0, 0xff, 0xff, 'a', 0, 0x62, 0, 0x62}, errDeflate},
		"stored, cut":            {[]byte{0x78, 0x01, 1, 9, 0, 0xf6, 0xff, 'a'}, errShort},
		"checksum":               {[]byte{0x78, 0x01, 3, 0, 0, 0, 0, 2}, errChecksum},
	} {
		if _, err := inflate(f, test.stream); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if got, err := inflate(f, []byte{0x78, 0x01, 3, 0, 0, 0, 0, 1}); err != nil || len(got) != 0 {
		t.Errorf("an empty stream: %q, %v", got, err)
	}
}

// FuzzInflate takes its bytes for deflated data, and compares with another implementation, which also says what the
// checksum has to be.
func FuzzInflate(f *testing.F) {
	for name, data := range grains() {
		for _, level := range []int{flate.HuffmanOnly, flate.BestSpeed, flate.BestCompression} {
			stream := deflate(f, level, data[:min(len(data), 3000+len(name))])
			f.Add(stream[2 : len(stream)-4])
		}
	}
	f.Add([]byte{0x05, 0xe0, 0x81, 0x08, 0, 0, 0, 0, 0x20}) // one code of one bit
	used := new(inflater)
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = append(bytes.Clone(raw), 0, 0, 0, 0)
		in := bytes.NewReader(raw)
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(in), grainSize+1))
		stream := append([]byte{0x78, 0x01}, raw[:len(raw)-in.Len()]...)
		stream = binary.BigEndian.AppendUint32(stream, adler32.Checksum(want))
		for _, f := range []*inflater{new(inflater), used} {
			got, err := inflate(f, stream)
			switch {
			case wantErr != nil || len(want) > grainSize:
				if err == nil {
					t.Errorf("%x: %d bytes, others say %d, %v", raw, len(got), len(want), wantErr)
				}
			case err != nil || !bytes.Equal(got, want):
				t.Errorf("%x: %d bytes, %v, others say %d", raw, len(got), err, len(want))
			}
		}
	})
}
