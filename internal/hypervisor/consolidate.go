package hypervisor

import "context"

// A Consolidator merges delta disks that belong to no snapshot. They stay behind where something held a VM's files
// while a snapshot was removed, or where that was asked for (RemoveOptions.NoConsolidate); they grow and slow the VM
// down, and no list of snapshots shows them.
type Consolidator interface {
	// Consolidate merges the delta disks of a VM that belong to no snapshot, and reports whether there were any. It
	// returns when none is left, and waits a while for whatever holds their files. The VM may run. Where there are
	// none, nothing is done. Calling it again does no harm.
	// Errors: a *VMNotFoundError, ErrConsolidationNeeded (some are left, maybe for another error, which it wraps
	// too), an *InsufficientSpaceError, a *PermissionError.
	Consolidate(ctx context.Context, vm VMID) (needed bool, err error)
}
