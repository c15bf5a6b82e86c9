package vmdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// DecodeOptions tune a Decoder. The zero value is good.
type DecodeOptions struct {
	// Workers is the number of goroutines that inflate. Zero means runtime.GOMAXPROCS.
	Workers int
	// MaxCapacity is the largest disk in bytes that is accepted. Zero means MaxCapacity.
	MaxCapacity int64
	// Skip tells of an extent that holds nothing of interest. Grains in such extents are read past without
	// being inflated, and aren't yielded; that what is left of the stream is whole is checked all the same.
	// Nil: nothing is skipped.
	Skip func(disk.Extent) bool
}

// A Decoder reads a stream-optimized VMDK. It is a disk.Source for one pass.
//
// It trusts nothing in the stream. What breaks the rules of the format gives ErrFormat, a stream
// that ends early ErrTruncated, damaged data ErrCorrupt; an error of the underlying reader is
// returned wrapped.
type Decoder struct {
	r       *bufio.Reader
	header  header
	options DecodeOptions
	started bool

	next      uint64 // sector of the disk behind the last grain
	grains    uint64 // grains so far
	tables    uint64 // grain tables so far
	directory bool   // the grain directory was seen
	footer    bool   // the footer was seen
	position  uint64 // sectors of the stream read so far

	listed     uint64 // grains in the tables in front of the grains, when complete
	lastListed uint64 // where the last of them starts
	haveList   bool
}

var _ disk.Source = (*Decoder)(nil)

// NewDecoder reads the header of a stream.
//
// Cancelling a context doesn't interrupt a reader that blocks: r must return when ctx ends, as the
// body of an HTTP response does whose request has the context.
func NewDecoder(ctx context.Context, r io.Reader, o DecodeOptions) (*Decoder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.MaxCapacity <= 0 {
		o.MaxCapacity = MaxCapacity
	}
	d := &Decoder{r: bufio.NewReaderSize(r, 2*grainSize), options: o}
	var b [sectorSize]byte
	if err := d.read(b[:]); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	var err error
	d.header, err = parseHeader(b[:], o.MaxCapacity)
	return d, err
}

// Capacity is the size of the disk in bytes.
func (d *Decoder) Capacity() int64 { return int64(d.header.capacity) * sectorSize }

