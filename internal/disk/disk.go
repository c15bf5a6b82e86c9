// Package disk is the arithmetic of disk images: extents, zero detection and digests. It does no
// I/O of its own and knows no hypervisor, no file format and no repository.
package disk

import "context"

// An Extent is a run of bytes on a disk. Offset and Length are in bytes.
type Extent struct {
	Offset int64
	Length int64
}

// End is the offset of the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// A Source gives the content of one disk at one point in time, in one pass.
type Source interface {
	// Capacity is the size of the disk in bytes.
	Capacity() int64

	// Extents calls yield for the disk's data in ascending order of offset, without overlap and
	// within the capacity. Everything that is not yielded reads as zero; yielded data may be zero
	// too. The data is valid only until yield returns. An error of yield ends the pass and is
	// returned as it is. A nil error means that the whole disk was seen: a source whose input was
	// cut short must say so. Calling it a second time is allowed only where the implementation
	// says so.
	Extents(ctx context.Context, yield func(offset int64, data []byte) error) error
}
