package snapshot

import (
	"context"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// Check does at plan time what can be done without touching the VM: it resolves the reference,
// refuses what Take would refuse, and returns the warnings that Take would give.
func (m *Manager) Check(ctx context.Context, r Request) (*hypervisor.VM, []string, error) {
	vm, all, err := m.find(ctx, r)
	if err != nil {
		return vm, nil, err
	}
	var warnings []string
	for _, h := range m.halfSets(vm, all) {
		warnings = append(warnings, fmt.Sprintf("the %s is removed first.", h))
	}
	more, err := judge(vm, all, r)
	if err != nil {
		return vm, nil, err
	}
	return vm, append(warnings, more...), nil
}

// prepare checks a request, and removes what killed runs left behind on the VM.
func (m *Manager) prepare(ctx context.Context, r Request) (*hypervisor.VM, []string, error) {
	vm, all, err := m.find(ctx, r)
	if err != nil {
		return vm, nil, err
	}
	if err := m.may(ctx, vm, r); err != nil {
		return vm, nil, err
	}
	var warnings []string
	if half := m.halfSets(vm, all); len(half) > 0 {
		if warnings, err = m.removeHalf(ctx, half); err != nil {
			return vm, nil, fmt.Errorf("take snapshot %q: %w", r.Name, err)
		}
		if vm, all, err = m.find(ctx, r); err != nil {
			return vm, nil, err
		}
	}
	more, err := judge(vm, all, r)
	if err != nil {
		return vm, nil, err
	}
	return vm, append(warnings, more...), nil
}

// find resolves a request's reference, and lists the snapshots that the VM has.
func (m *Manager) find(ctx context.Context, r Request) (*hypervisor.VM, []hypervisor.Snapshot, error) {
	if err := r.validate(); err != nil {
		return nil, nil, err
	}
	vm, err := m.hv.FindVM(ctx, r.VM)
	if err != nil {
		return nil, nil, fmt.Errorf("take snapshot %q: %w", r.Name, err)
	}
	all, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return vm, nil, fmt.Errorf("take snapshot %q of %s: list snapshots: %w", r.Name, vm.Path, err)
	}
	return vm, all, nil
}

// judge refuses a snapshot that can't be taken as it is asked for, and names what it won't be.
func judge(vm *hypervisor.VM, all []hypervisor.Snapshot, r Request) (warnings []string, err error) {
	warnings, err = coverage(vm, r.Memory)
	if err != nil {
		return nil, fmt.Errorf("take snapshot %q: %w", r.Name, err)
	}
	more, err := guest(vm, r)
	if err != nil {
		return nil, fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
	}
	warnings = append(warnings, more...)
	more, err = chain(vm, all)
	if err != nil {
		return nil, fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
	}
	return append(warnings, more...), nil
}

// validate refuses what contradicts itself.
func (r Request) validate() error {
	switch {
	case r.VM == "":
		return fmt.Errorf("%w: no VM is named", ErrRequest)
	case r.Name == "":
		return fmt.Errorf("%w: the snapshot has no name", ErrRequest)
	case r.Memory && r.Quiesce.Wanted():
		return fmt.Errorf("%w: memory and quiescing exclude each other: a snapshot with memory holds what"+
			" the guest has not written to its disks yet", ErrRequest)
	case r.Memory && r.ShutDown:
		return fmt.Errorf("%w: a guest that is shut down has no memory to keep", ErrRequest)
	case r.ShutDownTimeout < 0:
		return fmt.Errorf("%w: the time to shut down is negative", ErrRequest)
	}
	if err := r.Quiesce.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return nil
}

// coverage refuses a VM of which no snapshot can be taken, and names what a snapshot leaves out.
func coverage(vm *hypervisor.VM, memory bool) (warnings []string, err error) {
	var blocking []hypervisor.Obstacle
	for _, o := range vm.Obstacles {
		switch {
		case o.BlocksSnapshot:
			blocking = append(blocking, o)
		case memory && o.Kind == hypervisor.ObstacleIndependent && vm.PowerState != hypervisor.PoweredOff:
			o.Reason += " A snapshot with memory can't be taken of a VM that has such a disk."
			blocking = append(blocking, o)
		case o.Device != "":
			warnings = append(warnings, fmt.Sprintf("the snapshot doesn't cover %s: %s", o.Device, o.Reason))
		}
	}
	if len(blocking) > 0 {
		return nil, &hypervisor.ObstacleError{VM: vm.Path, Obstacles: blocking}
	}
	return warnings, nil
}

// guest compares what is asked of the guest with the state that it is in.
func guest(vm *hypervisor.VM, r Request) (warnings []string, err error) {
	on := vm.PowerState == hypervisor.PoweredOn
	switch {
	case r.ShutDown && vm.PowerState == hypervisor.Suspended:
		return nil, fmt.Errorf("%w: the VM is suspended, its guest can't be shut down", ErrRequest)
	case r.ShutDown && on && !vm.GuestAgent:
		return nil, fmt.Errorf("shut down the guest: %w", hypervisor.ErrGuestAgent)
	case r.ShutDown && on:
		return nil, nil // clean whatever the guest is asked
	case r.Memory && !on:
		warning := fmt.Sprintf("%s is %s: the snapshot will hold no memory.", vm.Name, spell(vm.PowerState))
		return []string{warning}, nil
	case !r.Quiesce.Wanted() || quiesce.Possible(vm):
		return nil, nil
	}
	cause, reason := hypervisor.ErrGuestAgent, "its guest agent is not running"
	if !on {
		cause, reason = hypervisor.ErrQuiesce, "it is "+spell(vm.PowerState)
	}
	if r.Quiesce.Mode == quiesce.Required {
		return nil, fmt.Errorf("the guest can't be quiesced because %s: %w", reason, cause)
	}
	warning := fmt.Sprintf("%s can't be quiesced because %s: the snapshot will be crash-consistent.", vm.Name, reason)
	return []string{warning}, nil
}

// chain guards against chains of snapshots that are too deep.
func chain(vm *hypervisor.VM, all []hypervisor.Snapshot) (warnings []string, err error) {
	depth := 1 // of the snapshot to take
	for _, s := range all {
		if s.Current {
			depth = s.Depth + 1
		}
	}
	if depth > hypervisor.MaxSnapshotDepth {
		return nil, fmt.Errorf("the VM runs on a chain of %d snapshots: %w",
			depth-1, hypervisor.ErrTooManySnapshots)
	}
	if depth > WarnDepth {
		warning := fmt.Sprintf("with this snapshot %s runs on a chain of %d: every level slows down its disks,"+
			" and more than %d are advised against. Remove snapshots that are no longer needed.",
			vm.Name, depth, WarnDepth)
		return []string{warning}, nil
	}
	return nil, nil
}
