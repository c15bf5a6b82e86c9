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

// extent is that of the units from first up to but not including end.
func (a *Areas) extent(first, end int64) Extent {
	offset := first * a.granularity
	return Extent{Offset: offset, Length: min(end*a.granularity, a.capacity) - offset}
}
