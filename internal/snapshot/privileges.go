package snapshot

import (
	"context"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// may refuses to take a snapshot of a VM that the user lacks privileges for. Removing or renaming a snapshot
// is one call, which the server refuses by itself before anything is changed.
// Error: a *hypervisor.MissingPrivilegesError.
func (m *Manager) may(ctx context.Context, vm *hypervisor.VM, r Request) error {
	operations := []hypervisor.Operation{hypervisor.ToSnapshot}
	if r.ShutDown && vm.PowerState == hypervisor.PoweredOn {
		operations = append(operations, hypervisor.ToPowerOff, hypervisor.ToPowerOn)
	}
	if r.orNothing { // where a guest has to be quiesced, it hardly ever isn't without an error; that says what stays then
		operations = append(operations, hypervisor.ToRemoveSnapshot)
	}
	if err := m.hv.CheckPrivileges(ctx, []hypervisor.VMID{vm.ID}, operations...); err != nil {
		return fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
	}
	return nil
}

// mayTakeSet refuses a set that the user lacks privileges for on any member. A set that fails is removed
// again, and one that is complete is marked as such.
func (m *Manager) mayTakeSet(ctx context.Context, r SetRequest, members []setMember) error {
	vms := make([]hypervisor.VMID, len(members))
	for i, member := range members {
		vms[i] = member.vm.ID
	}
	err := m.hv.CheckPrivileges(ctx, vms, hypervisor.ToSnapshot, hypervisor.ToRenameSnapshot, hypervisor.ToRemoveSnapshot)
	if err != nil {
		return fmt.Errorf("take the set %q: %w", r.Name, err)
	}
	return nil
}

// mayRevert refuses reverts that the user lacks privileges for, on any of some VMs. stop says that those
// that run are stopped first, rather than by the revert itself.
func (m *Manager) mayRevert(ctx context.Context, power Power, stop bool, all ...*Reverted) error {
	var vms []hypervisor.VMID
	operations := []hypervisor.Operation{hypervisor.ToRevert}
	var on, off bool
	for _, at := range all {
		vms = append(vms, at.VM.ID)
		want := power.of(at.Snapshot)
		runs := at.Snapshot.Memory && at.Snapshot.PowerState == hypervisor.PoweredOn
		stopped := stop && at.VM.PowerState == hypervisor.PoweredOn // and started again if nothing comes of it
		on = on || stopped || want == hypervisor.PoweredOn && (stop || !runs)
		off = off || stopped || want == hypervisor.PoweredOff && runs
	}
	if on {
		operations = append(operations, hypervisor.ToPowerOn)
	}
	if off {
		operations = append(operations, hypervisor.ToPowerOff)
	}
	return m.hv.CheckPrivileges(ctx, vms, operations...)
}
