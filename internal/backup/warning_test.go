package backup_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

// A lateWarner has something to say about a disk when that is being read.
type lateWarner struct{ *hypervisortest.Fake }

type lateWarning struct {
	hypervisor.PointInTime
	read atomic.Bool
}

const lateText = "The server gives no checksum of Hard disk 1."

func (l lateWarner) OpenPointInTime(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	point, err := l.Fake.OpenPointInTime(ctx, vm, spec)
	if err != nil {
		return nil, err
	}
	return &lateWarning{PointInTime: point}, nil
}

func (p *lateWarning) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	p.read.Store(true)
	return p.PointInTime.OpenDisk(ctx, key, request)
}

func (p *lateWarning) Config() hypervisor.Config {
	config := p.PointInTime.Config()
	if p.read.Load() {
		config.Warnings = append(slices.Clone(config.Warnings), lateText)
	}
	return config
}

func TestTake_warningOfReading(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(lateWarner{hv}, openRepository(t))
	result, err := m.Take(t.Context(), backup.Request{VM: hypervisor.VMRef(vm.Path)})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := m.Get(t.Context(), result.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(result.Warnings, lateText) || !slices.Contains(manifest.Warnings, lateText) {
		t.Errorf("got %q, and %q in the manifest, without %q", result.Warnings, manifest.Warnings, lateText)
	}
}
