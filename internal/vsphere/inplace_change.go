package vsphere

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const (
	// journalAttempts is how often a change is tried that others got in the way of.
	journalAttempts = 5
	// settleTimeout bounds finding out what became of a change.
	settleTimeout = 3 * time.Minute
)

// errNoJournal: the VM has no journal, or that of another VM.
var errNoJournal = errors.New("the VM's journal is gone")

// change reconfigures a VM and writes a journal with the same stroke, so that the journal is right at any
// moment. from is the run that must hold the VM's journal, empty for none; nil for j removes it. What to
// change is made from the VM as it is; should others change it meanwhile, it is made again.
//
// done says whether the VM has the change. It may be so with an error: then ctx ended too late.
func (c *Client) change(
	ctx context.Context, id hypervisor.VMID, from string, j *journal,
	build func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error),
) (done bool, err error) {
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		vm, err := c.readTarget(ctx, id)
		if err != nil {
			return false, err
		}
		if attempt > 1 && hasJournal(vm, j) {
			return true, nil
		}
		spec, err := c.prepareChange(ctx, vm, from, j, build)
		if err != nil {
			return false, err
		}
		info, err := c.reconfigure(ctx, vm.Self, spec)
		if err == nil || info != nil && info.State == types.TaskInfoStateSuccess {
			return true, err
		}
		unknown := info == nil && (ctx.Err() != nil || isAmbiguous(err))
		if unknown {
			settled, settleErr := c.settle(ctx, id)
			switch {
			case settleErr != nil:
				return false, errors.Join(err, settleErr)
			case hasJournal(settled, j):
				return true, ctx.Err()
			}
		}
		again := unknown || fault.Is(err, &types.ConcurrentAccess{})
		if !again || attempt == journalAttempts || pause(ctx, backoff(attempt)) != nil {
			return false, fmt.Errorf("reconfigure %s: %w", id, withoutURL(err))
		}
	}
}

func (c *Client) prepareChange(
	ctx context.Context, vm *mo.VirtualMachine, from string, j *journal,
	build func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error),
) (types.VirtualMachineConfigSpec, error) {
	var spec types.VirtualMachineConfigSpec
	if from == "" {
		now, _, err := c.ownJournal(ctx, vm) // a foreign one is written over
		if err != nil {
			return spec, err
		}
		if now != nil {
			return spec, c.underWay(ctx, vm, now)
		}
	} else if _, err := c.heldBy(ctx, vm, from); err != nil {
		return spec, err
	}
	if build != nil {
		var err error
		if spec, err = build(vm); err != nil {
			return spec, err
		}
	}
	text, err := j.encode()
	if err != nil {
		return spec, err
	}
	spec.ChangeVersion = vm.Config.ChangeVersion
	spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: journalKey, Value: text})
	if j == nil {
		spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: tenureKey, Value: ""})
	}
	return spec, nil
}

// underWay is what who wants to restore into a VM gets that has a journal.
func (c *Client) underWay(ctx context.Context, vm *mo.VirtualMachine, j *journal) error {
	return &hypervisor.InterruptedError{VM: unescapeName(vm.Name), Interrupted: c.interruption(ctx, vm, j)}
}

// reconfigure changes a VM once.
func (c *Client) reconfigure(
	ctx context.Context, vm types.ManagedObjectReference, spec types.VirtualMachineConfigSpec,
) (*types.TaskInfo, error) {
	return c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.ReconfigVM_Task(ctx, c.vim, &types.ReconfigVM_Task{This: vm, Spec: spec})
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
}

// setOptions changes options of a VM that are no matter of its journal. Which, is made from the VM as it is;
// should others change it meanwhile, it is made again. None: there is nothing to do.
func (c *Client) setOptions(
	ctx context.Context, id hypervisor.VMID, build func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error),
) error {
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		vm, err := c.readTarget(ctx, id)
		if err != nil {
			return err
		}
		options, err := build(vm)
		if err != nil || len(options) == 0 {
			return err
		}
		_, err = c.reconfigure(ctx, vm.Self, types.VirtualMachineConfigSpec{
			ChangeVersion: vm.Config.ChangeVersion, ExtraConfig: options,
		})
		again := isAmbiguous(err) || fault.Is(err, &types.ConcurrentAccess{})
		if err == nil || !again || attempt == journalAttempts || pause(ctx, backoff(attempt)) != nil {
			return withoutURL(err)
		}
	}
}

// hasJournal reports whether a VM has this very journal, or none if that is nil.
func hasJournal(vm *mo.VirtualMachine, j *journal) bool {
	text, err := j.encode()
	return err == nil && optionValue(vm.Config.ExtraConfig, journalKey) == text
}

// settle waits until the server does nothing with a VM any more, on a deadline of its own, and reads it.
func (c *Client) settle(ctx context.Context, id hypervisor.VMID) (*mo.VirtualMachine, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	// A call whose connection broke may still be on its way to becoming a task.
	if err := pause(ctx, backoff(1)); err != nil {
		return nil, err
	}
	var vm mo.VirtualMachine
	if err := c.properties(ctx, vmRef(id), []string{"recentTask"}, &vm); err != nil {
		return nil, err
	}
	for _, ref := range vm.RecentTask {
		info, err := c.taskInfo(ctx, ref)
		if err != nil {
			return nil, err
		}
		if info != nil && goesOn(info.State) {
			if _, err := c.watchTask(ctx, ref); err != nil {
				return nil, fmt.Errorf("wait for %s: %w", ref.Value, err)
			}
		}
	}
	return c.readTarget(ctx, id)
}
