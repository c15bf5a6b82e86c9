package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// checkInPlace checks a restore in place. What Restore would clean up first is in nobody's way.
func (m *Manager) checkInPlace(ctx context.Context, j *job) (warnings []string, err error) {
	p, err := m.newInPlace(ctx, j)
	if err != nil {
		return nil, err
	}
	found, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	if found != nil {
		switch p.m.standing(found.Holder, found.Lease) {
		case alive:
			return nil, p.underWay(found)
		case dead:
			warnings = append(warnings, p.recovery(found, "is"))
		case unknown:
			warnings = append(warnings, fmt.Sprintf("another restore into %s was not ended (%s). Whether it goes on can't be told "+
				"from here at once: before anything else the apply watches for %s whether it does, and is refused then.",
				p.vm.Path, holder(found.Holder), observation))
		}
	}
	left := runsOf(found)
	snapshots, err := m.hv.Snapshots(ctx, p.vm.ID)
	if err != nil {
		return warnings, err
	}
	ours := 0
	for _, s := range snapshots {
		if r, _, ok := run.ParseSnapshot(s.Name, s.Description); ok && (left[r.ID] || r.Dead(m.now())) {
			ours++
		}
	}
	if ours > 0 && ours == len(snapshots) {
		p.spec.RemoveSnapshots = true
	}
	checked, err := p.m.hv.CheckInPlace(ctx, p.spec)
	return append(warnings, checked...), err
}

// recovery says what becomes of a restore that was killed.
func (p *inPlace) recovery(interrupted *hypervisor.Interrupted, is string) string {
	what := "had not replaced any disk yet; it " + is + " undone first."
	if interrupted.Stopped {
		what = "had not replaced any disk yet, but stopped it; it " + is + " undone first, and what it stopped " + is +
			" started, also if somebody wanted it to be off since."
	}
	if interrupted.Swapped {
		what = "had replaced disks; it " + is + " finished first."
	}
	if p.observed {
		return fmt.Sprintf("an earlier restore in place of %s (%s) has given no sign of life for %s and counts as one that was killed. It %s",
			p.vm.Path, holder(interrupted.Holder), observation, what)
	}
	return fmt.Sprintf("an earlier restore in place of %s was killed, and %s", p.vm.Path, what)
}

// recover ends what killed runs left of this VM, so that it has one set of disks, and finds out whether the
// VM was running before any of that.
func (p *inPlace) recover(ctx context.Context) error {
	interrupted, err := p.abandoned(ctx)
	if err != nil {
		return err
	}
	if interrupted != nil {
		if err := p.takeOver(ctx, interrupted); err != nil {
			return err
		}
	}
	kept, err := p.m.hv.KeptDisks(ctx, p.vm.ID)
	switch {
	case err == nil:
		p.claim(kept)
	case ctx.Err() != nil:
		return err
	default:
		p.warnings = append(p.warnings, fmt.Sprintf("whether disks that earlier restores replaced are still there can't be told: %v.", err))
	}
	left := runsOf(interrupted)
	return p.m.removeTemporary(ctx, p.vm, func(r run.Run) bool { return left[r.ID] || r.Dead(p.m.now()) })
}

// takeOver ends a restore that nobody is behind any more.
func (p *inPlace) takeOver(ctx context.Context, interrupted *hypervisor.Interrupted) error {
	p.m.log.WarnContext(ctx, "recovering from a restore that was killed",
		"vm", p.vm.Path, "run", interrupted.RunID, "disks_replaced", interrupted.Swapped)
	recovering, phase := progress.Enter(ctx, "taking up an interrupted restore", "vm", p.vm.Path)
	vm, replaced, warnings, err := p.m.hv.RecoverInPlace(recovering, p.vm.ID, *interrupted, p.this.Token())
	phase.Leave()
	if err != nil {
		return fmt.Errorf("recover from an earlier restore that was killed: %w", err)
	}
	p.vm, p.recovered, p.finished = vm, replaced, interrupted.Swapped || len(replaced) > 0
	p.ran = interrupted.Stopped || vm.PowerState == hypervisor.PoweredOn
	p.spec.Ran = p.ran
	p.warnings = append(p.warnings, p.recovery(interrupted, "was"))
	p.warnings = append(p.warnings, warnings...)
	if interrupted.Stopped && vm.PowerState == hypervisor.PoweredOn && !p.spec.PowerOff {
		p.awaitAgent(ctx)
	}
	return nil
}

// bootTimeout is how long a guest gets to come up that is going to be shut down again.
const bootTimeout = 5 * time.Minute

// awaitAgent gives the guest of a VM that was started a moment ago, by the killed run or in recovering from
// it, time to come up. Without its agent, it can't be asked to shut down; what that means is said by the check.
func (p *inPlace) awaitAgent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	err := p.m.hv.WatchGuest(ctx, p.vm.ID, func(g hypervisor.Guest) bool {
		return g.Agent || g.PowerState != hypervisor.PoweredOn
	})
	if err != nil {
		p.m.log.WarnContext(ctx, "waiting for the guest that was started again", "vm", p.vm.Path, "error", err)
	}
}

// refuseReaders refuses to remove the snapshot that a backup, or another restore, is reading from: that
// snapshots may be removed is not said of those.
func (p *inPlace) refuseReaders(ctx context.Context) error {
	if !p.spec.RemoveSnapshots {
		return nil // no snapshot is removed
	}
	snapshots, err := p.m.hv.Snapshots(ctx, p.vm.ID)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		if r, l, ours := run.ParseSnapshot(s.Name, s.Description); ours && !r.Dead(p.m.now()) {
			return fmt.Errorf("%s: %w: %q (on %s, since %s)", p.vm.Path, ErrReadFrom, s.Name, l.Host, l.Started.Format(time.RFC3339))
		}
	}
	return nil
}

// removeTemporary removes the temporary snapshots of some runs from a VM: disks that belong to a snapshot
// can't be replaced.
func (m *Manager) removeTemporary(ctx context.Context, vm *hypervisor.VM, of func(run.Run) bool) error {
	snapshots, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range snapshots {
		r, _, ours := run.ParseSnapshot(s.Name, s.Description)
		if !ours || !of(r) {
			continue
		}
		m.log.WarnContext(ctx, "removing a temporary snapshot that was left behind", "vm", vm.Path, "snapshot", s.Name)
		if err := m.hv.RemoveSnapshot(ctx, vm.ID, s.ID, hypervisor.RemoveOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("remove the temporary snapshot %q: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}
