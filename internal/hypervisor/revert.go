package hypervisor

import "context"

// RevertOptions say how a VM is brought back to a snapshot.
type RevertOptions struct {
	// Stay keeps the VM from being started by the revert, also where the snapshot holds the memory of a
	// running VM. It then is powered off or, with such a snapshot, suspended.
	Stay bool
}

// A Reverter brings VMs back to their snapshots.
type Reverter interface {
	// RevertToSnapshot brings disks and configuration of a VM, and its memory where the snapshot holds it,
	// back to a snapshot. What the VM is now is lost. A VM that runs is stopped at once. Without Stay, it
	// runs afterwards exactly if the snapshot holds the memory of a running VM. That the snapshot is the
	// current one afterwards is verified.
	//
	// It returns the VM as it is afterwards and a sentence for each thing in its configuration that the
	// revert changed. With an error there is the VM if the revert itself succeeded.
	// Errors: a *VMNotFoundError, ErrSnapshotNotFound, a *PermissionError, an *ObstacleError.
	RevertToSnapshot(ctx context.Context, vm VMID, id SnapshotID, options RevertOptions) (*VM, []string, error)
}
