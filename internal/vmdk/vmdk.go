// Package vmdk reads and writes stream-optimized VMDK, the form in which vSphere exports and imports
// disks: a header, grains of 64 KiB that are compressed one by one, markers between them, and a
// marker that ends the stream.
//
// Both directions stream: memory depends on the number of workers, not on the disk (the encoder
// keeps the grain directory too, which is 128 KiB per TiB of capacity). Grains are deflated and
// inflated in parallel and leave in order.
//
// The format is described in VMware's "Virtual Disk Format 5.0" technical note. What the note
// leaves open is taken from what ESXi sends and from what qemu-img writes and accepts.
package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Outcomes that callers decide by. They come wrapped with what was found where.
var (
	// ErrFormat: the stream is not a stream-optimized VMDK, or breaks its rules.
	ErrFormat = errors.New("malformed stream-optimized VMDK")
	// ErrTruncated: the stream ends before its end-of-stream marker.
	ErrTruncated = errors.New("truncated stream-optimized VMDK")
	// ErrCorrupt: a grain's compressed data is damaged.
	ErrCorrupt = errors.New("corrupt grain in stream-optimized VMDK")
	// ErrTooLarge: the disk exceeds a limit of the format or of the caller.
	ErrTooLarge = errors.New("disk too large for stream-optimized VMDK")
	// ErrSource: a disk.Source broke its own rules while it was encoded.
	ErrSource = errors.New("invalid source of disk data")
)

const (
	sectorSize = 512
	// grainSize is the size of a grain in what the encoder writes, in bytes. vSphere accepts no
	// other in a stream.
	grainSize = 128 * sectorSize
	// tableLength is the number of grains in one grain table. The format has no other.
	tableLength = 512
	// tableSectors is the size of a grain table in sectors.
	tableSectors = tableLength * 4 / sectorSize
	// MaxCapacity is the largest disk in bytes that is read or written unless told otherwise. No
	// vSphere disk is larger than 62 TiB.
	MaxCapacity = 64 << 40

	descriptorSectors = 20
	// overheadSectors is where the encoder's first grain starts.
	overheadSectors = 128

	// minGrainSectors and maxGrainSectors bound the grains that are read. The format's note says
	// more than 8 sectors; a limit keeps what a lying header can make us allocate small.
	minGrainSectors = 8
	maxGrainSectors = 2048
	// maxDescriptorSectors bounds the embedded descriptor, which is skipped.
	maxDescriptorSectors = 2048
	// slackSectors is how far metadata in front of the grains may exceed what it has to hold:
	// writers align it to grains.
	slackSectors = 4096
)

const (
	magic = 0x564d444b // "KDMV" on disk

	flagNewlines   = 1 << 0
	flagRedundant  = 1 << 1
	flagZeroGrains = 1 << 2
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17

	compressionDeflate = 1

	// directoryAtEnd in the header says that the grain directory's place is in the footer.
	directoryAtEnd = math.MaxUint64

	newlines = "\n \r\n"
)

// markerType tells markers apart.
type markerType uint32

const (
	markerEnd       markerType = 0
	markerTable     markerType = 1
	markerDirectory markerType = 2
	markerFooter    markerType = 3
	// markerProgress keeps a connection alive while a server walks over a hole. It carries no data.
	// The note doesn't have it; VMware's open-vmdk defines it.
	markerProgress markerType = 4
)

// grainHeaderSize is the size of what precedes a grain's compressed data: its first sector on the
// disk (64 bits) and the length of the compressed data (32 bits).
const grainHeaderSize = 12

// A header is the first sector of the stream, and again its footer. Places and sizes are in sectors.
type header struct {
	version          uint32
	flags            uint32
	capacity         uint64
	grain            uint64
	descriptorOffset uint64
	descriptorSize   uint64
	tableEntries     uint32
	redundantOffset  uint64
	directoryOffset  uint64
	overhead         uint64
	compression      uint16
}

// newHeader describes a disk of a capacity in bytes as the encoder writes it.
func newHeader(capacity int64) header {
	return header{
		version: 3, flags: flagNewlines | flagCompressed | flagMarkers,
		capacity: uint64(capacity) / sectorSize, grain: grainSize / sectorSize,
		descriptorOffset: 1, descriptorSize: descriptorSectors, tableEntries: tableLength,
		directoryOffset: directoryAtEnd, overhead: overheadSectors, compression: compressionDeflate,
	}
}

