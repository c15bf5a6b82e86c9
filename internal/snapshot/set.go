package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// MaxSetMembers is how many VMs a set of snapshots can have.
const MaxSetMembers = 32

// setWorkers is how many members of a set are worked on at a time where it doesn't matter when. Snapshots
// of one order are all taken at once, however many they are.
const setWorkers = 8

// ErrSkew is what a set gives whose snapshots lie further apart than was asked for. It doesn't exist any
// more.
var ErrSkew = errors.New("the snapshots lie too far apart")

// A SetRequest describes a set: snapshots of several VMs that belong together.
type SetRequest struct {
	Members     []SetMember
	Name        string // of every snapshot
	Description string // of every snapshot; a line that names the set follows it
	Memory      bool

	// MaxSkew bounds how far apart the snapshots may lie. Zero: as far as it comes.
	MaxSkew time.Duration
}

// A SetMember is a VM of which a snapshot is to be taken with others.
type SetMember struct {
	VM      hypervisor.VMRef
	Quiesce quiesce.Policy

	// Order is when the member's turn is: those of a lower order are taken before, those of the same order
	// at once.
	Order int
}

// request is the member's part of a set as a snapshot to take.
func (r SetRequest) request(i int) Request {
	return Request{
		VM: r.Members[i].VM, Name: r.Name, Description: r.Description, Memory: r.Memory, Quiesce: r.Members[i].Quiesce,
	}
}

func (r SetRequest) validate() error {
	switch {
	case len(r.Members) == 0:
		return fmt.Errorf("%w: the set has no members", ErrRequest)
	case len(r.Members) > MaxSetMembers:
		return fmt.Errorf("%w: the set has %d members, %d are possible", ErrRequest, len(r.Members), MaxSetMembers)
	case r.MaxSkew < 0:
		return fmt.Errorf("%w: the skew to allow is negative", ErrRequest)
	}
	for i := range r.Members {
		if err := r.request(i).validate(); err != nil {
			return err
		}
	}
	return nil
}

// A Set is a set that exists. Descriptions of its snapshots are without the line that names the set.
type Set struct {
	ID      string  // names the set in the descriptions of its snapshots
	Members []Taken // in the order of the request

	// Skew is how far the snapshots lie apart: by the times that the server gives them or, where those
	// contradict what was seen from here, the Spread.
	Skew time.Duration
	// Spread is the time from the first call to the last answer: an upper limit of the skew. Zero in a set
	// that was read.
	Spread time.Duration

	Warnings []string // a sentence or two each
}

// IDs are the members' snapshots, to be remembered.
func (s *Set) IDs() []MemberID {
	ids := make([]MemberID, len(s.Members))
	for i, t := range s.Members {
		ids[i] = MemberID{VM: t.VM.InstanceUUID, Snapshot: t.Snapshot.ID}
	}
	return ids
}

// A MemberID is what is to be remembered of a set's member.
type MemberID struct {
	VM       string // instance UUID
	Snapshot hypervisor.SnapshotID
}

// A Missing member is one that is gone for certain.
type Missing struct {
	MemberID
	Reason error // hypervisor.ErrSnapshotNotFound or a *hypervisor.VMNotFoundError
}

// each calls do for 0 to n-1, limit at a time, and waits for all.
func each(n, limit int, do func(i int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, limit)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	group.Wait()
}

