package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A SetRevertRequest says that VMs are to be brought back to the snapshots of a set.
type SetRevertRequest struct {
	Members []RevertMember
	Power   Power

	// Started is called with every VM that was started, and returns it as it is then: to wait until its guest is
	// up. VMs of a higher order are started only when it has returned for those before. Nil: nothing is.
	Started func(ctx context.Context, vm *hypervisor.VM) (*hypervisor.VM, error)
}

// A RevertMember is a VM to bring back with others.
type RevertMember struct {
	MemberID

	// Order is when it is started, where it is: those of a lower order run before the next are started.
	Order int
}

// CheckRevertSet does at plan time what can be done without touching the VMs: CheckRevert for all members.
func (m *Manager) CheckRevertSet(ctx context.Context, r SetRevertRequest) ([]Reverted, error) {
	if len(r.Members) == 0 {
		return nil, fmt.Errorf("%w: the set has no members", ErrRequest)
	}
	found, errs := make([]*Reverted, len(r.Members)), make([]error, len(r.Members))
	each(len(r.Members), setWorkers, func(i int) { found[i], errs[i] = m.CheckRevert(ctx, r.member(i)) })
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("revert the set: %w", err)
	}
	all := make([]Reverted, len(found))
	seen := map[string]bool{}
	for i, f := range found {
		if seen[f.VM.InstanceUUID] {
			return nil, fmt.Errorf("%w: %s is named twice in the set", ErrRequest, f.VM.Path)
		}
		all[i], seen[f.VM.InstanceUUID] = *f, true
	}
	return all, nil
}

func (r SetRevertRequest) member(i int) RevertRequest {
	return RevertRequest{VM: hypervisor.VMRef(r.Members[i].VM), Snapshot: r.Members[i].Snapshot, Power: r.Power}
}

// RevertSet brings VMs back to the snapshots of a set, as one: all are checked, then all are stopped, then all
// are reverted, and only when all are, those that are to run are started, in their order. So no VM that is
// back meets one that isn't. If that comes to nothing before the first is reverted, those that were stopped
// are started again, in their order. Once one is reverted, the others stay stopped until all are.
//
// It returns the members that are reverted, in the order of the request, also with an error, which says of
// each VM what became of it. After a failure it can be called again.
// Errors: as Revert.
func (m *Manager) RevertSet(ctx context.Context, r SetRevertRequest) ([]Reverted, error) {
	found, err := m.CheckRevertSet(ctx, r)
	if err != nil {
		return nil, err
	}
	g := &setRevert{
		m: m, request: r, all: make([]*Reverted, len(found)), stopped: make([]bool, len(found)), done: make([]bool, len(found)),
	}
	for i := range found {
		g.all[i] = &found[i]
		g.all[i].Warnings, g.all[i].Undone = nil, nil
	}
	if err := m.mayRevert(ctx, r.Power, true, g.all...); err != nil {
		return nil, fmt.Errorf("revert the set: %w", err)
	}
	for _, step := range []struct {
		phase string
		do    func(ctx context.Context) error
	}{{"stopping all of the set", g.stop}, {"reverting all of the set", g.revert}, {"starting the set", g.start}} {
		stepping, phase := progress.Enter(ctx, step.phase, "members", len(g.all))
		err = step.do(stepping)
		phase.Leave()
		if err != nil {
			err = fmt.Errorf("revert the set: %w; %s", g.restart(ctx, err), g.report(ctx))
			break
		}
	}
	var reverted []Reverted
	for i, at := range g.all {
		if g.done[i] {
			reverted = append(reverted, *at)
		}
	}
	return reverted, err
}

// A setRevert is the revert of a set under way.
type setRevert struct {
	m       *Manager
	request SetRevertRequest
	all     []*Reverted
	stopped []bool // it ran, and was stopped or may have been
	done    []bool // it is reverted
}

// each does something with all members, and returns what failed.
func (g *setRevert) each(ctx context.Context, members []int, do func(i int) error) error {
	errs := make([]error, len(members))
	each(len(members), setWorkers, func(k int) {
		if ctx.Err() != nil {
			return
		}
		if err := do(members[k]); err != nil {
			errs[k] = fmt.Errorf("%s: %w", g.all[members[k]].VM.Path, err)
		}
	})
	err := errors.Join(errs...)
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = errors.Join(err, ctx.Err())
	}
	return err
}

func (g *setRevert) members() []int {
	var all []int
	for i := range g.all {
		all = append(all, i)
	}
	return all
}

