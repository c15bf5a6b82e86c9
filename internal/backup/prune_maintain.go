package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

const (
	// maintenanceTimeout bounds what comes on top of a backup. What is not done by then is done the next time.
	maintenanceTimeout = 30 * time.Minute

	// maintenanceOverdue is for how long nobody is told that maintenance had to wait for backups.
	maintenanceOverdue = 7 * 24 * time.Hour
)

// Maintain has the repository remove what no restore point uses any more, if that is due and nobody writes to it.
// It is called after a backup was taken or deleted; of several at once, the last one does it. The warnings say
// what is the matter where it could not be done.
func (m *Manager) Maintain(ctx context.Context) (warnings []string) {
	limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
	defer cancel()
	limited, phase := progress.Enter(limited, "maintaining the repository")
	defer phase.Leave()
	start := m.now()
	result, err := m.repo.Maintain(limited, repository.MaintainOptions{})
	switch {
	case err == nil && result.Ran:
		m.log.InfoContext(ctx, "maintained the repository", "freed_bytes", result.Freed, "swept_files", result.Swept,
			"duration", m.now().Sub(start), "due", result.Due)
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, repository.ErrBusy) && result.Due.Add(maintenanceOverdue).After(start),
		errors.Is(err, repository.ErrBusy) && result.Due.IsZero(), errors.Is(err, repository.ErrNotOwner):
		m.log.DebugContext(ctx, "the repository is not maintained now", "error", err, "due", result.Due)
	case errors.Is(err, repository.ErrBusy):
		warnings = append(warnings, fmt.Sprintf("maintenance of the repository has been due since %s, and there was "+
			"always somebody who wrote to it: %v. The space of deleted backups doesn't come back until there is a time "+
			"without backups, at the end of one.", result.Due.Format(time.RFC3339), err))
	default:
		warnings = append(warnings, fmt.Sprintf("the space of deleted backups doesn't come back yet: %v. The next backup "+
			"tries again.", err))
	}
	for _, warning := range warnings {
		m.log.WarnContext(ctx, warning)
	}
	return warnings
}
