package disk

import "bytes"

var zeros [64 << 10]byte

// IsZero reports whether every byte of b is zero. It compares with memory that is known to be
// zero, which the runtime does many bytes at a time.
func IsZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
