package hypervisortest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

const imageBlock = 64 << 10

// An image is a disk's bytes. Blocks are never changed in place, so that a copy of the map is a copy
// of the disk at that moment.
type image struct {
	capacity int64
	blocks   map[int64][]byte
	history
}

func newImage(capacity int64) *image {
	return &image{capacity: capacity, blocks: map[int64][]byte{}}
}

func (m *image) freeze() *image {
	return &image{capacity: m.capacity, blocks: maps.Clone(m.blocks), history: m.end()}
}

func (m *image) writeAt(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > m.capacity {
		return fmt.Errorf("write of %d bytes at %d is outside of a disk of %d bytes", len(p), off, m.capacity)
	}
	for len(p) > 0 {
		n, in := off/imageBlock, off%imageBlock
		block := make([]byte, imageBlock)
		copy(block, m.blocks[n])
		done := copy(block[in:], p)
		m.blocks[n] = block
		m.note(n)
		p, off = p[done:], off+int64(done)
	}
	return nil
}

func (m *image) readAt(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > m.capacity {
		return fmt.Errorf("read of %d bytes at %d is outside of a disk of %d bytes", len(p), off, m.capacity)
	}
	clear(p)
	for len(p) > 0 {
		n, in := off/imageBlock, off%imageBlock
		done := min(int64(len(p)), imageBlock-in)
		if block, ok := m.blocks[n]; ok {
			copy(p[:done], block[in:])
		}
		p, off = p[done:], off+done
	}
	return nil
}

func (m *image) bytes() []byte {
	p := make([]byte, m.capacity)
	_ = m.readAt(p, 0) // the whole disk is inside of the disk
	return p
}

// A source reads an image in one pass.
type source struct {
	image *image
	areas []disk.Extent                   // nil: the whole disk
	each  func(ctx context.Context) error // before each extent
}

func (s source) Capacity() int64 { return s.image.capacity }

func (s source) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	for _, n := range slices.Sorted(maps.Keys(s.image.blocks)) {
		off := n * imageBlock
		// A copy, spoilt afterwards: the data is valid only until yield returns.
		data := slices.Clone(s.image.blocks[n][:min(imageBlock, s.image.capacity-off)])
		err := within(s.areas, off, data, func(off int64, data []byte) error {
			if err := s.each(ctx); err != nil {
				return err
			}
			return yield(off, data)
		})
		for i := range data {
			data[i] = 0xdb
		}
		if err != nil {
			return err
		}
	}
	return s.each(ctx)
}

var _ disk.Source = source{}
