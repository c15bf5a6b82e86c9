package vsphere

import (
	"context"
	"fmt"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// Consolidate implements hypervisor.Consolidator. Whether there is anything to do is the server's word
// (runtime.consolidationNeeded), which it knows from its own failures as well as from what it finds on the datastore.
func (c *Client) Consolidate(ctx context.Context, vm hypervisor.VMID) (bool, error) {
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return false, err
	}
	defer unlock()
	var m mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.trees, vm, &m); err != nil {
		return false, fmt.Errorf("consolidate the disks of %s: %w", vm, err)
	}
	if !m.Runtime.ConsolidationNeeded {
		return false, nil
	}
	if err := c.consolidate(ctx, vm, &m); err != nil {
		return true, fmt.Errorf("consolidate the disks of %s: %w", vm, err)
	}
	return true, nil
}

const (
	// consolidateAttempts is how often a consolidation is tried that the server calls a success, and that
	// leaves delta disks.
	consolidateAttempts = 6
	// consolidatePause is the longest time between two attempts.
	consolidatePause = 10 * time.Second
)

// consolidate merges delta disks that belong to no snapshot any more, if there are any. It fails while
// something still reads the disks. That ends within seconds of the reader's end; but where the reader was
// killed, or never heard that it has a lease, only the server can end the lease. So that is waited for.
// Error: hypervisor.ErrConsolidationNeeded.
func (c *Client) consolidate(ctx context.Context, vm hypervisor.VMID, m *mo.VirtualMachine) error {
	if !m.Runtime.ConsolidationNeeded {
		return nil
	}
	held, cancel := context.WithTimeout(ctx, heldTimeout)
	defer cancel()
	var last error
	var waiting *progress.Phase
	for attempt := 1; ; attempt++ {
		_, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.ConsolidateVMDisks_Task(ctx, c.vim, &types.ConsolidateVMDisks_Task{This: vmRef(vm)})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		if err != nil {
			last = err
			c.log.InfoContext(ctx, "the disks can't be consolidated yet", "vm", vm, "attempt", attempt, "error", withoutURL(err))
		}
		if ctx.Err() != nil {
			break
		}
		var now mo.VirtualMachine
		if err := c.readVM(ctx, c.reads.trees, vm, &now); err != nil {
			return err
		}
		if !now.Runtime.ConsolidationNeeded {
			return nil
		}
		if err != nil && !mayConsolidateLater(err) || err == nil && attempt >= consolidateAttempts {
			break
		}
		if waiting == nil {
			_, waiting = progress.Enter(ctx, "waiting until the server lets go of the disks", "vm", vm)
			defer waiting.Leave()
		}
		if pause(held, min(4*backoff(attempt), consolidatePause)) != nil {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", hypervisor.ErrConsolidationNeeded, ctx.Err())
	case last != nil:
		return fmt.Errorf("%w: %w", hypervisor.ErrConsolidationNeeded, withoutURL(last))
	}
	return hypervisor.ErrConsolidationNeeded
}

// mayConsolidateLater tells whether a consolidation that failed like this may succeed in a while.
func mayConsolidateLater(err error) bool {
	for _, f := range []types.BaseMethodFault{
		&types.FileLocked{}, &types.FileFault{}, &types.CannotAccessFile{}, &types.InvalidState{}, &types.ResourceInUse{},
		&types.GenericVmConfigFault{},
	} {
		if fault.Is(err, f) {
			return true
		}
	}
	return isTransient(err)
}
