// Package backup takes restore points of virtual machines. Every backup has five steps: find the
// VM, take a temporary snapshot, open the disks as of that snapshot, copy disks and configuration,
// remove the snapshot. The fifth happens whatever became of the fourth.
package backup

import (
	"errors"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// ErrRequest is what a request gives that can't be carried out as it is written.
var ErrRequest = errors.New("invalid backup request")

// A Hypervisor is what this package needs of one.
type Hypervisor interface {
	hypervisor.Finder
	hypervisor.Snapshotter
	hypervisor.PointInTimeOpener
	hypervisor.PrivilegeChecker
}

// A Mode says how much of the disks is read. What is stored is the whole of them either way.
type Mode string

const (
	// ModeAuto reads what changed since the last backup, where the hypervisor can tell. It is the default.
	ModeAuto Mode = "auto"
	// ModeFull reads everything.
	ModeFull Mode = "full"
)

// A Recheck says how much of what didn't change is read nevertheless, and compared with what is in the
// repository. It is about change tracking; what is in the repository is verified by Manager.Verify.
type Recheck string

const (
	// RecheckNothing trusts the hypervisor's change tracking. It is the default.
	RecheckNothing Recheck = ""
	// RecheckSample reads a random share of it.
	RecheckSample Recheck = "sample"
)

// DefaultFullEvery is after how many incremental reads in a row a disk is read in full. That stores next to
// nothing anew. A change that tracking kept to itself is then found, repaired and warned of.
const DefaultFullEvery = 30

// A Request describes a backup to take.
type Request struct {
	VM          hypervisor.VMRef
	Description string
	Tags        map[string]string
	Quiesce     quiesce.Policy

	Mode           Mode                      // empty: ModeAuto
	ChangeTracking hypervisor.ChangeTracking // empty: hypervisor.TrackingUse
	Recheck        Recheck

	// FullEvery has a disk read in full after so many incremental reads in a row. Zero: DefaultFullEvery;
	// negative: never.
	FullEvery int

	// ExcludeDisks names disks to leave out, each by its label ("Hard disk 2"), its address
	// ("scsi0:1") or its UUID.
	ExcludeDisks []string

	// Retention governs the backup: once another is taken, it may be removed. After the backup is taken, those
	// of the VM that are governed and not kept are removed. Nil: the backup is pinned, and none is removed.
	Retention *Retention
}

// A Result is a backup that was taken.
type Result struct {
	ID       repository.ID
	Manifest *repository.Manifest
	Warnings []string // those of the manifest, and what went wrong after it was committed
	Pruned   []repository.ID
	Duration time.Duration
}

// A Check is what is known of a backup before it is taken.
type Check struct {
	VM       *hypervisor.VM
	Excluded []hypervisor.Disk
	Warnings []string

	snapshots []hypervisor.Snapshot
	shared    bool // other VMs have the VM's identity
}
