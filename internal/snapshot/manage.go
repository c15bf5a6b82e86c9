package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// Read returns a snapshot as it is now. Taken by Read, Consistency is what the hypervisor still
// knows: it can't tell that the guest was shut down cleanly before the snapshot.
// Errors: *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound (each only if the snapshot is gone for
// certain), hypervisor.ErrOutOfReach.
func (m *Manager) Read(ctx context.Context, instanceUUID string, id hypervisor.SnapshotID) (*Taken, error) {
	vm, err := m.vmOf(ctx, instanceUUID, id)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	s, err := m.get(ctx, *vm, id)
	if err != nil {
		return nil, err
	}
	return &Taken{VM: *vm, Snapshot: *s, Consistency: quiesce.Of(*s, false)}, nil
}

// get finds one snapshot in the VM's tree, by ID and never by name.
func (m *Manager) get(
	ctx context.Context, vm hypervisor.VMIdentity, id hypervisor.SnapshotID,
) (*hypervisor.Snapshot, error) {
	all, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s of %s: %w", id, vm.Path, err)
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("read snapshot %s of %s: %w", id, vm.Path, hypervisor.ErrSnapshotNotFound)
}

// List returns a VM and its snapshots, parents before their children.
func (m *Manager) List(
	ctx context.Context, ref hypervisor.VMRef,
) (*hypervisor.VM, []hypervisor.Snapshot, error) {
	vm, err := m.hv.FindVM(ctx, ref)
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots: %w", err)
	}
	all, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots of %s: %w", vm.Path, err)
	}
	return vm, all, nil
}

// Rename changes the name and description of a snapshot.
// Errors: *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound, hypervisor.ErrNotSupported.
func (m *Manager) Rename(
	ctx context.Context, instanceUUID string, id hypervisor.SnapshotID, name, description string,
) error {
	vm, err := m.hv.IdentifyVM(ctx, instanceUUID)
	if err != nil {
		return fmt.Errorf("rename snapshot %s: %w", id, err)
	}
	if err := m.hv.RenameSnapshot(ctx, vm.ID, id, name, description); err != nil {
		return fmt.Errorf("rename snapshot %s of %s: %w", id, vm.Path, err)
	}
	m.log.InfoContext(ctx, "snapshot renamed", "vm", vm.Path, "id", string(id), "name", name)
	return nil
}

// Remove removes a snapshot. One that is gone, or whose VM is gone, is no error.
// Errors: hypervisor.ErrConsolidationNeeded (the snapshot is gone, its delta disks are not),
// hypervisor.ErrOutOfReach.
func (m *Manager) Remove(
	ctx context.Context, instanceUUID string, id hypervisor.SnapshotID, options hypervisor.RemoveOptions,
) error {
	vm, err := m.vmOf(ctx, instanceUUID, id)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	began := m.now()
	ctx, phase := progress.Enter(ctx, "removing the snapshot", "vm", vm.Path, "snapshot", string(id))
	defer phase.Leave()
	err = m.hv.RemoveSnapshot(ctx, vm.ID, id, options)
	// The port says that a snapshot or a VM that is gone is no error; an implementation that races
	// with somebody else's removal may still say so.
	if gone(err) || errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s of %s: %w", id, vm.Path, err)
	}
	m.log.InfoContext(ctx, "snapshot removed", "vm", vm.Path, "id", string(id), "duration", progress.Since(began, m.now()))
	return nil
}

// vmOf finds the VM of a snapshot. Its *hypervisor.VMNotFoundError is certain: a user who may not see a VM
// finds as little as one whose VM was deleted, but the server doesn't deny him that the snapshot exists.
func (m *Manager) vmOf(
	ctx context.Context, instanceUUID string, id hypervisor.SnapshotID,
) (*hypervisor.VMIdentity, error) {
	vm, err := m.hv.IdentifyVM(ctx, instanceUUID)
	if !gone(err) {
		return vm, err
	}
	switch exists, existsErr := m.hv.SnapshotExists(ctx, id); {
	case existsErr != nil:
		return nil, fmt.Errorf("no VM has the instance UUID %s, and whether the snapshot is gone can't be told: %w",
			instanceUUID, existsErr)
	case exists:
		return nil, fmt.Errorf("the snapshot exists, but its VM (instance UUID %s) can't be found: %w",
			instanceUUID, hypervisor.ErrOutOfReach)
	}
	return nil, err
}

// gone reports whether err says that there is no such VM (any more).
func gone(err error) bool {
	var notFound *hypervisor.VMNotFoundError
	return errors.As(err, &notFound)
}
