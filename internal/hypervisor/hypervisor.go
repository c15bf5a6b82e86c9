// Package hypervisor is the port: what the provider asks of any hypervisor, in small role
// interfaces and plain values. Implementations translate between these and one vendor's API; nothing
// here names a vendor's type.
//
// # Conventions
//
// All methods may be called concurrently. A method returns when its work is done or has failed, not
// when it has been started. When ctx ends, a method stops what it started on the server, waits for
// the outcome, and returns an error that wraps ctx.Err(). Methods that clean up (Close, Abort) do so
// on a context of their own with a deadline of their own, so that a cancelled caller still cleans up.
//
// Errors are classified by the sentinels and types of this package; test with errors.Is and
// errors.As, never by text.
package hypervisor

import (
	"context"
	"time"
)

// A VMRef is what a person writes to name a VM: a managed object ID, a BIOS UUID, an instance UUID,
// an inventory path or a name.
type VMRef string

// A VMID is the hypervisor's own handle of a VM on one connection. It is opaque to callers.
type VMID string

// A SnapshotID is the hypervisor's own handle of a snapshot. It is opaque to callers.
type SnapshotID string

// A DiskKey identifies a disk of one VM at one point in time. It is opaque to callers, stable between
// the capture and the restore of a VM, and safe as a part of a file name.
type DiskKey string

// PowerState is whether a VM runs.
type PowerState string

// The power states of a VM.
const (
	PoweredOn  PowerState = "powered_on"
	PoweredOff PowerState = "powered_off"
	Suspended  PowerState = "suspended"
)

// A VM is a virtual machine as it is now.
type VM struct {
	ID              VMID
	Name            string
	Path            string // inventory path
	BIOSUUID        string // lower case, with dashes
	InstanceUUID    string // lower case, with dashes; unique on one server
	Server          string // identity of the server (or host) that manages the VM
	PowerState      PowerState
	GuestID         string // the hypervisor's identifier of the guest operating system
	HardwareVersion string
	GuestAgent      bool // the guest's agent (VMware Tools, QEMU guest agent, …) runs
	GuestIPAddress  string
	GuestAddresses  []string // all that the agent reports and others can reach, GuestIPAddress first
	Template        bool
	ChangeTracking  bool
	CPUs            int
	MemoryBytes     int64
	Disks           []Disk // in the order of the VM's controllers and units
	Obstacles       []Obstacle
}

// Identity is who the VM is.
func (vm *VM) Identity() VMIdentity {
	return VMIdentity{
		ID: vm.ID, Name: vm.Name, Path: vm.Path, BIOSUUID: vm.BIOSUUID, InstanceUUID: vm.InstanceUUID, Server: vm.Server,
	}
}

// A VMIdentity is who a VM is, and nothing of what it is like. Its fields are those of VM.
type VMIdentity struct {
	ID           VMID
	Name         string
	Path         string
	BIOSUUID     string
	InstanceUUID string
	Server       string
}

// A Disk is a virtual disk of a VM.
type Disk struct {
	Key       DiskKey
	Label     string // "Hard disk 1"
	Address   string // controller and unit, "scsi0:1"
	UUID      string // what the guest sees as the disk's serial number, where the hypervisor has it
	Capacity  int64  // bytes
	Datastore string
	Path      string // backing file as the hypervisor writes it
}

// ObstacleKind says why a VM, or a device of it, can't be captured at a point in time.
type ObstacleKind string

// The kinds of obstacles.
const (
	ObstacleTemplate       ObstacleKind = "template"
	ObstaclePhysicalRDM    ObstacleKind = "physical_rdm"
	ObstacleSharedBus      ObstacleKind = "shared_bus"
	ObstacleMultiWriter    ObstacleKind = "multi_writer"
	ObstacleFaultTolerance ObstacleKind = "fault_tolerance"
	ObstacleTPM            ObstacleKind = "vtpm"
	ObstacleEncryption     ObstacleKind = "encryption"
	ObstacleIndependent    ObstacleKind = "independent_disk"
	ObstacleLocked         ObstacleKind = "snapshots_locked"
	ObstacleDelta          ObstacleKind = "delta_disk" // of a restore in place only
)

