package vsphere

import (
	"context"
	"iter"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// rangeSize is how much is asked for in one request at most, in bytes, and what requests are aligned to.
// Measured over loopback with TLS, 1 to 8 MiB differ by less than a tenth, and more only costs memory.
const rangeSize = 1 << 20

// pieces cuts extents where multiples of rangeSize are.
func pieces(extents iter.Seq[disk.Extent]) iter.Seq[disk.Extent] {
	return func(yield func(disk.Extent) bool) {
		for e := range extents {
			for off := e.Offset; off < e.End(); {
				end := min((off/rangeSize+1)*rangeSize, e.End())
				if !yield(disk.Extent{Offset: off, Length: end - off}) {
					return
				}
				off = end
			}
		}
	}
}

// A rangeRead is the read of one piece.
type rangeRead struct {
	extent disk.Extent
	buf    []byte
	done   chan struct{} // closed when err is set
	err    error
}

// readRanges reads extents, which are in ascending order, with several requests at a time, and yields them
// in their order. It reads ahead by as many as there are requests at a time. An error of yield comes back as
// it is.
func (c *Client) readRanges(
	ctx context.Context, f folderFile, extents iter.Seq[disk.Extent], yield func(offset int64, data []byte) error,
) error {
	parallel := c.config.MaxRangesPerDisk
	depth := 2 * parallel
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()

	work, queue := make(chan *rangeRead), make(chan *rangeRead, depth)
	free := make(chan []byte, depth) // nil: not allocated yet
	for range depth {
		free <- nil
	}
	group.Go(func() {
		defer close(work)
		defer close(queue)
		for e := range pieces(extents) {
			r := &rangeRead{extent: e, done: make(chan struct{})}
			select {
			case r.buf = <-free:
			case <-ctx.Done():
				return
			}
			queue <- r // there is room, since it has a buffer
			select {
			case work <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	for range parallel {
		group.Go(func() {
			for r := range work {
				if r.buf == nil {
					r.buf = make([]byte, rangeSize)
				}
				r.err = c.readRange(ctx, f, r.extent, r.buf[:r.extent.Length])
				close(r.done)
			}
		})
	}
	for r := range queue {
		select {
		case <-r.done:
		case <-ctx.Done():
			return context.Cause(outer)
		}
		if r.err != nil {
			return r.err
		}
		if err := yield(r.extent.Offset, r.buf[:r.extent.Length]); err != nil {
			return err
		}
		free <- r.buf
	}
	return context.Cause(outer)
}
