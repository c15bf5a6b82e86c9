package vsphere

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// keptKey is the extraConfig key by which a VM remembers the disks that restores in place took out of it, until
// somebody else does: between the journal's end and the moment in which Terraform has written its state, nobody
// does.
const keptKey = "terraform.vm.restore.kept"

// keptVersion counts the forms of what is written there.
const keptVersion = 1

// keptDisks are the disks that a VM remembers.
type keptDisks struct {
	Version int `json:"version"`
	bearer
	Disks []keptDisk `json:"disks"`
}

type keptDisk struct {
	Label string `json:"label"`
	Path  string `json:"path"`
	Now   string `json:"now"`

	Until time.Time `json:"until,omitzero"`
}

// encodeKept is how a VM remembers disks; empty, which makes it forget, for none. What doesn't fit is left out,
// the oldest first.
func encodeKept(vm *mo.VirtualMachine, disks []hypervisor.Replaced) (string, error) {
	for ; len(disks) > 0; disks = disks[1:] {
		kept := keptDisks{Version: keptVersion, bearer: bearerOf(vm)}
		for _, d := range disks {
			kept.Disks = append(kept.Disks, keptDisk(d))
		}
		data, err := json.Marshal(kept)
		if err != nil {
			return "", fmt.Errorf("encode the kept disks: %w", err)
		}
		if len(data) <= maxJournal {
			return string(data), nil
		}
	}
	return "", nil
}

func decodeKept(text string) (*keptDisks, error) {
	var kept keptDisks
	if len(text) > maxJournal {
		return nil, fmt.Errorf("the list of disks in %s is too long", keptKey)
	}
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return nil, fmt.Errorf("the list of disks in %s can't be read: %w", keptKey, err)
	}
	if kept.Version != keptVersion {
		return nil, fmt.Errorf("the list of disks in %s is of version %d, this version reads %d", keptKey, kept.Version, keptVersion)
	}
	return &kept, nil
}

// readKept reads the disks that a VM remembers. Those of a VM of which it is a copy are none of its.
func (c *Client) readKept(ctx context.Context, vm *mo.VirtualMachine) ([]hypervisor.Replaced, error) {
	text := optionValue(vm.Config.ExtraConfig, keptKey)
	if text == "" {
		return nil, nil
	}
	kept, err := decodeKept(text)
	if err != nil {
		return nil, err
	}
	mine, err := c.bears(ctx, vm, kept.bearer)
	if err != nil || !mine {
		return nil, err
	}
	disks := make([]hypervisor.Replaced, len(kept.Disks))
	for i, d := range kept.Disks {
		disks[i] = hypervisor.Replaced(d)
	}
	return disks, nil
}

// remember is the option that adds disks to those that a VM remembers; nil: it does already. A list that can't be
// read is written over.
func (c *Client) remember(ctx context.Context, vm *mo.VirtualMachine, disks []hypervisor.Replaced) (types.BaseOptionValue, error) {
	if len(disks) == 0 {
		return nil, nil
	}
	all, err := c.readKept(ctx, vm)
	if err != nil {
		c.log.WarnContext(ctx, "forgetting the disks that the VM remembers", "vm", vm.Self.Value, "error", err)
	}
	for _, d := range disks {
		if i := slices.IndexFunc(all, samePath(d)); i < 0 {
			all = append(all, d)
		} else if d.Until.After(all[i].Until) { // nobody has it deleted earlier than another wants
			all[i].Until = d.Until
		}
	}
	text, err := encodeKept(vm, all)
	if err != nil {
		return nil, err
	}
	return &types.OptionValue{Key: keptKey, Value: text}, nil
}

func samePath(d hypervisor.Replaced) func(hypervisor.Replaced) bool {
	return func(o hypervisor.Replaced) bool { return o.Path == d.Path }
}

// KeptDisks implements hypervisor.InPlaceRestorer.
func (c *Client) KeptDisks(ctx context.Context, id hypervisor.VMID) ([]hypervisor.Replaced, error) {
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read which disks %s remembers: %w", id, err)
	}
	disks, err := c.readKept(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("read which disks %s remembers: %w", id, err)
	}
	if len(disks) == 0 {
		return nil, nil
	}
	stores, err := c.stores(ctx, vm.Datastore)
	if err != nil {
		return nil, fmt.Errorf("read which disks %s remembers: %w", id, err)
	}
	return slices.DeleteFunc(disks, func(d hypervisor.Replaced) bool {
		name, file := splitPath(d.Path)
		store, ok := stores[name]
		if !ok {
			return false // the VM has moved; what it left is there
		}
		there, err := c.datastoreHas(ctx, store, path.Dir(file), path.Base(file))
		return err == nil && !there
	}), nil
}

// ForgetKept implements hypervisor.InPlaceRestorer.
func (c *Client) ForgetKept(ctx context.Context, id hypervisor.VMID, disks []hypervisor.Replaced) error {
	err := c.setOptions(ctx, id, func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error) {
		all, err := c.readKept(ctx, vm)
		if err != nil {
			return nil, err
		}
		left := slices.DeleteFunc(slices.Clone(all), func(d hypervisor.Replaced) bool {
			return slices.ContainsFunc(disks, samePath(d))
		})
		if len(left) == len(all) {
			return nil, nil
		}
		text, err := encodeKept(vm, left)
		if err != nil {
			return nil, err
		}
		return []types.BaseOptionValue{&types.OptionValue{Key: keptKey, Value: text}}, nil
	})
	if err != nil {
		return fmt.Errorf("make %s forget disks: %w", id, err)
	}
	return nil
}
