package backup

import (
	"context"
	"sync/atomic"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A meter counts what goes through the disks of one backup: total are the bytes to go through, without those
// that are taken over from the repository; done are those that were read and the holes that were passed
// over, read those that were read alone.
type meter struct {
	total, done, read atomic.Int64
}

// A countedSource counts a disk's bytes as they are read.
type countedSource struct {
	disk.Source
	meter *meter
	areas *disk.Areas // to go through; nil: the whole disk
}

func (s countedSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	var end int64
	pass := func(to int64) {
		if to <= end { // a source that goes back is told by what it yields to
			return
		}
		n := to - end
		if s.areas != nil {
			n = s.areas.BytesWithin(disk.Extent{Offset: end, Length: n})
		}
		s.meter.done.Add(n)
		end = to
	}
	err := s.Source.Extents(ctx, func(offset int64, data []byte) error {
		err := yield(offset, data)
		s.meter.read.Add(int64(len(data)))
		pass(offset + int64(len(data)))
		return err
	})
	if err == nil { // the hole at the end
		pass(s.Capacity())
	}
	return err
}

// figures are how far the disks are.
func (m *meter) figures() progress.Figures {
	return progress.Figures{Done: m.done.Load(), Total: m.total.Load(), Moved: m.read.Load()}
}
