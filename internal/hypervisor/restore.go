package hypervisor

import (
	"context"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A RestoreSpec describes a VM to build from a captured configuration. Names that are empty mean the
// captured ones.
type RestoreSpec struct {
	Config   Config // Summary.Disks are those in the backup, with UUID and Capacity
	Identity Identity
	Name     string

	// Disks are those to restore, of Config.Summary.Disks. The VM gets no others; their controllers stay.
	// Nil: all. An empty list that isn't nil is refused.
	Disks []DiskKey

	Folder         string             // inventory path
	ResourcePool   string             // inventory path or name
	Host           string             // name, empty: the cluster chooses
	Datastore      string             // for the VM and all disks that DiskDatastores doesn't name
	DiskDatastores map[DiskKey]string // by disk
	Networks       map[string]string  // captured name to target name
	Disconnect     bool               // network adapters don't connect at power-on

	// Isolated makes a VM that nobody but its maker meets, and that can only boot from its disks: nothing it has
	// connects, nor can its guest connect it, its drives are empty, and it writes nothing outside its own directory;
	// it has no tags and custom attributes, by which others choose VMs. Where a captured network isn't there, an
	// adapter may be on any. It is for VMs that are only tried, by Verify.
	Isolated bool

	// RunID names this run; what it creates can be recognised by it until it is complete.
	RunID string

	// Then are operations that the caller is going to do on the finished VM, and for which the user needs
	// privileges as well.
	Then []Operation

	// Verify is called by Commit with a VM that is complete and powered off, and can still be recognised as
	// one in the making. It may start the VM, if it stops it again or fails. Its error fails the Commit, and Abort
	// stops the VM. Nil: nothing is verified.
	Verify func(ctx context.Context, vm VMID) error

	// Abandoned reports whether the run is over of a VM in the making that is in the way. What such a run left
	// behind doesn't count as a VM that has the identity or the name. Nil: no run is.
	Abandoned func(u Unfinished) bool
}

// An Unfinished restore is a VM in the making: its run was killed, or goes on.
type Unfinished struct {
	Name  string
	RunID string
	// Lease has another value after LeaseRenewal if the run lives and gets through to the server; see Interrupted.
	// Empty: none is renewed. So it is until the disks are written: until then, the server removes the VM by itself.
	Lease string
	Busy  bool // the server is carrying out something on the VM
}

// A Restorer builds VMs from captured configurations.
type Restorer interface {
	// CheckRestore does everything that can be checked without creating anything. It returns
	// warnings that name what will not be restored as captured, and what StartRestore will remove first.
	// A disk that Disks leaves out is named if the VM is to be the original; a copy without it is what was
	// asked for. That the VM boots from a disk it doesn't get is always named.
	// Errors: an *IdentityInUseError, a *NameInUseError, a *NotAvailableError, an *InsufficientSpaceError,
	// a *HardwareVersionError, ErrConfigFormat.
	CheckRestore(ctx context.Context, spec RestoreSpec) (warnings []string, err error)

	// StartRestore creates the VM with empty disks, in a state in which it can't be started. What an
	// abandoned run left behind in its place is removed first, and waited for as long as the server
	// holds it. On error nothing is left behind. Errors: as CheckRestore, a *MissingPrivilegesError before
	// anything is done.
	StartRestore(ctx context.Context, spec RestoreSpec) (Restore, error)

	// CleanUpRestores removes VMs in the making that runs left behind which were killed, if abandoned says so of
	// them. It returns the names of what it removed. One whose lease was renewed since it was shown to abandoned
	// stays. It doesn't wait for what the server still holds, which is no error: that is in nobody's way, or
	// StartRestore waits for it.
	CleanUpRestores(ctx context.Context, abandoned func(Unfinished) bool) (removed []string, err error)

	// DestroyVM powers a VM off and removes it with its disks. A VM that is gone is no error.
	// Error: ErrDisksInUse.
	DestroyVM(ctx context.Context, vm VMID) error
}

// A Restore is a VM in the making. Every restore must be ended by Commit or Abort.
type Restore interface {
	// VM is the handle of the VM in the making.
	VM() VMID

	// WriteDisk fills one disk of the configuration. Disks may be written concurrently. It returns
	// only when the server has the whole disk and its checksum of what arrived is ours.
	WriteDisk(ctx context.Context, key DiskKey, src disk.Source) error

	// Commit finishes the VM: everything of the captured configuration that could not be set at
	// creation. Meanwhile it renews a lease on the VM; ErrTakenOver: another run has removed it, having found that
	// nobody renewed it. The VM is powered off afterwards and can be started. It returns the VM as it is, and
	// warnings. On error the caller must call Abort.
	Commit(ctx context.Context) (*VM, []string, error)

	// Abort removes the VM and its files. It runs on a deadline of its own, also when ctx is
	// cancelled. After a successful Commit, and when called again, it does nothing.
	Abort(ctx context.Context) error
}
