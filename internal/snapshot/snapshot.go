// Package snapshot takes, renames, reads and removes snapshots of virtual machines, one by one and in
// sets that belong together, and brings VMs back to them. It guards the things that make snapshots hurt:
// deep chains, devices that a snapshot doesn't cover, guests that were not quiesced although somebody
// counts on it, and VMs that are not in the state that they were expected in after a revert.
package snapshot

import (
	"errors"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// WarnDepth is the depth of a chain beyond which every further snapshot brings a warning.
const WarnDepth = 3

// ErrRequest is what a request gives that contradicts itself.
var ErrRequest = errors.New("invalid snapshot request")

// A Hypervisor is what this package needs of one.
type Hypervisor interface {
	hypervisor.Finder
	hypervisor.Snapshotter
	hypervisor.SnapshotLister
	hypervisor.Reverter
	hypervisor.Consolidator
	hypervisor.PowerController
	hypervisor.PrivilegeChecker
}

// A Manager takes and manages snapshots. Its methods may be called concurrently.
type Manager struct {
	hv  Hypervisor
	log *slog.Logger
	now func() time.Time
}

// New makes a Manager. now is the clock, usually time.Now.
func New(hv Hypervisor, log *slog.Logger, now func() time.Time) *Manager {
	return &Manager{hv: hv, log: log, now: now}
}

// A Request describes a snapshot to take.
type Request struct {
	VM          hypervisor.VMRef
	Name        string
	Description string
	Memory      bool
	Quiesce     quiesce.Policy

	// ShutDown stops the guest cleanly before the snapshot and starts it again afterwards.
	ShutDown        bool
	ShutDownTimeout time.Duration // zero: DefaultShutDownTimeout

	orNothing bool // it is removed if something goes wrong once it is there
}

// DefaultShutDownTimeout is how long a guest may take to shut down.
const DefaultShutDownTimeout = 5 * time.Minute

// Taken is a snapshot that exists.
type Taken struct {
	VM          hypervisor.VMIdentity
	Snapshot    hypervisor.Snapshot
	Consistency quiesce.Consistency
	Warnings    []string // a sentence or two each

	called, answered time.Time // by our clock, when the snapshot was asked for and when it was there
}
