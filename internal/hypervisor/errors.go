package hypervisor

import (
	"errors"
	"fmt"
	"strings"
)

// Outcomes that callers decide by. Implementations wrap them with what happened to which object.
var (
	// ErrSnapshotNotFound: the VM exists, the snapshot doesn't.
	ErrSnapshotNotFound = errors.New("snapshot not found")
	// ErrQuiesce: the guest could not be quiesced; there is no snapshot.
	ErrQuiesce = errors.New("the guest could not be quiesced")
	// ErrTooManySnapshots: the chain of snapshots is as deep as the hypervisor allows.
	ErrTooManySnapshots = errors.New("too many snapshot levels")
	// ErrConsolidationNeeded: delta disks are left that belong to no snapshot.
	ErrConsolidationNeeded = errors.New("disks need consolidation")
	// ErrGuestAgent: the guest's agent doesn't run.
	ErrGuestAgent = errors.New("guest agent is not running")
	// ErrShuttingDown: the guest was asked to shut down, or may have been, and isn't down yet.
	ErrShuttingDown = errors.New("the guest was asked to shut down")
	// ErrDisksInUse: a VM can't be deleted because another one has its disks, or is based on them.
	ErrDisksInUse = errors.New("its disks are in use by another virtual machine")
	// ErrTrackingLost: what changed since a point in time can't be told; read everything.
	ErrTrackingLost = errors.New("change tracking lost")
	// ErrLost: a connection or lease broke in the middle of a transfer.
	ErrLost = errors.New("connection lost")
	// ErrNotSupported: this hypervisor can't do that.
	ErrNotSupported = errors.New("not supported")
	// ErrTakenOver: another run has taken the restore over, as it does with one that was killed. The VM is its.
	ErrTakenOver = errors.New("another process took this restore for dead, and has taken it over")
	// ErrConfigFormat: the captured configuration is of another hypervisor or a newer version.
	ErrConfigFormat = errors.New("unknown format of captured configuration")
	// ErrOutOfReach: the object exists, but the user may not see it, or its configuration can't be read.
	ErrOutOfReach = errors.New("out of reach (the user may not see it, or its files or host can't be reached)")
	// ErrLogin: user name or password are wrong.
	ErrLogin = errors.New("login refused")
)

// A VMNotFoundError says that no VM matches.
type VMNotFoundError struct {
	Ref   string // what was looked for
	Where string // what was searched, for example the server's name
}

func (e *VMNotFoundError) Error() string {
	return fmt.Sprintf("no virtual machine %q on %s", e.Ref, e.Where)
}

// An AmbiguousVMError says that several VMs match.
type AmbiguousVMError struct {
	Ref     VMRef
	Matches []string // one readable line each: path and identifiers
}

func (e *AmbiguousVMError) Error() string {
	return fmt.Sprintf("%q matches %d virtual machines:\n  %s", e.Ref, len(e.Matches), strings.Join(e.Matches, "\n  "))
}

// An ObstacleError says that something can't be done with a VM, and why.
type ObstacleError struct {
	VM        string
	Action    string // what can't be done, "restored into"; empty: "captured"
	Obstacles []Obstacle
}

func (e *ObstacleError) Error() string {
	lines := make([]string, len(e.Obstacles))
	for i, o := range e.Obstacles {
		device := o.Device
		if device == "" {
			device = "virtual machine"
		}
		lines[i] = fmt.Sprintf("%s: %s %s", device, o.Reason, o.Remedy)
	}
	action := e.Action
	if action == "" {
		action = "captured"
	}
	return fmt.Sprintf("%s can't be %s:\n  %s", e.VM, action, strings.Join(lines, "\n  "))
}

// A NotAvailableError says that something a restore needs isn't there, and lists what is.
type NotAvailableError struct {
	Kind      string // "network", "datastore", "resource pool", "folder", "host", "disk in the backup"
	Name      string
	Available []string
}

func (e *NotAvailableError) Error() string {
	if len(e.Available) == 0 {
		return fmt.Sprintf("no %s %q; there is none at all", e.Kind, e.Name)
	}
	return fmt.Sprintf("no %s %q; there is: %s", e.Kind, e.Name, strings.Join(e.Available, ", "))
}

