package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// VMOfSnapshot implements hypervisor.Reverter.
func (c *Client) VMOfSnapshot(ctx context.Context, id hypervisor.SnapshotID) (*hypervisor.VM, error) {
	vm, err := c.vmOfSnapshot(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("find the VM of %s: %w", id, err)
	}
	return vm, nil
}

func (c *Client) vmOfSnapshot(ctx context.Context, id hypervisor.SnapshotID) (*hypervisor.VM, error) {
	exists, err := c.SnapshotExists(ctx, id)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, hypervisor.ErrSnapshotNotFound
	}
	var s mo.VirtualMachineSnapshot
	if err := c.properties(ctx, snapshotRef(id), []string{"vm"}, &s); err != nil {
		return nil, err
	}
	return c.vmByRef(ctx, s.Vm)
}

// RevertChanges implements hypervisor.Reverter.
func (c *Client) RevertChanges(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID,
) ([]string, error) {
	before, err := c.revertState(ctx, vm, id)
	if err != nil {
		return nil, fmt.Errorf("tell what reverting %s to %s changes: %w", vm, id, err)
	}
	return before.changes, nil
}

// RevertToSnapshot implements hypervisor.Reverter. The server is always told whether the VM may be started,
// and asked afterwards which snapshot is the current one.
func (c *Client) RevertToSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, options hypervisor.RevertOptions,
) (*hypervisor.VM, []string, error) {
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	before, err := c.revertState(ctx, vm, id)
	if err != nil {
		return nil, nil, fmt.Errorf("revert %s to %s: %w", vm, id, err)
	}
	done, err := c.revert(ctx, vm, id, options, before)
	if err != nil {
		err = fmt.Errorf("revert %s to %s: %w", vm, id, err)
	}
	if !done {
		return nil, nil, err
	}
	// The revert is done, and what the VM is now is asked for whether or not somebody still waits.
	readCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	after, readErr := c.vmByID(readCtx, vm)
	if readErr != nil {
		readErr = fmt.Errorf("read %s, which is reverted to %s: %w", vm, id, readErr)
		return before.vm, before.changes, errors.Join(err, readErr)
	}
	return after, before.changes, err
}

// beforeRevert is what a VM was before a revert.
type beforeRevert struct {
	vm        *hypervisor.VM
	snapshots []types.ManagedObjectReference
	tasks     []types.ManagedObjectReference
	changes   []string
}

// revertState reads a VM and the configuration that a snapshot leads back to. Errors:
// a *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound, hypervisor.ErrOutOfReach, a *hypervisor.ObstacleError.
func (c *Client) revertState(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID,
) (*beforeRevert, error) {
	var m mo.VirtualMachine
	if err := c.properties(ctx, vmRef(vm), []string{"config", "snapshot", "recentTask"}, &m); err != nil {
		return nil, err
	}
	if m.Config == nil {
		return nil, unreadable(&m, "the virtual machine")
	}
	if findNode(&m, id) == nil {
		return nil, hypervisor.ErrSnapshotNotFound
	}
	now, err := c.vmByID(ctx, vm)
	if err != nil {
		return nil, err
	}
	if in := revertObstacles(now); len(in) > 0 {
		return nil, &hypervisor.ObstacleError{VM: now.Path, Obstacles: in}
	}
	var s mo.VirtualMachineSnapshot
	if err := c.properties(ctx, snapshotRef(id), []string{"config"}, &s); err != nil {
		return nil, err
	}
	b := &beforeRevert{vm: now, tasks: m.RecentTask}
	for _, n := range flatten(m.Snapshot) {
		b.snapshots = append(b.snapshots, n.node.Snapshot)
	}
	b.changes, err = revertChanges(m.Config, &s.Config, func(key string) string {
		name, _, err := c.portgroupName(ctx, key)
		if err != nil {
			return key // gone, or not for this user to see
		}
		return name
	})
	return b, err
}

// revertObstacles are the obstacles of a VM that keep it from being reverted.
func revertObstacles(vm *hypervisor.VM) (in []hypervisor.Obstacle) {
	for _, o := range vm.Obstacles {
		switch o.Kind {
		case hypervisor.ObstacleTemplate, hypervisor.ObstacleFaultTolerance, hypervisor.ObstacleLocked:
			in = append(in, o)
		}
	}
	return in
}

