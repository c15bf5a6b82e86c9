package hypervisor

import (
	"context"
	"net/netip"
)

// A Guest is what is known of the system that runs in a VM.
type Guest struct {
	PowerState PowerState // of the VM

	// Agent is set while the guest's agent runs and gives signs of life.
	Agent bool

	// Addresses are those that the agent reports, in no particular order. Some may be of no use to others:
	// loopback and link-local ones.
	Addresses []netip.Addr
}

// A GuestWatcher waits for guests.
type GuestWatcher interface {
	// WatchGuest calls until with what is known of a VM's guest, at first as it is and then whenever that
	// changes, and returns nil when until returns true. Calls don't overlap, and there are none when it has
	// returned.
	// Errors: ctx.Err() when ctx ends, a *VMNotFoundError when the VM is gone.
	WatchGuest(ctx context.Context, vm VMID, until func(Guest) bool) error
}
