package backup

import (
	"context"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	List(ctx context.Context, f repository.Filter) ([]repository.RestorePoint, error)
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	Delete(ctx context.Context, id repository.ID) error
}

// A Manager takes backups. Its methods may be called concurrently.
type Manager struct {
	hv      Hypervisor
	repo    Repository
	log     *slog.Logger
	now     func() time.Time
	version string
}

// New makes a Manager. now is the clock, usually time.Now; providerVersion goes to the manifests.
// hv may be nil where only List, Get and Delete are used.
func New(hv Hypervisor, repo Repository, log *slog.Logger, now func() time.Time, providerVersion string) *Manager {
	return &Manager{hv: hv, repo: repo, log: log, now: now, version: providerVersion}
}

// Take takes a backup. It is all or nothing: on error no restore point is listed and no snapshot
// is left behind, except where the error or a warning names one. When the backup stands but its
// temporary snapshot could not be removed, there is no error and a warning names the snapshot.
//
// Errors: ErrRequest, those of finding a VM, *hypervisor.ObstacleError, hypervisor.ErrQuiesce,
// hypervisor.ErrGuestAgent, hypervisor.ErrLost, and those of the repository.
func (m *Manager) Take(ctx context.Context, r Request) (*Result, error) { return m.take(ctx, r) }

// Check does at plan time what can be done without touching the VM: it resolves the reference and
// the excluded disks, refuses what Take would refuse, and returns the warnings that Take would give.
func (m *Manager) Check(ctx context.Context, ref hypervisor.VMRef, exclude []string) (*Check, error) {
	return m.check(ctx, ref, exclude)
}

// List returns restore points, newest first.
func (m *Manager) List(ctx context.Context, f repository.Filter) ([]repository.RestorePoint, error) {
	return m.repo.List(ctx, f)
}

// Get returns the manifest of a restore point. Error: repository.ErrNotFound.
func (m *Manager) Get(ctx context.Context, id repository.ID) (*repository.Manifest, error) {
	return m.repo.Get(ctx, id)
}

// Delete removes a restore point. One that is gone is no error.
func (m *Manager) Delete(ctx context.Context, id repository.ID) error { return m.repo.Delete(ctx, id) }

func (m *Manager) take(_ context.Context, _ Request) (*Result, error) {
	return nil, hypervisor.ErrNotSupported
}

func (m *Manager) check(ctx context.Context, ref hypervisor.VMRef, _ []string) (*Check, error) {
	vm, err := m.hv.FindVM(ctx, ref)
	return &Check{VM: vm}, err
}
