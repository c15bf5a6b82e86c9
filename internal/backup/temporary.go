package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// SnapshotPrefix begins the name of every temporary snapshot; the ID of the run follows.
const SnapshotPrefix = "tf-backup-"

// owner marks a description as one of ours.
const owner = "terraform-provider-vm"

// A label is the description of a temporary snapshot. Owner and Run decide; the rest is for people
// who find the snapshot and wonder.
type label struct {
	Owner   string    `json:"owner"`
	Run     string    `json:"run"` // a run's token
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Expires time.Time `json:"expires"`
}

func snapshotName(r run.Run) string { return SnapshotPrefix + r.ID.String() }

func snapshotDescription(r run.Run, started time.Time) (string, error) {
	b, err := json.Marshal(label{
		Owner: owner, Run: r.Token(), Host: r.Host, PID: r.PID,
		Started: started.UTC().Truncate(time.Second), Expires: r.Expires,
	})
	if err != nil {
		return "", fmt.Errorf("describe the temporary snapshot: %w", err)
	}
	return string(b), nil
}

// temporary tells whether a snapshot is one of ours, and of which run. All of it must fit: a
// snapshot that somebody gave such a name, or that somebody keeps under another one, isn't.
func temporary(s hypervisor.Snapshot) (run.Run, label, bool) {
	if !strings.HasPrefix(s.Name, SnapshotPrefix) {
		return run.Run{}, label{}, false
	}
	var l label
	if err := json.Unmarshal([]byte(s.Description), &l); err != nil || l.Owner != owner {
		return run.Run{}, label{}, false
	}
	r, err := run.ParseToken(l.Run)
	if err != nil || s.Name != snapshotName(r) {
		return run.Run{}, label{}, false
	}
	return r, l, true
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
		what := fmt.Sprintf("temporary snapshot %q (%s) that a backup on %s (process %d, %s) left on %s",
			s.Name, s.ID, l.Host, r.PID, l.Started.Format(time.RFC3339), vm.Path)
		if err := m.hv.RemoveSnapshot(ctx, vm.ID, s.ID, hypervisor.RemoveOptions{}); err != nil {
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
