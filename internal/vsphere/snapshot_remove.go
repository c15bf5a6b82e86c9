package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// RenameSnapshot implements hypervisor.Snapshotter. vSphere's call takes an empty description for "leave
// it as it is", so that a description can be changed but not emptied: hypervisor.ErrNotSupported.
func (c *Client) RenameSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, name, description string,
) error {
	if err := c.renameSnapshot(ctx, vm, id, name, description); err != nil {
		return fmt.Errorf("rename %s of %s: %w", id, vm, err)
	}
	return nil
}

func (c *Client) renameSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, name, description string,
) error {
	if _, err := quiesceSpec(hypervisor.SnapshotSpec{Name: name}); err != nil {
		return err
	}
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		node, err := c.snapshotNode(ctx, vm, id)
		if err != nil {
			return err
		}
		if unescapeName(node.Name) == name && node.Description == description {
			return nil
		}
		if description == "" && node.Description != "" {
			return fmt.Errorf("%w: vSphere can't empty the description of a snapshot, only replace it", hypervisor.ErrNotSupported)
		}
		_, err = methods.RenameSnapshot(ctx, c.vim, &types.RenameSnapshot{
			This: snapshotRef(id), Name: escapeName(name), Description: description,
		})
		if err == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		busy, ok := inProgress(err)
		if !ok && (!isAmbiguous(err) || attempt == readAttempts) {
			return classify(err)
		}
		// The loop looks first whether the name is there by now.
		if err := c.waitForOther(ctx, busy, attempt); err != nil {
			return err
		}
	}
}

// snapshotNode reads one snapshot as it is in the VM's tree.
// Errors: a *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound.
func (c *Client) snapshotNode(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID,
) (*types.VirtualMachineSnapshotTree, error) {
	var m mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.trees, vm, &m); err != nil {
		return nil, err
	}
	node := findNode(&m, id)
	if node == nil {
		return nil, hypervisor.ErrSnapshotNotFound
	}
	return node, nil
}

func findNode(m *mo.VirtualMachine, id hypervisor.SnapshotID) *types.VirtualMachineSnapshotTree {
	for _, n := range flatten(m.Snapshot) {
		if n.node.Snapshot == snapshotRef(id) {
			return n.node
		}
	}
	return nil
}

// RemoveSnapshot implements hypervisor.Snapshotter.
func (c *Client) RemoveSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, options hypervisor.RemoveOptions,
) error {
	err := c.removeSnapshot(ctx, vm, id, options)
	if err == nil || vmGone(err) {
		return nil
	}
	return fmt.Errorf("remove %s of %s: %w", id, vm, err)
}

// removeSnapshot removes a snapshot and looks what is so afterwards: a task that succeeds doesn't prove
// that the delta disks are gone, and one that fails may have removed the snapshot all the same. It looks before, too,
// whether the snapshot is the VM's: the call names no VM, and after a vCenter was restored from its backup, or a host was
// installed anew, the handle of one that is gone may be that of another VM's.
func (c *Client) removeSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, options hypervisor.RemoveOptions,
) error {
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return err
	}
	defer unlock()
	var before mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.trees, vm, &before); err != nil {
		return err
	}
	if findNode(&before, id) == nil {
		return c.consolidateRemoved(ctx, vm, &before, options)
	}
	for attempt := 1; ; attempt++ {
		_, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.RemoveSnapshot_Task(ctx, c.vim, &types.RemoveSnapshot_Task{
				This: snapshotRef(id), RemoveChildren: options.Children, Consolidate: types.NewBool(!options.NoConsolidate),
			})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		if ctx.Err() != nil && err != nil {
			return err
		}
		var m mo.VirtualMachine
		if rerr := c.readVM(ctx, c.reads.trees, vm, &m); rerr != nil {
			if vmGone(rerr) || err == nil {
				return rerr
			}
			return errors.Join(err, rerr)
		}
		if findNode(&m, id) == nil {
			return c.consolidateRemoved(ctx, vm, &m, options)
		}
		if err == nil {
			return errors.New("the server reports success, but the snapshot is still there")
		}
		if !isAmbiguous(err) || attempt == readAttempts {
			return withoutURL(err)
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// consolidateRemoved ends the removal of a snapshot that a VM, read as m, doesn't have any more.
func (c *Client) consolidateRemoved(
	ctx context.Context, vm hypervisor.VMID, m *mo.VirtualMachine, options hypervisor.RemoveOptions,
) error {
	if options.NoConsolidate {
		return nil
	}
	return c.consolidate(ctx, vm, m)
}
