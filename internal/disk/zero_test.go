package disk

import (
	"testing"
)

func TestIsZero(t *testing.T) {
	t.Parallel()
	// Lengths around those at which the comparison changes its ways.
	for _, n := range []int{0, 1, 7, 8, 63, 511, 512, 65535, 65536, 65537, 131072, 1<<20 + 3} {
		b := make([]byte, n)
		if !IsZero(b) {
			t.Errorf("%d zeros are not zero", n)
		}
		for _, at := range []int{0, 1, n / 2, 65535, 65536, n - 2, n - 1} {
			if at < 0 || at >= n {
				continue
			}
			for _, v := range []byte{1, 0x80, 0xff} {
				b[at] = v
				if IsZero(b) {
					t.Errorf("byte %d of %d is %#x, yet it is zero", at, n, v)
				}
			}
			b[at] = 0
		}
	}
	if !IsZero(nil) {
		t.Error("nothing is not zero")
	}
}

func FuzzIsZero(f *testing.F) {
	f.Add([]byte(nil), 0)
	f.Add([]byte{0, 0, 1}, 70000)
	f.Fuzz(func(t *testing.T, b []byte, padding int) {
		b = append(make([]byte, uint(padding)%(200<<10)), b...)
		want := true
		for _, v := range b {
			want = want && v == 0
		}
		if got := IsZero(b); got != want {
			t.Errorf("IsZero of %d bytes = %v", len(b), got)
		}
	})
}

func BenchmarkIsZero(b *testing.B) {
	block := make([]byte, BlockSize)
	b.SetBytes(BlockSize)
	for b.Loop() {
		if !IsZero(block) {
			b.Fatal("zeros are not zero")
		}
	}
}
