package vmdk

import (
	"bytes"
	"hash/adler32"
	"testing"
)

func TestAdler32(t *testing.T) {
	t.Parallel()
	full := bytes.Repeat([]byte{0xff}, 2*adlerPart+7)
	some := noise(1, len(full))
	for _, n := range []int{0, 1, 7, 8, 9, 15, adlerRun - 1, adlerRun, adlerRun + 1, 2*adlerRun + 13, adlerPart - 1, adlerPart, adlerPart + 200, grainSize, len(full)} {
		for _, p := range [][]byte{full[:n], some[:n], some[1:][:min(n, len(some)-1)], make([]byte, n)} {
			if got, want := checksum(p), adler32.Checksum(p); got != want {
				t.Errorf("%d bytes: %08x, want %08x", len(p), got, want)
			}
		}
	}
}

func FuzzAdler32(f *testing.F) {
	f.Add([]byte("stream"), 1)
	f.Add([]byte{0xff, 0, 1}, 1000)
	f.Fuzz(func(t *testing.T, p []byte, times int) {
		p = bytes.Repeat(p, int(uint(times)%2000))
		if got, want := checksum(p), adler32.Checksum(p); got != want {
			t.Errorf("%d bytes: %08x, want %08x", len(p), got, want)
		}
	})
}

func BenchmarkAdler32(b *testing.B) {
	p := noise(1, grainSize)
	for name, sum := range map[string]func([]byte) uint32{"adler32": checksum, "hash/adler32": adler32.Checksum} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(grainSize)
			for b.Loop() {
				sum(p)
			}
		})
	}
}
