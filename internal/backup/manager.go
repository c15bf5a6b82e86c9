package backup

import (
	"context"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// progressInterval is how often the log says how far a backup is.
const progressInterval = 15 * time.Second

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	List(ctx context.Context, f repository.Filter) ([]repository.RestorePoint, error)
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	Delete(ctx context.Context, id repository.ID) error
	NewWriter(ctx context.Context) (*repository.Writer, error)
}

// A writer is a *repository.Writer.
type writer interface {
	WriteDisk(ctx context.Context, file string, src disk.Source) (repository.DiskResult, error)
	Commit(ctx context.Context, m *repository.Manifest, files map[string][]byte) (repository.ID, error)
	Close(ctx context.Context) error
}

// A Manager takes backups. Its methods may be called concurrently.
type Manager struct {
	hv      Hypervisor
	repo    Repository
	log     *slog.Logger
	now     func() time.Time
	version string

	newWriter func(ctx context.Context) (writer, error)
}

// New makes a Manager. now is the clock, usually time.Now; providerVersion goes to the manifests.
// hv may be nil where only List, Get and Delete are used.
func New(
	hv Hypervisor, repo Repository, log *slog.Logger, now func() time.Time, providerVersion string,
) *Manager {
	m := &Manager{hv: hv, repo: repo, log: log, now: now, version: providerVersion}
	m.newWriter = func(ctx context.Context) (writer, error) { return repo.NewWriter(ctx) }
	return m
}

// Check does at plan time what can be done without touching the VM: it resolves the reference and
// the excluded disks, refuses what Take would refuse, and returns the warnings that Take would give.
func (m *Manager) Check(ctx context.Context, ref hypervisor.VMRef, exclude []string) (*Check, error) {
	return m.check(ctx, Request{VM: ref, ExcludeDisks: exclude})
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
