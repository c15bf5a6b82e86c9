package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// guestPaths are the properties that tell of a guest.
var guestPaths = []string{
	"runtime.powerState", "guestHeartbeatStatus", "guest.toolsRunningStatus", "guest.ipAddress", "guest.net",
}

// WatchGuest implements hypervisor.GuestWatcher. What changes is only a reason to look again: the server
// doesn't report everything that changes in a list, and nothing of what is no longer set.
func (c *Client) WatchGuest(ctx context.Context, vm hypervisor.VMID, until func(hypervisor.Guest) bool) error {
	for {
		var m mo.VirtualMachine
		if err := c.properties(ctx, vmRef(vm), guestPaths, &m); err != nil {
			return fmt.Errorf("look at the guest of %s: %w", vm, err)
		}
		if until(guestOf(&m)) {
			return nil
		}
		err := c.watcher.watch(ctx, vmRef(vm), guestPaths, func(name string, value any) bool {
			return guestDiffers(&m, name, value)
		})
		if err != nil && !errors.Is(err, errGone) { // which the next look says better
			return fmt.Errorf("wait for the guest of %s: %w", vm, classify(err))
		}
	}
}

// guestOf translates what VMware Tools report. Without them, what they said last isn't so any more.
func guestOf(m *mo.VirtualMachine) hypervisor.Guest {
	g := hypervisor.Guest{PowerState: powerStates[m.Runtime.PowerState]}
	if m.Guest == nil || m.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		return g
	}
	// Gray: Tools don't run, or nothing was heard of them yet. Red: they fell silent.
	g.Agent = m.GuestHeartbeatStatus != types.ManagedEntityStatusGray &&
		m.GuestHeartbeatStatus != types.ManagedEntityStatusRed
	for _, text := range addressesOf(m.Guest.IpAddress, m.Guest.Net) {
		if a, err := netip.ParseAddr(text); err == nil {
			g.Addresses = append(g.Addresses, a)
		}
	}
	return g
}

// addressesOf are all addresses that Tools report, the main one first.
func addressesOf(main string, nics []types.GuestNicInfo) []string {
	var all []string
	if main != "" {
		all = append(all, main)
	}
	for _, nic := range nics {
		for _, a := range nic.IpAddress {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// guestDiffers reports whether a property isn't any more what it was when the guest was looked at.
func guestDiffers(m *mo.VirtualMachine, name string, value any) bool {
	guest := m.Guest
	if guest == nil {
		guest = new(types.GuestInfo)
	}
	switch name {
	case "runtime.powerState":
		return value != m.Runtime.PowerState
	case "guestHeartbeatStatus":
		return value != m.GuestHeartbeatStatus
	case "guest.toolsRunningStatus":
		return value != guest.ToolsRunningStatus
	case "guest.ipAddress":
		return value != guest.IpAddress
	case "guest.net":
		nics, ok := value.(types.ArrayOfGuestNicInfo)
		return ok && !slices.Equal(addressesOf("", nics.GuestNicInfo), addressesOf("", guest.Net))
	}
	return false
}
