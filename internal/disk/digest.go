package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

// BlockSize is the unit of a disk's digest, in bytes.
const BlockSize = 1 << 20

// digestScheme names the way a Digest is made; another way gets another name.
const digestScheme = "blake3-1m"

// A BlockHash is the BLAKE3-256 hash of one block of BlockSize bytes (the last block of a disk may
// be shorter).
type BlockHash [32]byte

// HashBlock hashes one block. The caller sees to it that the block is not all zero: blocks of
// zeros have no part in a digest.
func HashBlock(b []byte) BlockHash { return blake3.Sum256(b) }

// A Digest identifies the content of a whole disk: "blake3-1m:" and 64 hexadecimal digits.
//
// It is BLAKE3-256 over the capacity in bytes, followed for every block of 1 MiB that is not all
// zero, in order, by the block's number and the BLAKE3-256 hash of the block. Numbers are 64-bit
// little-endian. Two things follow: holes cost nothing, whatever the disk's capacity, and the
// digest of a changed disk can be made from the hashes of its unchanged blocks without reading
// them.
type Digest string

// ErrDigest is what a malformed digest gives.
var ErrDigest = errors.New("malformed disk digest")

// ParseDigest checks the form of s. It returns an error that wraps ErrDigest.
func ParseDigest(s string) (Digest, error) {
	scheme, sum, ok := strings.Cut(s, ":")
	if !ok || scheme != digestScheme {
		return "", fmt.Errorf("%w: %q is not of the form %s:…", ErrDigest, s, digestScheme)
	}
	if b, err := hex.DecodeString(sum); err != nil || len(b) != len(BlockHash{}) {
		return "", fmt.Errorf("%w: %q", ErrDigest, s)
	}
	return Digest(s), nil
}

// Blocks are the hashes of a disk's blocks, by block number, without those of zero blocks. It is
// what a Digest is made of.
type Blocks map[int64]BlockHash

// Digest computes the digest of a disk of the given capacity in bytes.
func (b Blocks) Digest(capacity int64) Digest {
	numbers := make([]int64, 0, len(b))
	for n := range b {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	d := NewDigester(capacity)
	for _, n := range numbers {
		d.Add(n, b[n])
	}
	return d.Digest()
}

// A Digester makes the Digest of a disk whose blocks come in ascending order, in constant memory.
type Digester struct {
	hash *blake3.Hasher
	word [8]byte
}

// NewDigester starts the digest of a disk of the given capacity in bytes.
func NewDigester(capacity int64) *Digester {
	d := &Digester{hash: blake3.New()}
	d.number(capacity)
	return d
}

// Add takes the hash of the next block that is not all zero. Numbers must ascend.
func (d *Digester) Add(number int64, hash BlockHash) {
	d.number(number)
	_, _ = d.hash.Write(hash[:]) // a hash never fails
}

func (d *Digester) number(v int64) {
	binary.LittleEndian.PutUint64(d.word[:], uint64(v))
	_, _ = d.hash.Write(d.word[:])
}

// Digest is the digest of the blocks added so far, all others being zero.
func (d *Digester) Digest() Digest {
	return Digest(digestScheme + ":" + hex.EncodeToString(d.hash.Sum(nil)))
}
