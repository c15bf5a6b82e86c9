package diskstore

import (
	"context"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// ReadAt fills p with the disk's content at off, through the chain.
func (s *Store) ReadAt(name string, p []byte, off int64) error {
	f, err := s.get(name, false)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	defer f.tree.mu.RUnlock()
	if err := f.inRange(p, off); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.readAt(p, off); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// WriteAt stores p at off. A file with children takes no writes: ErrFrozen.
func (s *Store) WriteAt(name string, p []byte, off int64) error {
	f, err := s.get(name, false)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer f.tree.mu.RUnlock()
	if err := f.inRange(p, off); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if f.children > 0 {
		return fmt.Errorf("write %s: %w", name, ErrFrozen)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writeAt(p, off); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (f *file) inRange(p []byte, off int64) error {
	if off < 0 || off > f.capacity || int64(len(p)) > f.capacity-off {
		return fmt.Errorf("%w: %d bytes at %d of %d", ErrRange, len(p), off, f.capacity)
	}
	return nil
}

// holder finds the link that has the block, and the block's epoch. A nil file means that it is the
// seed's, or zero. Only the top of a chain can change meanwhile, and the caller holds its lock.
func (f *file) holder(block int64) (*file, uint32) {
	for l := f; l != nil; l = l.parent {
		if e := l.overlay.blocks.get(block); e != 0 {
			return l, e
		}
	}
	return nil, 0
}

// root is the bottom of the chain.
func (f *file) root() *file {
	for f.parent != nil {
		f = f.parent
	}
	return f
}

// readAt reads runs of blocks that lie in the same link with one call each.
func (f *file) readAt(p []byte, off int64) error {
	for len(p) > 0 {
		l, _ := f.holder(off / BlockSize)
		n := min(int64(len(p)), BlockSize-off%BlockSize)
		for n < int64(len(p)) {
			if next, _ := f.holder((off + n) / BlockSize); next != l {
				break
			}
			n += min(int64(len(p))-n, BlockSize)
		}
		if err := f.readFrom(l, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readFrom reads from a link, or from below all links if l is nil.
func (f *file) readFrom(l *file, p []byte, off int64) error {
	if l != nil {
		return l.overlay.readAt(p, off)
	}
	if sd := f.root().seed; sd != nil {
		return sd.readAt(p, off)
	}
	clear(p)
	return nil
}

// writeAt writes whole blocks as they are, and completes the first and the last from below.
func (f *file) writeAt(p []byte, off int64) error {
	for len(p) > 0 {
		block, in := off/BlockSize, off%BlockSize
		var n int64
		var err error
		switch whole := int64(len(p)) / BlockSize * BlockSize; {
		case in == 0 && whole > 0:
			n = whole
			err = f.overlay.writeAt(p[:n], off)
		case f.overlay.blocks.get(block) != 0:
			n = min(int64(len(p)), BlockSize-in)
			err = f.overlay.writeAt(p[:n], off)
		default:
			n = min(int64(len(p)), BlockSize-in)
			err = f.fillBlock(block, p[:n], in)
		}
		if err != nil {
			return err
		}
		for b := block; b*BlockSize < off+n; b++ {
			f.overlay.blocks.set(b, f.tree.epoch)
		}
		p, off = p[n:], off+n
	}
	return nil
}

// fillBlock writes a block that is not in the overlay yet: p at in, the rest from below.
func (f *file) fillBlock(block int64, p []byte, in int64) error {
	start := block * BlockSize
	buf := make([]byte, min(BlockSize, f.capacity-start))
	if err := f.readAt(buf, start); err != nil {
		return err
	}
	copy(buf[in:], p)
	return f.overlay.writeAt(buf, start)
}

// copyOverlays copies what the overlays of a chain add to its seed. The caller holds the tree's
// lock.
func (f *file) copyOverlays(to *overlay) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for l := f; l != nil; l = l.parent {
		if err := to.absorb(l.overlay, false); err != nil {
			return err
		}
	}
	// The copy starts a history of its own.
	return to.blocks.walk(func(b int64, _ uint32) error {
		to.blocks.set(b, 1)
		return nil
	})
}

// allocated is what the file itself holds, in bytes.
func (f *file) allocated() int64 {
	n := f.overlay.blocks.count
	if f.seed != nil {
		n += f.seed.allocated()
		_ = f.overlay.blocks.walk(func(b int64, _ uint32) error { // can't fail
			if f.seed.has(b) {
				n--
			}
			return nil
		})
	}
	return min(n*BlockSize, f.capacity)
}

// A Source reads one file of a store as a disk.Source, in pieces of at most 1 MiB. It may be read
// several times. It shows the file as it is at the time of reading, so the file should be frozen or
// at rest.
type Source struct {
	s        *Store
	name     string
	capacity int64
}

var _ disk.Source = (*Source)(nil)

// Source opens a file for reading from one end to the other.
func (s *Store) Source(name string) (*Source, error) {
	i, err := s.Stat(name)
	if err != nil {
		return nil, err
	}
	return &Source{s: s, name: name, capacity: i.Capacity}, nil
}

// Capacity is the size of the disk in bytes.
func (r *Source) Capacity() int64 { return r.capacity }

// Extents yields the allocated parts of the disk.
func (r *Source) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	buf := make([]byte, 1<<20)
	return r.s.Extents(r.name, func(off, length int64) error {
		for length > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(length, int64(len(buf)))]
			if err := r.s.ReadAt(r.name, p, off); err != nil {
				return err
			}
			if err := yield(off, p); err != nil {
				return err
			}
			off, length = off+int64(len(p)), length-int64(len(p))
		}
		return nil
	})
}

// ReadAt implements io.ReaderAt.
func (r *Source) ReadAt(p []byte, off int64) (int, error) { return readAtEOF(r, p, off) }
