package repository

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"
)

// ReclaimDelay is the least time from the deletion of a restore point until its space is free, by what
// Kopia's SafetyFull asks of maintenance once a day: the first marks data that is a day old, the third leaves out
// what was marked. Packs of which nothing is used are removed every other time, so that it may be the fourth; a
// pack of which a part is used is written anew before.
const ReclaimDelay = 48 * time.Hour

// MaintainOptions say when to maintain a repository.
type MaintainOptions struct {
	// Now maintains it even if that is not due yet.
	Now bool
	// Wait is how long to wait for those who write to the repository. Zero: not at all.
	Wait time.Duration
}

// Maintenance is what became of Maintain.
type Maintenance struct {
	Ran   bool
	Due   time.Time // when it is due next
	Freed int64     // bytes; negative where what was merged is not removed yet
	Swept int       // files that killed processes left behind
}

// Maintain removes data that no restore point uses any more, if that is due: once a day (Kopia's full
// maintenance). In a directory, it does so only while nobody writes to the repository, and nobody can write until it
// ends; in a Place, only while nobody else maintains it. A process that dies in the middle leaves a repository that is whole; what it didn't do is done the next time.
//
// Errors: ErrBusy (somebody writes or maintains; whoever comes next may try), ErrNotOwner, ErrReadOnly, ErrFull,
// ErrDamaged.
func (r *Repository) Maintain(ctx context.Context, o MaintainOptions) (*Maintenance, error) {
	m, err := r.maintain(ctx, o)
	if err != nil {
		return m, fmt.Errorf("maintain repository %s: %w", r.path, writeError(err))
	}
	return m, nil
}

func (r *Repository) maintain(ctx context.Context, o MaintainOptions) (*Maintenance, error) {
	m := &Maintenance{}
	if err := r.setDue(ctx, m); err != nil || !o.Now && time.Now().Before(m.Due) {
		return m, err
	}
	if err := r.checkWritable(ctx); err != nil {
		return m, err
	}
	ctx, unlock, err := r.alone(ctx, o.Wait)
	if err != nil {
		return m, err
	}
	defer unlock()
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if err := r.refresh(ctx); err != nil {
		return m, err
	}
	// Another process may have done it just now.
	if err := r.setDue(ctx, m); err != nil || !o.Now && time.Now().Before(m.Due) {
		return m, err
	}
	return m, r.runMaintenance(ctx, m)
}

// setDue finds out when maintenance is due.
func (r *Repository) setDue(ctx context.Context, m *Maintenance) error {
	schedule, err := maintenance.GetSchedule(ctx, r.rep)
	if err != nil {
		return readError(err)
	}
	m.Due = schedule.NextFullMaintenanceTime
	return nil
}

// alone takes the lock of maintenance. The returned context is that of the maintenance.
func (r *Repository) alone(ctx context.Context, wait time.Duration) (_ context.Context, unlock func(), err error) {
	if r.directory == "" {
		ctx, unlock, err = r.leaseMaintenance(ctx, wait)
		return ctx, unlock, err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	unlock, err = r.locker.lock(waiting, true)
	if err != nil && ctx.Err() != nil {
		return ctx, nil, ctx.Err()
	}
	return ctx, unlock, err
}

// runMaintenance maintains a repository that nobody else writes to.
func (r *Repository) runMaintenance(ctx context.Context, m *Maintenance) (err error) {
	if err := r.checkClock(ctx); err != nil {
		return err
	}
	if err := r.ensureOwner(ctx); err != nil {
		return err
	}
	before, err := r.size(ctx)
	if err != nil {
		return err
	}
	var swept int64
	if m.Swept, swept, err = r.sweep(ctx); err != nil {
		return fmt.Errorf("remove what killed processes left behind: %w", err)
	}
	if r.remote != nil {
		r.remote.unlocked.Store(nil)
	}
	err = repo.DirectWriteSession(ctx, r.rep, writeOptions("maintenance"),
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			// With less safety, Kopia removes what a writer that it doesn't know of is about to use: that writer's
			// restore point can't be read, and nobody is told. There is no way to ask for less.
			return snapshotmaintenance.Run(ctx, tableStreams{w}, maintenance.ModeFull, false, maintenance.SafetyFull)
		})
	var other maintenance.NotOwnedError
	if errors.As(err, &other) {
		return fmt.Errorf("%w: %s does", ErrNotOwner, other.Owner)
	}
	if err != nil && r.remote != nil {
		if cause := r.remote.unlocked.Load(); cause != nil {
			return *cause
		}
	}
	if err != nil {
		return readError(writeError(err))
	}
	m.Ran = true
	after, err := r.size(ctx)
	if err != nil {
		return err
	}
	m.Freed = before - after + swept
	return r.setDue(ctx, m)
}

// mostSkew is how much the clocks of a machine and of the storage may differ: Kopia (v0.23.1, checkClockSkewBounds) maintains nothing
// with more, because it tells by both what somebody writes now.
const mostSkew = 5 * time.Minute

// clockTest is the blob of which the time is that of the storage's clock. It has one name, so that one that is left behind by a
// run that was killed is written over, and deleted, by the next.
const clockTest = ownBlobPrefix + "clock-test"

// checkClock compares the clocks of the machine and of the storage.
func (r *Repository) checkClock(ctx context.Context) error {
	var there time.Time
	if err := r.storage.PutBlob(ctx, clockTest, blobBytes("x"), blob.PutOptions{GetModTime: &there}); err != nil {
		return writeError(err)
	}
	here := r.rep.Time()
	if err := r.storage.DeleteBlob(ctx, clockTest); err != nil {
		return writeError(err)
	}
	if skew := here.Sub(there); skew.Abs() > mostSkew {
		return fmt.Errorf("the clock of this machine says %s, and that of the storage %s: set the one that is wrong",
			here.UTC().Format(time.RFC3339), there.UTC().Format(time.RFC3339))
	}
	return nil
}

// size is how many bytes the repository takes.
func (r *Repository) size(ctx context.Context) (n int64, err error) {
	err = r.rep.BlobReader().ListBlobs(ctx, "", func(b blob.Metadata) error {
		n += b.Length
		return nil
	})
	return n, readError(err)
}
