// Package repository keeps restore points in a Kopia repository.
//
// A restore point is an ordinary Kopia snapshot, pinned, whose root directory holds backup.json (a
// Manifest), the captured configuration, firmware variables, and one raw image per disk. Stock Kopia
// tools list, verify, restore and mount it.
//
// Any number of processes may use a repository at once. To delete a restore point is to delete its manifest:
// the data goes through Kopia's own maintenance (Maintain), which waits until no writer can depend on it
// any more. In a directory it also runs only while nobody writes: a lock sees to that. Storage that other machines
// serve (Place) has no locks, and there writers rely on three things alone: maintenance with Kopia's full safety
// margin, of which there is one at a time (leaseMaintenance); the guard in Commit, which looks up everything that a
// restore point consists of; and that no time to speak of passes between the guard and the restore point
// (guardValidity). Nothing is offered there that would need more.
package repository

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/format"
)

// An ID names a restore point: the ID of its Kopia snapshot manifest, 32 hexadecimal digits.
type ID string

// valid reports whether id has the form of an ID.
func (id ID) valid() bool {
	b, err := hex.DecodeString(string(id))
	return err == nil && len(b) == 16
}

// A RestorePoint is an entry of the list of restore points: what is known without opening it.
type RestorePoint struct {
	ID           ID
	CreatedAt    time.Time
	VMName       string
	VMPath       string
	BIOSUUID     string
	InstanceUUID string
	Consistency  string
	Description  string
	SizeBytes    int64 // sum of the disks' capacities
	Tags         map[string]string
	Server       string // identity of the hypervisor's server
	Governed     bool   // a retention policy may remove it; all others are pinned
	Excluded     string // as Manifest.ExcludedKeys
}

// A Filter selects restore points; empty fields select all.
type Filter struct {
	VM             string // BIOS UUID, instance UUID, inventory path or name
	Before, After  time.Time
	Tags           map[string]string // all must match
	MinConsistency string            // "crash", "filesystem" or "application"

	// MinVerification selects those that are verified at this level at least (Verified).
	MinVerification VerifyLevel
}

// A Repository is an open repository. All its methods may be called concurrently.
type Repository struct {
	path      string // what messages call it
	directory string // that it is in; empty: it is in a Place
	workDir   string // holds Kopia's configuration file
	storage   *storage
	remote    *remoteStorage // nil: it is in a directory
	rep       repo.DirectRepository

	compression Compression   // of disks
	idle        *idleMeter    // what it goes by, if it is chosen
	working     chan struct{} // a token for each worker that has something to do

	owned atomic.Bool // maintenance is known to have an owner
	lock  *ObjectLock // nil: none

	// readFormat reads the format of the repository, and its lock, as they are now.
	readFormat func(ctx context.Context) (*format.Manager, error)

	locker   locker
	patience time.Duration // how long a writer waits for maintenance

	commitTimeout time.Duration

	// manifests keeps readers of manifests away from a running compaction, in which Kopia would
	// have them write.
	manifests sync.RWMutex
}

// ID identifies the repository itself, whatever path it is reached by: hexadecimal digits.
func (r *Repository) ID() string { return hex.EncodeToString(r.rep.UniqueID()) }

// Close releases the repository. Writers must be closed before.
func (r *Repository) Close(ctx context.Context) error {
	err := r.rep.Close(ctx)
	r.storage.unregister()
	if removeErr := os.RemoveAll(r.workDir); err == nil {
		err = removeErr
	}
	if err != nil {
		return fmt.Errorf("close repository %s: %w", r.path, err)
	}
	return nil
}

// enter waits until there is room for one more worker. The caller must leave, once or more.
func (r *Repository) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.working <- struct{}{}:
		return sync.OnceFunc(func() { <-r.working }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// refresh makes what other processes did visible. Kopia itself looks only every few minutes.
func (r *Repository) refresh(ctx context.Context) error {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if err := r.rep.Refresh(ctx); err != nil {
		return fmt.Errorf("read the index of repository %s: %w", r.path, readError(err))
	}
	return nil
}