// revert reverts, and reports whether the VM is reverted, also where it returns an error.
func (c *Client) revert(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, options hypervisor.RevertOptions,
	before *beforeRevert,
) (done bool, err error) {
	for attempt := 1; ; attempt++ {
		var info *types.TaskInfo
		err := c.asking(ctx, vm, func(ctx context.Context) (err error) {
			info, err = c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
				res, err := methods.RevertToSnapshot_Task(ctx, c.vim, &types.RevertToSnapshot_Task{
					This: snapshotRef(id), SuppressPowerOn: types.NewBool(options.Stay),
				})
				if err != nil {
					return nil, err
				}
				return object.NewTask(c.vim, res.Returnval), nil
			})
			return err
		})
		lost := info == nil && err != nil && (ctx.Err() != nil || isAmbiguous(err))
		if lost {
			info = c.findRevert(ctx, vm, before)
			if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w; %w", ctx.Err(), err)
			}
		}
		switch {
		case info != nil && info.State == types.TaskInfoStateSuccess:
			if ctx.Err() == nil {
				err = nil // at most the answer was lost
			}
			return c.verifyReverted(ctx, vm, id, before, withoutURL(err))
		case info != nil && lost && ctx.Err() == nil:
			return false, taskError(info)
		case err == nil:
			return false, fmt.Errorf("%s ended as %s", info.Task.Value, info.State)
		case ctx.Err() != nil || !isAmbiguous(err) || attempt == readAttempts:
			return false, withoutURL(err)
		}
		// The server has heard of nothing. What the VM is now is going to be lost either way, so that
		// reverting it twice does no harm.
		if err := pause(ctx, backoff(attempt)); err != nil {
			return false, err
		}
	}
}

// verifyReverted looks whether the snapshot is the current one by now. cause is the error to return if it
// is.
func (c *Client) verifyReverted(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, before *beforeRevert, cause error,
) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	var m mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.trees, vm, &m); err != nil {
		return true, errors.Join(cause, fmt.Errorf("verify which snapshot is the current one: %w", err))
	}
	current := "none"
	if m.Snapshot != nil && m.Snapshot.CurrentSnapshot != nil {
		current = m.Snapshot.CurrentSnapshot.Value
		if before.leadsTo(&m, id) {
			return true, cause
		}
	}
	return false, errors.Join(cause,
		fmt.Errorf("the server reports success, but the VM's current snapshot is %s", current))
}

// leadsTo reports whether a VM's current snapshot is the one that was reverted to, or one that somebody took
// on top of it meanwhile.
func (b *beforeRevert) leadsTo(m *mo.VirtualMachine, id hypervisor.SnapshotID) bool {
	parents := map[types.ManagedObjectReference]*types.ManagedObjectReference{}
	for _, n := range flatten(m.Snapshot) {
		parents[n.node.Snapshot] = n.parent
	}
	for at := m.Snapshot.CurrentSnapshot; at != nil; at = parents[*at] {
		if *at == snapshotRef(id) {
			return true
		}
		if slices.Contains(b.snapshots, *at) {
			return false
		}
	}
	return false
}

// findRevert looks for the task of a call whose answer was lost, and waits for its end; if ctx has ended, it
// cancels it. It returns nil if there is none to be seen.
func (c *Client) findRevert(ctx context.Context, vm hypervisor.VMID, before *beforeRevert) *types.TaskInfo {
	lookCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	for look := 1; ; look++ {
		var now mo.VirtualMachine
		if err := c.readVM(lookCtx, c.reads.tasks, vm, &now); err != nil {
			return nil
		}
		for _, ref := range slices.Backward(now.RecentTask) {
			if slices.Contains(before.tasks, ref) {
				continue
			}
			info, err := c.taskInfo(lookCtx, ref)
			// "vm.Snapshot.revert", "VirtualMachine.revertToCurrentSnapshot".
			if err != nil || info == nil || !strings.Contains(strings.ToLower(info.DescriptionId), "revert") {
				continue
			}
			before.tasks = append(before.tasks, ref)
			if err := c.endTask(ctx, lookCtx, ref); err != nil {
				c.log.WarnContext(lookCtx, "wait for a revert", "task", ref.Value, "error", withoutURL(err))
				return nil
			}
			if info, _ = c.taskInfo(lookCtx, ref); info != nil {
				return info
			}
		}
		if look == lookAgain || pause(lookCtx, backoff(look)) != nil {
			return nil
		}
	}
}
