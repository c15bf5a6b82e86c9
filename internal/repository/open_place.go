package repository

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
)

const (
	// ownBlobPrefix begins the names of all blobs that are ours. Kopia lists blobs by other first letters, and
	// leaves alone what it doesn't know.
	ownBlobPrefix = "terraform-vm."

	makeClaim = ownBlobPrefix + "make-" // claims that a repository is being made

	// makeTimeout bounds how long it takes to make a repository, and makeClaimAge is when somebody who began to is
	// taken for dead: long after.
	makeTimeout  = 2 * time.Minute
	makeClaimAge = time.Hour

	// makePatience is how long to wait for another who makes the repository.
	makePatience = 30 * time.Second
)

// openPlace reaches a place and sees to it that there is a repository.
func openPlace(ctx context.Context, c Config) (_ *remoteStorage, err error) {
	s, err := connectPlace(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	found, err := hasRepository(ctx, s)
	switch {
	case err != nil || found:
		return s, err
	case !c.Create:
		if _, err := leftBlobs(ctx, s); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: it has no object %s", ErrNotMade, format.KopiaRepositoryBlobID)
	}
	return s, makeRepository(ctx, s, c)
}

func hasRepository(ctx context.Context, s blob.Storage) (bool, error) {
	_, err := s.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return false, nil
	}
	return err == nil, err
}

// makeRepository makes a repository where there is none. Only who claims to do so alone does: of two at once, the
// first would write with a key that the second then overwrites. The other waits for the repository.
func makeRepository(ctx context.Context, s *remoteStorage, c Config) error {
	waiting, cancel := context.WithTimeout(ctx, makePatience)
	defer cancel()
	for delay := newBackoff(); ; {
		err := makeAlone(ctx, s, c)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		if delay.wait(waiting) != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("make it: %w", err)
		}
		if found, err := hasRepository(ctx, s); err != nil || found {
			return err
		}
	}
}

// makeAlone makes a repository unless somebody else is about to, which gives ErrBusy.
func makeAlone(ctx context.Context, s *remoteStorage, c Config) error {
	// It ends long before others take its claim for dead.
	ctx, cancel := context.WithTimeoutCause(ctx, makeTimeout, fmt.Errorf("%w: it is too slow", ErrUnreachable))
	defer cancel()
	mine, err := takeClaim(ctx, s, makeClaim, makeClaimAge)
	if err != nil {
		return err
	}
	defer mine.release(ctx)
	if found, err := hasRepository(ctx, s); err != nil || found {
		return err
	}
	left, err := leftBlobs(ctx, s)
	if err == nil {
		err = refuseWithin(ctx, c.Place)
	}
	if err != nil {
		return err
	}
	for _, id := range left {
		if err := s.DeleteBlob(ctx, id); err != nil {
			return err
		}
	}
	return initialize(ctx, s, c)
}

// leftBlobs names what making a repository left behind that was killed, and refuses a place that somebody uses for
// something else.
func leftBlobs(ctx context.Context, s *remoteStorage) (ids []blob.ID, err error) {
	if _, ok := s.client().(*fileStorage); ok {
		err = s.do(ctx, "list", "", func(client blob.Storage) (err error) {
			ids, err = attempt(ctx, s.answer, client.(*fileStorage).left) //nolint:forcetypeassert // of the same place
			return err
		})
		return ids, err
	}
	err = s.listAll(ctx, "", func(b blob.Metadata) error {
		switch name := string(b.BlobID); {
		case name == format.KopiaBlobCfgBlobID:
			ids = append(ids, b.BlobID)
		case strings.HasPrefix(name, ownBlobPrefix), name == "": // a prefix may be an object itself
		default:
			return notEmpty(name)
		}
		return nil
	})
	return ids, err
}

func notEmpty(name string) error {
	return fmt.Errorf("%w: it is not empty (it has %q) and has no object %s", ErrNoRepository, name, format.KopiaRepositoryBlobID)
}

// refuseWithin refuses a place within that of another repository: to maintenance of the other, run by whatever
// program, blobs of the inner one can look like some of its own that nothing refers to, and it removes them.
func refuseWithin(ctx context.Context, place Place) error {
	for _, p := range place.around() {
		found, err := isMadeAt(ctx, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && found { // what nobody lets us see is somebody else's
			return within(p.String())
		}
	}
	return nil
}

func isMadeAt(ctx context.Context, place Place) (found bool, err error) {
	s, err := reach(ctx, place)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	return attempt(ctx, attemptTimeout, func(ctx context.Context) (bool, error) { return hasRepository(ctx, s) })
}

func within(outer string) error {
	return fmt.Errorf("%w: it is within another repository, %s, whose maintenance could remove what is in it",
		ErrNoRepository, outer)
}
