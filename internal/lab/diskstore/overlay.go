package diskstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// blocksPerGroup is how many blocks share one piece of a blockMap: 64 MiB of disk for 4 KiB of
// memory.
const blocksPerGroup = 1024

// A blockMap says for each block of a disk in which epoch it was last written, 0 being never. Its
// size goes with what is written, not with the capacity.
type blockMap struct {
	groups map[int64]*[blocksPerGroup]uint32
	count  int64 // blocks that are set
}

func (m *blockMap) get(block int64) uint32 {
	g := m.groups[block/blocksPerGroup]
	if g == nil {
		return 0
	}
	return g[block%blocksPerGroup]
}

func (m *blockMap) set(block int64, epoch uint32) {
	g := m.groups[block/blocksPerGroup]
	if g == nil {
		if m.groups == nil {
			m.groups = make(map[int64]*[blocksPerGroup]uint32)
		}
		g = new([blocksPerGroup]uint32)
		m.groups[block/blocksPerGroup] = g
	}
	if g[block%blocksPerGroup] == 0 {
		m.count++
	}
	g[block%blocksPerGroup] = epoch
}

// walk calls yield for every block that is set, in ascending order.
func (m *blockMap) walk(yield func(block int64, epoch uint32) error) error {
	keys := make([]int64, 0, len(m.groups))
	for k := range m.groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		for i, e := range m.groups[k] {
			if e == 0 {
				continue
			}
			if err := yield(k*blocksPerGroup+int64(i), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// An overlay is a sparse file and the map of the blocks that count in it.
type overlay struct {
	path   string
	f      *os.File // nil until the first write
	blocks blockMap
}

// readAt fills p, which lies within blocks that are set or may be read as they are. Beyond the end
// of the file everything is zero.
func (o *overlay) readAt(p []byte, off int64) error {
	if o.f == nil {
		clear(p)
		return nil
	}
	n, err := o.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		err = nil
	}
	return err
}

// writeAt writes p and leaves it to the caller to set the blocks.
func (o *overlay) writeAt(p []byte, off int64) error {
	if o.f == nil {
		f, err := os.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		o.f = f
	}
	_, err := o.f.WriteAt(p, off)
	return err
}

// absorb copies the blocks of from. Where both have a block, override decides whether from's wins.
func (o *overlay) absorb(from *overlay, override bool) error {
	buf := make([]byte, BlockSize)
	return from.blocks.walk(func(b int64, epoch uint32) error {
		if !override && o.blocks.get(b) != 0 {
			return nil
		}
		if err := from.readAt(buf, b*BlockSize); err != nil {
			return err
		}
		if err := o.writeAt(buf, b*BlockSize); err != nil {
			return err
		}
		o.blocks.set(b, epoch)
		return nil
	})
}

// remove closes and deletes the file, if there is one.
func (o *overlay) remove() error {
	if o.f == nil {
		return nil
	}
	err := errors.Join(o.f.Close(), os.Remove(o.path))
	o.f = nil
	if err != nil {
		return fmt.Errorf("remove overlay: %w", err)
	}
	return nil
}
