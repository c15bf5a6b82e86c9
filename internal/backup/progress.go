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

// watch logs how far the backup is until the returned function is called, and once more then.
func (b *backup) watch(ctx context.Context, c *meter) (stop func()) {
	start := b.m.now()
	return progress.Watch(func() {
		read, done, total, elapsed := c.read.Load(), c.done.Load(), c.total.Load(), b.m.now().Sub(start)
		b.m.log.InfoContext(ctx, "backing up", "vm", b.vm.Path, "done_bytes", done, "total_bytes", total,
			"read_bytes", read, "read_mib_per_second", progress.Rate(read, elapsed),
			"time_left", progress.Left(done, total, elapsed).String())
	})
}
