package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// EncodeOptions tune Encode. The zero value is good for a fast network.
type EncodeOptions struct {
	// Level is the level of compression, from 1 (fastest) to 9 (smallest), or -2 for Huffman coding
	// alone. Zero means 1.
	Level int
	// Adapt leaves grains uncompressed while the stream is written as fast as it is made: then compressing
	// costs more than sending, here and where it is undone. How long the stream gets depends on that; what
	// it decodes to doesn't. (Huffman coding alone would be no good: it is slower to decode than Level 1.)
	Adapt bool
	// Workers is the number of goroutines that compress. Zero means runtime.GOMAXPROCS.
	Workers int
}

// Stats say what Encode wrote.
type Stats struct {
	Grains int64 // grains that hold data
	Bytes  int64 // length of the stream in bytes
}

// Encode writes src to w as a stream-optimized VMDK. Grains that are all zero are left out. The
// capacity must be a positive multiple of 512 bytes.
//
// When anything fails, the stream is left without its end-of-stream marker, so that no reader can
// take it for a whole disk. Encode returns an error of src or w as it is, ErrSource when src breaks
// the rules of a disk.Source, and ErrTooLarge when the capacity exceeds MaxCapacity or the stream
// 2 TiB, which is as far as the format's 32-bit sector numbers reach.
func Encode(ctx context.Context, w io.Writer, src disk.Source, o EncodeOptions) (Stats, error) {
	capacity := src.Capacity()
	switch {
	case capacity <= 0 || capacity%sectorSize != 0:
		return Stats{}, fmt.Errorf("%w: capacity of %d bytes is not a positive multiple of %d", ErrSource, capacity, sectorSize)
	case capacity > MaxCapacity:
		return Stats{}, fmt.Errorf("%w: capacity is %d bytes, the limit %d", ErrTooLarge, capacity, int64(MaxCapacity))
	}
	if o.Level == 0 {
		o.Level = zlib.BestSpeed
	}
	if o.Level < zlib.HuffmanOnly || o.Level > zlib.BestCompression {
		return Stats{}, fmt.Errorf("encode VMDK: no level of compression %d", o.Level)
	}
	e := &encoder{
		w: newAheadWriter(w), header: newHeader(capacity), capacity: capacity, adapt: o.Adapt,
		win: newWindow(o.Workers, func() (func(*deflation), func()) { return newDeflater(o.Level) }),
	}
	defer e.w.close()
	defer e.win.close()
	e.directory = make([]uint32, e.header.tables())
	if err := e.writeStart(); err != nil {
		return e.stats, err
	}
	err := src.Extents(ctx, func(offset int64, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return e.add(offset, data)
	})
	if err != nil {
		return e.stats, err
	}
	if err := ctx.Err(); err != nil {
		return e.stats, err
	}
	return e.stats, e.finish()
}

// A deflation is one grain on its way into the stream.
type deflation struct {
	index  int64  // number of the grain on the disk
	stored bool   // not to be compressed
	data   []byte // the grain, always whole
	record []byte // header, compressed data, and padding to a sector
}

// An encoder is one run of Encode.
type encoder struct {
	w        *aheadWriter
	adapt    bool
	win      *window[deflation]
	header   header
	capacity int64

	// The grain that is being put together.
	open   bool
	index  int64 // number of the grain
	filled int   // bytes of it that are set
	seen   int64 // end of the last extent

	table     [tableLength]uint32 // grain table in the making: sectors of the stream
	tableSet  bool                // something is in it
	tableNo   int64
	directory []uint32
	position  uint64 // length of the stream in sectors
	stats     Stats
}