// Extents yields the grains of the stream. It can be called once. It reads up to the end of the
// stream, and fails unless the stream is complete and nothing follows it.
func (d *Decoder) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	if d.started {
		return errors.New("decode VMDK: a stream can be read once only")
	}
	d.started = true
	if err := d.readOverhead(ctx); err != nil {
		return err
	}
	win := newWindow(d.options.Workers, func() (func(*inflation), func()) { return newInflater(d.header.grain) })
	defer win.close()
	deliver := func(wait bool) error {
		for g := win.oldest(wait); g != nil; g = win.oldest(false) {
			err := d.deliver(g, yield)
			win.release()
			if err != nil {
				return err
			}
		}
		return nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := deliver(win.full()); err != nil {
			return err
		}
		more, err := d.readItem(win)
		if err != nil {
			return firstError(win, err)
		}
		if !more {
			break
		}
	}
	for win.count > 0 {
		if err := deliver(true); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// firstError is the error that stands first in the stream: that of a grain that is still being
// inflated, or else the given one, which reading on led to.
func firstError(win *window[inflation], err error) error {
	for g := win.oldest(true); g != nil; g = win.oldest(true) {
		if g.err != nil {
			return g.corrupt()
		}
		win.release()
	}
	return err
}

// extent is what a grain holds of the disk.
func (d *Decoder) extent(g *inflation) disk.Extent {
	length := min(d.header.grain, d.header.capacity-g.sector)
	return disk.Extent{Offset: int64(g.sector) * sectorSize, Length: int64(length) * sectorSize}
}

// deliver yields an inflated grain, cut at the capacity.
func (d *Decoder) deliver(g *inflation, yield func(offset int64, data []byte) error) error {
	length := min(d.header.grain, d.header.capacity-g.sector) * sectorSize
	if g.err != nil {
		return g.corrupt()
	}
	if uint64(g.length) < length {
		return fmt.Errorf("%w: grain at sector %d has %d bytes of data", ErrFormat, g.sector, g.length)
	}
	return yield(int64(g.sector)*sectorSize, g.data[:length])
}

// readItem reads a grain or a marker with what belongs to it. It reports whether more can follow.
func (d *Decoder) readItem(win *window[inflation]) (bool, error) {
	var b [sectorSize]byte
	if d.complete() {
		// Nothing tells the end of such a stream but its end.
		if _, err := d.r.Peek(1); errors.Is(err, io.EOF) {
			return false, nil
		}
	}
	start := d.position
	if err := d.read(b[:]); err != nil {
		return false, fmt.Errorf("after sector %d: %w", start, err)
	}
	value := binary.LittleEndian.Uint64(b[:])
	if size := binary.LittleEndian.Uint32(b[8:]); size > 0 {
		g := win.free()
		if err := d.readGrain(g, value, size, b[grainHeaderSize:]); err != nil {
			return false, err
		}
		if d.haveList && d.grains == d.listed && start != d.lastListed {
			return false, fmt.Errorf("%w: the last grain is at sector %d, the grain tables say %d", ErrFormat, start, d.lastListed)
		}
		if skip := d.options.Skip; skip == nil || !skip(d.extent(g)) {
			win.submit()
		}
		return true, nil
	}
	return d.readMetadata(markerType(binary.LittleEndian.Uint32(b[grainHeaderSize:])), value)
}

// readGrain reads a grain's compressed data, of which first is the beginning.
func (d *Decoder) readGrain(g *inflation, sector uint64, size uint32, first []byte) error {
	switch {
	case d.directory || d.footer:
		return fmt.Errorf("%w: grain behind the grain directory", ErrFormat)
	case sector%d.header.grain != 0 || sector >= d.header.capacity:
		return fmt.Errorf("%w: grain at sector %d of a disk of %d", ErrFormat, sector, d.header.capacity)
	case sector < d.next:
		return fmt.Errorf("%w: grain at sector %d comes after sector %d", ErrFormat, sector, d.next)
	case uint64(size) > 2*d.header.grain*sectorSize:
		return fmt.Errorf("%w: grain at sector %d is compressed to %d bytes", ErrFormat, sector, size)
	}
	d.next = sector + d.header.grain
	d.grains++
	if d.haveList && d.grains > d.listed {
		return fmt.Errorf("%w: more grains than the grain tables list", ErrFormat)
	}
	total := int(sectors(uint64(size)+grainHeaderSize))*sectorSize - grainHeaderSize
	if cap(g.compressed) < total {
		g.compressed = make([]byte, max(total, int(d.header.grain)*sectorSize+sectorSize))
	}
	g.compressed = g.compressed[:total]
	if n := copy(g.compressed, first); n < total {
		if err := d.read(g.compressed[n:]); err != nil {
			return fmt.Errorf("grain at sector %d: %w", sector, err)
		}
	}
	g.sector, g.compressed = sector, g.compressed[:size]
	return nil
}

// readMetadata reads what a marker announces. It reports whether more can follow.
func (d *Decoder) readMetadata(t markerType, size uint64) (bool, error) {
	bad := func() (bool, error) {
		return false, fmt.Errorf("%w: marker of type %d with %d sectors at sector %d", ErrFormat, t, size, d.position-1)
	}
	switch t {
	case markerEnd:
		if size != 0 {
			return bad()
		}
		return false, d.checkEnd()
	case markerTable:
		d.tables++
		if size != tableSectors || d.tables > d.header.tables() || d.footer {
			return bad()
		}
		return true, d.skip(size)
	case markerDirectory:
		if size < d.header.directorySectors() || size > d.header.directorySectors()+slackSectors || d.directory || d.footer {
			return bad()
		}
		d.directory = true
		return true, d.skip(size)
	case markerFooter:
		if size != 1 || d.footer {
			return bad()
		}
		return true, d.readFooter()
	case markerProgress:
		if size != 0 {
			return bad()
		}
		return true, nil
	}
	return bad()
}

// readFooter reads the second header, which must describe the same disk.
func (d *Decoder) readFooter() error {
	var b [sectorSize]byte
	if err := d.read(b[:]); err != nil {
		return fmt.Errorf("footer: %w", err)
	}
	f := d.header
	if binary.LittleEndian.Uint32(b[:]) != magic || binary.LittleEndian.Uint64(b[12:]) != f.capacity ||
		binary.LittleEndian.Uint64(b[20:]) != f.grain {
		return fmt.Errorf("%w: the footer describes another disk than the header", ErrFormat)
	}
	if at := binary.LittleEndian.Uint64(b[56:]); at >= d.position {
		return fmt.Errorf("%w: the footer has the grain directory at sector %d, behind itself", ErrFormat, at)
	}
	d.footer = true
	return nil
}

// complete reports whether grain tables in front of the grains list exactly those that were read.
func (d *Decoder) complete() bool { return d.haveList && d.grains == d.listed }

// checkEnd checks that the stream may end where its end-of-stream marker is, and that it does.
func (d *Decoder) checkEnd() error {
	if d.haveList && !d.complete() {
		return fmt.Errorf("%w: %d grains of %d", ErrTruncated, d.grains, d.listed)
	}
	atEnd := d.header.directoryOffset == directoryAtEnd
	if atEnd && (!d.directory || !d.footer) {
		return fmt.Errorf("%w: no grain directory or no footer in front of the end", ErrFormat)
	}
	// qemu-img gives the last grain the room of an uncompressed one: its end-of-stream marker is the
	// first of some sectors of zeros.
	var b [sectorSize]byte
	for n := uint64(0); ; n++ {
		switch err := d.read(b[:]); {
		case errors.Is(err, errEmpty):
			return nil
		case errors.Is(err, ErrTruncated), err == nil && (atEnd || n >= d.header.grain || !disk.IsZero(b[:])):
			return fmt.Errorf("%w: data follows the end of the stream", ErrFormat)
		case err != nil:
			return err
		}
	}
}

// errEmpty is an ErrTruncated at the very beginning of what was to be read.
var errEmpty = fmt.Errorf("%w: unexpected end", ErrTruncated)

// read fills b, whose length is a multiple of a sector (or ends at one), with the stream's next bytes.
func (d *Decoder) read(b []byte) error {
	n, err := io.ReadFull(d.r, b)
	d.position += sectors(uint64(n))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: unexpected end within a sector or grain", ErrTruncated)
	case errors.Is(err, io.EOF):
		return errEmpty
	case err != nil:
		return fmt.Errorf("read stream-optimized VMDK: %w", err)
	}
	return nil
}