// An Obstacle is something about a VM that stands in the way of a snapshot or a backup.
type Obstacle struct {
	Kind   ObstacleKind
	Device string  // label of the device, empty when it is about the VM as a whole
	Disk   DiskKey // set when leaving out this disk removes the obstacle
	Reason string  // one sentence: what is the matter
	Remedy string  // one sentence: what to do about it

	// BlocksSnapshot is set when not even a snapshot can be taken. Without it, a snapshot is
	// possible but doesn't cover the device.
	BlocksSnapshot bool
}

// A Finder looks up virtual machines.
type Finder interface {
	// FindVM resolves a reference. Errors: a *VMNotFoundError, an *AmbiguousVMError, ErrOutOfReach.
	FindVM(ctx context.Context, ref VMRef) (*VM, error)

	// VMByInstanceUUID finds a VM by the identity that state keeps. That it finds none is no proof that
	// the VM is gone: the user may not be allowed to see it. VMExists and SnapshotExists can prove it.
	// Errors: a *VMNotFoundError, ErrOutOfReach.
	VMByInstanceUUID(ctx context.Context, uuid string) (*VM, error)

	// IdentifyVM is VMByInstanceUUID for those who needn't know more than who the VM is. Who asks for a
	// thousand VMs spares the server the description of all their devices. Errors: as VMByInstanceUUID.
	IdentifyVM(ctx context.Context, uuid string) (*VMIdentity, error)

	// VMExists tells whether a handle that was recorded earlier, maybe on another connection to the same
	// server, still is one of a VM. It says no only where the server does. Error: a *PermissionError.
	VMExists(ctx context.Context, vm VMID) (bool, error)
}

// A SnapshotSpec describes a snapshot to take.
type SnapshotSpec struct {
	Name        string
	Description string
	Memory      bool
	Quiesce     *Quiesce // nil: the guest is not asked to quiesce
}

// Quiesce asks the guest to bring its file systems, and where it can its applications, to rest
// while a snapshot is taken.
type Quiesce struct {
	Timeout time.Duration // zero: the hypervisor's default
	VSS     *VSS          // Windows guests only; nil: the hypervisor's default
}

// VSS are the parameters of Microsoft's Volume Shadow Copy Service.
type VSS struct {
	Context             string // "auto", "backup" or "file_share"
	BackupType          string // "full", "incremental", "differential", "log" or "copy"
	BootableSystemState bool
	PartialFileSupport  bool
}

// A Snapshot is a snapshot of a VM.
type Snapshot struct {
	ID          SnapshotID
	Name        string
	Description string
	CreatedAt   time.Time
	PowerState  PowerState // of the VM that a revert leads to
	Memory      bool       // holds the memory of the running VM
	Quiesced    bool       // the guest really was quiesced
	Application bool       // quiesced with the guest's applications taking part (VSS writers)
	Parent      SnapshotID // empty for a root
	Children    []SnapshotID
	Path        string // names from the root, "a/b/c"
	Depth       int    // 1 for a root
	Current     bool   // the VM's running state descends from this snapshot directly
	SizeBytes   int64  // space that this snapshot holds on the datastore; -1: unknown
}

// RemoveOptions say how a snapshot is removed.
type RemoveOptions struct {
	Children      bool // remove the snapshots that descend from it too
	NoConsolidate bool // leave the delta disks for a later consolidation
}

// A Snapshotter takes and manages snapshots. Operations on one VM are serialised by the
// implementation, which also waits out other people's tasks on that VM.
type Snapshotter interface {
	// CreateSnapshot takes a snapshot. If it returns an error together with a non-empty ID, the
	// snapshot exists and the caller must keep or remove it. It is never repeated blindly.
	// Errors: a *VMNotFoundError, ErrQuiesce, ErrTooManySnapshots, an *ObstacleError,
	// an *InsufficientSpaceError, a *PermissionError.
	CreateSnapshot(ctx context.Context, vm VMID, spec SnapshotSpec) (SnapshotID, error)

	// Snapshots lists the snapshots of a VM, parents before their children.
	// Error: a *VMNotFoundError.
	Snapshots(ctx context.Context, vm VMID) ([]Snapshot, error)

	// SnapshotExists tells whether a handle that was recorded earlier still is one of a snapshot, of
	// whichever VM. It says no only where the server does. Error: a *PermissionError.
	SnapshotExists(ctx context.Context, id SnapshotID) (bool, error)

	// RenameSnapshot changes name and description. Errors: a *VMNotFoundError, ErrSnapshotNotFound,
	// ErrNotSupported (some hypervisors can't empty a description).
	RenameSnapshot(ctx context.Context, vm VMID, id SnapshotID, name, description string) error

	// RemoveSnapshot removes a snapshot and, unless told otherwise, sees to it that no delta disk
	// stays behind. A snapshot, or a VM, that is gone is no error; one that is of another VM counts as gone, and stays.
	// Error: ErrConsolidationNeeded (the snapshot is gone, its delta disks are not).
	RemoveSnapshot(ctx context.Context, vm VMID, id SnapshotID, options RemoveOptions) error
}