// An InsufficientSpaceError says that a datastore is too full. Sizes are in bytes.
type InsufficientSpaceError struct {
	Datastore string
	Need      int64 // zero: unknown
	Free      int64 // zero and Need zero: unknown
}

func (e *InsufficientSpaceError) Error() string {
	if e.Need == 0 {
		return fmt.Sprintf("not enough space on datastore %q", e.Datastore)
	}
	return fmt.Sprintf("not enough space on datastore %q: %d bytes needed, %d free", e.Datastore, e.Need, e.Free)
}

// An IdentityInUseError says that a VM with the same identity exists.
type IdentityInUseError struct {
	Kind  string // "BIOS UUID", "instance UUID", "MAC address"
	Value string
	VM    string // path of the VM that has it
}

func (e *IdentityInUseError) Error() string {
	return fmt.Sprintf("%s %s is in use by %s", e.Kind, e.Value, e.VM)
}

// A NameInUseError says that a VM of the same name exists in the folder.
type NameInUseError struct {
	Name   string
	Folder string
}

func (e *NameInUseError) Error() string {
	return fmt.Sprintf("folder %q already holds %q", e.Folder, e.Name)
}

// A HardwareVersionError says that the captured VM is too new for the target.
type HardwareVersionError struct {
	Version   string
	Supported []string
}

func (e *HardwareVersionError) Error() string {
	return fmt.Sprintf("hardware version %s is not supported by the target, which supports %s",
		e.Version, strings.Join(e.Supported, ", "))
}

// A CertificateError says that the server's certificate is not trusted.
type CertificateError struct {
	Server     string
	Thumbprint string // SHA-256 of the certificate the server presented, colon-separated hexadecimal
	Err        error
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("certificate of %s is not trusted (SHA-256 thumbprint %s): %v", e.Server, e.Thumbprint, e.Err)
}

func (e *CertificateError) Unwrap() error { return e.Err }

// An UnreachableError says that the server does not answer.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s can't be reached: %v", e.Server, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// A PermissionError says that the user lacks a privilege.
type PermissionError struct {
	Privilege string // or several, with commas
	Object    string
}

func (e *PermissionError) Error() string {
	if e.Privilege == "" { // the server doesn't say which
		return "a privilege is missing on " + e.Object
	}
	if strings.Contains(e.Privilege, ", ") {
		return fmt.Sprintf("privileges %s are missing on %s", e.Privilege, e.Object)
	}
	return fmt.Sprintf("privilege %s is missing on %s", e.Privilege, e.Object)
}

// Errors of a restore in place.
var (
	// ErrShutdown: the guest was asked to shut down and did not in time.
	ErrShutdown = errors.New("the guest did not shut down in time")

	// ErrSnapshotsInTheWay: disks that belong to snapshots can't be replaced.
	ErrSnapshotsInTheWay = errors.New("the disks belong to snapshots of the virtual machine")
)

// A DiskMismatchError says that a VM has no disk that a captured one could replace.
type DiskMismatchError struct {
	VM     string
	Disk   string   // label and address of the captured disk
	Reason string   // one sentence
	Disks  []string // labels and addresses of the disks that the VM has
}

func (e *DiskMismatchError) Error() string {
	return fmt.Sprintf("%s can't be restored into %s: %s (its disks: %s)", e.Disk, e.VM, e.Reason, strings.Join(e.Disks, ", "))
}

// An InterruptedError says that another restore in place of the VM was neither finished nor undone.
type InterruptedError struct {
	VM string
	Interrupted
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("another restore in place of %s (run %s) has not ended", e.VM, e.RunID)
}

// A SwappedError wraps what went wrong after the disks of a VM were replaced.
type SwappedError struct{ Err error }

func (e *SwappedError) Error() string { return "the disks are replaced, but: " + e.Err.Error() }

// Unwrap gives what went wrong.
func (e *SwappedError) Unwrap() error { return e.Err }
