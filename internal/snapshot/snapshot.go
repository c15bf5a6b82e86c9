// Package snapshot takes, renames, reads and removes snapshots of virtual machines, and guards the
// things that make snapshots hurt: deep chains, devices that a snapshot doesn't cover, and guests
// that were not quiesced although somebody counts on it.
package snapshot

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// Levels of a snapshot chain.
const (
	// WarnDepth is the depth of a chain beyond which every further snapshot brings a warning.
	WarnDepth = 3
	// MaxDepth is the deepest chain that a VM can have.
	MaxDepth = 32
)

// ErrRequest is what a request gives that contradicts itself.
var ErrRequest = errors.New("invalid snapshot request")

// A Hypervisor is what this package needs of one.
type Hypervisor interface {
	hypervisor.Finder
	hypervisor.Snapshotter
	hypervisor.PowerController
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
}

// DefaultShutDownTimeout is how long a guest may take to shut down.
const DefaultShutDownTimeout = 5 * time.Minute

// Taken is a snapshot that exists.
type Taken struct {
	VM          hypervisor.VM
	Snapshot    hypervisor.Snapshot
	Consistency quiesce.Consistency
	Warnings    []string // a sentence or two each
}

// Take takes a snapshot.
//
// When it returns an error together with a Taken, the snapshot exists and the caller must record
// it. Nothing else that it did is left behind by an error: a guest that it shut down is started
// again.
//
// Errors: ErrRequest, those of finding a VM, *hypervisor.ObstacleError, hypervisor.ErrTooManySnapshots,
// hypervisor.ErrQuiesce, hypervisor.ErrGuestAgent and the others of CreateSnapshot.
func (m *Manager) Take(ctx context.Context, r Request) (*Taken, error) {
	return m.take(ctx, r)
}

// Read returns a snapshot as it is now. Taken by Read, Consistency is what the hypervisor still
// knows: it can't tell that the guest was shut down cleanly before the snapshot.
// Errors: *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound.
func (m *Manager) Read(ctx context.Context, instanceUUID string, id hypervisor.SnapshotID) (*Taken, error) {
	return m.read(ctx, instanceUUID, id)
}

// List returns a VM and its snapshots, parents before their children.
func (m *Manager) List(ctx context.Context, ref hypervisor.VMRef) (*hypervisor.VM, []hypervisor.Snapshot, error) {
	return m.list(ctx, ref)
}

// Rename changes the name and description of a snapshot.
// Errors: *hypervisor.VMNotFoundError, hypervisor.ErrSnapshotNotFound, hypervisor.ErrNotSupported.
func (m *Manager) Rename(ctx context.Context, instanceUUID string, id hypervisor.SnapshotID, name, description string) error {
	return m.rename(ctx, instanceUUID, id, name, description)
}

// Remove removes a snapshot. One that is gone, or whose VM is gone, is no error.
// Error: hypervisor.ErrConsolidationNeeded (the snapshot is gone, its delta disks are not).
func (m *Manager) Remove(
	ctx context.Context, instanceUUID string, id hypervisor.SnapshotID, options hypervisor.RemoveOptions,
) error {
	return m.remove(ctx, instanceUUID, id, options)
}

// Check does at plan time what can be done without touching the VM: it resolves the reference,
// refuses what Take would refuse, and returns the warnings that Take would give.
func (m *Manager) Check(ctx context.Context, r Request) (*hypervisor.VM, []string, error) {
	return m.check(ctx, r)
}
