package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// SnapshotPrefix begins the name of every temporary snapshot; the ID of the run follows.
const SnapshotPrefix = run.BackupSnapshot

func snapshotName(r run.Run) string { return SnapshotPrefix + r.ID.String() }

func snapshotDescription(r run.Run, started time.Time) (string, error) {
	_, description, err := r.LabelSnapshot(SnapshotPrefix, started)
	return description, err
}

// temporary tells whether a snapshot is one of ours, and of which run: of a backup, or of a restore that
// reads back what it wrote.
func temporary(s hypervisor.Snapshot) (run.Run, run.SnapshotLabel, bool) {
	return run.ParseSnapshot(s.Name, s.Description)
}

// cleanUp removes temporary snapshots of dead runs from a VM. One that can't be removed is in
// nobody's way, so it brings a warning and no error, unless ctx has ended.
func (m *Manager) cleanUp(
	ctx context.Context, vm *hypervisor.VM, snapshots []hypervisor.Snapshot,
) (warnings []string, err error) {
	for _, s := range snapshots {
		r, l, ours := temporary(s)
		if !ours || !r.Dead(m.now()) {
			continue
		}
		what := fmt.Sprintf("temporary snapshot %q (%s) that a run on %s (process %d, %s) left on %s",
			s.Name, s.ID, l.Host, r.PID, l.Started.Format(time.RFC3339), vm.Path)
		removing, phase := progress.Enter(ctx, "removing a temporary snapshot that was left behind", "vm", vm.Path, "snapshot", s.Name)
		err := m.hv.RemoveSnapshot(removing, vm.ID, s.ID, hypervisor.RemoveOptions{})
		phase.Leave()
		if err != nil {
			if ctx.Err() != nil {
				return warnings, fmt.Errorf("remove the %s: %w", what, err)
			}
			warnings = append(warnings, fmt.Sprintf("the %s can't be removed: %v", what, err))
			continue
		}
		m.log.WarnContext(ctx, "removed a temporary snapshot that was left behind",
			"vm", vm.Path, "snapshot", s.Name)
		warnings = append(warnings, fmt.Sprintf("removed the %s.", what))
	}
	return warnings, nil
}
