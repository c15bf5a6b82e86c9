package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// commitTimeout is how long it may take to mark a set as complete.
const commitTimeout = 5 * time.Minute

// CheckSet does at plan time what can be done without touching the VMs, which are returned in the order of
// the request: it resolves the references, refuses what TakeSet would refuse, and returns the warnings that
// it would give.
func (m *Manager) CheckSet(ctx context.Context, r SetRequest) ([]hypervisor.VM, []string, error) {
	members, err := m.findMembers(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	for _, h := range m.halfOf(members) {
		warnings = append(warnings, fmt.Sprintf("the %s is removed first.", h))
	}
	vms := make([]hypervisor.VM, len(members))
	for i, member := range members {
		vms[i] = *member.vm
		more, err := judge(member.vm, member.snapshots, r.request(i))
		if err != nil {
			return vms, nil, fmt.Errorf("take the set %q: %w", r.Name, err)
		}
		warnings = append(warnings, more...)
	}
	return vms, warnings, nil
}

// A setMember is a VM of which a snapshot is going to be taken with others.
type setMember struct {
	vm        *hypervisor.VM
	snapshots []hypervisor.Snapshot // that it has
	warnings  []string
}

// findMembers resolves the references of a request, and refuses a VM that is named twice.
func (m *Manager) findMembers(ctx context.Context, r SetRequest) ([]setMember, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	members, errs := make([]setMember, len(r.Members)), make([]error, len(r.Members))
	each(len(members), setWorkers, func(i int) {
		vm, err := m.hv.FindVM(ctx, r.Members[i].VM)
		if err == nil {
			members[i].vm = vm
			members[i].snapshots, err = m.hv.Snapshots(ctx, vm.ID)
		}
		errs[i] = err
	})
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("take the set %q: %w", r.Name, err)
	}
	for i, member := range members {
		if slices.ContainsFunc(members[:i], func(o setMember) bool { return o.vm.InstanceUUID == member.vm.InstanceUUID }) {
			return nil, fmt.Errorf("%w: %s is named twice in the set", ErrRequest, member.vm.Path)
		}
	}
	return members, nil
}

// halfOf finds half sets that killed runs left on members.
func (m *Manager) halfOf(members []setMember) (half []halfSet) {
	for _, member := range members {
		for _, h := range m.halfSets(member.vm, member.snapshots) {
			if !slices.ContainsFunc(half, func(o halfSet) bool { return o.label.Set == h.label.Set }) {
				half = append(half, h)
			}
		}
	}
	return half
}

// TakeSet takes a set: snapshots of all members or of none. Everything that can be checked is checked of all
// members before the first snapshot is taken; what killed runs left behind on them is removed. Snapshots of
// one order are taken at once, and so are all where none is given.
//
// When it returns an error together with a Set, its members are snapshots that could not be removed again,
// and the caller must record them.
//
// Errors: ErrSkew, and as Take.
func (m *Manager) TakeSet(ctx context.Context, r SetRequest) (*Set, error) {
	members, warnings, err := m.prepareSet(ctx, r)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	this := run.Start(m.now(), deadline)
	defer this.End()
	vms := make([]hypervisor.VMID, len(members))
	for i, member := range members {
		vms[i] = member.vm.ID
	}
	label := newSetLabel(this, m.now(), vms)
	log := m.log.With("set", label.Set, "name", r.Name)
	log.InfoContext(ctx, "taking a set of snapshots", "members", len(members))

	set := &Set{ID: label.Set, Warnings: warnings}
	taken, err := m.takeMembers(ctx, r, members, label)
	if err == nil {
		set.measure(taken)
		err = set.bounded(r.MaxSkew)
	}
	if err == nil {
		err = m.commitSet(ctx, r, taken, label)
	}
	if err != nil {
		return m.dropSet(ctx, r, set, taken, label, err)
	}
	for _, t := range taken {
		t.Snapshot.Description = r.Description
		set.Warnings = append(set.Warnings, t.Warnings...)
		set.Members = append(set.Members, *t)
	}
	log.InfoContext(ctx, "set of snapshots taken", "skew", set.Skew.String(), "spread", set.Spread.String())
	return set, nil
}

// prepareSet removes what killed runs left behind, and checks all members.
func (m *Manager) prepareSet(ctx context.Context, r SetRequest) ([]setMember, []string, error) {
	members, err := m.findMembers(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if err := m.mayTakeSet(ctx, r, members); err != nil {
		return nil, nil, err
	}
	var warnings []string
	if half := m.halfOf(members); len(half) > 0 {
		if warnings, err = m.removeHalf(ctx, half); err != nil {
			return nil, nil, fmt.Errorf("take the set %q: %w", r.Name, err)
		}
		if members, err = m.findMembers(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	for i := range members {
		members[i].warnings, err = judge(members[i].vm, members[i].snapshots, r.request(i))
		if err != nil {
			return nil, nil, fmt.Errorf("take the set %q: %w", r.Name, err)
		}
	}
	return members, warnings, nil
}

// takeMembers takes the snapshots, those of one order at once. The first failure stops all others. What it
// returns has holes where there is no snapshot, or none that is known.
func (m *Manager) takeMembers(
	ctx context.Context, r SetRequest, members []setMember, label setLabel,
) ([]*Taken, error) {
	taken, errs := make([]*Taken, len(members)), make([]error, len(members))
	groupCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, turn := range turns(len(members), func(i int) int { return r.Members[i].Order }) {
		each(len(turn), len(turn), func(k int) {
			i := turn[k]
			request := r.request(i)
			if request.Description, errs[i] = label.describe(r.Description); errs[i] == nil {
				taken[i], errs[i] = m.take(groupCtx, members[i].vm, request, false, members[i].warnings)
			}
			if errs[i] != nil {
				cancel()
			}
		})
		if groupCtx.Err() != nil {
			break
		}
	}
	err := errors.Join(errs...)
	if ctx.Err() != nil {
		if !errors.Is(err, ctx.Err()) {
			err = errors.Join(err, ctx.Err())
		}
		return taken, err
	}
	// What was only stopped because another failed isn't worth a line.
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, context.Canceled) })
	return taken, cmp.Or(errors.Join(errs...), err)
}

