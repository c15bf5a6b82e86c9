package restore

import (
	"context"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	ReadFile(ctx context.Context, id repository.ID, name string) ([]byte, error)
}

// New makes a Manager. now is the clock, usually time.Now. repo may be nil where only Destroy is used.
func New(hv Hypervisor, repo Repository, log *slog.Logger, now func() time.Time) *Manager {
	return &Manager{hv: hv, repo: repo, log: log, now: now}
}

// Restore builds a VM from a restore point.
//
// When it returns an error together with a Result, the VM exists, complete, and the caller must
// record it: all that is missing is that it could not be started. With any other error nothing is
// left behind, except where the error names it.
//
// Errors: ErrRequest, repository.ErrNotFound, repository.ErrDamaged (*repository.DigestError), and
// those of hypervisor.Restorer.
func (m *Manager) Restore(ctx context.Context, r Request) (*Result, error) { return m.restore(ctx, r) }

// Check does at plan time what can be checked without creating anything. It returns the warnings
// that Restore would give.
func (m *Manager) Check(ctx context.Context, r Request) (warnings []string, err error) {
	return m.check(ctx, r)
}

// Destroy powers a VM off and removes it with its disks. A VM that is gone is no error.
func (m *Manager) Destroy(ctx context.Context, instanceUUID string) error {
	return m.destroy(ctx, instanceUUID)
}

func (m *Manager) restore(_ context.Context, _ Request) (*Result, error) {
	return nil, hypervisor.ErrNotSupported
}

func (m *Manager) check(_ context.Context, _ Request) ([]string, error) {
	return nil, hypervisor.ErrNotSupported
}

func (m *Manager) destroy(_ context.Context, _ string) error { return hypervisor.ErrNotSupported }
