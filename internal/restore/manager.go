package restore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	Hold(ctx context.Context, id repository.ID) (release func(), err error)
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	ReadFile(ctx context.Context, id repository.ID, name string) ([]byte, error)
	OpenDisk(ctx context.Context, id repository.ID, d repository.Disk) (*repository.DiskReader, error)
	RecordVerification(ctx context.Context, v repository.Verification) error
}

// A Manager restores virtual machines. Its methods may be called concurrently.
type Manager struct {
	hv   Hypervisor
	repo Repository
	log  *slog.Logger
	now  func() time.Time

	pause func(ctx context.Context, d time.Duration) error // waits, but in tests
}

// New makes a Manager. now is the clock, usually time.Now. Without a repository, a Manager only can delete
// what was replaced.
func New(hv Hypervisor, repo Repository, log *slog.Logger, now func() time.Time) *Manager {
	return &Manager{hv: hv, repo: repo, log: log, now: now, pause: pause}
}

// Check does at plan time what can be checked without creating or changing anything. It returns the warnings
// that Restore would give.
func (m *Manager) Check(ctx context.Context, r Request) (warnings []string, err error) {
	j, err := m.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.InPlace != nil {
		warnings, err = m.checkInPlace(ctx, j)
	} else {
		j.spec.Abandoned = m.mayBeAbandoned
		warnings, err = m.hv.CheckRestore(ctx, j.spec)
	}
	warnings = append(j.warnings, warnings...)
	if err != nil {
		return warnings, j.failed(err)
	}
	return warnings, nil
}

// DeleteReplaced deletes disks that a restore in place took out of a VM (Result.Replaced), which is named by
// its instance UUID. Those that are gone are no error; one that a VM uses stays and is one.
// Errors: a *hypervisor.VMNotFoundError when the VM is gone, and with it, maybe, the disks.
func (m *Manager) DeleteReplaced(ctx context.Context, instanceUUID string, disks []hypervisor.Replaced) error {
	if len(disks) == 0 {
		return nil
	}
	vm, err := m.hv.VMByInstanceUUID(ctx, instanceUUID)
	if err != nil {
		return fmt.Errorf("delete replaced disks: %w", err)
	}
	m.log.InfoContext(ctx, "deleting replaced disks", "vm", vm.Path, "disks", len(disks))
	if err := m.hv.DeleteReplaced(ctx, vm.ID, disks); err != nil {
		return fmt.Errorf("delete replaced disks of %s: %w", vm.Path, err)
	}
	return nil
}
