package repository

import (
	"context"
	"errors"
	"fmt"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// SpaceOf is how many bytes of the repository only these restore points use, after compression: what comes back
// when they are deleted. It reads the chunk tables of all restore points, and no data; it takes about 100 bytes
// of memory for every chunk that the given ones consist of. What snapshots of other Kopia clients use counts as
// unused.
//
// Errors: ErrNotFound if one of them is gone, ErrDamaged.
func (r *Repository) SpaceOf(ctx context.Context, ids []ID) (int64, error) {
	n, err := r.spaceOf(ctx, ids)
	if err != nil {
		return 0, fmt.Errorf("measure restore points in repository %s: %w", r.path, readError(err))
	}
	return n, nil
}

func (r *Repository) spaceOf(ctx context.Context, ids []ID) (int64, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if err := r.refresh(ctx); err != nil {
		return 0, err
	}
	only := map[content.ID]bool{}
	going := map[ID]bool{}
	for _, id := range ids {
		going[id] = true
		if err := r.eachContent(ctx, id, func(c content.ID) { only[c] = true }); err != nil {
			return 0, fmt.Errorf("restore point %s: %w", id, err)
		}
	}
	points, err := r.list(ctx, Filter{})
	if err != nil {
		return 0, err
	}
	for _, p := range points {
		if going[p.ID] {
			continue
		}
		err := r.eachContent(ctx, p.ID, func(c content.ID) { delete(only, c) })
		if err != nil && !errors.Is(err, ErrNotFound) { // it was deleted meanwhile
			return 0, fmt.Errorf("restore point %s: %w", p.ID, err)
		}
	}
	var sum int64
	for c := range only {
		info, err := r.rep.ContentInfo(ctx, c)
		if err != nil {
			return 0, err
		}
		sum += int64(info.PackedLength)
	}
	return sum, nil
}

// eachContent yields every content that a restore point consists of, some of them several times.
func (r *Repository) eachContent(ctx context.Context, id ID, yield func(content.ID)) error {
	s, err := r.snapshot(ctx, id)
	if err != nil {
		return err
	}
	root, err := snapshotfs.SnapshotRoot(r.rep, s)
	if err != nil {
		return err
	}
	directory, ok := root.(kopiafs.Directory)
	if !ok {
		return fmt.Errorf("%w: its root is not a directory", ErrDamaged)
	}
	if err := r.contentsOf(ctx, s.RootEntry.ObjectID, yield); err != nil {
		return err
	}
	return kopiafs.IterateEntries(ctx, directory, func(ctx context.Context, e kopiafs.Entry) error {
		file, ok := e.(snapshot.HasDirEntry)
		if !ok {
			return fmt.Errorf("%w: %s is not a file", ErrDamaged, e.Name())
		}
		return r.contentsOf(ctx, file.DirEntry().ObjectID, yield)
	})
}

// contentsOf yields the contents of an object, and those of its chunk table.
func (r *Repository) contentsOf(ctx context.Context, id object.ID, yield func(content.ID)) error {
	tableID, ok := id.IndexObjectID()
	if !ok {
		c, _, ok := id.ContentID()
		if !ok {
			return fmt.Errorf("%w: unexpected object %s", ErrDamaged, id)
		}
		yield(c)
		return nil
	}
	if err := r.contentsOf(ctx, tableID, yield); err != nil {
		return err
	}
	var last object.ID // runs of zero chunks are long
	return eachChunk(ctx, r.rep, id, unknownLength, func(e object.IndirectObjectEntry) error {
		if e.Object == last {
			return nil
		}
		last = e.Object
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.contentsOf(ctx, e.Object, yield)
	})
}
