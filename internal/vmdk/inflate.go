package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	errLong     = errors.New("it inflates to more than a grain")
	errShort    = errors.New("it ends early")
	errZlib     = errors.New("it is no zlib stream")
	errDeflate  = errors.New("its deflated data breaks the rules")
	errChecksum = errors.New("its checksum doesn't confirm it")
)

const (
	// inflateMargin is how far behind the end of a grain an inflater may write before it looks: three literals, and a
	// match of maxMatch bytes that is copied in words of 8.
	inflateMargin = 3 + maxMatch + 8
	maxMatch      = 258
)

// An inflater decompresses grains: zlib streams (RFC 1950) that are in memory as a whole, into memory. Decompressors
// of streams, which take their input in pieces and keep a window of the output, take nearly twice the time.
type inflater struct {
	literals, distances huffmanTable
	lengths             [maxLiterals + maxDistances]uint8 // of codes, scratch

	in   []byte
	next int    // byte of in behind bits; beyond its end there are zeros
	bits uint64 // that were read ahead, lowest first
	n    uint   // how many of them count; those above are right, or zero

	out   []byte
	limit int // of what may be in out
	at    int // end of what is in out
}

// inflate decompresses a grain, verifies its checksum, and returns its length. Room for the longest grain is the
// length of data less inflateMargin, which may be overwritten. What follows the stream is ignored.
func (f *inflater) inflate(data, compressed []byte) (int, error) {
	f.in, f.next, f.bits, f.n = compressed, 2, 0, 0
	f.out, f.at, f.limit = data, 0, len(data)-inflateMargin
	defer func() { f.in, f.out = nil, nil }()
	if len(compressed) < 2 {
		return 0, errShort
	}
	head := binary.BigEndian.Uint16(compressed)
	if head>>8&15 != 8 || head>>12 > 7 || head%31 != 0 || head&0x20 != 0 { // RFC 1950, section 2.2
		return 0, errZlib
	}
	for last := false; !last; {
		f.refill()
		last = f.take(1) == 1
		var err error
		switch kind := f.take(2); kind {
		case 0:
			err = f.stored()
		case 1:
			f.fixedTables()
			err = f.block()
		case 2:
			if err = f.readTables(); err == nil {
				err = f.block()
			}
		default:
			err = errDeflate
		}
		switch {
		case f.position() > len(f.in):
			err = errShort
		case f.at > f.limit:
			err = errLong
		}
		if err != nil {
			return f.at, err
		}
	}
	trailer := f.in[f.position():]
	switch {
	case len(trailer) < 4:
		return f.at, errShort
	case binary.BigEndian.Uint32(trailer) != checksum(data[:f.at]):
		return f.at, errChecksum
	}
	return f.at, nil
}

// position is the first byte of in of which nothing was taken.
func (f *inflater) position() int { return f.next - int(f.n/8) }

// refill sees to it that there are at least 56 bits.
func (f *inflater) refill() {
	if f.next+8 <= len(f.in) {
		f.bits |= binary.LittleEndian.Uint64(f.in[f.next:]) << (f.n & 63)
		f.next += int(63-f.n) >> 3
		f.n |= 56
		return
	}
	for ; f.n < 56; f.n += 8 {
		if f.next < len(f.in) {
			f.bits |= uint64(f.in[f.next]) << f.n
		}
		f.next++
	}
}

// take takes bits, of which there must be as many.
func (f *inflater) take(n uint) int {
	v := int(f.bits & (1<<n - 1))
	f.bits >>= n
	f.n -= n
	return v
}

// stored copies a block that isn't compressed (RFC 1951, section 3.2.4).
func (f *inflater) stored() error {
	rest := f.in[min(f.position(), len(f.in)):]
	if len(rest) < 4 {
		return errShort
	}
	length := int(binary.LittleEndian.Uint16(rest))
	if int(^binary.LittleEndian.Uint16(rest[2:])) != length {
		return errDeflate
	}
	if rest = rest[4:]; len(rest) < length {
		return errShort
	}
	if length > f.limit-f.at {
		return errLong
	}
	f.at += copy(f.out[f.at:], rest[:length])
	f.next, f.bits, f.n = len(f.in)-len(rest)+length, 0, 0
	return nil
}

