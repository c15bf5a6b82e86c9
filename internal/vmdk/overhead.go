package vmdk

import (
	"context"
	"encoding/binary"
)

// readOverhead reads up to the first grain: the descriptor and, where the header says so, a grain
// directory with its tables.
//
// A stream whose directory stands in front of its grains, as qemu-img writes it, need not have an
// end-of-stream marker. Its tables say how many grains there are and where the last one starts,
// which serves as well to notice that something is missing.
func (d *Decoder) readOverhead(ctx context.Context) error {
	h := &d.header
	directory, tables := uint64(directoryAtEnd), uint64(directoryAtEnd)
	if h.directoryOffset != directoryAtEnd {
		directory = h.directoryOffset
		tables = directory + h.directorySectors()
	}
	end := tables + h.tables()*tableSectors
	d.haveList = directory != directoryAtEnd && end <= h.overhead
	var b [sectorSize]byte
	for d.position < h.overhead {
		at := d.position
		if at%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := d.read(b[:]); err != nil {
			return err
		}
		switch {
		case !d.haveList || at < directory || at >= end:
		case at < tables:
			d.checkDirectory(b[:], (at-directory)*sectorSize/4, tables)
		default:
			d.countGrains(b[:])
		}
	}
	return nil
}

// checkDirectory looks at a sector of the grain directory, which starts with the given table. The
// tables can be counted in passing only if they follow the directory without a gap.
func (d *Decoder) checkDirectory(b []byte, table, tables uint64) {
	for i := 0; i < len(b) && table < d.header.tables(); i += 4 {
		if uint64(binary.LittleEndian.Uint32(b[i:])) != tables+table*tableSectors {
			d.haveList = false
		}
		table++
	}
}

// countGrains counts the grains in a sector of a grain table. Zero stands for a hole, and one for a
// grain of zeros; neither is in the stream.
func (d *Decoder) countGrains(b []byte) {
	for i := 0; i < len(b); i += 4 {
		if at := uint64(binary.LittleEndian.Uint32(b[i:])); at > 1 {
			d.listed++
			d.lastListed = max(d.lastListed, at)
		}
	}
}
