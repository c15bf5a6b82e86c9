package backup

import (
	"context"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	List(ctx context.Context, f repository.Filter) ([]repository.RestorePoint, error)
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	OpenDisk(ctx context.Context, id repository.ID, d repository.Disk) (*repository.DiskReader, error)
	Delete(ctx context.Context, id repository.ID) error
	DeleteUnused(ctx context.Context, id repository.ID) error
	Maintain(ctx context.Context, o repository.MaintainOptions) (*repository.Maintenance, error)
	NewWriter(ctx context.Context) (*repository.Writer, error)
	Hold(ctx context.Context, id repository.ID) (release func(), err error)
	Verifications(ctx context.Context) (map[repository.ID][]repository.Verification, error)
	Verify(ctx context.Context, id repository.ID, level repository.VerifyLevel, progress func(done, total int64)) (
		*repository.VerifyResult, error)
	RecordVerification(ctx context.Context, v repository.Verification) error
}

// A writer is a *repository.Writer.
type writer interface {
	WriteDisk(ctx context.Context, file string, src disk.Source) (repository.DiskResult, error)
	WriteChanges(ctx context.Context, file string, src disk.Source, base repository.Base) (repository.DiskResult, error)
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
