package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// configChanges are the changes that follow from a VM's new configuration. The VM's lock is held.
func configChanges(ctx *simulator.Context, vm *simulator.VirtualMachine) []types.PropertyChange {
	c := vm.Config
	summary := vm.Summary.Config
	summary.Name, summary.Template, summary.Annotation = c.Name, c.Template, c.Annotation
	summary.VmPathName, summary.GuestId, summary.GuestFullName = c.Files.VmPathName, c.GuestId, c.GuestFullName
	summary.Uuid, summary.InstanceUuid, summary.HwVersion = c.Uuid, c.InstanceUuid, c.Version
	summary.NumCpu, summary.MemorySizeMB = c.Hardware.NumCPU, c.Hardware.MemoryMB
	summary.NumVirtualDisks, summary.NumEthernetCards = 0, 0
	summary.ManagedBy = c.ManagedBy
	if c.CpuAllocation != nil && c.CpuAllocation.Reservation != nil {
		summary.CpuReservation = int32(min(*c.CpuAllocation.Reservation, 1<<31-1)) //nolint:gosec // bounded
	}
	if c.MemoryAllocation != nil && c.MemoryAllocation.Reservation != nil {
		summary.MemoryReservation = int32(min(*c.MemoryAllocation.Reservation, 1<<31-1)) //nolint:gosec // bounded
	}
	networks := []types.ManagedObjectReference{}
	var nics []types.GuestNicInfo
	for _, device := range c.Hardware.Device {
		switch d := device.(type) {
		case *types.VirtualDisk:
			summary.NumVirtualDisks++
		case types.BaseVirtualEthernetCard:
			summary.NumEthernetCards++
			card := d.GetVirtualEthernetCard()
			ref, name := networkOf(ctx, card)
			if ref != nil {
				networks = append(networks, *ref)
			}
			nic := types.GuestNicInfo{Network: name, MacAddress: card.MacAddress, DeviceConfigId: card.Key}
			if card.Connectable != nil {
				nic.Connected = card.Connectable.Connected
			}
			nics = append(nics, nic)
		}
	}
	changes := []types.PropertyChange{
		{Name: "config", Val: c},
		// Those who wait for a part don't hear of the whole.
		{Name: "config.changeVersion", Val: c.ChangeVersion},
		{Name: "config.annotation", Val: c.Annotation},
		{Name: "config.extraConfig", Val: c.ExtraConfig},
		{Name: "config.hardware.device", Val: c.Hardware.Device},
		{Name: "summary.config", Val: summary},
		{Name: "resourceConfig", Val: resourceConfig(vm.Self, c)},
		{Name: "network", Val: networks},
		{Name: "guest.net", Val: nics},
	}
	if vm.Name != c.Name { // the simulator reads names without locking
		changes = append(changes, types.PropertyChange{Name: "name", Val: c.Name})
	}
	return changes
}

// networkOf is the network of an adapter, nil when it has none.
func networkOf(ctx *simulator.Context, card *types.VirtualEthernetCard) (*types.ManagedObjectReference, string) {
	switch b := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		return b.Network, b.DeviceName
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}
		if pg, ok := ctx.Map.Get(ref).(*simulator.DistributedVirtualPortgroup); ok {
			return &ref, pg.Name
		}
	}
	return nil, ""
}
