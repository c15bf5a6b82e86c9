package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// captureNetworks resolves what the network adapters are connected to. A network whose name may not be
// read is no reason to have no backup: it is called by its ID, with a warning.
func (c *Client) captureNetworks(
	ctx context.Context, devices object.VirtualDeviceList, refs []types.ManagedObjectReference,
) ([]capturedNetwork, []string, error) {
	var out []capturedNetwork
	var warnings []string
	for _, d := range devices {
		card, ok := d.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		nic := card.GetVirtualEthernetCard()
		n := capturedNetwork{Device: nic.Key}
		var err error
		switch b := nic.Backing.(type) {
		case *types.VirtualEthernetCardNetworkBackingInfo:
			n.Kind, n.Name = standardNetwork, b.DeviceName
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			n.Kind = distributedNetwork
			if n.Name, n.Switch, err = c.portgroupName(ctx, b.Port.PortgroupKey); err != nil {
				n.Name = b.Port.PortgroupKey
			}
		case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
			n.Kind, n.ID, n.Type = opaqueNetwork, b.OpaqueNetworkId, b.OpaqueNetworkType
			if n.Name, err = c.opaqueName(ctx, b.OpaqueNetworkId, refs); err != nil {
				n.Name = b.OpaqueNetworkId
			}
		default:
			continue
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("capture network of %s: %w", deviceLabel(d), context.Cause(ctx))
		}
		if err != nil {
			warnings = append(warnings,
				fmt.Sprintf("the name of the network of %s could not be captured: %v", deviceLabel(d), err))
		}
		out = append(out, n)
	}
	return out, warnings, nil
}

// portgroupName is the name of a distributed port group and of its switch. The key of a port group is
// the value of its managed object reference.
func (c *Client) portgroupName(ctx context.Context, key string) (name, switchName string, err error) {
	ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: key}
	var pg mo.DistributedVirtualPortgroup
	if err := c.properties(ctx, ref, []string{"name", "config.distributedVirtualSwitch"}, &pg); err != nil {
		return "", "", fmt.Errorf("port group %s: %w", key, err)
	}
	if pg.Config.DistributedVirtualSwitch == nil {
		return unescapeName(pg.Name), "", nil
	}
	var dvs mo.DistributedVirtualSwitch
	if err := c.properties(ctx, *pg.Config.DistributedVirtualSwitch, []string{"name"}, &dvs); err != nil {
		return "", "", fmt.Errorf("switch of port group %q: %w", pg.Name, err)
	}
	return unescapeName(pg.Name), unescapeName(dvs.Name), nil
}

func (c *Client) opaqueName(
	ctx context.Context, id string, refs []types.ManagedObjectReference,
) (string, error) {
	for _, ref := range refs {
		if ref.Type != "OpaqueNetwork" {
			continue
		}
		var n mo.OpaqueNetwork
		if err := c.properties(ctx, ref, []string{"name", "summary"}, &n); err != nil {
			return "", err
		}
		if s, ok := n.Summary.(*types.OpaqueNetworkSummary); ok && s.OpaqueNetworkId == id {
			return unescapeName(n.Name), nil
		}
	}
	return id, nil
}
