package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// Outcomes that callers decide by. They come wrapped with the path and what is the matter.
var (
	ErrNotFound      = errors.New("restore point not found")
	ErrNoRepository  = errors.New("no repository")             // nothing at the path, or not a repository
	ErrPassword      = errors.New("wrong repository password") // or a damaged format blob, which looks the same
	ErrReadOnly      = errors.New("repository can't be written")
	ErrFull          = errors.New("no space left for the repository")
	ErrDamaged       = errors.New("repository is damaged")   // names the pack or index blob
	ErrNotMade       = fmt.Errorf("%w yet", ErrNoRepository) // of Open without Create: with it, one would be made
	ErrSchemaVersion = errors.New("restore point was written by a newer version")
	ErrIncomplete    = errors.New("data that the restore point re-uses is gone") // take the backup again, in full
	ErrTrackingWrong = errors.New("change tracking left out a change")
	ErrBusy          = errors.New("repository is in use") // by maintenance, or against it
	ErrNotOwner      = errors.New("repository is maintained by somebody else")
	ErrInUse         = errors.New("restore point is in use") // a restore reads from it

	// Of a Place.
	ErrUnreachable = errors.New("the repository's storage can't be reached") // or fails; it may pass
	ErrRefused     = errors.New("the repository's storage refuses access")   // with these credentials

	// ErrWeakerLock says that an ObjectLock is configured that would let objects go sooner than the repository's own.
	ErrWeakerLock = errors.New("the repository's objects are locked more strongly")

	// ErrUncertain says that a restore point is there or not: the repository failed at the very end, and couldn't
	// be asked any more. One that is there is whole.
	ErrUncertain = errors.New("whether the restore point was made is unknown")

	// ErrSharedDamage says that a new restore point can't be made: data that is in the repository already is not
	// stored again, even if it can't be read any more.
	ErrSharedDamage = fmt.Errorf("%w where the new restore point shares data with earlier ones", ErrDamaged)
)

// A DigestError says that a disk's content is not what was backed up. It wraps ErrDamaged.
type DigestError struct {
	ID        ID
	File      string
	Want, Got disk.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("restore point %s: %s has digest %s, but %s was backed up", e.ID, e.File, e.Got, e.Want)
}

func (e *DigestError) Unwrap() error { return ErrDamaged }

// writeError adds to an error of writing which outcome it is, where it is one.
func writeError(err error) error {
	switch {
	case err == nil, isOutcome(err), isContextError(err):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, systemError(err))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, systemError(err))
	default:
		return err
	}
}

// readError adds to an error of reading which outcome it is, where it is one. Kopia has no type for
// a failed checksum (its message names the blob): whatever the operating system had no part in is
// damage.
func readError(err error) error {
	switch {
	case err == nil, isOutcome(err), isContextError(err),
		errors.Is(err, repo.ErrRepositoryUnavailableDueToUpgradeInProgress):
		return err
	case errors.Is(err, repo.ErrInvalidPassword):
		return fmt.Errorf("%w: %w", ErrPassword, err)
	case isMissing(err), !isSystemError(err):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return err
	}
}

// isMissing reports whether err says that data of the repository isn't there.
func isMissing(err error) bool {
	return errors.Is(err, blob.ErrBlobNotFound) || errors.Is(err, content.ErrContentNotFound) ||
		errors.Is(err, object.ErrObjectNotFound)
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func isSystemError(err error) bool {
	var number syscall.Errno
	var path *fs.PathError
	return errors.As(err, &number) || errors.As(err, &path)
}

// systemError is what the operating system said: the operation, the file and the reason. Kopia repeats
// it several times on the way.
func systemError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path
	}
	return err
}

func isOutcome(err error) bool {
	for _, outcome := range []error{
		ErrNotFound, ErrNoRepository, ErrPassword, ErrReadOnly, ErrFull, ErrDamaged, ErrSchemaVersion, ErrIncomplete,
		ErrTrackingWrong, ErrBusy, ErrNotOwner, ErrInUse, ErrUnreachable, ErrRefused, ErrUncertain, ErrWeakerLock,
	} {
		if errors.Is(err, outcome) {
			return true
		}
	}
	return false
}
