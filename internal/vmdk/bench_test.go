package vmdk

import (
	"bytes"
	"io"
	"testing"
)

func BenchmarkEncode(b *testing.B) {
	for name, data := range benchData() {
		b.Run(name, func(b *testing.B) {
			src := &extents{int64(len(data)), []part{{0, data}}, nil}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Encode(b.Context(), io.Discard, src, EncodeOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, data := range benchData() {
		b.Run(name, func(b *testing.B) {
			stream := encode(b, &extents{int64(len(data)), []part{{0, data}}, nil}, EncodeOptions{})
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				d, err := NewDecoder(b.Context(), bytes.NewReader(stream), DecodeOptions{})
				if err == nil {
					err = d.Extents(b.Context(), func(int64, []byte) error { return nil })
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchData() map[string][]byte {
	const n = 32 << 20
	return map[string][]byte{"text": text(1, n), "noise": noise(2, n), "zeros": make([]byte, n)}
}
