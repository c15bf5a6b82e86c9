package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// holdPrefix begins the names of files that are locked while the restore point is in use that the rest names.
const holdPrefix = ".terraform-vm.hold-"

func (r *Repository) holdFile(id ID) string { return filepath.Join(r.directory, holdPrefix+string(id)) }

// Hold keeps a restore point from being removed by DeleteUnused until release is called or the process ends.
// It does what it can and no more: reading from a repository that can't be written, or not be locked, as none can in
// a Place, goes without. What is deleted under a reader can be read until maintenance has removed its data, which
// is no sooner than hours after; a reader that needs it longer gets ErrDamaged, and never wrong data.
// Errors: ErrNotFound, and those of reading.
func (r *Repository) Hold(ctx context.Context, id ID) (release func(), err error) {
	if !id.valid() {
		return nil, fmt.Errorf("hold restore point: %w: %q is not the ID of one", ErrNotFound, string(id))
	}
	release = func() {}
	if r.directory != "" {
		held, err := lockPath(ctx, r.holdFile(id), false, true)
		switch {
		case err == nil:
			release = func() {
				_ = held.Unlock()
				r.removeHold(ctx, id)
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
	if _, err := r.snapshot(ctx, id); err != nil {
		release()
		return nil, fmt.Errorf("hold restore point %s: %w", id, err)
	}
	return release, nil
}

// removeHold removes the file of a restore point that nobody else holds. One that stays is removed by
// maintenance.
func (r *Repository) removeHold(ctx context.Context, id ID) {
	if held, err := lockPath(ctx, r.holdFile(id), true, false); err == nil {
		_ = os.Remove(held.Path())
		_ = held.Unlock()
	}
}

// DeleteUnused is Delete for a restore point that nobody holds. Error: ErrInUse, and those of Delete.
func (r *Repository) DeleteUnused(ctx context.Context, id ID) error {
	if !id.valid() {
		return nil
	}
	if r.directory == "" {
		return r.Delete(ctx, id)
	}
	held, err := lockPath(ctx, r.holdFile(id), true, false)
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("delete restore point %s: %w", id, err)
	case errors.Is(err, errNoLocks), errors.Is(err, ErrFull): // nobody else could hold it then
		return r.Delete(ctx, id)
	case err != nil:
		return fmt.Errorf("delete restore point %s: %w", id, err)
	}
	defer func() {
		_ = os.Remove(held.Path())
		_ = held.Unlock()
	}()
	return r.Delete(ctx, id)
}
