package vsphere

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// addressWarnings names other VMs that have a MAC address that the original comes back with. A server gives
// out another address where one of its own is taken, but never looks at one that was set by hand.
func (c *Client) addressWarnings(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) (warnings []string, err error) {
	if spec.Identity != hypervisor.IdentityOriginal {
		return nil, nil
	}
	labels := map[string]string{} // by address
	for _, d := range captured.devices() {
		card, ok := d.(types.BaseVirtualEthernetCard)
		if mac := macOf(d); ok && mac != "" && p.networks[card.GetVirtualEthernetCard().Key] != nil {
			labels[mac] = deviceLabel(d)
		}
	}
	if len(labels) == 0 {
		return nil, nil
	}
	all, err := c.list(ctx, "VirtualMachine", "name")
	if err != nil {
		return nil, fmt.Errorf("look for MAC addresses: %w", err)
	}
	refs := slices.SortedFunc(maps.Keys(all), func(a, b types.ManagedObjectReference) int {
		return strings.Compare(a.Value, b.Value)
	})
	for chunk := range slices.Chunk(refs, maxBatch) {
		owners, err := c.addressOwners(ctx, chunk, labels)
		if err != nil {
			return nil, err
		}
		for _, o := range owners {
			where, err := c.addressOwnerPath(ctx, spec, o)
			if err != nil {
				return nil, err
			}
			if where != "" {
				warnings = append(warnings, fmt.Sprintf(
					"the MAC address %s of %s is in use by %s; don't connect both to one network.", o.mac, labels[o.mac], where))
			}
		}
	}
	return warnings, nil
}

type addressOwner struct {
	vm  types.ManagedObjectReference
	mac string
}

// addressOwners are the VMs among refs that have one of the addresses.
func (c *Client) addressOwners(
	ctx context.Context, refs []types.ManagedObjectReference, labels map[string]string,
) ([]addressOwner, error) {
	query := types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"config.hardware.device"}}},
		// One that went away in between has no say in it.
		ReportMissingObjectsInResults: types.NewBool(true),
	}
	for _, ref := range refs {
		query.ObjectSet = append(query.ObjectSet, types.ObjectSpec{Obj: ref})
	}
	objects, err := retrieve(ctx, c.vim, query)
	if err != nil {
		return nil, fmt.Errorf("look for MAC addresses: %w", classify(err))
	}
	var owners []addressOwner
	for _, ref := range refs {
		var vm mo.VirtualMachine
		if load(objects, ref, &vm) != nil || vm.Config == nil {
			continue // being created, or out of the user's sight
		}
		for _, d := range vm.Config.Hardware.Device {
			o := addressOwner{vm: ref, mac: macOf(d)}
			if labels[o.mac] != "" && !slices.Contains(owners, o) {
				owners = append(owners, o)
			}
		}
	}
	return owners, nil
}

func macOf(device types.BaseVirtualDevice) string {
	card, ok := device.(types.BaseVirtualEthernetCard)
	if !ok {
		return ""
	}
	return strings.ToLower(card.GetVirtualEthernetCard().MacAddress)
}

// addressOwnerPath is the path of a VM; empty for one that is gone, or that is removed first since a killed
// restore left it behind.
func (c *Client) addressOwnerPath(
	ctx context.Context, spec hypervisor.RestoreSpec, o addressOwner,
) (string, error) {
	dead, err := c.leftover(ctx, o.vm, spec.Abandoned)
	if err != nil || dead {
		return "", err
	}
	line, err := c.ancestors(ctx, o.vm)
	if vmGone(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return line.path(), nil
}
