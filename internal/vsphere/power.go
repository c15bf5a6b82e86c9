package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// PowerOn implements hypervisor.PowerController. A VM that asks a question before it starts is a failure
// that names the question: an answer ("was it moved or copied?") decides about the VM's identity, which is
// not ours to decide.
func (c *Client) PowerOn(ctx context.Context, vm hypervisor.VMID) error {
	err := c.asking(ctx, vm, func(ctx context.Context) error {
		return c.power(ctx, vm, types.VirtualMachinePowerStatePoweredOn, func(ctx context.Context) (*object.Task, error) {
			return c.vm(vm).PowerOn(ctx)
		})
	})
	if err != nil {
		return fmt.Errorf("power on %s: %w", vm, err)
	}
	return nil
}

// asking runs do, which starts a VM, and ends it with a *questionError if the VM asks something. The task
// doesn't end as long as the question is open, so it is watched for beside the task.
func (c *Client) asking(ctx context.Context, vm hypervisor.VMID, do func(ctx context.Context) error) error {
	askCtx, asked := context.WithCancelCause(ctx)
	defer asked(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if q, err := c.waitQuestion(askCtx, vm); err == nil {
			asked(&questionError{text: q})
		}
	}()
	err := do(askCtx)
	asked(nil)
	<-watched
	var question *questionError
	if err != nil && ctx.Err() == nil && errors.As(context.Cause(askCtx), &question) {
		return question
	}
	return err
}

// A questionError says that a VM waits for a person's answer.
type questionError struct{ text string }

func (e *questionError) Error() string {
	return "the VM waits for an answer to: " + e.text
}

// waitQuestion waits until the VM asks something.
func (c *Client) waitQuestion(ctx context.Context, vm hypervisor.VMID) (string, error) {
	var text string
	err := c.watcher.watch(ctx, vmRef(vm), []string{"runtime.question"}, func(_ string, value any) bool {
		q, ok := value.(types.VirtualMachineQuestionInfo)
		text = q.Text
		return ok
	})
	return text, err
}

// PowerOff implements hypervisor.PowerController.
func (c *Client) PowerOff(ctx context.Context, vm hypervisor.VMID) error {
	err := c.power(ctx, vm, types.VirtualMachinePowerStatePoweredOff, func(ctx context.Context) (*object.Task, error) {
		return c.vm(vm).PowerOff(ctx)
	})
	if err != nil {
		return fmt.Errorf("power off %s: %w", vm, err)
	}
	return nil
}

// power runs a task that leads to a power state, unless the VM is in it already, or gets there otherwise.
func (c *Client) power(
	ctx context.Context, vm hypervisor.VMID, want types.VirtualMachinePowerState,
	start func(ctx context.Context) (*object.Task, error),
) error {
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		m, err := c.powerState(ctx, vm)
		if err != nil {
			return err
		}
		if m.Runtime.PowerState == want {
			return nil
		}
		_, err = c.runTask(ctx, start)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var state *types.InvalidPowerState
		if _, ok := fault.As(err, &state); ok && state.ExistingState == want {
			return nil
		}
		// The loop looks first whether the VM is where it should be by now.
		if !isAmbiguous(err) || attempt == readAttempts {
			return withoutURL(err)
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

func (c *Client) powerState(ctx context.Context, vm hypervisor.VMID) (*mo.VirtualMachine, error) {
	var m mo.VirtualMachine
	err := c.properties(ctx, vmRef(vm), []string{"runtime.powerState", "guest.toolsRunningStatus"}, &m)
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// ShutDownGuest implements hypervisor.PowerController.
func (c *Client) ShutDownGuest(ctx context.Context, vm hypervisor.VMID) error {
	if err := c.shutDownGuest(ctx, vm); err != nil {
		return fmt.Errorf("shut down the guest of %s: %w", vm, err)
	}
	return nil
}

func (c *Client) shutDownGuest(ctx context.Context, vm hypervisor.VMID) error {
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return err
	}
	defer unlock()
	asked := false
	for attempt := 1; ; attempt++ {
		m, err := c.powerState(ctx, vm)
		switch {
		case err != nil:
			return shuttingDown(asked, err)
		case m.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff:
			return nil
		case m.Runtime.PowerState == types.VirtualMachinePowerStateSuspended:
			return errors.New("the VM is suspended; its guest can't be asked")
		case asked && !toolsRun(m): // they end before the guest does
			return shuttingDown(true, c.waitPowerState(ctx, vm, types.VirtualMachinePowerStatePoweredOff))
		case !toolsRun(m):
			return fmt.Errorf("%w: VMware Tools don't run in the guest", hypervisor.ErrGuestAgent)
		}
		if err := ctx.Err(); err != nil {
			return shuttingDown(asked, err)
		}
		_, err = methods.ShutdownGuest(ctx, c.vim, &types.ShutdownGuest{This: vmRef(vm)})
		var state *types.InvalidPowerState
		_, off := fault.As(err, &state)
		if err == nil || off {
			return shuttingDown(asked || !off, c.waitPowerState(ctx, vm, types.VirtualMachinePowerStatePoweredOff))
		}
		asked = asked || ctx.Err() != nil || isAmbiguous(err) && !isUntaken(err)
		busy, ok := inProgress(err)
		if ctx.Err() != nil || !ok && (!isAmbiguous(err) || attempt == readAttempts) {
			return shuttingDown(asked, classify(err))
		}
		// Asking a guest twice to shut down does no harm.
		if err := c.waitForOther(ctx, busy, attempt); err != nil {
			return shuttingDown(asked, err)
		}
	}
}

// shuttingDown makes an error say that the guest was asked to shut down, or may have been.
func shuttingDown(asked bool, err error) error {
	if err == nil || !asked {
		return err
	}
	return fmt.Errorf("%w: %w", hypervisor.ErrShuttingDown, err)
}

// waitPowerState waits until the VM is in a power state.
func (c *Client) waitPowerState(ctx context.Context, vm hypervisor.VMID, want types.VirtualMachinePowerState) error {
	err := c.watcher.watch(ctx, vmRef(vm), []string{"runtime.powerState"}, func(_ string, value any) bool {
		return value == want
	})
	if err != nil {
		return fmt.Errorf("wait until the VM is %s: %w", powerStates[want], err)
	}
	return nil
}
