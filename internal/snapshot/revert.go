package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// Power says in which state a VM is to be after a revert. It is brought there and looked at.
type Power string

// The states to ask for. Empty is AsSnapshot.
const (
	AsSnapshot Power = "as_snapshot" // it runs exactly if the snapshot holds the memory of a running VM
	On         Power = "on"          // it runs: with the snapshot's memory where there is any, or booted
	Off        Power = "off"         // it is off; memory that the snapshot holds is dropped
)

// of is the power state that is asked for with a snapshot.
func (p Power) of(s hypervisor.Snapshot) hypervisor.PowerState {
	switch p {
	case On:
		return hypervisor.PoweredOn
	case Off:
		return hypervisor.PoweredOff
	default:
		return s.PowerState
	}
}

func (p Power) check() error {
	switch p {
	case "", AsSnapshot, On, Off:
		return nil
	}
	return fmt.Errorf("%w: power %q is none of %s, %s, %s", ErrRequest, p, AsSnapshot, On, Off)
}

// A RevertRequest says to which snapshot a VM is to be brought back.
type RevertRequest struct {
	VM       hypervisor.VMRef // empty: the VM that the snapshot is of
	Snapshot hypervisor.SnapshotID
	Power    Power

	// Name is used where Snapshot is empty: the newest snapshot of the VM that has this name, or that UniqueName gave
	// a name for this purpose. VM must be set then.
	Name string
}

// Reverted is a VM that was brought back to a snapshot.
type Reverted struct {
	VM       hypervisor.VM // as it is afterwards
	Snapshot hypervisor.Snapshot
	Undone   []string // what the revert changed in the VM's configuration, a sentence each, in the present tense
	Warnings []string // a sentence or two each
}

// A WrongVMError says that a snapshot is of another VM than the one that was named.
type WrongVMError struct {
	Snapshot hypervisor.SnapshotID
	VM       string // path of the VM that was named
	Of       string // path of the VM that the snapshot is of; empty: it can't be told
}

func (e *WrongVMError) Error() string {
	if e.Of == "" {
		return fmt.Sprintf("snapshot %s is none of %s but of another virtual machine", e.Snapshot, e.VM)
	}
	return fmt.Sprintf("snapshot %s is none of %s but of %s", e.Snapshot, e.VM, e.Of)
}

// readTimeout is how long it may take to find out, after a failure, what state a VM is in.
const readTimeout = 30 * time.Second

// CheckRevert does at plan time what can be done without touching the VM. Undone is what the revert would
// undo.
// Errors: ErrRequest, those of finding a VM, a *WrongVMError, hypervisor.ErrSnapshotNotFound, a
// *hypervisor.ObstacleError.
func (m *Manager) CheckRevert(ctx context.Context, r RevertRequest) (*Reverted, error) {
	at, err := m.revertTarget(ctx, r)
	if err != nil {
		return nil, err
	}
	if at.Undone, err = m.hv.RevertChanges(ctx, at.VM.ID, at.Snapshot.ID); err != nil {
		return nil, fmt.Errorf("revert %s to snapshot %q: %w", at.VM.Path, at.Snapshot.Name, err)
	}
	if at.VM.PowerState == hypervisor.PoweredOn {
		at.Warnings = append(at.Warnings,
			fmt.Sprintf("%s is powered on: the revert stops it at once, without shutting down its guest.", at.VM.Name))
	}
	return at, nil
}

// revertTarget finds the VM and the snapshot of a request.
func (m *Manager) revertTarget(ctx context.Context, r RevertRequest) (*Reverted, error) {
	if err := r.Power.check(); err != nil {
		return nil, err
	}
	switch {
	case r.Snapshot == "" && r.Name == "", r.Snapshot == "" && r.VM == "":
		return nil, fmt.Errorf("%w: no snapshot is named", ErrRequest)
	case r.Snapshot == "":
		return m.newest(ctx, r.VM, r.Name)
	}
	var vm *hypervisor.VM
	var err error
	if r.VM == "" {
		vm, err = m.hv.VMOfSnapshot(ctx, r.Snapshot)
	} else {
		vm, err = m.hv.FindVM(ctx, r.VM)
	}
	if err != nil {
		return nil, fmt.Errorf("revert to snapshot %s: %w", r.Snapshot, err)
	}
	s, err := m.get(ctx, vm.Identity(), r.Snapshot)
	if errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		if wrong := m.wrongVM(ctx, vm, r.Snapshot); wrong != nil {
			return nil, wrong
		}
	}
	if err != nil {
		return nil, fmt.Errorf("revert: %w", err)
	}
	return &Reverted{VM: *vm, Snapshot: *s}, nil
}

// A NameError says that a VM has no snapshot of a name.
type NameError struct {
	VM   string // path
	Name string
	Has  []string // names of the snapshots that the VM has, oldest first
}

func (e *NameError) Error() string {
	if len(e.Has) == 0 {
		return fmt.Sprintf("%s has no snapshot %q; it has none at all", e.VM, e.Name)
	}
	return fmt.Sprintf("%s has no snapshot %q; it has: %s", e.VM, e.Name, strings.Join(e.Has, ", "))
}

