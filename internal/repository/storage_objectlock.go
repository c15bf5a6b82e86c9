package repository

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
)

// An ObjectLock is for how long nobody can delete or overwrite what is written to a repository, which the storage
// sees to. Maintenance renews it for everything that is in the repository.
type ObjectLock struct {
	Mode   LockMode
	Period time.Duration // at least MinLockPeriod
}

// A LockMode says who can lift an ObjectLock. Azure has only what corresponds to LockCompliance.
type LockMode string

const (
	// LockGovernance lets those lift it who have a permission of its own.
	LockGovernance LockMode = "GOVERNANCE"
	// LockCompliance lets nobody lift it, not even the owner of the account.
	LockCompliance LockMode = "COMPLIANCE"
)

// MinLockPeriod is the shortest that maintenance once a day can renew in time, by what Kopia v0.23.1 asks.
const MinLockPeriod = 48 * time.Hour

// blobs is how Kopia writes the lock down.
func (l *ObjectLock) blobs() (format.BlobStorageConfiguration, error) {
	if l == nil {
		return format.BlobStorageConfiguration{}, nil
	}
	c := format.BlobStorageConfiguration{RetentionMode: blob.RetentionMode(l.Mode), RetentionPeriod: l.Period}
	if l.Period < MinLockPeriod || !c.RetentionMode.IsValid() {
		return c, fmt.Errorf("an object lock %q of %s: it must be %s or %s, of %s or more",
			l.Mode, l.Period, LockGovernance, LockCompliance, MinLockPeriod)
	}
	return c, nil
}

// lockOf is the lock that is configured; nil: none.
func (c Config) lockOf() *ObjectLock {
	if c.Place == nil {
		return nil
	}
	return c.Place.lock()
}

const (
	lockClaim    = ownBlobPrefix + "lock-" // claims that the lock of a repository is being changed
	lockClaimAge = time.Hour
	lockTimeout  = 5 * time.Minute
)

// check refuses a lock that is weaker than the one that a repository has: what is written would be deleted sooner
// than its owner was told. Error: ErrWeakerLock.
func (l *ObjectLock) check(has format.BlobStorageConfiguration) error {
	want, err := l.blobs()
	if l == nil || err != nil {
		return err
	}
	lifted := has.RetentionMode == blob.RetentionMode(LockCompliance) && want.RetentionMode != has.RetentionMode
	if lifted || want.RetentionPeriod < has.RetentionPeriod {
		return fmt.Errorf("%w: they are locked by %s, and %s is configured", ErrWeakerLock, describeLock(has), describeLock(want))
	}
	return nil
}

func describeLock(c format.BlobStorageConfiguration) string {
	period := c.RetentionPeriod.String()
	if day := 24 * time.Hour; c.RetentionPeriod%day == 0 {
		period = fmt.Sprintf("%d days", c.RetentionPeriod/day)
	}
	return strings.ToLower(string(c.RetentionMode)) + " for " + period
}

// checkLock refuses a configuration with a weaker lock than the repository's.
func (r *Repository) checkLock(ctx context.Context) error {
	if r.lock == nil {
		return nil
	}
	has, err := r.rep.FormatManager().BlobCfgBlob(ctx)
	if err != nil {
		return readError(err)
	}
	return r.lock.check(has)
}

// writeLock has the repository say how it is locked, which maintenance goes by, and other tools. The lock is only ever
// made stronger, by one process at a time. It stays if none is configured.
func (r *Repository) writeLock(ctx context.Context) error {
	if r.lock == nil {
		return nil
	}
	want, err := r.lock.blobs()
	if err != nil {
		return err
	}
	has, err := r.rep.FormatManager().BlobCfgBlob(ctx)
	if err != nil || has == want {
		return readError(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, fmt.Errorf("%w: it is too slow", ErrUnreachable))
	defer cancel()
	mine, err := awaitClaim(ctx, r.storage.Storage, lockClaim, lockClaimAge, makePatience)
	if err != nil {
		return fmt.Errorf("change the lock on its objects: %w", err)
	}
	defer mine.release(ctx)
	// Kopia relies for many minutes on what it read once. Another may have changed the lock since.
	now, err := r.readFormat(ctx)
	if err != nil {
		return readError(err)
	}
	if has, err = now.BlobCfgBlob(ctx); err == nil {
		err = r.lock.check(has)
	}
	if err != nil {
		return readError(err)
	}
	parameters, err := now.GetMutableParameters(ctx)
	if err != nil {
		return readError(err)
	}
	features, err := now.RequiredFeatures(ctx)
	if err != nil {
		return readError(err)
	}
	return writeError(r.rep.FormatManager().SetParameters(ctx, parameters, want, features))
}

// apply locks a blob that is about to be written, if it is of a kind that Kopia locks.
func (l *ObjectLock) apply(id blob.ID, o *blob.PutOptions) {
	if l == nil || !slices.ContainsFunc(repo.GetLockingStoragePrefixes(), func(prefix blob.ID) bool {
		return strings.HasPrefix(string(id), string(prefix))
	}) {
		return
	}
	o.RetentionMode, o.RetentionPeriod = blob.RetentionMode(l.Mode), l.Period
}
