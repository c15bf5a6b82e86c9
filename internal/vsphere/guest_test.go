package vsphere

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestWatchGuest follows a guest that boots and a VM that is stopped. Each step is taken when the one before was
// seen.
func TestWatchGuest(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{VMs: []lab.VMSpec{
		{Name: "web", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}, PoweredOff: true},
	}})
	c := dial(t, labConfig(l))
	vm, err := c.FindVM(t.Context(), "web")
	must(t, err)
	l.SetGuestBoot("web", lab.GuestHangs)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seen []hypervisor.Guest
	steps := make(chan func() error, 3)
	steps <- func() error { return c.PowerOn(ctx, vm.ID) }
	steps <- func() error { return l.BootGuest("web") }
	steps <- func() error { return c.PowerOff(ctx, vm.ID) }
	failed := make(chan error, 3)
	done := 0
	err = c.WatchGuest(ctx, vm.ID, func(g hypervisor.Guest) bool {
		seen = append(seen, g)
		at := []bool{
			g.PowerState == hypervisor.PoweredOff && !g.Agent,
			g.PowerState == hypervisor.PoweredOn && !g.Agent && len(g.Addresses) == 0,
			g.PowerState == hypervisor.PoweredOn && g.Agent && len(g.Addresses) == 1,
			g.PowerState == hypervisor.PoweredOff && !g.Agent && len(g.Addresses) == 0,
		}[done]
		if !at {
			return false
		}
		if done++; done == 4 {
			return true
		}
		step := <-steps
		go func() { failed <- step() }()
		return false
	})
	if err != nil {
		t.Fatalf("%v; seen: %+v", err, seen)
	}
	for range 3 {
		must(t, <-failed)
	}
}

func TestWatchGuest_ends(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{Name: "web", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}}})
	c := dial(t, labConfig(l))
	vm, err := c.FindVM(t.Context(), "web")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	err = c.WatchGuest(ctx, vm.ID, func(hypervisor.Guest) bool {
		cancel()
		return false
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var gone *hypervisor.VMNotFoundError
	failed := make(chan error, 1)
	destroy := sync.OnceFunc(func() { go func() { failed <- c.DestroyVM(t.Context(), vm.ID) }() })
	err = c.WatchGuest(t.Context(), vm.ID, func(hypervisor.Guest) bool {
		destroy()
		return false
	})
	// DestroyVM stops the VM first, which is one more change to look at.
	if !errors.As(err, &gone) {
		t.Errorf("of a VM that goes: %v", err)
	}
	must(t, <-failed)
	if err := c.WatchGuest(t.Context(), vm.ID, func(hypervisor.Guest) bool { return true }); !errors.As(err, &gone) {
		t.Errorf("of a VM that is gone: %v", err)
	}
}

func TestGuestOf(t *testing.T) {
	t.Parallel()
	const running, silent = "guestToolsRunning", "guestToolsNotRunning"
	nics := []types.GuestNicInfo{{IpAddress: []string{"192.0.2.7", "fe80::1"}}, {IpAddress: []string{"no address", "2001:db8::7"}}}
	for name, c := range map[string]struct {
		tools     string
		heartbeat types.ManagedEntityStatus
		agent     bool
		addresses []string
	}{
		"up":               {running, types.ManagedEntityStatusGreen, true, []string{"192.0.2.7", "fe80::1", "2001:db8::7"}},
		"intermittent":     {running, types.ManagedEntityStatusYellow, true, []string{"192.0.2.7", "fe80::1", "2001:db8::7"}},
		"not heard of":     {running, types.ManagedEntityStatusGray, false, []string{"192.0.2.7", "fe80::1", "2001:db8::7"}},
		"fell silent":      {running, types.ManagedEntityStatusRed, false, []string{"192.0.2.7", "fe80::1", "2001:db8::7"}},
		"what it said":     {silent, types.ManagedEntityStatusGreen, false, nil},
		"without any word": {"", "", false, nil},
	} {
		m := &mo.VirtualMachine{GuestHeartbeatStatus: c.heartbeat}
		m.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOn
		if c.tools != "" {
			m.Guest = &types.GuestInfo{ToolsRunningStatus: c.tools, IpAddress: "192.0.2.7", Net: nics}
		}
		g := guestOf(m)
		var addresses []string
		for _, a := range g.Addresses {
			addresses = append(addresses, a.String())
		}
		if g.PowerState != hypervisor.PoweredOn || g.Agent != c.agent || !slices.Equal(addresses, c.addresses) {
			t.Errorf("%s: %+v", name, g)
		}
		for property, value := range map[string]any{
			"runtime.powerState": m.Runtime.PowerState, "guestHeartbeatStatus": c.heartbeat, "guest.unknown": 1,
		} {
			if guestDiffers(m, property, value) {
				t.Errorf("%s: %s differs from itself", name, property)
			}
		}
		for property, value := range map[string]any{
			"runtime.powerState": types.VirtualMachinePowerStateSuspended, "guestHeartbeatStatus": types.ManagedEntityStatus("x"),
			"guest.toolsRunningStatus": "x", "guest.ipAddress": "x",
			"guest.net": types.ArrayOfGuestNicInfo{GuestNicInfo: []types.GuestNicInfo{{IpAddress: []string{"198.51.100.1"}}}},
		} {
			if !guestDiffers(m, property, value) {
				t.Errorf("%s: another %s goes unnoticed", name, property)
			}
		}
		if c.tools != "" && guestDiffers(m, "guest.net", types.ArrayOfGuestNicInfo{GuestNicInfo: nics}) {
			t.Errorf("%s: guest.net differs from itself", name)
		}
	}
}
