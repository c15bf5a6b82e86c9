package restore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Repository is what this package needs of one; *repository.Repository is one.
type Repository interface {
	Get(ctx context.Context, id repository.ID) (*repository.Manifest, error)
	ReadFile(ctx context.Context, id repository.ID, name string) ([]byte, error)
	OpenDisk(ctx context.Context, id repository.ID, d repository.Disk) (*repository.DiskReader, error)
}

// A Manager restores virtual machines. Its methods may be called concurrently.
type Manager struct {
	hv   Hypervisor
	repo Repository
	log  *slog.Logger
	now  func() time.Time
}

// New makes a Manager. now is the clock, usually time.Now.
func New(hv Hypervisor, repo Repository, log *slog.Logger, now func() time.Time) *Manager {
	return &Manager{hv: hv, repo: repo, log: log, now: now}
}

// Check does at plan time what can be checked without creating anything. It returns the warnings
// that Restore would give.
func (m *Manager) Check(ctx context.Context, r Request) (warnings []string, err error) {
	j, err := m.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	warnings, err = m.hv.CheckRestore(ctx, j.spec)
	warnings = append(j.warnings, warnings...)
	if err != nil {
		return warnings, fmt.Errorf("restore %q from %s: %w", j.name(), r.BackupID, err)
	}
	return warnings, nil
}
