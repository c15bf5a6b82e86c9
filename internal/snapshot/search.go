package snapshot

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// A Query selects snapshots. What is not set selects all, but not the temporary ones of this program.
type Query struct {
	VM     hypervisor.VMRef // the snapshots of one VM
	Folder string           // inventory path: the snapshots of all VMs below; not together with VM

	Name        string         // exactly
	NameMatches *regexp.Regexp // anywhere in the name, unless it is anchored
	OlderThan   time.Duration
	LargerThan  int64 // bytes; a snapshot of unknown size is not larger than anything

	// Temporary selects the snapshots that runs of this program took for themselves and left behind when
	// they were killed, and no others. Those of runs that may still be alive are nobody's business.
	Temporary bool
}

func (q *Query) matches(s *hypervisor.Snapshot, now time.Time) bool {
	r, _, temporary := run.ParseSnapshot(s.Name, s.Description)
	return temporary == q.Temporary && (!temporary || r.Dead(now)) &&
		(q.Name == "" || q.Name == s.Name) &&
		(q.NameMatches == nil || q.NameMatches.MatchString(s.Name)) &&
		(q.OlderThan == 0 || now.Sub(s.CreatedAt) > q.OlderThan) &&
		(q.LargerThan == 0 || s.SizeBytes > q.LargerThan)
}

// Search yields the snapshots that a query selects: by the names of their VMs, those of one VM parents before
// children. VMs whose snapshots can't be listed are yielded with the reason, and no snapshot. An error comes
// last. Errors: those of FindVM, a *hypervisor.NotAvailableError (folder), a *hypervisor.PermissionError.
func (m *Manager) Search(ctx context.Context, q Query) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		now := m.now()
		for one, err := range m.searched(ctx, q) {
			if err != nil {
				yield(Found{}, err)
				return
			}
			if one.Err != nil && !yield(Found{Taken: Taken{VM: one.VM.Identity()}, Hidden: one.Err}, nil) {
				return
			}
			for i := range one.Snapshots {
				s := &one.Snapshots[i]
				if !q.matches(s, now) {
					continue
				}
				found := Found{Taken: Taken{VM: one.VM.Identity(), Snapshot: *s, Consistency: quiesce.Of(*s, false)}}
				if !yield(found, nil) {
					return
				}
			}
		}
	}
}

// Found is what a search finds: a snapshot, or a VM whose snapshots can't be listed.
type Found struct {
	Taken
	Hidden error // why the snapshots of the VM can't be listed
}

// searched yields the snapshots in the scope of a query.
func (m *Manager) searched(ctx context.Context, q Query) iter.Seq2[hypervisor.VMSnapshots, error] {
	if q.VM == "" {
		return m.hv.SnapshotsBelow(ctx, q.Folder)
	}
	return func(yield func(hypervisor.VMSnapshots, error) bool) {
		vm, all, err := m.List(ctx, q.VM)
		if err != nil {
			yield(hypervisor.VMSnapshots{}, err)
			return
		}
		yield(hypervisor.VMSnapshots{VM: *vm, Snapshots: all}, nil)
	}
}

// FindSetByID finds the snapshots of a set that is complete, wherever they are. It also returns those VMs of the
// set that have no snapshot of it, as FindSet does.
// Errors: ErrRequest when there is no such set; those of Search.
func (m *Manager) FindSetByID(ctx context.Context, id string) ([]MemberID, []hypervisor.VMID, error) {
	for one, err := range m.hv.SnapshotsBelow(ctx, "") {
		if err != nil {
			return nil, nil, fmt.Errorf("find the set %s: %w", id, err)
		}
		for _, s := range one.Snapshots {
			if _, l, ok := parseLabel(s.Description); ok && l.Set == id && l.Run == "" {
				return m.FindSet(ctx, s.ID)
			}
		}
	}
	return nil, nil, fmt.Errorf("%w: there is no complete set %s", ErrRequest, id)
}