// appendTo appends the header's sector to b.
func (h header) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = le.AppendUint32(b, magic)
	b = le.AppendUint32(b, h.version)
	b = le.AppendUint32(b, h.flags)
	b = le.AppendUint64(b, h.capacity)
	b = le.AppendUint64(b, h.grain)
	b = le.AppendUint64(b, h.descriptorOffset)
	b = le.AppendUint64(b, h.descriptorSize)
	b = le.AppendUint32(b, h.tableEntries)
	b = le.AppendUint64(b, h.redundantOffset)
	b = le.AppendUint64(b, h.directoryOffset)
	b = le.AppendUint64(b, h.overhead)
	b = append(b, 0) // not an unclean shutdown
	b = append(b, newlines...)
	b = le.AppendUint16(b, h.compression)
	return append(b, make([]byte, sectorSize-(len(b)-start))...)
}

// parseHeader reads a header's sector and checks everything in it that later steps rely on.
func parseHeader(b []byte, maxCapacity int64) (header, error) {
	le := binary.LittleEndian
	if got := le.Uint32(b); got != magic {
		return header{}, fmt.Errorf("%w: magic number is %#x", ErrFormat, got)
	}
	h := header{
		version: le.Uint32(b[4:]), flags: le.Uint32(b[8:]),
		capacity: le.Uint64(b[12:]), grain: le.Uint64(b[20:]),
		descriptorOffset: le.Uint64(b[28:]), descriptorSize: le.Uint64(b[36:]),
		tableEntries: le.Uint32(b[44:]), redundantOffset: le.Uint64(b[48:]),
		directoryOffset: le.Uint64(b[56:]), overhead: le.Uint64(b[64:]),
		compression: le.Uint16(b[77:]),
	}
	const known = flagNewlines | flagRedundant | flagZeroGrains | flagCompressed | flagMarkers
	switch {
	case h.version < 1 || h.version > 3:
		return header{}, fmt.Errorf("%w: version %d", ErrFormat, h.version)
	case h.flags&flagCompressed == 0 || h.flags&flagMarkers == 0:
		return header{}, fmt.Errorf("%w: flags %#x are not those of a stream", ErrFormat, h.flags)
	case h.flags&^known>>16 != 0:
		return header{}, fmt.Errorf("%w: flags %#x are unknown", ErrFormat, h.flags)
	case h.flags&flagNewlines != 0 && string(b[73:77]) != newlines:
		return header{}, fmt.Errorf("%w: line ends were changed on the way (text mode transfer)", ErrFormat)
	case h.compression != compressionDeflate:
		return header{}, fmt.Errorf("%w: compression %d", ErrFormat, h.compression)
	case h.tableEntries != tableLength:
		return header{}, fmt.Errorf("%w: %d entries in a grain table", ErrFormat, h.tableEntries)
	case bits.OnesCount64(h.grain) != 1 || h.grain < minGrainSectors || h.grain > maxGrainSectors:
		return header{}, fmt.Errorf("%w: grains of %d sectors", ErrFormat, h.grain)
	case h.capacity == 0:
		return header{}, fmt.Errorf("%w: capacity is zero", ErrFormat)
	case h.capacity > uint64(maxCapacity)/sectorSize:
		return header{}, fmt.Errorf("%w: capacity is %d sectors, the limit %d bytes", ErrTooLarge, h.capacity, maxCapacity)
	}
	return h, h.checkLayout()
}

// checkLayout checks the places of what stands between the header and the first grain.
func (h header) checkLayout() error {
	switch {
	case h.overhead < 1 || h.overhead > slackSectors+maxDescriptorSectors+2*(h.directorySectors()+h.tables()*tableSectors):
		return fmt.Errorf("%w: grains start at sector %d", ErrFormat, h.overhead)
	case h.descriptorSize > maxDescriptorSectors || h.descriptorOffset > h.overhead ||
		h.descriptorOffset+h.descriptorSize > h.overhead:
		return fmt.Errorf("%w: descriptor of %d sectors at sector %d", ErrFormat, h.descriptorSize, h.descriptorOffset)
	case h.directoryOffset != directoryAtEnd && (h.directoryOffset < 1 || h.directoryOffset >= h.overhead):
		return fmt.Errorf("%w: grain directory at sector %d", ErrFormat, h.directoryOffset)
	}
	return nil
}

// tables is the number of grain tables of the disk.
func (h header) tables() uint64 {
	perTable := h.grain * tableLength
	return (h.capacity + perTable - 1) / perTable
}

// directorySectors is the size of the grain directory.
func (h header) directorySectors() uint64 { return sectors(h.tables() * 4) }

// sectors is the number of sectors that hold n bytes.
func sectors(n uint64) uint64 { return (n + sectorSize - 1) / sectorSize }
