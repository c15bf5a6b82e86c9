package run

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Prefixes of the names of temporary snapshots; the ID of the run follows.
const (
	BackupSnapshot = "tf-backup-"
	VerifySnapshot = "tf-verify-"
)

// snapshotOwner marks a description as one of ours.
const snapshotOwner = "terraform-provider-vm"

// A SnapshotLabel is the description of a temporary snapshot. Owner and Run decide; the rest is for people
// who find the snapshot and wonder.
type SnapshotLabel struct {
	Owner   string    `json:"owner"`
	Run     string    `json:"run"` // a run's token
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Expires time.Time `json:"expires"`
}

// LabelSnapshot gives name and description of a temporary snapshot of the run.
func (r Run) LabelSnapshot(prefix string, started time.Time) (name, description string, err error) {
	b, err := json.Marshal(SnapshotLabel{
		Owner: snapshotOwner, Run: r.Token(), Host: r.Host, PID: r.PID,
		Started: started.UTC().Truncate(time.Second), Expires: r.Expires,
	})
	if err != nil {
		return "", "", fmt.Errorf("describe the temporary snapshot: %w", err)
	}
	return prefix + r.ID.String(), string(b), nil
}

// ParseSnapshot tells whether a snapshot is a temporary one of ours, and of which run. All of it must fit: a
// snapshot that somebody gave such a name, or that somebody keeps under another one, isn't.
func ParseSnapshot(name, description string) (Run, SnapshotLabel, bool) {
	var l SnapshotLabel
	if err := json.Unmarshal([]byte(description), &l); err != nil || l.Owner != snapshotOwner {
		return Run{}, SnapshotLabel{}, false
	}
	r, err := ParseToken(l.Run)
	ours := err == nil && slices.ContainsFunc([]string{BackupSnapshot, VerifySnapshot}, func(prefix string) bool {
		id, ok := strings.CutPrefix(name, prefix)
		return ok && id == r.ID.String()
	})
	if !ours {
		return Run{}, SnapshotLabel{}, false
	}
	return r, l, true
}