// A PowerController starts and stops virtual machines. A VM that already is in the wanted state is
// no error.
type PowerController interface {
	PowerOn(ctx context.Context, vm VMID) error

	// ShutDownGuest asks the guest to shut down and waits until the VM is powered off or ctx ends.
	// Errors: ErrGuestAgent when nothing in the guest can be asked; ErrShuttingDown when it was, or may have been.
	ShutDownGuest(ctx context.Context, vm VMID) error

	// PowerOff stops the VM at once.
	PowerOff(ctx context.Context, vm VMID) error
}

// A Config is everything about a VM but its disks, as captured at a point in time.
type Config struct {
	Format string // names the implementation and version that wrote Data, "vsphere/1"
	Data   []byte // opaque
	NVRAM  []byte // firmware variables, nil where there are none

	// Summary is the VM at the point in time; its disks have the keys that the captured
	// configuration uses.
	Summary VM

	// Warnings name what could not be captured, a sentence each.
	Warnings []string
}

// A PointInTimeSpec describes a point in time to open.
type PointInTimeSpec struct {
	// Name and Description go to the temporary snapshot, where the hypervisor needs one.
	Name        string
	Description string
	Quiesce     *Quiesce
	Exclude     []DiskKey // disks to leave out

	// ChangeTracking says what to do about it. Empty: TrackingUse.
	ChangeTracking ChangeTracking
}

// A PointInTimeOpener opens a VM's disks and configuration as of now, while the VM runs on.
type PointInTimeOpener interface {
	// OpenPointInTime takes a temporary snapshot, where the hypervisor needs one, and opens it. The
	// caller must close what it returns. On error nothing is left behind.
	// Errors: as CreateSnapshot.
	OpenPointInTime(ctx context.Context, vm VMID, spec PointInTimeSpec) (PointInTime, error)
}

// A PointInTime is an open point in time of a VM.
type PointInTime interface {
	// Snapshot is what was taken, with what really happened about quiescing.
	Snapshot() Snapshot

	// Config is the VM's configuration at the point in time. Its warnings are complete when all disks
	// have been read.
	Config() Config

	// OpenDisk opens one disk of the configuration's summary for one pass. Disks may be read
	// concurrently. That changes since the base can't be told is no error: then all of the disk is read,
	// and the plan says why. Errors of reading: ErrLost when the way to the data broke.
	OpenDisk(ctx context.Context, key DiskKey, request DiskRequest) (DiskReader, error)

	// Close ends reading and removes the temporary snapshot. It runs on a deadline of its own, also
	// when ctx is cancelled. A second call does nothing. An error names what was left behind.
	Close(ctx context.Context) error
}

// Identity says who a restored VM is.
type Identity string

const (
	// IdentityOriginal gives a restored VM the UUIDs, MAC addresses and disk UUIDs of the captured one.
	IdentityOriginal Identity = "original"
	// IdentityCopy gives it new ones.
	IdentityCopy Identity = "copy"
)

// A Hypervisor is a connection that plays all roles.
type Hypervisor interface {
	Finder
	Snapshotter
	SnapshotLister
	Reverter
	Consolidator
	PowerController
	GuestWatcher
	Screenshooter
	PointInTimeOpener
	Restorer
	InPlaceRestorer
	PrivilegeChecker

	// Server is the identity of the server: stable, unique, not secret.
	Server(ctx context.Context) (string, error)

	// Close logs out.
	Close(ctx context.Context) error
}
