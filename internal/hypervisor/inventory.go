package hypervisor

import (
	"context"
	"iter"
)

// VMSnapshots are the snapshots of one VM.
type VMSnapshots struct {
	VM        VM
	Snapshots []Snapshot // parents before their children

	// Err is why the snapshots of this VM can't be listed, although it has some, or may have: ErrOutOfReach or a
	// *PermissionError. VM then has an ID, and a path where that can be read.
	Err error
}

// A SnapshotLister lists the snapshots of many VMs.
type SnapshotLister interface {
	// SnapshotsBelow yields the VMs that have snapshots, by name: those below a folder, given by its
	// inventory path, or all if it is empty. How much it asks of the server depends on how much there is
	// only by the hundreds, and what it yields is read as it is asked for. An error comes last.
	// Errors: a *NotAvailableError (folder), a *PermissionError.
	SnapshotsBelow(ctx context.Context, folder string) iter.Seq2[VMSnapshots, error]
}
