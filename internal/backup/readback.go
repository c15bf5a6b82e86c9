package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// removeTimeout bounds the removal of a backup that can't be read.
const removeTimeout = 5 * time.Minute

// readBack reads the disks of a backup that was taken onto a repository in which damage was found: what is there
// already is not stored again, and nothing but reading tells whether it is damaged, too. A backup that can't be read
// is removed.
func (m *Manager) readBack(ctx context.Context, result *Result) error {
	m.log.InfoContext(ctx, "reading the backup back", "vm", result.Manifest.VM.Path, "id", string(result.ID))
	for _, d := range result.Manifest.Disks {
		reader, err := m.repo.OpenDisk(ctx, result.ID, d)
		if err == nil {
			err = reader.Extents(ctx, func(int64, []byte) error { return nil }) // compares the digest
		}
		if err == nil {
			continue
		}
		if errors.Is(err, repository.ErrDamaged) {
			err = fmt.Errorf("%w: %w", repository.ErrSharedDamage, err)
		}
		return m.remove(ctx, result, fmt.Errorf("read back %s: %w", d.Label, err))
	}
	return nil
}

// remove removes a backup because of an error, which it returns.
func (m *Manager) remove(ctx context.Context, result *Result, because error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := m.repo.Delete(ctx, result.ID); err != nil {
		return fmt.Errorf("%w; the backup %s, which must not be used, could not be removed: %w", because, result.ID, err)
	}
	return because
}
