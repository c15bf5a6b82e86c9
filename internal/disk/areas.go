package disk

import (
	"fmt"
	"math/bits"
)

// Areas are the parts of a disk that something is about: those that changed, say. They are kept with the
// granularity of the chunks that the disk is stored in, one bit for each, so that the areas of a disk of
// 16 TiB take half a mebibyte however scattered they are.
//
// The zero value is not ready to use. Areas may be read concurrently, but not while they are added to.
type Areas struct {
	capacity    int64
	granularity int64
	set         []uint64
	count       int64 // of bits that are set
}

// NewAreas makes areas of a disk, none to begin with. Capacity and granularity are in bytes, and positive.
func NewAreas(capacity, granularity int64) *Areas {
	if capacity <= 0 || granularity <= 0 {
		panic(fmt.Sprintf("areas of %d bytes in units of %d", capacity, granularity))
	}
	units := (capacity-1)/granularity + 1
	return &Areas{capacity: capacity, granularity: granularity, set: make([]uint64, (units-1)/64+1)}
}

// Capacity is the size of the disk in bytes.
func (a *Areas) Capacity() int64 { return a.capacity }

// Granularity is the size in bytes of the unit that areas consist of. The last one may be shorter.
func (a *Areas) Granularity() int64 { return a.granularity }

// Add adds every unit that has at least a byte in common with the extent. What is beyond the capacity is
// left out.
func (a *Areas) Add(e Extent) {
	first, end := max(e.Offset, 0), min(e.End(), a.capacity)
	if first >= end {
		return
	}
	for unit := first / a.granularity; unit <= (end-1)/a.granularity; unit++ {
		word, bit := unit/64, uint64(1)<<(unit%64)
		if a.set[word]&bit == 0 {
			a.set[word] |= bit
			a.count++
		}
	}
}

// AddAll adds all areas of another one of the same disk with the same granularity.
func (a *Areas) AddAll(b *Areas) {
	if a.capacity != b.capacity || a.granularity != b.granularity {
		panic(fmt.Sprintf("areas of %d bytes in units of %d and of %d in units of %d",
			a.capacity, a.granularity, b.capacity, b.granularity))
	}
	a.count = 0
	for i := range a.set {
		a.set[i] |= b.set[i]
		a.count += int64(bits.OnesCount64(a.set[i]))
	}
}

// Contains tells whether the unit with the byte at an offset is among the areas.
func (a *Areas) Contains(offset int64) bool {
	if offset < 0 || offset >= a.capacity {
		return false
	}
	unit := offset / a.granularity
	return a.set[unit/64]&(1<<(unit%64)) != 0
}

// Bytes is the size of all areas together.
func (a *Areas) Bytes() int64 {
	n := a.count * a.granularity
	if last := a.capacity - 1; a.Contains(last) {
		n -= a.granularity - (last%a.granularity + 1)
	}
	return n
}

// BytesWithin is how many bytes of the areas are in an extent.
func (a *Areas) BytesWithin(e Extent) (n int64) {
	end := min(e.End(), a.capacity)
	for at := max(e.Offset, 0); at < end; {
		unit := at / a.granularity
		word := a.set[unit/64] >> (unit % 64)
		next := (unit + 1) * a.granularity
		if word == 0 { // nor are the other units of this word
			next = (unit/64 + 1) * 64 * a.granularity
		}
		next = min(next, end)
		if word&1 != 0 {
			n += next - at
		}
		at = next
	}
	return n
}

// Others are n units of the disk that are not among the areas, chosen at random, or all if there are fewer.
// random(m) gives a number from zero up to but not including m.
func (a *Areas) Others(n int64, random func(m int64) int64) *Areas {
	chosen := NewAreas(a.capacity, a.granularity)
	units := (a.capacity-1)/a.granularity + 1
	left := units - a.count
	for unit := int64(0); unit < units && n > 0; unit++ {
		if a.Contains(unit * a.granularity) {
			continue
		}
		if random(left) < n { // each is as likely as any other: n of the left ones will be chosen
			chosen.Add(Extent{Offset: unit * a.granularity, Length: 1})
			n--
		}
		left--
	}
	return chosen
}

// Each calls yield for every area in ascending order, adjacent ones as one, until yield returns false.
func (a *Areas) Each(yield func(Extent) bool) {
	start := int64(-1)
	units := (a.capacity-1)/a.granularity + 1
	for unit := int64(0); unit < units; unit++ {
		word := a.set[unit/64]
		switch {
		case unit%64 == 0 && word == 0 && start < 0:
			unit += 63
		case unit%64 == 0 && word == ^uint64(0) && start >= 0:
			unit += 63
		case word&(1<<(unit%64)) != 0:
			if start < 0 {
				start = unit
			}
		case start >= 0:
			if !yield(a.extent(start, unit)) {
				return
			}
			start = -1
		}
	}
	if start >= 0 {
		yield(a.extent(start, units))
	}
}

// Within calls yield for every part of an extent that is in the areas, in ascending order, until yield
// returns false.
func (a *Areas) Within(e Extent, yield func(Extent) bool) {
	off, end := max(e.Offset, 0), min(e.End(), a.capacity)
	for off < end {
		in := a.Contains(off)
		next := off
		for next < end && a.Contains(next) == in {
			next = min((next/a.granularity+1)*a.granularity, end)
		}
		if in && !yield(Extent{Offset: off, Length: next - off}) {
			return
		}
		off = next
	}
}

// extent is that of the units from first up to but not including end.
func (a *Areas) extent(first, end int64) Extent {
	offset := first * a.granularity
	return Extent{Offset: offset, Length: min(end*a.granularity, a.capacity) - offset}
}
