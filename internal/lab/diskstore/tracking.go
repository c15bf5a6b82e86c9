package diskstore

import (
	"fmt"
	"io"
	"math"
)

// Mark closes the current epoch of the file's chain and returns its number: what a snapshot does.
// Changed with that number gives what is written from now on. A snapshot marks before it creates
// the child, so that no write can fall between the two unnoticed.
func (s *Store) Mark(name string) (epoch int64, err error) {
	f, err := s.get(name, true)
	if err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	defer f.tree.mu.Unlock()
	if f.tree.epoch == math.MaxUint32 {
		return 0, fmt.Errorf("mark %s: out of epochs", name)
	}
	f.tree.epoch++
	return int64(f.tree.epoch - 1), nil
}

// Changed calls yield for the parts of the disk that were written after the epoch since, in
// ascending order and merged. An error of yield ends it and is returned as it is.
func (s *Store) Changed(name string, since int64, yield func(off, length int64) error) error {
	return s.extents(name, func(f *file, block int64) bool {
		_, e := f.holder(block)
		return e != 0 && int64(e) > since
	}, yield)
}

// Extents calls yield for the parts of the disk that are allocated anywhere in the chain, in
// ascending order and merged. Everything else reads as zero. An error of yield ends it and is
// returned as it is.
func (s *Store) Extents(name string, yield func(off, length int64) error) error {
	return s.extents(name, func(f *file, block int64) bool {
		l, _ := f.holder(block)
		if l != nil {
			return true
		}
		sd := f.root().seed
		return sd != nil && sd.has(block)
	}, yield)
}

// window is how much of a disk is looked at under the lock at once, in blocks. What is found is
// yielded without the lock, so that a slow reader doesn't hold up the others.
const window = 16 * blocksPerGroup

// extents merges the blocks that want selects.
func (s *Store) extents(name string, want func(*file, int64) bool, yield func(off, length int64) error) error {
	var off, end int64 // the run that is not yielded yet
	blocks := make([]int64, 0, window)
	for first := int64(0); ; first += window {
		var capacity int64
		var err error
		if blocks, capacity, err = s.selectBlocks(name, first, want, blocks[:0]); err != nil {
			return err
		}
		for _, b := range blocks {
			start, stop := b*BlockSize, min((b+1)*BlockSize, capacity)
			if start == end && end > off {
				end = stop
				continue
			}
			if end > off {
				if err := yield(off, end-off); err != nil {
					return err
				}
			}
			off, end = start, stop
		}
		if (first+window)*BlockSize >= capacity {
			break
		}
	}
	if end > off {
		return yield(off, end-off)
	}
	return nil
}

// selectBlocks appends the wanted blocks of one window to blocks.
func (s *Store) selectBlocks(
	name string, first int64, want func(*file, int64) bool, blocks []int64,
) (_ []int64, capacity int64, err error) {
	f, err := s.get(name, false)
	if err != nil {
		return nil, 0, fmt.Errorf("list extents: %w", err)
	}
	defer f.tree.mu.RUnlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	last := min(first+window, blockCount(f.capacity))
	for group := first; group < last; group += blocksPerGroup {
		if !f.anyIn(group) {
			continue
		}
		for b := group; b < min(group+blocksPerGroup, last); b++ {
			if want(f, b) {
				blocks = append(blocks, b)
			}
		}
	}
	return blocks, f.capacity, nil
}

// anyIn reports whether the chain has anything in the group of blocks that starts with first, so
// that the holes of a large disk cost nothing.
func (f *file) anyIn(first int64) bool {
	for l := f; l != nil; l = l.parent {
		if l.overlay.blocks.groups[first/blocksPerGroup] != nil {
			return true
		}
		if l.seed == nil {
			continue
		}
		words := l.seed.data[min(first/64, int64(len(l.seed.data))):]
		for _, w := range words[:min(blocksPerGroup/64, len(words))] {
			if w != 0 {
				return true
			}
		}
	}
	return false
}

// readAtEOF gives Source the manners of an io.ReaderAt at the end of the disk.
func readAtEOF(r *Source, p []byte, off int64) (int, error) {
	if off >= r.capacity {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), r.capacity-off))
	if err := r.s.ReadAt(r.name, p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
