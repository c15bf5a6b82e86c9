package restore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// errUnread is what a hypervisor gets that took a disk for complete without reading it to its end.
var errUnread = errors.New("the disk was not read to its end")

// A meter counts what goes through the disks of one restore.
type meter struct {
	written atomic.Int64
}

// A checkedSource counts a disk's bytes as they are written, and remembers how the pass ended: that
// the content is what was backed up is known only at its end, and the VM must not be started on
// anything else, whatever became of the error on its way through the hypervisor's writer.
type checkedSource struct {
	disk.Source
	meter *meter

	mu      sync.Mutex
	written int64
	passed  bool
	err     error
}

func (s *checkedSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	var written int64
	err := s.Source.Extents(ctx, func(offset int64, data []byte) error {
		err := yield(offset, data)
		if err == nil {
			written += int64(len(data))
			s.meter.written.Add(int64(len(data)))
		}
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written, s.passed, s.err = written, err == nil, err
	return err
}

// verdict is the outcome of writing the disk, given what the hypervisor says about it.
func (s *checkedSource) verdict(err error) (written int64, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil && !errors.Is(err, s.err):
		return s.written, errors.Join(err, s.err)
	case err == nil && !s.passed:
		return s.written, errUnread
	}
	return s.written, err
}

// follow begins the phase in which something is done with a restore's disks. The caller leaves it.
func (m *Manager) follow(ctx context.Context, name string, j *job, c *meter) (context.Context, *progress.Phase) {
	ctx, phase := progress.Enter(ctx, name, "vm", j.name(), "backup", string(j.BackupID))
	phase.Measure(func() progress.Figures {
		n := c.written.Load()
		return progress.Figures{Done: n, Total: j.dataBytes(), Moved: n}
	})
	return ctx, phase
}
