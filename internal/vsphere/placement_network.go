package vsphere

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A targetNetwork is a network that a VM can be connected to at the target.
type targetNetwork struct {
	capturedNetwork
	ref     types.ManagedObjectReference
	backing types.BaseVirtualDeviceBackingInfo
}

// label is the network's name, with its switch where it has one.
func (n capturedNetwork) label() string {
	if n.Switch == "" {
		return n.Name
	}
	return n.Switch + "/" + n.Name
}

// placeNetworks finds the network of every adapter, by the captured name or the one it is mapped to. A name
// may be given as "switch/port group" where several switches have port groups of the same name.
func (c *Client) placeNetworks(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if err := checkNetworkMap(spec.Networks, captured.Networks); err != nil {
		return err
	}
	p.networks = map[int32]types.BaseVirtualDeviceBackingInfo{}
	if len(captured.Networks) == 0 {
		return nil
	}
	available, err := c.readNetworks(ctx, p.compute.Network)
	if err != nil {
		return err
	}
	for _, n := range captured.Networks {
		wanted, mapped := spec.Networks[n.label()]
		if !mapped {
			wanted, mapped = spec.Networks[n.Name]
		}
		if !mapped {
			wanted = n.Name
		}
		target, err := chooseNetwork(available, wanted, n)
		if err != nil && spec.Isolated && len(available) > 0 {
			target, err = anyNetwork(available), nil
		}
		if err != nil {
			return err
		}
		p.networks[n.Device] = target.backing
		p.attached = append(p.attached, target.ref)
	}
	return nil
}

// checkNetworkMap refuses names that the captured VM doesn't have, which are mistakes.
func checkNetworkMap(networks map[string]string, captured []capturedNetwork) error {
	var names []string
	for _, n := range captured {
		names = append(names, n.Name)
		if n.Switch != "" {
			names = append(names, n.label())
		}
	}
	slices.Sort(names)
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		if !slices.Contains(names, name) {
			return &hypervisor.NotAvailableError{Kind: "network in the backup", Name: name, Available: slices.Compact(names)}
		}
	}
	return nil
}

// chooseNetwork finds a network by name. Of several it takes the one that is most like the captured.
func chooseNetwork(
	available []targetNetwork, wanted string, captured capturedNetwork,
) (targetNetwork, error) {
	var found []targetNetwork
	for _, n := range available {
		if n.Name == wanted || n.label() == wanted {
			found = append(found, n)
		}
	}
	for _, alike := range []func(targetNetwork) bool{
		func(n targetNetwork) bool { return n.Kind == captured.Kind && n.Switch == captured.Switch },
		func(n targetNetwork) bool { return n.Kind == captured.Kind },
	} {
		if len(found) > 1 && slices.ContainsFunc(found, alike) {
			found = slices.DeleteFunc(found, func(n targetNetwork) bool { return !alike(n) })
		}
	}
	labels := func(list []targetNetwork) []string {
		var out []string
		for _, n := range list {
			out = append(out, n.label())
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	switch len(found) {
	case 0:
		return targetNetwork{}, &hypervisor.NotAvailableError{Kind: "network", Name: wanted, Available: labels(available)}
	case 1:
		return found[0], nil
	}
	return targetNetwork{}, fmt.Errorf("network %q is ambiguous, give one of %q", wanted, labels(found))
}

// anyNetwork is a network for an adapter that is never connected: one of a standard switch, which holds no port for
// it, where there is one.
func anyNetwork(available []targetNetwork) targetNetwork {
	i := slices.IndexFunc(available, func(n targetNetwork) bool { return n.Kind == standardNetwork })
	return available[max(i, 0)]
}

// readNetworks describes networks and how an adapter is connected to each. Uplinks of switches are left
// out; no VM may use them.
func (c *Client) readNetworks(
	ctx context.Context, refs []types.ManagedObjectReference,
) ([]targetNetwork, error) {
	objects, err := c.propertiesOf(ctx, refs,
		types.PropertySpec{Type: "Network", PathSet: []string{"name", "summary"}},
		types.PropertySpec{Type: "DistributedVirtualPortgroup", PathSet: []string{
			"key", "config.distributedVirtualSwitch", "config.uplink",
		}},
	)
	if err != nil {
		return nil, err
	}
	switches := map[types.ManagedObjectReference]mo.DistributedVirtualSwitch{}
	var out []targetNetwork
	for i, ref := range refs {
		if slices.Contains(refs[:i], ref) {
			continue // listed once for each host that has it
		}
		n := targetNetwork{ref: ref}
		switch ref.Type {
		case "DistributedVirtualPortgroup":
			var pg mo.DistributedVirtualPortgroup
			if err := load(objects, ref, &pg); err != nil {
				return nil, err
			}
			dvs := pg.Config.DistributedVirtualSwitch
			if dvs == nil || pg.Config.Uplink != nil && *pg.Config.Uplink {
				continue
			}
			if _, ok := switches[*dvs]; !ok {
				var s mo.DistributedVirtualSwitch
				if err := c.properties(ctx, *dvs, []string{"name", "uuid"}, &s); err != nil {
					return nil, err
				}
				switches[*dvs] = s
			}
			n.Kind, n.Name, n.Switch = distributedNetwork, unescapeName(pg.Name), unescapeName(switches[*dvs].Name)
			n.backing = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
				Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: switches[*dvs].Uuid, PortgroupKey: pg.Key},
			}
		case "OpaqueNetwork":
			var o mo.OpaqueNetwork
			if err := load(objects, ref, &o); err != nil {
				return nil, err
			}
			s, ok := o.Summary.(*types.OpaqueNetworkSummary)
			if !ok {
				continue
			}
			n.Kind, n.Name, n.ID, n.Type = opaqueNetwork, unescapeName(o.Name), s.OpaqueNetworkId, s.OpaqueNetworkType
			n.backing = &types.VirtualEthernetCardOpaqueNetworkBackingInfo{OpaqueNetworkId: n.ID, OpaqueNetworkType: n.Type}
		default:
			var s mo.Network
			if err := load(objects, ref, &s); err != nil {
				return nil, err
			}
			n.Kind, n.Name = standardNetwork, unescapeName(s.Name)
			n.backing = &types.VirtualEthernetCardNetworkBackingInfo{
				VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: n.Name},
			}
		}
		out = append(out, n)
	}
	return out, nil
}