// ReadSet returns a set as it is now, without the members that are gone, and names those. Errors are those of
// Read for members of which it can't be told.
func (m *Manager) ReadSet(ctx context.Context, ids []MemberID) (*Set, []Missing, error) {
	taken, errs := make([]*Taken, len(ids)), make([]error, len(ids))
	each(len(ids), setWorkers, func(i int) { taken[i], errs[i] = m.Read(ctx, ids[i].VM, ids[i].Snapshot) })
	set := new(Set)
	var missing []Missing
	var failed []error
	var created []time.Time
	for i, err := range errs {
		switch {
		case gone(err) || errors.Is(err, hypervisor.ErrSnapshotNotFound):
			missing = append(missing, Missing{MemberID: ids[i], Reason: err})
		case err != nil:
			failed = append(failed, err)
		default:
			human, l, ok := parseLabel(taken[i].Snapshot.Description)
			if ok {
				taken[i].Snapshot.Description, set.ID = human, l.Set
			}
			set.Members = append(set.Members, *taken[i])
			created = append(created, taken[i].Snapshot.CreatedAt)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return nil, nil, fmt.Errorf("read the set: %w", err)
	}
	set.Skew = between(created)
	return set, missing, nil
}

// FindSet finds the set that a snapshot is a member of. It also returns those VMs of the set that have no snapshot
// of it, or can't be found by the handles that they had: one that was registered anew since has another.
// Errors: those of VMOfSnapshot; ErrRequest when the snapshot is of no set.
func (m *Manager) FindSet(ctx context.Context, id hypervisor.SnapshotID) ([]MemberID, []hypervisor.VMID, error) {
	vm, err := m.hv.VMOfSnapshot(ctx, id)
	if err != nil {
		return nil, nil, fmt.Errorf("find the set of snapshot %s: %w", id, err)
	}
	s, err := m.get(ctx, vm.Identity(), id)
	if err != nil {
		return nil, nil, fmt.Errorf("find the set of snapshot %s: %w", id, err)
	}
	_, l, ok := parseLabel(s.Description)
	if !ok || l.Run != "" {
		return nil, nil, fmt.Errorf("%w: snapshot %q (%s) of %s is not a member of a complete set", ErrRequest, s.Name, id, vm.Path)
	}
	found, errs := make([]*MemberID, len(l.VMs)), make([]error, len(l.VMs))
	each(len(l.VMs), setWorkers, func(i int) { found[i], errs[i] = m.member(ctx, l.VMs[i], l.Set) })
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("find the set of snapshot %s: %w", id, err)
	}
	var ids []MemberID
	var lost []hypervisor.VMID
	for i, f := range found {
		if f == nil {
			lost = append(lost, l.VMs[i])
			continue
		}
		ids = append(ids, *f)
	}
	return ids, lost, nil
}

// member finds the snapshot of a VM that belongs to a set, nil if there is none or the VM is gone.
func (m *Manager) member(ctx context.Context, id hypervisor.VMID, set string) (*MemberID, error) {
	vm, err := m.hv.FindVM(ctx, hypervisor.VMRef(id))
	if gone(err) {
		return nil, nil //nolint:nilnil // none
	}
	if err != nil {
		return nil, err
	}
	all, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if _, l, ok := parseLabel(s.Description); ok && l.Set == set {
			return &MemberID{VM: vm.InstanceUUID, Snapshot: s.ID}, nil
		}
	}
	return nil, nil //nolint:nilnil // none
}

// RenameSet changes name and description of all snapshots of a set. After a failure, which names those that
// are not renamed, it can be called again.
// Errors: *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound.
func (m *Manager) RenameSet(ctx context.Context, ids []MemberID, name, description string) error {
	errs := make([]error, len(ids))
	each(len(ids), setWorkers, func(i int) { errs[i] = m.renameMember(ctx, ids[i], name, description) })
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rename the set: %w", err)
	}
	return nil
}

func (m *Manager) renameMember(ctx context.Context, id MemberID, name, description string) error {
	now, err := m.Read(ctx, id.VM, id.Snapshot)
	if err != nil {
		return err
	}
	if _, l, ok := parseLabel(now.Snapshot.Description); ok {
		if description, err = l.describe(description); err != nil {
			return err
		}
	}
	if now.Snapshot.Name == name && now.Snapshot.Description == description {
		return nil
	}
	return m.Rename(ctx, id.VM, id.Snapshot, name, description)
}

// RemoveSet removes all snapshots of a set. One that is gone, or whose VM is gone, is no error. After a
// failure, which names those that are left, it can be called again.
// Errors: as Remove.
func (m *Manager) RemoveSet(ctx context.Context, ids []MemberID, options hypervisor.RemoveOptions) error {
	errs := make([]error, len(ids))
	each(len(ids), setWorkers, func(i int) { errs[i] = m.Remove(ctx, ids[i].VM, ids[i].Snapshot, options) })
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the set: %w", err)
	}
	return nil
}
