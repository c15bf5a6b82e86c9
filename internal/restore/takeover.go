package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// Whether somebody is behind a restore of another machine, only its lease tells: that of the VM's journal in place, else
// that of the VM in the making. It is looked at for three times
// as long as its holder takes to renew it. No clock is asked: neither of the server nor of the other machine.
const (
	observation  = 3 * hypervisor.LeaseRenewal
	observeEvery = hypervisor.LeaseRenewal / 4
	observeLooks = int(observation / observeEvery)
)

// A standing is what is known about who is behind a restore that was found.
type standing int

const (
	dead    standing = iota // nobody is
	alive                   // somebody is
	unknown                 // its lease has to be looked at for a while
)

// standing judges a restore that was found, by who has it and by its lease, as far as can be told at once.
func (m *Manager) standing(token, lease string) standing {
	holder, err := run.ParseToken(token)
	if err == nil {
		if lives, known := holder.Alive(); known {
			if lives {
				return alive
			}
			return dead
		}
	}
	switch {
	case lease != "":
		return unknown
	case err == nil && holder.Dead(m.now()):
		return dead
	}
	return alive
}

// A silence counts the looks at a lease that nobody renewed meanwhile.
type silence struct{ looks int }

// unbroken counts one more look, begun at asked, and tells whether there were enough. While the server is busy with the
// VM, or can't be asked, nobody could renew its lease: that time doesn't count.
func (s *silence) unbroken(m *Manager, asked time.Time, busy bool) bool {
	if s.looks++; busy || m.now().Sub(asked) > 2*observeEvery {
		s.looks = 0
	}
	return s.looks >= observeLooks
}

// holder says, for people, who is behind a restore that was found.
func holder(token string) string {
	r, err := run.ParseToken(token)
	if err != nil {
		return "a process that can't be told"
	}
	return r.Holder()
}

// underWay is the error of a restore into a VM that another one has.
func (p *inPlace) underWay(found *hypervisor.Interrupted) error {
	return fmt.Errorf("another restore into it is under way (%s): %w", holder(found.Holder),
		&hypervisor.InterruptedError{VM: p.vm.Path, Interrupted: *found})
}

// find reads the journal of a restore that was not ended. Nil: there is none.
func (p *inPlace) find(ctx context.Context) (*hypervisor.Interrupted, error) {
	found, err := p.m.hv.InterruptedInPlace(ctx, p.vm.ID)
	if err != nil {
		return nil, fmt.Errorf("look for an earlier restore: %w", err)
	}
	return found, nil
}

// abandoned finds a restore that nobody is behind any more, and which runs it is of. One that goes on is an error;
// where that can't be told at once, it waits until it can. Nil: there is none, or it has ended meanwhile.
func (p *inPlace) abandoned(ctx context.Context) (*hypervisor.Interrupted, error) {
	found, err := p.find(ctx)
	if found == nil || err != nil {
		return nil, err
	}
	switch p.m.standing(found.Holder, found.Lease) {
	case alive:
		return nil, p.underWay(found)
	case unknown:
		p.observed = true
		return p.observe(ctx, found)
	}
	return found, nil
}

// observe looks at the lease of a restore until it is clear that nobody renews it.
func (p *inPlace) observe(ctx context.Context, found *hypervisor.Interrupted) (*hypervisor.Interrupted, error) {
	p.m.log.WarnContext(ctx, "another restore into the VM was not ended; waiting to see whether its process still lives",
		"vm", p.vm.Path, "process", holder(found.Holder), "at_least", observation)
	for quiet, enough := (silence{}), false; !enough; {
		asked := p.m.now()
		if err := p.m.pause(ctx, observeEvery); err != nil {
			return nil, fmt.Errorf("%w; whether it goes on was not clear yet: %w", p.underWay(found), err)
		}
		now, err := p.find(ctx)
		switch {
		case err != nil:
			return nil, err
		case now == nil:
			return nil, p.reread(ctx)
		}
		was := *found
		was.Busy = now.Busy
		if *now != was {
			return nil, p.underWay(now)
		}
		enough = quiet.unbroken(p.m, asked, now.Busy)
	}
	p.m.log.WarnContext(ctx, "nobody is behind the other restore any more; taking the VM over", "vm", p.vm.Path)
	return found, nil
}

// reread reads the VM anew, after another restore into it has ended.
func (p *inPlace) reread(ctx context.Context) error {
	vm, err := p.m.hv.VMByInstanceUUID(ctx, p.vm.InstanceUUID)
	if err != nil {
		return err
	}
	p.vm, p.ran = vm, vm.PowerState == hypervisor.PoweredOn
	return nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runsOf are the runs that an abandoned restore is of: what they left behind in the VM is nobody's any more.
func runsOf(found *hypervisor.Interrupted) map[run.ID]bool {
	ids := map[run.ID]bool{}
	if found == nil {
		return ids
	}
	for _, token := range []string{found.RunID, found.Holder} {
		if r, err := run.ParseToken(token); err == nil {
			ids[r.ID] = true
		}
	}
	return ids
}

// lost tells whether the VM is another run's by now, which took this one for dead. It then does with the VM, and
// with the disks of this restore, what there is to do.
func (p *inPlace) lost(ctx context.Context, err error) bool {
	return errors.Is(err, hypervisor.ErrTakenOver) || errors.Is(p.restore.Holds(ctx), hypervisor.ErrTakenOver)
}