// stop stops all VMs at once: what they do from here on is lost.
func (g *setRevert) stop(ctx context.Context) error {
	return g.each(ctx, g.members(), func(i int) error {
		if g.all[i].VM.PowerState != hypervisor.PoweredOn {
			return nil // a suspended one doesn't run either
		}
		g.stopped[i] = true
		return g.m.hv.PowerOff(ctx, g.all[i].VM.ID)
	})
}

// startAgainTimeout is how long it may take to start VMs again that were stopped for nothing.
const startAgainTimeout = 10 * time.Minute

// restart starts those again that were stopped, if none is reverted: a revert that failed before it began leaves
// the VMs running. It also does when the caller's context has ended. It adds what failed to an error.
func (g *setRevert) restart(ctx context.Context, err error) error {
	if slices.Contains(g.done, true) || !slices.Contains(g.stopped, true) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startAgainTimeout)
	defer cancel()
	var stopped []int
	for i, was := range g.stopped {
		if was {
			stopped = append(stopped, i)
		}
	}
	err = fmt.Errorf("%w; those that were stopped for it are started again", err)
	for _, turn := range turns(len(stopped), func(k int) int { return g.request.Members[stopped[k]].Order }) {
		members := make([]int, len(turn))
		for k, at := range turn {
			members[k] = stopped[at]
		}
		// One that can't be started keeps none of the others from it: they ran before.
		if startErr := g.each(ctx, members, func(i int) error { return g.m.hv.PowerOn(ctx, g.all[i].VM.ID) }); startErr != nil {
			err = fmt.Errorf("%w, except: %w", err, startErr)
		}
	}
	return err
}

// revert reverts all VMs, and leaves them stopped. One that fails doesn't keep the others from it.
func (g *setRevert) revert(ctx context.Context) error {
	return g.each(ctx, g.members(), func(i int) error {
		done, err := g.m.revert(ctx, g.all[i], hypervisor.RevertOptions{Stay: true})
		g.done[i] = done
		if err != nil || !done {
			return fmt.Errorf("revert to %s: %w", g.request.Members[i].Snapshot, err)
		}
		if g.all[i].VM.PowerState == hypervisor.PoweredOn {
			return errors.New("it runs although it was to stay stopped")
		}
		return nil
	})
}

// start brings the VMs into the states that were asked for: first those that are to stay stopped, then
// those that are to run, in their order.
func (g *setRevert) start(ctx context.Context) error {
	var stay, run []int
	for i, at := range g.all {
		if g.request.Power.of(at.Snapshot) == hypervisor.PoweredOn {
			run = append(run, i)
		} else {
			stay = append(stay, i)
		}
	}
	settle := func(i int) error { return g.settle(ctx, g.all[i]) }
	if err := g.each(ctx, stay, settle); err != nil {
		return err
	}
	for _, turn := range turns(len(run), func(k int) int { return g.request.Members[run[k]].Order }) {
		members := make([]int, len(turn))
		for k, at := range turn {
			members[k] = run[at]
		}
		err := g.each(ctx, members, func(i int) error {
			if err := settle(i); err != nil {
				return err
			}
			return g.started(ctx, g.all[i])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// started tells the caller of a VM that runs.
func (g *setRevert) started(ctx context.Context, at *Reverted) error {
	if g.request.Started == nil {
		return nil
	}
	vm, err := g.request.Started(ctx, &at.VM)
	if vm != nil {
		at.VM = *vm
	}
	return err
}

// settle brings a member into the state that was asked for. A hypervisor may have dropped the memory that
// the snapshot holds because the VM was to stay stopped: then the VM is reverted again, to run.
func (g *setRevert) settle(ctx context.Context, at *Reverted) error {
	want := g.request.Power.of(at.Snapshot)
	holds := at.Snapshot.PowerState == hypervisor.PoweredOn
	if want == hypervisor.PoweredOn && holds && at.VM.PowerState == hypervisor.PoweredOff {
		undone := at.Undone
		_, err := g.m.revert(ctx, at, hypervisor.RevertOptions{})
		at.Undone = undone
		if err != nil {
			return fmt.Errorf("revert to %s, to run with its memory: %w", at.Snapshot.ID, err)
		}
	}
	return g.m.settle(ctx, at, want)
}

// report says of each VM whether it is reverted, and which state it is in.
func (g *setRevert) report(ctx context.Context) string {
	lines := make([]string, len(g.all))
	each(len(g.all), setWorkers, func(i int) {
		what := "is not reverted"
		if g.done[i] {
			what = "is reverted"
		}
		lines[i] = fmt.Sprintf("%s %s and is %s", g.all[i].VM.Path, what, g.m.stateOf(ctx, g.all[i]))
	})
	return strings.Join(lines, ", ")
}
