package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
)

// naive is the digest of a whole image by the letter of Digest's documentation, without a word of the
// implementation.
func naive(image []byte) Digest {
	var all bytes.Buffer
	_ = binary.Write(&all, binary.LittleEndian, uint64(len(image)))
	for number := uint64(0); len(image) > 0; number++ {
		block := image[:min(len(image), 1048576)]
		image = image[len(block):]
		if len(bytes.Trim(block, "\x00")) == 0 {
			continue
		}
		_ = binary.Write(&all, binary.LittleEndian, number)
		h := blake3.New()
		_, _ = h.Write(block)
		all.Write(h.Sum(nil)[:32])
	}
	h := blake3.New()
	_, _ = h.Write(all.Bytes())
	return Digest("blake3-1m:" + hex.EncodeToString(h.Sum(nil)[:32]))
}

// digest is the digest of an image by way of Blocks.
func digest(image []byte) Digest {
	blocks := Blocks{}
	for at := 0; at < len(image); at += BlockSize {
		if b := image[at:min(at+BlockSize, len(image))]; !IsZero(b) {
			blocks[int64(at/BlockSize)] = HashBlock(b)
		}
	}
	return blocks.Digest(int64(len(image)))
}

// image is a disk of a capacity with text at some offsets.
func image(capacity int, text string, offsets ...int) []byte {
	b := make([]byte, capacity)
	for _, at := range offsets {
		copy(b[at:], text)
	}
	return b
}

// Digests are kept in backups for years. These must never change: a digest that is made in another
// way needs another scheme in front of it.
func TestDigestNeverChanges(t *testing.T) {
	t.Parallel()
	const m = BlockSize
	tests := map[string]struct {
		image []byte
		want  Digest
	}{
		"no disk":             {nil, "blake3-1m:71e0a99173564931c0b8acc52d2685a8e39c64dc52e3d02390fdac2a12b155cb"},
		"one empty sector":    {image(512, ""), "blake3-1m:119f5e0c0a66dc163317017d603cd5588551847a54beb447b4b6142cc12c15bb"},
		"empty 3 MiB":         {image(3*m, ""), "blake3-1m:6827988687d6e8bcf9a594ee966e1aadb5a775ef7ca918e5d08de4d6aa551cc9"},
		"first byte":          {image(3*m, "a", 0), "blake3-1m:9fbe8a1342d9fe9d324032f05049f725881918c4c3f2e9b5825b0179b4c7d16a"},
		"first, other byte":   {image(3*m, "b", 0), "blake3-1m:60de8edefb9a89c8dabb6b759f0fcf1bf7591f380b91159331cfaa4694985596"},
		"second block":        {image(3*m, "a", m), "blake3-1m:a6ad397e847069f16ccd3e3aeb18680e67ab3d992962ac80dbf9635a12f8d7c8"},
		"last byte":           {image(3*m, "a", 3*m-1), "blake3-1m:6b6ffa1d4d66936e21cae5d4678b6e4dd6ab115df47c688cb49c07fe91d265a3"},
		"across two blocks":   {image(3*m, "ab", m-1), "blake3-1m:4633543dfdde736584cc1c73a1db2c849ab791e458d36ad2d0fd020ba5332ae9"},
		"larger disk":         {image(4*m, "a", 0), "blake3-1m:a2b8ab09af19c0c8968d57570b2b8a3b8878e12ce9a2cce279f00b7467f8d47c"},
		"larger by a sector":  {image(3*m+512, "a", 0), "blake3-1m:1070c389735cc4cd5bf203730f4f76be929574d5a4b0d60881d226308b223ca7"},
		"short last block":    {image(3*m+512, "a", 3*m), "blake3-1m:23c4af54298baeea42f4697c1dfd931063cefadbd69981ea0a7ef37d0b62445f"},
		"many blocks, not in": {image(40*m, "order", 0, 9*m, 10*m, 11*m, 30*m, 39*m), "blake3-1m:8361f41b9f365d094062e3a47d022fd17dc514285f3b46d4ee9a57fc8831e16b"},
	}
	seen := map[Digest]string{}
	for name, test := range tests {
		got := digest(test.image)
		if got != test.want {
			t.Errorf("%s: digest %s, was always %s", name, got, test.want)
		}
		if n := naive(test.image); got != n {
			t.Errorf("%s: digest %s, by the letter %s", name, got, n)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q have the same digest", name, other)
		}
		seen[got] = name
		if parsed, err := ParseDigest(string(got)); err != nil || parsed != got {
			t.Errorf("%s: ParseDigest = %s, %v", name, parsed, err)
		}
	}
}

// BLAKE3's own test vector for the input 0, 1, 2, …, 250, 0, 1, … of 1024 bytes
// (github.com/BLAKE3-team/BLAKE3, test_vectors.json): the hash is the standard one.
func TestHashBlockIsBLAKE3(t *testing.T) {
	t.Parallel()
	input := make([]byte, 1024)
	for i := range input {
		input[i] = byte(i % 251)
	}
	sum := HashBlock(input)
	const want = "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("HashBlock = %s, want %s", got, want)
	}
}

func TestParseDigestRefuses(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0a", 32)
	for _, s := range []string{
		"", ":", sum, "blake3-1m", "blake3-1m:", "blake3-1m:" + sum[:62], "blake3-1m:" + sum + "0a", "blake3-1m:" + sum[:63] + "g",
		"blake3-2m:" + sum, "sha256:" + sum, " blake3-1m:" + sum, "BLAKE3-1M:" + sum, "blake3-1m:" + sum + "\n",
	} {
		if d, err := ParseDigest(s); !errors.Is(err, ErrDigest) || d != "" {
			t.Errorf("ParseDigest(%q) = %q, %v", s, d, err)
		}
	}
}

// FuzzDigest lays its bytes into a disk at two places and compares with the naive digest.
func FuzzDigest(f *testing.F) {
	f.Add([]byte("data"), uint16(0), uint16(9000), uint16(8000))
	f.Add([]byte{0, 1}, uint16(2047), uint16(2048), uint16(4097))
	f.Add([]byte{}, uint16(1), uint16(2), uint16(3))
	f.Fuzz(func(t *testing.T, data []byte, first, second, sectors uint16) {
		disk := make([]byte, int(sectors%10000)*512)
		for _, sector := range []uint16{first, second} {
			if at := int(sector)*512 - 1; at >= 0 && at < len(disk) {
				copy(disk[at:], data)
			}
		}
		if got, want := digest(disk), naive(disk); got != want {
			t.Errorf("digest %s, by the letter %s", got, want)
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add("blake3-1m:" + strings.Repeat("0a", 32))
	f.Add("blake3-1m:x")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if (err == nil) != (string(d) == s && s != "") || err != nil && !errors.Is(err, ErrDigest) {
			t.Errorf("ParseDigest(%q) = %q, %v", s, d, err)
		}
	})
}

func BenchmarkHashBlock(b *testing.B) {
	block := image(BlockSize, "x", 7)
	b.SetBytes(BlockSize)
	for b.Loop() {
		HashBlock(block)
	}
}
