package vmdk

import "encoding/binary"

const (
	adlerModulus = 65521

	// adlerRun is how many bytes are added up in one go: so few that sums of sums of bytes that are 8 apart fit into 16 bits.
	adlerRun = 8 * 16

	// adlerPart is how many bytes are added up before the sums are taken modulo adlerModulus: they fit into 64 bits by far.
	adlerPart = adlerRun << 12
)

// checksum is Adler-32, that of a zlib stream (RFC 1950, section 8.2), in a third of the time of hash/adler32, which
// takes bytes one by one.
//
// It is made of two sums modulo adlerModulus: a, of 1 and the bytes, and b, of what a was after each byte. If bytes are
// taken in words of 8, with the numbers 0 to 7, then b grows by 8 times the a behind each word, less each byte times
// its number.
func checksum(p []byte) uint32 {
	a, b := uint64(1), uint64(0)
	for len(p) >= adlerRun {
		part := p[:min(len(p)-len(p)%adlerRun, adlerPart)]
		p = p[len(part):]
		for ; len(part) >= adlerRun; part = part[adlerRun:] {
			a, b = addRun((*[adlerRun]byte)(part), a, b)
		}
		a %= adlerModulus
		b %= adlerModulus
	}
	for _, v := range p {
		a += uint64(v)
		b += a
	}
	return uint32(b%adlerModulus)<<16 | uint32(a%adlerModulus)
}

// addRun adds a run of bytes to the sums of a checksum.
func addRun(run *[adlerRun]byte, a, b uint64) (uint64, uint64) {
	const lanes = 0x00ff00ff00ff00ff // the bytes of a word with even numbers
	// In four lanes of 16 bits each: sums of the bytes with even and with odd numbers, and sums of these behind each word.
	var even, odd, evens, odds uint64
	for i := 0; i < adlerRun; i += 32 {
		word := binary.LittleEndian.Uint64(run[i:])
		even += word & lanes
		odd += word >> 8 & lanes
		evens += even
		odds += odd
		word = binary.LittleEndian.Uint64(run[i+8:])
		even += word & lanes
		odd += word >> 8 & lanes
		evens += even
		odds += odd
		word = binary.LittleEndian.Uint64(run[i+16:])
		even += word & lanes
		odd += word >> 8 & lanes
		evens += even
		odds += odd
		word = binary.LittleEndian.Uint64(run[i+24:])
		even += word & lanes
		odd += word >> 8 & lanes
		evens += even
		odds += odd
	}
	pairs := even + odd
	b += 8*(adlerRun/8*a+sumLanes(evens)+sumLanes(odds)) -
		(2*(pairs>>16&0xffff) + 4*(pairs>>32&0xffff) + 6*(pairs>>48) + sumLanes(odd))
	return a + sumLanes(pairs), b
}

// sumLanes adds up four lanes of 16 bits.
func sumLanes(v uint64) uint64 {
	const lanes = 0x0000ffff0000ffff
	v = v&lanes + v>>16&lanes
	return v&0xffffffff + v>>32
}