// add takes one extent.
func (e *encoder) add(offset int64, data []byte) error {
	if offset < e.seen || int64(len(data)) > e.capacity-offset {
		return fmt.Errorf("%w: extent at %d of %d bytes, after %d of a disk of %d bytes",
			ErrSource, offset, len(data), e.seen, e.capacity)
	}
	e.seen = offset + int64(len(data))
	for len(data) > 0 {
		index, within := offset/grainSize, int(offset%grainSize)
		n := min(len(data), grainSize-within)
		if e.open && e.index != index {
			if err := e.endGrain(); err != nil {
				return err
			}
		}
		if e.open || n < grainSize || !disk.IsZero(data[:n]) {
			if err := e.fill(index, within, data[:n]); err != nil {
				return err
			}
		}
		offset, data = offset+int64(n), data[n:]
	}
	return nil
}

// fill copies a part of a grain, which is opened when it is the first part.
func (e *encoder) fill(index int64, within int, part []byte) error {
	if !e.open {
		if err := e.writeReady(e.win.full()); err != nil {
			return err
		}
		e.open, e.index, e.filled = true, index, 0
	}
	g := e.win.free()
	if g.data == nil {
		g.data = make([]byte, grainSize)
	}
	clear(g.data[e.filled:within])
	copy(g.data[within:], part)
	e.filled = within + len(part)
	if e.filled == grainSize {
		return e.endGrain()
	}
	return nil
}

// endGrain sends the open grain to the workers, unless it is zero.
func (e *encoder) endGrain() error {
	e.open = false
	g := e.win.free()
	clear(g.data[e.filled:])
	if disk.IsZero(g.data) {
		return nil
	}
	g.index, g.stored = e.index, e.adapt && !e.w.slow
	e.win.submit()
	return e.writeReady(false)
}

