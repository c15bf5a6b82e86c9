package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// removeTimeout bounds the removal of a backup that can't be read.
const removeTimeout = 5 * time.Minute

// isDamaged reports whether a backup of the repository is known to be damaged, of whichever VM: all share what is stored.
func isDamaged(known map[repository.ID][]repository.Verification) bool {
	for _, all := range known {
		if repository.Damaged(all) {
			return true
		}
	}
	return false
}

// readBack reads the disks of a backup that was taken onto a repository in which damage was found: what is there
// already is not stored again, and nothing but reading tells whether it is damaged, too. A backup that can't be read
// is removed.
func (m *Manager) readBack(ctx context.Context, result *Result) error {
	m.log.InfoContext(ctx, "reading the backup back", "vm", result.Manifest.VM.Path, "id", string(result.ID))
	ctx, phase := progress.Enter(ctx, "reading the backup back", "vm", result.Manifest.VM.Path)
	defer phase.Leave()
	var count meter
	phase.Measure(count.figures)
	found, err := m.repo.Verify(ctx, result.ID, repository.VerifyData, func(done, total int64) {
		count.done.Store(done)
		count.read.Store(done)
		count.total.Store(total)
	})
	if err == nil && len(found.Damage) > 0 {
		err = fmt.Errorf("%w: %v", repository.ErrSharedDamage, found.Damage[0])
	}
	if err != nil {
		return m.remove(ctx, result, fmt.Errorf("read back: %w", err))
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