// Tables of RFC 1951, section 3.2.5: what a code of a length or a distance stands for, and how many more bits tell how
// much more.
var (
	lengthBases = [29]uint16{
		3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
	}
	lengthBits    = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBases = [30]uint16{
		1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
		8193, 12289, 16385, 24577,
	}
	distanceBits = [30]uint8{
		0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
	}
)

const (
	maxLiterals  = 288
	maxDistances = 32
	endOfBlock   = 256
)

// literalEntry and distanceEntry are what tables hold for a symbol.
func literalEntry(symbol int) huffmanEntry {
	switch {
	case symbol < endOfBlock:
		return isLiteral | huffmanEntry(symbol)<<valueShift
	case symbol == endOfBlock:
		return isEnd
	case symbol-endOfBlock-1 < len(lengthBases):
		i := symbol - endOfBlock - 1
		return isOther | huffmanEntry(lengthBits[i])<<extraShift | huffmanEntry(lengthBases[i])<<valueShift
	}
	return isEnd | isOther // there is no such symbol
}

func distanceEntry(symbol int) huffmanEntry {
	if symbol >= len(distanceBases) {
		return isEnd // as above
	}
	return isOther | huffmanEntry(distanceBits[symbol])<<extraShift | huffmanEntry(distanceBases[symbol])<<valueShift
}

// fixedTables makes the tables of a block that brings none (RFC 1951, section 3.2.6).
func (f *inflater) fixedTables() {
	for i := range maxLiterals {
		switch {
		case i < 144, i >= 280:
			f.lengths[i] = 8
		case i < 256:
			f.lengths[i] = 9
		default:
			f.lengths[i] = 7
		}
	}
	_ = f.literals.build(f.lengths[:maxLiterals], literalBits, literalEntry) // complete
	for i := range maxDistances {
		f.lengths[i] = 5
	}
	_ = f.distances.build(f.lengths[:maxDistances], distanceTableBits, distanceEntry)
}

// lengthOrder is in which order a block has the lengths of the codes of lengths (RFC 1951, section 3.2.7).
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the tables that a block begins with.
func (f *inflater) readTables() error {
	literals, distances, lengths := f.take(5)+257, f.take(5)+1, f.take(4)+4
	if literals > 286 || distances > 30 {
		return errDeflate
	}
	clear(f.lengths[:len(lengthOrder)])
	for i := range lengths {
		f.refill()
		f.lengths[lengthOrder[i]] = uint8(f.take(3))
	}
	// The table of distances isn't needed yet.
	err := f.distances.build(f.lengths[:len(lengthOrder)], 7, func(s int) huffmanEntry {
		return isLiteral | huffmanEntry(s)<<valueShift
	})
	if err != nil {
		return err
	}
	codes := f.lengths[:literals+distances]
	for i := 0; i < len(codes); {
		f.refill()
		e := f.distances.entries[f.bits&0x7f]
		if e == 0 {
			return errDeflate
		}
		f.take(e.length())
		symbol, times := uint8(e.value()), 1
		switch {
		case symbol == 16 && i == 0:
			return errDeflate
		case symbol == 16:
			symbol, times = codes[i-1], 3+f.take(2)
		case symbol == 17:
			symbol, times = 0, 3+f.take(3)
		case symbol == 18:
			symbol, times = 0, 11+f.take(7)
		}
		if times > len(codes)-i {
			return errDeflate
		}
		for range times {
			codes[i] = symbol
			i++
		}
	}
	if codes[endOfBlock] == 0 {
		return fmt.Errorf("%w: a block without an end", errDeflate)
	}
	if err := f.literals.build(codes[:literals], literalBits, literalEntry); err != nil {
		return err
	}
	return f.distances.build(codes[literals:], distanceTableBits, distanceEntry)
}
