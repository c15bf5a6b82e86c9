package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// VMExists implements hypervisor.Finder.
func (c *Client) VMExists(ctx context.Context, id hypervisor.VMID) (bool, error) {
	return c.exists(ctx, vmRef(id), "runtime")
}

// SnapshotExists implements hypervisor.Snapshotter.
func (c *Client) SnapshotExists(ctx context.Context, id hypervisor.SnapshotID) (bool, error) {
	return c.exists(ctx, snapshotRef(id), "vm")
}

// exists asks for a property of an object that every VM or snapshot has. The answer is no only if the
// server says that there is no such object. The usual reads ask it to leave out what is missing, which
// it does without a word; this one doesn't.
func (c *Client) exists(ctx context.Context, ref types.ManagedObjectReference, property string) (bool, error) {
	if ref.Value == "" {
		return false, errors.New("look for an object: it has no handle")
	}
	objects, err := retrieve(ctx, c.vim, types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: []string{property}}},
		ObjectSet: []types.ObjectSpec{{Obj: ref}},
	})
	return existsIn(objects, err, ref)
}

// existsIn judges an answer of the server, which is objects or err.
func existsIn(
	objects map[types.ManagedObjectReference]types.ObjectContent, err error, ref types.ManagedObjectReference,
) (bool, error) {
	if err == nil {
		for _, missing := range objects[ref].MissingSet {
			err = soap.WrapVimFault(missing.Fault.Fault)
		}
	}
	var gone *types.ManagedObjectNotFound
	_, isGone := fault.As(err, &gone)
	switch {
	case isGone && gone.Obj.Type == ref.Type && gone.Obj.Value == ref.Value:
		return false, nil
	case isGone: // which must not pass for an answer
		return false, fmt.Errorf("look for %s: the server misses %s", ref.Value, gone.Obj.Value)
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", ref.Value, classify(err))
	case len(objects[ref].PropSet) == 0:
		return false, fmt.Errorf("look for %s: the server's answer doesn't mention it", ref.Value)
	}
	return true, nil
}
