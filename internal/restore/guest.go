package restore

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// wants says what is waited for; asking for nothing in particular means all of it.
func (w WaitForGuest) wants() (agent, address bool) {
	return w.Agent || !w.Address, w.Address || !w.Agent
}

// missing says what a guest lacks of what is waited for, nothing if it is ready.
func (w WaitForGuest) missing(g hypervisor.Guest) string {
	agent, address := w.wants()
	var missing []string
	if agent && !g.Agent {
		missing = append(missing, "its agent gives no sign of life")
	}
	if address && !slices.ContainsFunc(g.Addresses, reachable) {
		missing = append(missing, "it reports no address that others can reach")
	}
	return strings.Join(missing, ", and ")
}

// reachable leaves out the addresses that a guest gives itself when nobody gives it one.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

// AwaitGuest waits for the guest of a VM that was started. It returns the VM as it is then, or as it was if that
// can't be read, also with an error: ErrGuest.
func (m *Manager) AwaitGuest(ctx context.Context, vm *hypervisor.VM, w WaitForGuest) (*hypervisor.VM, error) {
	result := &Result{VM: vm}
	err := m.await(ctx, vm, w)
	m.readBack(ctx, result)
	return result.VM, err
}

// awaitGuest waits for the guest of a VM that was started, if that is asked for. The result is as good
// without it: an error says only that the guest is not ready.
func (m *Manager) awaitGuest(ctx context.Context, j *job, result *Result) error {
	if j.WaitForGuest == nil {
		return nil
	}
	err := m.await(ctx, result.VM, *j.WaitForGuest)
	m.readBack(ctx, result)
	return err
}

func (m *Manager) await(ctx context.Context, vm *hypervisor.VM, w WaitForGuest) error {
	timeout := w.Timeout
	if timeout == 0 {
		timeout = DefaultGuestTimeout
	}
	waitCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m.log.InfoContext(ctx, "waiting for the guest", "vm", vm.Path, "timeout", timeout.String())
	waitCtx, phase := progress.Enter(waitCtx, "waiting for the guest", "vm", vm.Path, "timeout", timeout.String())
	defer phase.Leave()
	last := hypervisor.Guest{PowerState: hypervisor.PoweredOn}
	err := m.hv.WatchGuest(waitCtx, vm.ID, func(g hypervisor.Guest) bool {
		last = g
		return g.PowerState != hypervisor.PoweredOn || w.missing(g) == ""
	})
	switch {
	case err == nil && last.PowerState == hypervisor.PoweredOn:
		return nil
	case err == nil:
		return fmt.Errorf("%s is restored and was started, but %w: the virtual machine stopped", vm.Path, ErrGuest)
	case ctx.Err() == nil && waitCtx.Err() != nil:
		return fmt.Errorf("%s is restored and runs, but %w after %s: %s", vm.Path, ErrGuest, timeout, w.missing(last))
	}
	return fmt.Errorf("%s is restored and runs, but %w: %w", vm.Path, ErrGuest, err)
}

// readBack looks at the VM again: what is known of its guest is new.
func (m *Manager) readBack(ctx context.Context, result *Result) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	vm, err := m.hv.VMByInstanceUUID(ctx, result.VM.InstanceUUID)
	if err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"%s was started, but can't be read: %v.", result.VM.Path, err))
		return
	}
	result.VM = vm
}

// warnNoGuest says that a guest that was to be waited for was not started.
func (r *Result) warnNoGuest(j *job) {
	if j.WaitForGuest != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf(
			"the guest of %s was not waited for: the virtual machine was not started.", r.VM.Path))
	}
}