// turns groups 0 to n-1 by order, the lowest first.
func turns(n int, order func(i int) int) (turns [][]int) {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(order(a), order(b)) })
	for k, i := range all {
		if k == 0 || order(i) != order(all[k-1]) {
			turns = append(turns, nil)
		}
		turns[len(turns)-1] = append(turns[len(turns)-1], i)
	}
	return turns
}

// clockGrain is how exact a server's times need to be.
const clockGrain = time.Second

// measure tells how far snapshots lie apart. The server's times are those of several hosts: if no one
// difference of clocks puts every snapshot between its call and its answer, they contradict each other, and
// only the upper limit is known.
func (s *Set) measure(taken []*Taken) {
	first := taken[0]
	called, answered := first.called, first.answered
	earliest, latest := first.Snapshot.CreatedAt.Sub(first.answered), first.Snapshot.CreatedAt.Sub(first.called)
	created := make([]time.Time, len(taken))
	for i, t := range taken {
		created[i] = t.Snapshot.CreatedAt
		if t.called.Before(called) {
			called = t.called
		}
		if t.answered.After(answered) {
			answered = t.answered
		}
		earliest = max(earliest, created[i].Sub(t.answered))
		latest = min(latest, created[i].Sub(t.called))
	}
	s.Spread = answered.Sub(called)
	s.Skew = between(created)
	if earliest > latest+clockGrain || s.Skew > s.Spread+clockGrain {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the clocks of the hosts differ (the snapshots' times lie %s apart):"+
			" the skew is given as the time that it took to take all, %s.", s.Skew, s.Spread))
		s.Skew = s.Spread
	}
	s.Skew = min(s.Skew, s.Spread)
}

// between is the time from the earliest to the latest of times.
func between(times []time.Time) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.MaxFunc(times, time.Time.Compare).Sub(slices.MinFunc(times, time.Time.Compare))
}

func (s *Set) bounded(limit time.Duration) error {
	if limit == 0 || s.Skew <= limit {
		return nil
	}
	return fmt.Errorf("%w: %s, and %s are allowed", ErrSkew, s.Skew, limit)
}

// commitSet marks a set as complete: its snapshots don't name the run any more. As long as one does, all of
// it is an incomplete set.
func (m *Manager) commitSet(ctx context.Context, r SetRequest, taken []*Taken, label setLabel) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	description, err := label.complete().describe(r.Description)
	if err != nil {
		return err
	}
	errs := make([]error, len(taken))
	each(len(taken), setWorkers, func(i int) {
		t := taken[i]
		if err := m.hv.RenameSnapshot(ctx, t.VM.ID, t.Snapshot.ID, r.Name, description); err != nil {
			errs[i] = fmt.Errorf("mark snapshot %s of %s as complete: %w", t.Snapshot.ID, t.VM.Path, err)
		}
	})
	return errors.Join(errs...)
}

// dropSet removes what there is of a set that failed with cause: also snapshots that were taken without
// an answer that says so.
func (m *Manager) dropSet(
	ctx context.Context, r SetRequest, set *Set, taken []*Taken, label setLabel, cause error,
) (*Set, error) {
	cause = fmt.Errorf("take the set %q: %w", r.Name, cause)
	m.log.WarnContext(ctx, "removing an incomplete set of snapshots", "set", label.Set, "error", cause)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	ctx, phase := progress.Enter(ctx, "removing the incomplete set of snapshots", "set", r.Name)
	defer phase.Leave()
	err := m.sweep(ctx, label)
	if err == nil {
		return nil, cause
	}
	for _, t := range taken {
		if t == nil || m.isGone(ctx, t) {
			continue
		}
		t.Snapshot.Description = r.Description
		set.Members = append(set.Members, *t)
	}
	err = errors.Join(cause, fmt.Errorf("remove what was taken already: %w", err))
	if len(set.Members) == 0 {
		return nil, err
	}
	return set, err
}

// isGone reports whether a snapshot is gone for certain.
func (m *Manager) isGone(ctx context.Context, t *Taken) bool {
	_, err := m.get(ctx, t.VM, t.Snapshot.ID)
	return gone(err) || errors.Is(err, hypervisor.ErrSnapshotNotFound)
}