// newest finds the newest snapshot of a VM that has a name, or was taken for the purpose that it spells.
func (m *Manager) newest(ctx context.Context, ref hypervisor.VMRef, name string) (*Reverted, error) {
	vm, all, err := m.List(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("revert to snapshot %q: %w", name, err)
	}
	var found *hypervisor.Snapshot
	has := make([]string, len(all))
	for i, s := range all { // of two of the same time the child is the newer one
		has[i] = s.Name
		if (s.Name == name || MadeFor(s.Name, name)) && (found == nil || !s.CreatedAt.Before(found.CreatedAt)) {
			found = &all[i]
		}
	}
	if found == nil {
		return nil, &NameError{VM: vm.Path, Name: name, Has: has}
	}
	return &Reverted{VM: *vm, Snapshot: *found}, nil
}

// wrongVM tells whether a snapshot that a VM doesn't have is one of another, nil if not.
func (m *Manager) wrongVM(ctx context.Context, vm *hypervisor.VM, id hypervisor.SnapshotID) error {
	of, err := m.hv.VMOfSnapshot(ctx, id)
	switch {
	case err == nil && of.ID != vm.ID:
		return &WrongVMError{Snapshot: id, VM: vm.Path, Of: of.Path}
	case errors.Is(err, hypervisor.ErrOutOfReach):
		return &WrongVMError{Snapshot: id, VM: vm.Path}
	}
	return nil
}

// Revert brings a VM back to a snapshot, and into the power state that was asked for. What the VM is now is
// lost; a VM that runs is stopped at once. It can be called again after a failure.
//
// When it returns an error together with a Reverted, the VM is reverted, and the error says which state it
// is in.
// Errors: as CheckRevert, and those of starting and stopping a VM.
func (m *Manager) Revert(ctx context.Context, r RevertRequest) (*Reverted, error) {
	at, err := m.revertTarget(ctx, r)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("revert %s to snapshot %q (%s)", at.VM.Path, at.Snapshot.Name, at.Snapshot.ID)
	if err := m.mayRevert(ctx, r.Power, false, at); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	want := r.Power.of(at.Snapshot)
	taken := at.Snapshot.CreatedAt.UTC().Format(time.RFC3339)
	m.log.InfoContext(ctx, "reverting", "vm", at.VM.Path, "snapshot", string(at.Snapshot.ID), "name", at.Snapshot.Name,
		"taken", taken, "power", string(want))
	reverting, phase := progress.Enter(ctx, "reverting", "vm", at.VM.Path, "snapshot", at.Snapshot.Name, "taken", taken)
	done, err := m.revert(reverting, at, hypervisor.RevertOptions{Stay: want != hypervisor.PoweredOn})
	if err == nil {
		err = m.settle(reverting, at, want)
	}
	phase.Leave()
	switch {
	case err == nil:
		return at, nil
	case done:
		return at, fmt.Errorf("%s: %w; it is reverted, and %s", what, err, m.stateOf(ctx, at))
	}
	return nil, fmt.Errorf("%s: %w; it is %s", what, err, m.stateOf(ctx, at))
}

// revert has the hypervisor revert a VM, and reports whether that is done, also with an error.
func (m *Manager) revert(ctx context.Context, at *Reverted, options hypervisor.RevertOptions) (bool, error) {
	vm, undone, err := m.hv.RevertToSnapshot(ctx, at.VM.ID, at.Snapshot.ID, options)
	if vm == nil {
		return false, err
	}
	at.VM, at.Undone, at.Snapshot.Current = *vm, undone, true
	return true, err
}

// settle brings a VM that was reverted into a power state, and looks whether it is.
func (m *Manager) settle(ctx context.Context, at *Reverted, want hypervisor.PowerState) error {
	if at.VM.PowerState == want {
		return nil
	}
	var err error
	switch want {
	case hypervisor.PoweredOn:
		err = m.hv.PowerOn(ctx, at.VM.ID)
	case hypervisor.PoweredOff:
		err = m.hv.PowerOff(ctx, at.VM.ID)
	}
	if err != nil {
		return err
	}
	vm, err := m.hv.VMByInstanceUUID(ctx, at.VM.InstanceUUID)
	if err != nil {
		return fmt.Errorf("see whether it is %s: %w", spell(want), err)
	}
	at.VM = *vm
	if vm.PowerState != want {
		return fmt.Errorf("it should be %s afterwards", spell(want))
	}
	return nil
}

// stateOf spells the power state that a VM is in now, also when the caller's context has ended.
func (m *Manager) stateOf(ctx context.Context, at *Reverted) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	vm, err := m.hv.VMByInstanceUUID(ctx, at.VM.InstanceUUID)
	switch {
	case gone(err):
		return "gone"
	case err != nil:
		return fmt.Sprintf("in a state that can't be read (%v)", err)
	}
	at.VM = *vm
	return spell(vm.PowerState) + " now"
}
