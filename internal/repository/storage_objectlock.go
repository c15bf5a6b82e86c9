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

// writeLock has the repository say how it is locked, which maintenance goes by, and other tools. One that is locked
// stays so if no lock is configured.
func (r *Repository) writeLock(ctx context.Context) error {
	if r.lock == nil {
		return nil
	}
	want, err := r.lock.blobs()
	if err != nil {
		return err
	}
	m := r.rep.FormatManager()
	got, err := m.BlobCfgBlob(ctx)
	if err != nil || got == want {
		return readError(err)
	}
	parameters, err := m.GetMutableParameters(ctx)
	if err != nil {
		return readError(err)
	}
	features, err := m.RequiredFeatures(ctx)
	if err != nil {
		return readError(err)
	}
	return writeError(m.SetParameters(ctx, parameters, want, features))
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
