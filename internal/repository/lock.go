package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A locker locks a repository, for all processes on all machines that use it. Whoever writes shares the lock;
// who maintains has it alone. It goes with the process that holds it, however that ends.
type locker interface {
	// lock waits for the lock until ctx ends, which gives ErrBusy. An error that wraps errNoLocks says that the
	// storage has no locks. unlock may be called once.
	lock(ctx context.Context, exclusive bool) (unlock func(), err error)
}

// errNoLocks says that a storage can't lock. Writers do without: that they add data needs none. Maintenance
// doesn't run then, as it could not be alone.
var errNoLocks = errors.New("the storage has no locks")

// noLocks is the locker of a Place.
type noLocks struct{}

func (noLocks) lock(context.Context, bool) (func(), error) { return nil, errNoLocks }

const (
	useFile    = ".terraform-vm.use"         // locked by whoever writes or maintains
	holderFile = ".terraform-vm.maintenance" // tells who maintains

	// lockPatience is how long a writer waits for maintenance, which takes minutes on a large repository.
	lockPatience = time.Hour
)

// fileLocker locks a repository in a directory by locking a file in it. The operating system does so for every
// process of a machine, and a file server that knows locks (NFS, SMB) for all machines.
type fileLocker struct{ directory string }

func (l fileLocker) lock(ctx context.Context, exclusive bool) (unlock func(), err error) {
	held, err := lockPath(ctx, filepath.Join(l.directory, useFile), exclusive, true)
	switch {
	case isContextError(err):
		return nil, fmt.Errorf("%w: %s", ErrBusy, l.holder())
	case err != nil:
		return nil, err
	}
	if !exclusive {
		return func() { _ = held.Unlock() }, nil // as closing does when the process ends
	}
	l.announce()
	return func() {
		_ = os.Remove(filepath.Join(l.directory, holderFile)) // one that stays says nothing once there is no lock
		_ = held.Unlock()
	}, nil
}

// A holder is who maintains a repository.
type holder struct {
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

func newHolder() holder {
	host, _ := os.Hostname()
	return holder{Host: host, PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second)}
}

func (h holder) String() string {
	return fmt.Sprintf("process %d on %s maintains it since %s", h.PID, h.Host, h.Since.Format(time.RFC3339))
}

func (h holder) bytes() blobBytes {
	b, _ := json.Marshal(h) // of a string, a number and a time
	return b
}

// announce says who has the lock alone, for those who wait for it. Nothing depends on it.
func (l fileLocker) announce() {
	_ = os.WriteFile(filepath.Join(l.directory, holderFile), newHolder().bytes(), 0o600)
}

// holder says who has the lock.
func (l fileLocker) holder() string {
	var h holder
	b, err := os.ReadFile(filepath.Join(l.directory, holderFile))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return "another process writes to it"
	}
	return h.String()
}

// lockPath locks a file, which it makes. It waits until ctx ends, or not at all, which gives ErrInUse. A file
// that is removed while it is waited for is made again: a lock on a file that nobody finds any more is none.
func lockPath(ctx context.Context, path string, exclusive, wait bool) (*flock.Flock, error) {
	for {
		// Network file systems lock alone only what is open for writing.
		f := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDONLY), flock.SetPermissions(0o600))
		try := f.TryRLock
		if exclusive {
			f = flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
			try = f.TryLock
		}
		locked, err := try()
		for delay := newBackoff(); wait && !locked && err == nil; {
			if err = delay.wait(ctx); err == nil {
				locked, err = try()
			}
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("lock: %w", lockError(err))
		case !locked:
			return nil, ErrInUse
		case isFound(f):
			return f, nil
		}
		_ = f.Unlock()
	}
}

// A backoff is the time between attempts at what somebody else is in the way of: file servers and storage services
// are asked each time.
type backoff struct{ next time.Duration }

const (
	backoffFirst = 20 * time.Millisecond
	backoffMax   = 2 * time.Second
)

func newBackoff() *backoff { return &backoff{next: backoffFirst} }

// wait waits, longer each time, or until ctx ends, which gives its error. Times differ at random, so that those who
// came at the same time don't come again at the same time.
func (b *backoff) wait(ctx context.Context) error {
	timer := time.NewTimer(b.next/2 + rand.N(b.next))
	defer timer.Stop()
	b.next = min(b.next*3/2, backoffMax)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isFound reports whether a lock is on the file that is found by its path.
func isFound(f *flock.Flock) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(f.Path())
	return err == nil && os.SameFile(open, found)
}

func lockError(err error) error {
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOLCK) {
		return fmt.Errorf("%w: %w", errNoLocks, err)
	}
	return writeError(err)
}

// share takes the lock of a writer. It waits while there is maintenance, for as long as the repository's
// patience lasts. Where storage is so full that the lock can't be had, maintenance may have it nevertheless.
func (r *Repository) share(ctx context.Context) (unlock func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	unlock, err = r.locker.lock(waiting, false)
	switch {
	case errors.Is(err, errNoLocks): // nobody can have it alone then
		return func() {}, nil
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return unlock, err
}
