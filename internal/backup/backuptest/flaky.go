package backuptest

import (
	"context"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// flaky is a hypervisor on which the guest writes and something fails while a backup is under way.
type flaky struct {
	backup.Hypervisor

	mu     sync.Mutex
	write  func() error // of the guest, as soon as there is a point in time
	faults func() error // nil: none
	steps  int          // before the fault
}

func (f *flaky) arm(write func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write, f.faults = write, nil
}

func (f *flaky) fail(after int, fault func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps, f.faults = after, fault
}

func (f *flaky) disarm() { f.arm(nil) }

// at counts a step, at which it may be time for the fault.
func (f *flaky) at() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.faults
	if fault == nil {
		return nil
	}
	if f.steps--; f.steps >= 0 {
		return nil
	}
	f.faults = nil
	return fault()
}

func (f *flaky) FindVM(ctx context.Context, ref hypervisor.VMRef) (*hypervisor.VM, error) {
	if err := f.at(); err != nil {
		return nil, err
	}
	return f.Hypervisor.FindVM(ctx, ref)
}

func (f *flaky) OpenPointInTime(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	if err := f.at(); err != nil {
		return nil, err
	}
	p, err := f.Hypervisor.OpenPointInTime(ctx, vm, spec)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	write := f.write
	f.write = nil
	f.mu.Unlock()
	if write != nil {
		if err := write(); err != nil {
			return nil, err
		}
	}
	return flakyPoint{p, f}, nil
}

type flakyPoint struct {
	hypervisor.PointInTime
	f *flaky
}

func (p flakyPoint) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	if err := p.f.at(); err != nil {
		return nil, err
	}
	r, err := p.PointInTime.OpenDisk(ctx, key, request)
	if err != nil {
		return nil, err
	}
	return flakyReader{r, p.f}, nil
}

// Close fails after all was closed: the backup stands all the same.
func (p flakyPoint) Close(ctx context.Context) error {
	if err := p.PointInTime.Close(ctx); err != nil {
		return err
	}
	return p.f.at()
}

type flakyReader struct {
	hypervisor.DiskReader
	f *flaky
}

func (r flakyReader) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	err := r.DiskReader.Extents(ctx, func(offset int64, data []byte) error {
		if err := r.f.at(); err != nil {
			return err
		}
		return yield(offset, data)
	})
	if err != nil {
		return err
	}
	return r.f.at()
}
