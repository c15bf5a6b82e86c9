package backup

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A meter counts what goes through the disks of one backup.
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

// watch reports progress until the returned function is called, and once more then.
func (m *Manager) watch(ctx context.Context, r Request, p Progress, c *meter) (stop func()) {
	start := m.now()
	report := func() {
		p.Done, p.Read, p.Elapsed = c.done.Load(), c.read.Load(), m.now().Sub(start)
		rate := float64(0)
		if s := p.Elapsed.Seconds(); s > 0 {
			rate = float64(p.Read) / s / (1 << 20)
		}
		m.log.InfoContext(ctx, "backing up", "vm", p.VM, "done_bytes", p.Done, "total_bytes", p.Total,
			"read_bytes", p.Read, "read_mib_per_second", int64(rate))
		if r.Progress != nil {
			r.Progress(p)
		}
	}
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report()
			case <-quit:
				report()
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-stopped
	}
}
