package lab

import (
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// addCard plans a network adapter.
func (p *plan) addCard(index int, card *types.VirtualEthernetCard) types.BaseMethodFault {
	if fault := p.resolveNetwork(index, card); fault != nil {
		return fault
	}
	if fault := p.address(index, card); fault != nil {
		return fault
	}
	fillCard(card)
	p.fillConnectable(&card.VirtualDevice, &types.VirtualVmxnet3{})
	card.Connectable.Connected = p.on && card.Connectable.StartConnected
	return nil
}

// fillCard sets what a real host reports for an adapter without being told.
func fillCard(card *types.VirtualEthernetCard) {
	if card.WakeOnLanEnabled == nil {
		card.WakeOnLanEnabled = types.NewBool(true)
	}
	if card.UptCompatibilityEnabled == nil {
		card.UptCompatibilityEnabled = types.NewBool(false)
	}
	if card.ResourceAllocation == nil {
		card.ResourceAllocation = &types.VirtualEthernetCardResourceAllocation{
			Reservation: types.NewInt64(0), Limit: types.NewInt64(-1),
			Share: types.SharesInfo{Shares: 50, Level: types.SharesLevelNormal},
		}
	}
}

func (p *plan) editCard(index int, was, card *types.VirtualEthernetCard) types.BaseMethodFault {
	if card.MacAddress == "" {
		card.MacAddress = was.MacAddress
	}
	if card.AddressType == "" {
		card.AddressType = was.AddressType
	}
	if card.MacAddress != was.MacAddress && p.on {
		return &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: poweredOn}
	}
	if fault := p.resolveNetwork(index, card); fault != nil {
		return fault
	}
	if card.MacAddress != was.MacAddress {
		if fault := p.address(index, card); fault != nil {
			return fault
		}
	}
	if card.ResourceAllocation == nil {
		card.ResourceAllocation = was.ResourceAllocation
	}
	if card.WakeOnLanEnabled == nil {
		card.WakeOnLanEnabled = was.WakeOnLanEnabled
	}
	fillCard(card)
	connected := card.Connectable != nil && card.Connectable.Connected
	p.fillConnectable(&card.VirtualDevice, &types.VirtualVmxnet3{})
	card.Connectable.Connected = p.on && connected
	return nil
}

// resolveNetwork finds the network that an adapter names, and refuses one that isn't there.
func (p *plan) resolveNetwork(index int, card *types.VirtualEthernetCard) types.BaseMethodFault {
	missing := &types.InvalidDeviceBacking{InvalidDeviceSpec: *invalidDevice(index, "backing")}
	switch b := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		ref := p.lab.networkByName(b.DeviceName)
		if ref == nil && b.Network != nil {
			if n, ok := p.ctx.Map.Get(*b.Network).(*mo.Network); ok {
				ref, b.DeviceName = b.Network, n.Name
			}
		}
		if ref == nil {
			return missing
		}
		b.Network = ref
		if b.UseAutoDetect == nil {
			b.UseAutoDetect = types.NewBool(false)
		}
		card.DeviceInfo.GetDescription().Summary = b.DeviceName
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}
		pg, ok := p.ctx.Map.Get(ref).(*simulator.DistributedVirtualPortgroup)
		if !ok || pg.Config.DistributedVirtualSwitch == nil {
			return &types.NotFound{}
		}
		dvs, ok := p.ctx.Map.Get(*pg.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
		if !ok || b.Port.SwitchUuid != "" && b.Port.SwitchUuid != dvs.Uuid {
			return &types.NotFound{}
		}
		b.Port.SwitchUuid = dvs.Uuid
		card.DeviceInfo.GetDescription().Summary = "DVSwitch: " + dvs.Uuid
	case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
		return missing // the lab has none
	default:
		return missing
	}
	return nil
}

// networkByName finds a standard network.
func (l *Lab) networkByName(name string) *types.ManagedObjectReference {
	for _, entity := range l.model.Map().All("Network") {
		if n, ok := entity.(*mo.Network); ok && n.Name == name {
			ref := n.Self
			return &ref
		}
	}
	return nil
}

// address gives an adapter a MAC address, or checks the one it has. The server assigns another one
// when an assigned address is in use; a manual one is never checked.
func (p *plan) address(index int, card *types.VirtualEthernetCard) types.BaseMethodFault {
	switch types.VirtualEthernetCardMacType(card.AddressType) {
	case "":
		card.AddressType = string(types.VirtualEthernetCardMacTypeManual)
		if card.MacAddress == "" {
			card.AddressType = string(p.macType())
		}
	case types.VirtualEthernetCardMacTypeManual:
		if card.MacAddress == "" {
			return invalidDevice(index, "macAddress")
		}
	case types.VirtualEthernetCardMacTypeGenerated, types.VirtualEthernetCardMacTypeAssigned:
	default:
		return invalidDevice(index, "addressType")
	}
	if card.MacAddress != "" && !validMAC(card.MacAddress) {
		return invalidDevice(index, "macAddress")
	}
	manual := card.AddressType == string(types.VirtualEthernetCardMacTypeManual)
	if card.MacAddress == "" || !manual && p.macTaken(card.MacAddress) {
		for card.MacAddress = newMAC(); p.macTaken(card.MacAddress); {
			card.MacAddress = newMAC()
		}
	}
	return nil
}

// macType is how the server makes addresses.
func (p *plan) macType() types.VirtualEthernetCardMacType {
	if p.lab.options.ESX {
		return types.VirtualEthernetCardMacTypeGenerated
	}
	return types.VirtualEthernetCardMacTypeAssigned
}

func (p *plan) macTaken(mac string) bool {
	own := func(d types.BaseVirtualDevice) bool {
		card, ok := d.(types.BaseVirtualEthernetCard)
		return ok && card.GetVirtualEthernetCard().MacAddress == mac
	}
	if slices.ContainsFunc(p.devices, own) {
		return true
	}
	p.lab.mu.Lock()
	defer p.lab.mu.Unlock()
	owner, ok := p.lab.macs[mac]
	return ok && owner != p.vm
}

// newMAC is an address of the range that a vCenter assigns from.
func newMAC() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("00:50:56:%02x:%02x:%02x", 0x80|b[0]&0x3f, b[1], b[2])
}

func validMAC(mac string) bool {
	if len(mac) != 17 {
		return false
	}
	for i := range len(mac) {
		if i%3 == 2 && mac[i] != ':' || i%3 != 2 && !isHex(mac[i]) {
			return false
		}
	}
	return true
}
