// Package restore brings virtual machines back from restore points: it builds them anew, or puts restored
// disks into one that exists. A VM in the making can't be started; it becomes startable when all of its
// disks were written and their content is what was backed up. A restore that fails or is cancelled leaves
// what was there before.
package restore

import (
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// What callers decide by.
var (
	// ErrRequest is what a request gives that can't be carried out as it is written.
	ErrRequest = errors.New("invalid restore request")

	// ErrNotStarted: the VM is restored and complete, but it could not be started. It comes with a Result.
	ErrNotStarted = errors.New("it could not be started")

	// ErrGuest: the VM is restored and complete and was started, but its guest didn't report in time what
	// was waited for, or the VM stopped. It comes with a Result.
	ErrGuest = errors.New("the guest is not ready")

	// ErrOtherVM: the VM to restore into is not the one that was backed up.
	ErrOtherVM = errors.New("it is not the virtual machine that was backed up")

	// ErrReadFrom: a backup, or another restore, reads from a snapshot of the VM whose disks are to be replaced.
	ErrReadFrom = errors.New("a temporary snapshot of the virtual machine is being read from")
)

// A VerifyError says that a restored disk, read back, is not what was backed up.
type VerifyError struct {
	Disk string // label and address
	Want string // digest in the backup
	Got  string // digest of what was read
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("%s reads back with the digest %s, was backed up with %s", e.Disk, e.Got, e.Want)
}

// A Hypervisor is what this package needs of one.
type Hypervisor interface {
	hypervisor.Finder
	hypervisor.PowerController
	hypervisor.Snapshotter
	hypervisor.PointInTimeOpener
	hypervisor.Restorer
	hypervisor.InPlaceRestorer
	hypervisor.GuestWatcher
	hypervisor.Screenshooter
	hypervisor.PrivilegeChecker
}

// Power says whether a restored VM is started.
type Power string

// What can be asked for. The zero value means PowerAsCaptured for a new VM, and PowerAsBefore for a restore
// in place.
const (
	PowerAsCaptured Power = "as_captured" // on if it was on when the backup was taken
	PowerAsBefore   Power = "as_before"   // on if it was on before the restore in place
	PowerOn         Power = "on"
	PowerOff        Power = "off"
)

// A Request describes a restore.
type Request struct {
	BackupID repository.ID

	// NewVM says where to and as whom. Nil, and without InPlace: where it was, with its original identity.
	NewVM *NewVM

	// InPlace puts the disks into a VM that exists. It excludes NewVM.
	InPlace *InPlace

	// Disks are the labels, addresses or UUIDs of the disks to restore. Nil: all that the backup has.
	Disks []string

	Power Power

	// Verify reads the restored disks back, in another way than they were written, before the VM is started.
	Verify bool

	// WaitForGuest waits for the guest of a VM that was started. Nil: it doesn't.
	WaitForGuest *WaitForGuest
}

// NewVM describes the VM to make. Names that are empty mean the captured ones.
type NewVM struct {
	Name     string
	Identity hypervisor.Identity // empty: hypervisor.IdentityOriginal

	Folder         string            // inventory path
	ResourcePool   string            // inventory path or name
	Host           string            // empty: the cluster chooses
	Datastore      string            // for the VM and every disk that DiskDatastores doesn't name
	DiskDatastores map[string]string // by the disk's label, address or UUID
	NetworkMap     map[string]string // captured name to target name

	// ConnectNetworks says whether network adapters connect at power-on. Nil: those of an original
	// do, those of a copy don't, because a copy has the addresses that its guest is configured with.
	ConnectNetworks *bool
}

// InPlace describes how the disks of a VM that exists are replaced.
type InPlace struct {
	// VM is the one to restore into. Empty: the one that was backed up.
	VM hypervisor.VMRef

	// OtherVM allows to restore into a VM that is not the one that was backed up.
	OtherVM bool

	// RemoveSnapshots allows to remove the snapshots of the VM, without which its disks can't be replaced.
	RemoveSnapshots bool

	// PowerOff allows to stop the VM hard if its guest doesn't shut down within ShutdownTimeout, and to
	// discard the memory of a suspended one.
	PowerOff        bool
	ShutdownTimeout time.Duration // zero: the hypervisor's default

	// KeepHardware leaves the VM's configuration as it is, apart from the disks. Without it, it is brought
	// back to the captured one.
	KeepHardware bool

	// KeepReplacedDisks is for how long the disks that were replaced are kept; they are then the caller's to
	// delete (Result.Replaced, Manager.DeleteReplaced). Zero: they are deleted when the restore has succeeded, if
	// the VM was started or the restored disks were read back; otherwise they are kept for MinimumKeep.
	// Disks of an earlier restore that was killed are never deleted by this one, and kept for MinimumKeep at least.
	KeepReplacedDisks time.Duration
}

// MinimumKeep is for how long replaced disks are kept, whatever is asked for, when nobody can have seen yet
// whether what replaced them is any good.
const MinimumKeep = 24 * time.Hour

// WaitForGuest says what of a guest is waited for. Without Agent and Address: both.
type WaitForGuest struct {
	Agent   bool          // the guest's agent runs and gives signs of life
	Address bool          // the agent reports an address that others can reach
	Timeout time.Duration // zero: DefaultGuestTimeout
}

// DefaultGuestTimeout is how long a guest is waited for.
const DefaultGuestTimeout = 10 * time.Minute

// A Result is a VM that was restored.
type Result struct {
	VM            *hypervisor.VM
	Disks         []Disk
	RestoredBytes int64 // bytes of data that were written
	Verified      bool  // the disks were read back
	Warnings      []string
	CompletedAt   time.Time

	// Replaced are the disks that a restore in place took out of the VM and that are still there.
	// ReplacedUntil is when they may be deleted. It is not after CompletedAt where they are kept only because
	// something went wrong after the restore: the guest didn't come up, or they could not be deleted.
	Replaced      []hypervisor.Replaced
	ReplacedUntil time.Time
}

// A Disk is a disk that was restored.
type Disk struct {
	hypervisor.Disk
	RestoredBytes int64 // bytes of data that were written
	Digest        string
}
