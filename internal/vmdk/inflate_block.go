package vmdk

import (
	"encoding/binary"
	"math/bits"
)

const (
	maxCode = 15 // bits of a code at most

	// literalBits and distanceTableBits are how many bits of a code a table tells apart at once. Longer codes are in
	// tables behind it.
	literalBits       = 11
	distanceTableBits = 8

	// tableSize is room for the longest table: behind the first one, there is another for every two long codes.
	tableSize = 1<<literalBits + maxLiterals/2<<(maxCode-literalBits)
)

// A huffmanEntry says what bits of the input stand for. From the lowest bit: the length of the code (5 bits), how
// many further bits belong to it (4), its kind (4), and a value (16). Zero: no code begins so.
type huffmanEntry uint32

const (
	lengthMask = 31
	extraShift = 5
	extraMask  = 15
	valueShift = 16

	isLiteral huffmanEntry = 1 << 9  // the value is a byte
	isOther   huffmanEntry = 1 << 10 // the value is a length or a distance, to which the further bits are added
	isEnd     huffmanEntry = 1 << 11 // the block ends; with isOther, or as a distance: not valid
	isTable   huffmanEntry = 1 << 12 // the value is where a table is that as many further bits choose from
)

func (e huffmanEntry) length() uint { return uint(e & lengthMask) }
func (e huffmanEntry) extra() uint  { return uint(e >> extraShift & extraMask) }
func (e huffmanEntry) value() int   { return int(e >> valueShift) }

// A huffmanTable finds codes.
type huffmanTable struct {
	entries [tableSize]huffmanEntry
}

// build makes the table for codes of the given lengths (RFC 1951, section 3.2.2), the first of which tells as many bits
// apart as given. There may be no code at all, or one of one bit, which some compressors write where there is one symbol; all
// others must use up all bits.
func (t *huffmanTable) build(lengths []uint8, first uint, entry func(symbol int) huffmanEntry) error {
	var count, next [maxCode + 1]int
	for _, n := range lengths {
		count[n]++
	}
	longest, code := 0, 0
	for n := 1; n <= maxCode; n++ {
		code <<= 1
		next[n] = code
		code += count[n]
		if count[n] > 0 {
			longest = n
		}
		if code > 1<<n {
			return errDeflate
		}
	}
	if code != 1<<maxCode && longest > 0 && (longest > 1 || count[1] != 1) {
		return errDeflate
	}
	clear(t.entries[:1<<first])
	end := 1 << first // of the tables
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		reversed := int(bits.Reverse16(uint16(next[n])) >> (16 - n)) // codes come with the first bit lowest
		next[n]++
		e := entry(symbol) | huffmanEntry(n)
		if uint(n) <= first {
			for i := reversed; i < 1<<first; i += 1 << n {
				t.entries[i] = e
			}
			continue
		}
		further := uint(longest) - first
		head := &t.entries[reversed&(1<<first-1)]
		if *head == 0 {
			*head = isTable | huffmanEntry(end)<<valueShift | huffmanEntry(further)<<extraShift
			end += 1 << further
		}
		table := t.entries[head.value():][:1<<further]
		for i := reversed >> first; i < len(table); i += 1 << (uint(n) - first) {
			table[i] = e
		}
	}
	return nil
}

// block inflates a block by the tables. What it works with is in variables of its own, which are faster than fields.
func (f *inflater) block() error {
	literals, distances := &f.literals.entries, &f.distances.entries
	in, next, buffer, n := f.in, f.next, f.bits, f.n
	out, at, limit := f.out, f.at, f.limit
	var e huffmanEntry
	for {
		if at > limit {
			f.at = at
			return errLong
		}
		if next+8 > len(in) { // near the end
			f.next, f.bits, f.n = next, buffer, n
			f.refill()
			next, buffer, n = f.next, f.bits, f.n
		} else { // as refill does
			buffer |= binary.LittleEndian.Uint64(in[next:]) << (n & 63)
			next += int(63-n) >> 3
			n |= 56
		}
		// Up to three literals take 11 bits each at most.
		if e = literals[buffer&(1<<literalBits-1)]; e&isLiteral != 0 {
			out[at] = byte(e >> valueShift)
			at++
			buffer >>= e & lengthMask
			n -= uint(e & lengthMask)
			if e = literals[buffer&(1<<literalBits-1)]; e&isLiteral != 0 {
				out[at] = byte(e >> valueShift)
				at++
				buffer >>= e & lengthMask
				n -= uint(e & lengthMask)
				if e = literals[buffer&(1<<literalBits-1)]; e&isLiteral != 0 {
					out[at] = byte(e >> valueShift)
					at++
					buffer >>= e & lengthMask
					n -= uint(e & lengthMask)
					continue
				}
			}
		}
		if e&isTable != 0 {
			e = literals[e.value()+int(buffer>>literalBits&(1<<e.extra()-1))]
		}
		buffer >>= e & lengthMask
		n -= uint(e & lengthMask)
		if e&isLiteral != 0 {
			out[at] = byte(e >> valueShift)
			at++
			continue
		}
		if e&(isOther|isEnd) != isOther {
			break
		}
		length := e.value() + int(buffer&(1<<e.extra()-1))
		buffer >>= e.extra()
		n -= e.extra()
		if n < maxCode+13 { // a distance takes as many bits at most
			f.next, f.bits, f.n = next, buffer, n
			f.refill()
			next, buffer, n = f.next, f.bits, f.n
		}
		e = distances[buffer&(1<<distanceTableBits-1)]
		if e&isTable != 0 {
			e = distances[e.value()+int(buffer>>distanceTableBits&(1<<e.extra()-1))]
		}
		buffer >>= e & lengthMask
		n -= uint(e & lengthMask)
		distance := e.value() + int(buffer&(1<<e.extra()-1))
		buffer >>= e.extra()
		n -= e.extra()
		if e&isOther == 0 || distance > at {
			e = 0
			break
		}
		at = copyMatch(out, at, distance, length)
	}
	f.next, f.bits, f.n, f.at = next, buffer, n, at
	if e&(isOther|isEnd) == isEnd {
		return nil
	}
	return errDeflate
}

// copyMatch repeats what stands at a distance, and returns where it ends. It may write up to 7 bytes more.
func copyMatch(out []byte, at, distance, length int) int {
	end := at + length
	if distance >= 8 {
		for ; at < end; at += 8 {
			binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[at-distance:]))
		}
		return end
	}
	for ; at < end; at++ {
		out[at] = out[at-distance]
	}
	return end
}
