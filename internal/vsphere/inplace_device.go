package vsphere

import (
	"context"
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// deviceChanges brings back the settings of devices that the VM still has: networks and connections of
// adapters, the video card, how disks share their storage. Both sides are copies.
func (h hardware) deviceChanges(
	want object.VirtualDeviceList, matched map[int32]types.BaseVirtualDevice,
) []types.BaseVirtualDeviceConfigSpec {
	var changes []types.BaseVirtualDeviceConfigSpec
	for _, device := range want {
		now, ok := matched[device.GetVirtualDevice().Key]
		if !ok {
			continue
		}
		changed := false
		switch d := device.(type) {
		case *types.VirtualDisk:
			if o, ok := now.(*types.VirtualDisk); ok {
				changed = alignDisk(d, o)
			}
		case types.BaseVirtualEthernetCard:
			if o, ok := now.(types.BaseVirtualEthernetCard); ok {
				changed = alignNIC(d.GetVirtualEthernetCard(), o.GetVirtualEthernetCard(),
					h.networks[device.GetVirtualDevice().Key])
			}
		case *types.VirtualMachineVideoCard:
			card := *d
			card.VirtualDevice = *now.GetVirtualDevice()
			changed = !reflect.DeepEqual(types.BaseVirtualDevice(&card), now)
			now = &card
		}
		if changed {
			changes = append(changes, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: now,
			})
		}
	}
	return changes
}

func alignDisk(want, now *types.VirtualDisk) (changed bool) {
	if want.StorageIOAllocation != nil && !reflect.DeepEqual(want.StorageIOAllocation,
		now.StorageIOAllocation) {
		now.StorageIOAllocation, now.Shares, changed = want.StorageIOAllocation, nil, true
	}
	if b, ok := now.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		if mode := describeBacking(want.Backing).mode; mode != "" && mode != b.DiskMode {
			b.DiskMode, changed = mode, true
		}
	}
	return changed
}

func alignNIC(want, now *types.VirtualEthernetCard, network types.BaseVirtualDeviceBackingInfo) (changed bool) {
	if network != nil && !sameNetwork(now.Backing, network) {
		now.Backing, changed = network, true
	}
	if w, n := want.Connectable, now.Connectable; w != nil && n != nil {
		if w.StartConnected != n.StartConnected || w.AllowGuestControl != n.AllowGuestControl {
			n.StartConnected, n.AllowGuestControl, changed = w.StartConnected, w.AllowGuestControl, true
		}
	}
	if !reflect.DeepEqual(want.WakeOnLanEnabled, now.WakeOnLanEnabled) {
		now.WakeOnLanEnabled, changed = want.WakeOnLanEnabled, true
	}
	return changed
}

// sameNetwork tells whether two backings are one network, whatever port of it.
func sameNetwork(a, b types.BaseVirtualDeviceBackingInfo) bool {
	switch a := a.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		b, ok := b.(*types.VirtualEthernetCardNetworkBackingInfo)
		return ok && a.DeviceName == b.DeviceName
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		b, ok := b.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo)
		return ok && a.Port.PortgroupKey == b.Port.PortgroupKey && a.Port.SwitchUuid == b.Port.SwitchUuid
	case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
		b, ok := b.(*types.VirtualEthernetCardOpaqueNetworkBackingInfo)
		return ok && a.OpaqueNetworkId == b.OpaqueNetworkId
	}
	return false
}

// networksOf are the networks that a VM's adapters are connected to.
func networksOf(config *types.VirtualMachineConfigInfo) map[int32]types.BaseVirtualDeviceBackingInfo {
	networks := map[int32]types.BaseVirtualDeviceBackingInfo{}
	for _, d := range config.Hardware.Device {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			networks[d.GetVirtualDevice().Key] = card.GetVirtualEthernetCard().Backing
		}
	}
	return networks
}

// inPlaceNetworks finds the captured networks where the VM runs. An adapter whose network isn't there keeps
// the one that it has.
func (c *Client) inPlaceNetworks(
	ctx context.Context, p *inPlacePlan,
) (map[int32]types.BaseVirtualDeviceBackingInfo, []string, error) {
	networks := map[int32]types.BaseVirtualDeviceBackingInfo{}
	if p.vm.Runtime.Host == nil || len(p.captured.Networks) == 0 {
		return networks, nil, nil
	}
	hosts, err := c.hosts(ctx, []types.ManagedObjectReference{*p.vm.Runtime.Host})
	if err != nil {
		return nil, nil, err
	}
	available, err := c.readNetworks(ctx, hosts[0].Network)
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	for _, n := range p.captured.Networks {
		target, err := chooseNetwork(available, n.Name, n)
		if err != nil {
			label := fmt.Sprintf("network adapter %d", n.Device)
			if d := p.captured.devices().FindByKey(n.Device); d != nil {
				label = deviceLabel(d)
			}
			warnings = append(warnings, fmt.Sprintf("%s stays connected to what it is: %v.", label, err))
			continue
		}
		networks[n.Device] = target.backing
	}
	return networks, warnings, nil
}

// addBootOrder adds the boot order of want to a specification unless the VM has it.
func addBootOrder(
	spec *types.VirtualMachineConfigSpec, want, now *types.VirtualMachineConfigInfo,
	matched map[int32]types.BaseVirtualDevice,
) {
	if len(bootOrder(want)) == 0 {
		return
	}
	order, _ := remapBootOrder(want.Hardware.Device, want.BootOptions.BootOrder, matched)
	if len(order) == 0 || reflect.DeepEqual(order, bootOrder(now)) {
		return
	}
	if spec.BootOptions == nil {
		spec.BootOptions = new(types.VirtualMachineBootOptions)
	}
	spec.BootOptions.BootOrder = order
}
