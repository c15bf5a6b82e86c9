package backup

import (
	"context"
	"sync/atomic"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A meter counts what goes through the disks of one backup: done are the bytes that were read and the
// holes that were passed over, read the bytes that were read alone.
type meter struct {
	done, read atomic.Int64
}

// A countedSource counts a disk's bytes as they are read.
type countedSource struct {
	disk.Source
	meter *meter
}

func (s countedSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	var end int64
	err := s.Source.Extents(ctx, func(offset int64, data []byte) error {
		err := yield(offset, data)
		n := offset + int64(len(data))
		s.meter.read.Add(int64(len(data)))
		s.meter.done.Add(n - end)
		end = n
		return err
	})
	if err == nil { // the hole at the end
		s.meter.done.Add(s.Capacity() - end)
	}
	return err
}

// watch logs how far the backup is until the returned function is called, and once more then.
func (b *backup) watch(ctx context.Context, total int64, c *meter) (stop func()) {
	start := b.m.now()
	return progress.Watch(func() {
		read := c.read.Load()
		b.m.log.InfoContext(ctx, "backing up", "vm", b.vm.Path, "done_bytes", c.done.Load(), "total_bytes", total,
			"read_bytes", read, "read_mib_per_second", progress.Rate(read, b.m.now().Sub(start)))
	})
}