// skip passes over n sectors.
func (d *Decoder) skip(n uint64) error {
	var b [sectorSize]byte
	for range n {
		if err := d.read(b[:]); err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
	}
	return nil
}

// An inflation is one grain on its way out of the stream.
type inflation struct {
	sector     uint64 // of the disk
	compressed []byte
	data       []byte
	length     int // bytes of data
	err        error
}

func (g *inflation) corrupt() error {
	return fmt.Errorf("%w: at sector %d: %w", ErrCorrupt, g.sector, g.err)
}

// An inflater decompresses grains; idle ones are kept, as they are large.
type inflater struct {
	in bytes.Reader
	z  io.ReadCloser // nil until the first grain; it can't be made without a valid one
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// newInflater makes a worker that decompresses grains of a size in sectors.
func newInflater(grain uint64) (run func(*inflation), release func()) {
	f, ok := inflaters.Get().(*inflater)
	if !ok {
		f = new(inflater)
	}
	run = func(g *inflation) {
		if g.data == nil {
			g.data = make([]byte, grain*sectorSize)
		}
		g.length, g.err = f.inflate(g.data, g.compressed)
	}
	return run, func() {
		f.in.Reset(nil)
		inflaters.Put(f)
	}
}

var errLong = errors.New("it inflates to more than a grain")

// inflate decompresses a grain, verifies its checksum, and returns its length.
func (f *inflater) inflate(data, compressed []byte) (int, error) {
	f.in.Reset(compressed)
	if r, ok := f.z.(zlib.Resetter); ok {
		if err := r.Reset(&f.in, nil); err != nil {
			return 0, err
		}
	} else {
		z, err := zlib.NewReader(&f.in)
		if err != nil {
			return 0, err
		}
		f.z = z
	}
	n, err := io.ReadFull(f.z, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// Ambiguous: ReadFull says so of a short grain, and the decompressor of a cut one. Only the
		// former ends properly when it is read on.
		err = nil
	}
	if err != nil {
		return n, err
	}
	var one [1]byte
	switch m, err := f.z.Read(one[:]); {
	case m > 0:
		return n, errLong
	case !errors.Is(err, io.EOF):
		return n, fmt.Errorf("it ends early: %w", err)
	}
	return n, nil
}
