package hypervisor

import (
	"context"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// An InPlaceSpec describes how disks of a VM that exists are replaced by captured ones.
type InPlaceSpec struct {
	VM     VMID
	Config Config // as captured; Summary.Disks are those in the backup, with UUID and Capacity

	// Disks are those to restore, by their keys in the captured configuration. Each is matched with the
	// VM's disk of the same UUID, else of the same controller and unit. Nil: all that are in the backup.
	Disks []DiskKey

	// Hardware brings the VM's configuration back to the captured one, as far as a VM's can be changed.
	// What can't be is named in a warning.
	Hardware bool

	// RemoveSnapshots allows to remove the VM's snapshots, without which its disks can't be replaced.
	RemoveSnapshots bool

	// PowerOff allows to stop the VM hard if its guest doesn't shut down within ShutdownTimeout, and to
	// discard the memory of a suspended one. Without it, such a VM is an error, ErrGuestAgent or
	// ErrShutdown, and stays as it is.
	PowerOff        bool
	ShutdownTimeout time.Duration // zero: 5 minutes

	// Ran says that the VM counts as one that was running, and is started if the restore is undone: an earlier one
	// had stopped it.
	Ran bool

	// Keep is for how long the caller is going to keep the disks that are replaced: who finishes the restore in its
	// place keeps them so long, at least.
	Keep time.Duration

	RunID string // names this run, as in a RestoreSpec

	// Then are operations that the caller is going to do on the VM once it has the restored disks.
	Then []Operation
}

// A Replaced disk is a disk that a restore in place took out of a VM. Its file is still there.
type Replaced struct {
	Label string
	Path  string // as the hypervisor writes it
	Now   string // path of the disk in its place

	// Until is when it may be deleted, as whoever replaced it wants it. Zero: he hasn't said so.
	Until time.Time
}

// LeaseRenewal is how often a restore renews its lease on the VM.
const LeaseRenewal = time.Minute

// An Interrupted restore in place is one that was neither finished nor undone: its run was killed, or goes on.
// The VM itself says so, in a journal that it carries.
type Interrupted struct {
	RunID string
	// Holder is the run that has the VM: the restore's own, or the one that is recovering from it.
	Holder string
	// Lease has another value after LeaseRenewal if the holder lives and gets through to the server. While the
	// VM is busy, that may take as long as the VM is. Empty: the holder renews none.
	Lease string
	Busy  bool // the server is carrying out something on the VM
	// Swapped is set when the VM has the restored disks, and the hardware where that was asked for: the run
	// only was not finished. Without it, the restore is undone.
	Swapped bool
	// Stopped is set when the VM was running and the run stopped it, or counts as such.
	Stopped bool
}

// An InPlaceRestorer replaces disks of VMs that exist.
type InPlaceRestorer interface {
	// CheckInPlace does everything that can be checked without changing anything. It returns warnings
	// that name what will change beyond the disks, and what will not be as captured.
	// Errors: a *VMNotFoundError, a *DiskMismatchError, ErrSnapshotsInTheWay, an *ObstacleError, an
	// *InsufficientSpaceError, ErrGuestAgent, ErrConfigFormat.
	CheckInPlace(ctx context.Context, spec InPlaceSpec) (warnings []string, err error)

	// StartInPlace makes room for the restored disks beside the VM's own, and writes a journal into the
	// VM. The VM isn't touched otherwise, and runs on. On error nothing is left behind. A VM with the
	// journal of another run is refused: an *InterruptedError. Errors: as CheckInPlace, a
	// *MissingPrivilegesError before anything is done.
	StartInPlace(ctx context.Context, spec InPlaceSpec) (InPlaceRestore, error)

	// InterruptedInPlace reads a VM's journal. Nil: it has none of its own.
	InterruptedInPlace(ctx context.Context, vm VMID) (*Interrupted, error)

	// RecoverInPlace takes the VM over for the run by, if it is still as it was found, and ends the interrupted
	// restore. The run that had the VM doesn't change it any more from then on. A restore that had swapped the disks is finished, another is
	// undone, and the VM started again if it was stopped for it. One whose VM was started since counts as the first. Either way the VM has one set of disks, all
	// of them complete; the uploaded disks that are not in use are removed, those of the VM never are; and
	// there is no journal any more. It returns the VM as it is, the disks that are not its any more and were
	// kept, and warnings. Restored disks that the VM had are kept as well when it gets its own back: somebody
	// may have worked with them since. A VM without a journal is left alone, and so is one whose journal is of
	// another VM, of which it is a copy. Of several runs that recover the same, one does: the others get an
	// *InterruptedError, as they do when the lease was renewed since it was found.
	RecoverInPlace(ctx context.Context, vm VMID, found Interrupted, by string) (*VM, []Replaced, []string, error)

	// KeptDisks reads what the VM says of disks that restores in place took out of it, or had given it, and of
	// which nobody has said yet that he knows of them: those that Finish and RecoverInPlace left, and are there. Each
	// comes with the latest time that it is to be kept until.
	KeptDisks(ctx context.Context, vm VMID) ([]Replaced, error)

	// ForgetKept makes the VM say nothing of disks any more, whether it did or not.
	ForgetKept(ctx context.Context, vm VMID, disks []Replaced) error

	// DeleteReplaced deletes disks that a restore in place took out of a VM. One that a VM uses, or of
	// which that can't be told, or that is gone is left alone; the first two are errors. The VM says nothing of
	// those that were deleted or are gone any more.
	DeleteReplaced(ctx context.Context, vm VMID, disks []Replaced) error
}

// An InPlaceRestore is a VM whose disks are being replaced. Every one must be ended by Finish, Abort or Leave. Until
// then it renews its lease on the VM. If another run has taken the VM over nevertheless, because this one was
// paused or could not get through, every method that would change the VM is an error that wraps ErrTakenOver.
type InPlaceRestore interface {
	// Holds tells, by an error, that the VM isn't this run's any more, or that it can't be told: ErrTakenOver.
	// Whoever changes the VM by other means than these methods asks before.
	Holds(ctx context.Context) error

	// WriteDisk fills a disk that will replace one of the VM's, by its key in the captured configuration.
	// The VM runs on meanwhile. Disks may be written concurrently. It returns only when the server has
	// the whole disk and its checksum of what arrived is ours.
	WriteDisk(ctx context.Context, key DiskKey, src disk.Source) error

	// Swap stops the VM, removes its snapshots where that is allowed, puts the disks that were written in
	// the place of its own in one atomic step, and brings back its hardware where that was asked for. The
	// VM is powered off afterwards and can be started. It returns the VM as it is, what was replaced, and
	// warnings. On error the VM has its own disks or, if the error is a *SwappedError, the restored ones.
	Swap(ctx context.Context) (*VM, []Replaced, []string, error)

	// Back puts the VM's own disks back after a successful Swap, and the hardware that it had. The VM must
	// be powered off.
	Back(ctx context.Context) error

	// Finish removes the journal. Replaced disks stay where they are; the VM says of those that are kept, see
	// KeptDisks.
	Finish(ctx context.Context, kept []Replaced) error

	// Leave ends the restore as it is, with its journal: the next one recovers from it. After Finish and Abort
	// it does nothing.
	Leave()

	// Abort removes what was written, if the VM doesn't use it, and the journal, and starts the VM again if
	// Swap had stopped it. It runs on a deadline of its own, also when ctx is cancelled. After Finish, and
	// when called again, it does nothing. An error names what was left behind.
	Abort(ctx context.Context) error
}
