package diskstore

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync/atomic"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A seed is a raw disk image that is only read. Clones share it.
type seed struct {
	f    *os.File
	size int64
	data []uint64 // one bit for each block that may hold something other than zeros
	refs atomic.Int32
}

// openSeed opens an image and finds out where it has data.
func openSeed(name string) (*seed, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	sd, err := newSeed(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return sd, nil
}

func newSeed(f *os.File) (*seed, error) {
	size, err := f.Seek(0, io.SeekEnd) // also right for block devices, whose Stat has no size
	if err != nil {
		return nil, err
	}
	if err := checkCapacity(size); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	sd := &seed{f: f, size: size, data: make([]uint64, (blockCount(size)+63)/64)}
	sd.refs.Store(1)
	err = dataExtents(f, size, sd.mark)
	if errors.Is(err, errors.ErrUnsupported) {
		clear(sd.data)
		err = readExtents(f, size, sd.mark)
	}
	if err != nil {
		return nil, fmt.Errorf("find the data in %s: %w", f.Name(), err)
	}
	return sd, nil
}

func blockCount(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// mark notes that the bytes from off to end may be other than zero.
func (sd *seed) mark(off, end int64) {
	for b := off / BlockSize; b*BlockSize < end; b++ {
		sd.data[b/64] |= 1 << (b % 64)
	}
}

// has reports whether the seed may hold something in the block.
func (sd *seed) has(block int64) bool {
	return block/64 < int64(len(sd.data)) && sd.data[block/64]&(1<<(block%64)) != 0
}

// allocated counts the blocks with data.
func (sd *seed) allocated() (n int64) {
	for _, w := range sd.data {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// readAt fills p; behind the end of the image everything is zero.
func (sd *seed) readAt(p []byte, off int64) error {
	n, err := sd.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		err = nil
	}
	return err
}

func (sd *seed) acquire() { sd.refs.Add(1) }

// release closes the image when nobody uses it any more.
func (sd *seed) release() error {
	if sd.refs.Add(-1) == 0 {
		return sd.f.Close()
	}
	return nil
}

// readExtents finds the data of an image by reading it.
func readExtents(r io.ReaderAt, size int64, yield func(off, end int64)) error {
	buf := make([]byte, 16*BlockSize)
	for off := int64(0); off < size; off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), size-off)]
		if _, err := r.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := 0; i < len(p); i += BlockSize {
			b := p[i:min(i+BlockSize, len(p))]
			if !disk.IsZero(b) {
				yield(off+int64(i), off+int64(i+len(b)))
			}
		}
	}
	return nil
}
