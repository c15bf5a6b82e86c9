package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// tenureKey is the extraConfig key of the lease on a VM's journal, or on a VM in the making: a value that its holder
// changes every hypervisor.LeaseRenewal.
const tenureKey = "terraform.vm.restore.lease"

// vacancy is how long a lease has been seen not to change by whoever takes over a VM whose holder he can't look
// for.
const vacancy = 3 * hypervisor.LeaseRenewal

// A tenure is the hold of a run on the journal of a VM, or on a VM in the making. Whether it lasts, the VM alone says:
// whoever takes it over writes himself into the journal. So every change of the VM goes together with the journal, and
// what can't be done together with it comes right after a look at it.
type tenure struct {
	client *Client
	vm     hypervisor.VMID
	holder string
	making bool // the VM is in the making, and has no journal

	mu    sync.Mutex
	count int       // of renewals
	held  time.Time // by the server's clock: the VM was this run's

	stop context.CancelFunc // nil: it isn't renewed
	done chan struct{}
	lost context.Context // ends when it was found out that the VM isn't the run's any more
}

// begin is the option by which the lease begins, which goes with the journal's first change. The run has the VM
// from then on, or not at all.
func (t *tenure) begin(ctx context.Context) (types.BaseOptionValue, error) {
	now, err := t.client.serverTime(ctx)
	if err != nil {
		return nil, err
	}
	return t.next(now), nil
}

func (t *tenure) next(now time.Time) types.BaseOptionValue {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.held = now
	return &types.OptionValue{Key: tenureKey, Value: fmt.Sprintf("%s %d", t.holder, t.count)}
}

// keep renews the lease until release. It goes on when ctx ends: what undoes the restore comes after that.
func (t *tenure) keep(ctx context.Context) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	lost, lose := context.WithCancelCause(context.WithoutCancel(ctx))
	t.stop, t.done, t.lost = stop, make(chan struct{}), lost
	unbind := context.AfterFunc(t.client.life, stop) //nolint:contextcheck // it ends with the client, too
	ticks, end := t.client.ticks(hypervisor.LeaseRenewal)
	go func() {
		defer close(t.done)
		defer lose(nil)
		defer unbind()
		defer end()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks:
			}
			err := t.renew(ctx)
			switch {
			case errors.Is(err, hypervisor.ErrTakenOver), errors.Is(err, errNoJournal), t.making && vmGone(err):
				t.client.log.WarnContext(ctx, "the lease on the VM is lost", "vm", t.vm, "error", err)
				lose(err)
				return
			case err != nil && ctx.Err() == nil:
				t.client.log.WarnContext(ctx, "the lease on the VM could not be renewed", "vm", t.vm, "error", err)
			}
		}
	}()
}

// release ends the renewal. The lease itself ends with the journal.
func (t *tenure) release() {
	if t.stop == nil {
		return
	}
	t.stop()
	<-t.done
}

func (t *tenure) renew(ctx context.Context) error {
	return t.client.setOptions(ctx, t.vm, func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error) {
		if t.making { // which nobody takes over, only away: when that was is no matter
			return []types.BaseOptionValue{t.next(time.Time{})}, t.made(vm.Config)
		}
		if _, err := t.client.heldBy(ctx, vm, t.holder); err != nil {
			return nil, err
		}
		now, err := t.client.serverTime(ctx)
		if err != nil {
			return nil, err
		}
		return []types.BaseOptionValue{t.next(now)}, nil
	})
}

// made makes sure that a VM in the making still is the run's.
func (t *tenure) made(config *types.VirtualMachineConfigInfo) error {
	lease := optionValue(config.ExtraConfig, tenureKey)
	if optionValue(config.ExtraConfig, markerKey) == t.holder && strings.HasPrefix(lease, t.holder+" ") {
		return nil
	}
	return fmt.Errorf("%s: %w", unescapeName(config.Name), hypervisor.ErrTakenOver)
}

// end removes a lease that was left without a journal.
func (t *tenure) end(ctx context.Context) error {
	return t.client.setOptions(ctx, t.vm, func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error) {
		j, err := readJournal(vm.Config)
		if err != nil || j != nil || !strings.HasPrefix(optionValue(vm.Config.ExtraConfig, tenureKey), t.holder+" ") {
			return nil, err
		}
		return []types.BaseOptionValue{&types.OptionValue{Key: tenureKey, Value: ""}}, nil
	})
}

// check makes sure that the VM still is the run's.
// Errors: hypervisor.ErrTakenOver; errNoJournal where the journal is gone, but nobody can have taken the VM over.
func (t *tenure) check(ctx context.Context) error {
	vm, err := t.client.readTarget(ctx, t.vm)
	if err != nil {
		return err
	}
	_, err = t.client.heldBy(ctx, vm, t.holder)
	if !errors.Is(err, errNoJournal) {
		return err
	}
	if taken, takenErr := t.mayBeTaken(ctx); taken || takenErr != nil {
		return errors.Join(hypervisor.ErrTakenOver, takenErr)
	}
	return err
}

// mayBeTaken tells whether somebody may have taken the VM over and ended the restore since it was this run's for
// certain: where that is long ago. Judged is by the server's clock alone, which goes on while this machine sleeps.
func (t *tenure) mayBeTaken(ctx context.Context) (bool, error) {
	now, err := t.client.serverTime(ctx)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Sub(t.held) >= vacancy, nil
}

// heldBy reads the journal of a VM that must be a run's.
// Errors: errNoJournal, hypervisor.ErrTakenOver.
func (c *Client) heldBy(ctx context.Context, vm *mo.VirtualMachine, holder string) (*journal, error) {
	j, _, err := c.ownJournal(ctx, vm)
	switch {
	case err != nil:
		return nil, err
	case j == nil:
		return nil, errNoJournal
	case j.Holder != holder:
		return nil, fmt.Errorf("%s: %w", unescapeName(vm.Name), hypervisor.ErrTakenOver)
	}
	return j, nil
}

func (c *Client) serverTime(ctx context.Context) (time.Time, error) {
	now, err := methods.GetCurrentTime(ctx, c.vim)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the server's clock: %w", classify(err))
	}
	return *now, nil
}

// everySoOften is how a Client measures time: ticks until end is called.
func everySoOften(d time.Duration) (ticks <-chan time.Time, end func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}