// writeReady writes the grains that are compressed, in order; with wait, at least one.
func (e *encoder) writeReady(wait bool) error {
	for g := e.win.oldest(wait); g != nil; g = e.win.oldest(false) {
		err := e.writeGrain(g)
		e.win.release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) writeGrain(g *deflation) error {
	if no := g.index / tableLength; no != e.tableNo {
		if err := e.endTable(); err != nil {
			return err
		}
		e.tableNo = no
	}
	at, err := e.here()
	if err != nil {
		return err
	}
	e.table[g.index%tableLength] = at
	e.tableSet = true
	e.stats.Grains++
	return e.write(g.record)
}

// endTable writes the grain table in the making, unless it is empty, and starts another.
func (e *encoder) endTable() error {
	if !e.tableSet {
		return nil
	}
	if err := e.write(marker(markerTable, tableSectors)); err != nil {
		return err
	}
	at, err := e.here()
	if err != nil {
		return err
	}
	e.directory[e.tableNo] = at
	e.tableSet = false
	b := appendTable(make([]byte, 0, tableSectors*sectorSize), e.table[:])
	clear(e.table[:])
	return e.write(b)
}

// writeStart writes header and descriptor.
func (e *encoder) writeStart() error {
	b := e.header.appendTo(make([]byte, 0, overheadSectors*sectorSize))
	b = append(b, descriptor(e.header.capacity)...)
	return e.write(append(b, make([]byte, overheadSectors*sectorSize-len(b))...))
}

// finish writes what is left: grains, tables, directory, footer and the end-of-stream marker.
func (e *encoder) finish() error {
	if e.open {
		if err := e.endGrain(); err != nil {
			return err
		}
	}
	for e.win.count > 0 {
		if err := e.writeReady(true); err != nil {
			return err
		}
	}
	if err := e.endTable(); err != nil {
		return err
	}
	if err := e.write(marker(markerDirectory, e.header.directorySectors())); err != nil {
		return err
	}
	at, err := e.here()
	if err != nil {
		return err
	}
	size := e.header.directorySectors() * sectorSize
	b := appendTable(make([]byte, 0, size), e.directory)
	if err := e.write(append(b, make([]byte, size-uint64(len(b)))...)); err != nil {
		return err
	}
	footer := e.header
	footer.directoryOffset = uint64(at)
	end := footer.appendTo(marker(markerFooter, 1))
	if err := e.write(append(end, marker(markerEnd, 0)...)); err != nil {
		return err
	}
	return e.w.flush()
}

// here is the sector of the stream that is written next, as tables and directory hold it.
func (e *encoder) here() (uint32, error) {
	if e.position > math.MaxUint32 {
		return 0, fmt.Errorf("%w: the stream is longer than 2 TiB", ErrTooLarge)
	}
	return uint32(e.position), nil
}

// write writes whole sectors.
func (e *encoder) write(b []byte) error {
	n, err := e.w.Write(b)
	e.stats.Bytes += int64(n)
	e.position += uint64(len(b)) / sectorSize
	return err
}

func appendTable(b []byte, table []uint32) []byte {
	for _, v := range table {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// marker makes a marker's sector. Metadata of the given number of sectors follows it.
func marker(t markerType, sectors uint64) []byte {
	b := make([]byte, sectorSize, 2*sectorSize)
	binary.LittleEndian.PutUint64(b, sectors)
	binary.LittleEndian.PutUint32(b[grainHeaderSize:], uint32(t))
	return b
}

// descriptor is the text that describes the disk to tools that open the stream as a file. Capacity
// is in sectors. The content ID is fixed, so that equal disks give equal streams.
func descriptor(capacity uint64) string {
	const heads, sectorsPerTrack = 255, 63
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "4"
`, capacity, max(1, min(65535, capacity/(heads*sectorsPerTrack))), heads, sectorsPerTrack)
}

// deflaters holds idle compressors by level: they are large, and slow to set up.
var deflaters [zlib.BestCompression - zlib.HuffmanOnly + 1]sync.Pool

// newDeflater makes a worker that compresses grains, or only stores them. The level has been checked.
func newDeflater(level int) (run func(*deflation), release func()) {
	z := takeDeflater(level)
	run = func(g *deflation) {
		if g.stored {
			g.store()
			return
		}
		g.deflate(z)
	}
	return run, func() { putDeflater(level, z) }
}

func takeDeflater(level int) *zlib.Writer {
	z, ok := deflaters[level-zlib.HuffmanOnly].Get().(*zlib.Writer)
	if !ok {
		z, _ = zlib.NewWriterLevel(nil, level) // fails for a wrong level only
	}
	return z
}

func putDeflater(level int, z *zlib.Writer) { deflaters[level-zlib.HuffmanOnly].Put(z) }

// deflate fills the record. Writing to memory never fails.
func (g *deflation) deflate(z *zlib.Writer) {
	out := appender(g.begin())
	z.Reset(&out)
	_, _ = z.Write(g.data)
	_ = z.Close()
	g.end(out)
}

// maxStored is how much a block of data holds that is not compressed (RFC 1951, section 3.2.4).
const maxStored = 65535

// store fills the record with data that is not compressed: in the same form, but without the copies that a
// compressor makes of what it doesn't compress.
func (g *deflation) store() {
	b := append(g.begin(), 0x78, 0x01) // RFC 1950, section 2.2: a window of 32 KiB, the fastest level
	for rest := g.data; len(rest) > 0; {
		n := min(len(rest), maxStored)
		last := byte(0)
		if n == len(rest) {
			last = 1
		}
		b = append(b, last)
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
		b = binary.LittleEndian.AppendUint16(b, ^uint16(n))
		b = append(b, rest[:n]...)
		rest = rest[n:]
	}
	g.end(binary.BigEndian.AppendUint32(b, adler32.Checksum(g.data)))
}

// begin is the record with room for its header.
func (g *deflation) begin() []byte {
	if g.record == nil {
		g.record = make([]byte, 0, grainSize+2*sectorSize)
	}
	return g.record[:grainHeaderSize]
}

// end makes a record of b, which has what follows the header: it adds header and padding.
func (g *deflation) end(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(g.index)*(grainSize/sectorSize))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-grainHeaderSize))
	g.record = append(b, make([]byte, int(sectors(uint64(len(b))))*sectorSize-len(b))...)
}

// An appender is a slice that grows by what is written to it.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
