package hypervisor

import "context"

// RevertOptions say how a VM is brought back to a snapshot.
type RevertOptions struct {
	// Stay keeps the VM from being started by the revert, also where the snapshot holds the memory of a
	// running VM. It then is powered off or, with such a snapshot, suspended; that it is powered off also
	// with such a snapshot, which makes no use of the memory, is possible.
	Stay bool
}

// A Reverter brings VMs back to their snapshots.
type Reverter interface {
	// VMOfSnapshot finds the VM that a snapshot is of. Errors: ErrSnapshotNotFound (only if the server says
	// that there is no such snapshot), ErrOutOfReach, a *PermissionError.
	VMOfSnapshot(ctx context.Context, id SnapshotID) (*VM, error)

	// RevertChanges tells what a revert would change in the VM's configuration, and what it would leave as
	// it is although it belongs to the VM: a sentence each, in the present tense. Nothing is changed.
	// Errors: a *VMNotFoundError, ErrSnapshotNotFound (the VM has no such snapshot), a *PermissionError, an
	// *ObstacleError where the VM can't be reverted.
	RevertChanges(ctx context.Context, vm VMID, id SnapshotID) ([]string, error)

	// RevertToSnapshot brings disks and configuration of a VM, and its memory where the snapshot holds it,
	// back to a snapshot. What the VM is now is lost. A VM that runs is stopped at once. Without Stay, it
	// runs afterwards exactly if the snapshot holds the memory of a running VM. That the snapshot is the
	// current one afterwards is verified. Reverting again does no harm.
	//
	// It returns the VM as it is afterwards and, as RevertChanges, a sentence for each thing in its
	// configuration that the revert changed. With an error there is the VM if the revert itself succeeded.
	// Errors: as RevertChanges.
	RevertToSnapshot(ctx context.Context, vm VMID, id SnapshotID, options RevertOptions) (*VM, []string, error)
}
