package hypervisortest

import (
	"context"
	"net/netip"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// SetGuest changes what is known of a VM's guest. A guest whose agent runs gives signs of life.
func (f *Fake) SetGuest(id hypervisor.VMID, agent bool, address string) {
	f.Edit(id, func(vm *hypervisor.VM) { vm.GuestAgent, vm.GuestIPAddress = agent, address })
}

// WatchGuest implements hypervisor.GuestWatcher.
func (f *Fake) WatchGuest(ctx context.Context, id hypervisor.VMID, until func(hypervisor.Guest) bool) error {
	if err := f.at(ctx, BeforeWatchGuest); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		v, err := f.vm(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		g := hypervisor.Guest{PowerState: v.PowerState, Agent: v.GuestAgent}
		if a, err := netip.ParseAddr(v.GuestIPAddress); err == nil {
			g.Addresses = append(g.Addresses, a)
		}
		if f.edited == nil {
			f.edited = make(chan struct{})
		}
		edited := f.edited
		f.mu.Unlock()
		if until(g) {
			return nil
		}
		if err := f.at(ctx, DuringWatchGuest); err != nil {
			return err
		}
		select {
		case <-edited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
