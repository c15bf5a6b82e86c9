package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// A packError says that a pack lacks what the index has in it. It wraps ErrDamaged.
type packError struct {
	pack   blob.ID
	length int64 // that it has; negative: it is missing
}

func (e *packError) Error() string {
	if e.length < 0 {
		return fmt.Sprintf("%v: pack %s is missing", ErrDamaged, e.pack)
	}
	return fmt.Sprintf("%v: pack %s was cut off after %d bytes", ErrDamaged, e.pack, e.length)
}

func (e *packError) Unwrap() error { return ErrDamaged }

// eachContent calls yield for every content that an object consists of, with the part of the object that it is.
// Those of the object's chunk table come first, with a length of zero. The length in bytes is the object's, or
// unknownLength where it has a table.
func eachContent(ctx context.Context, r repo.Repository, id object.ID, length int64,
	yield func(part object.IndirectObjectEntry, id content.ID) error,
) error {
	one := func(part object.IndirectObjectEntry) error {
		cid, _, ok := part.Object.ContentID()
		if !ok {
			return fmt.Errorf("%w: unexpected object %s", ErrDamaged, part.Object)
		}
		return yield(part, cid)
	}
	tableID, ok := id.IndexObjectID()
	if !ok {
		return one(object.IndirectObjectEntry{Length: length, Object: id})
	}
	err := eachContent(ctx, r, tableID, unknownLength, func(part object.IndirectObjectEntry, cid content.ID) error {
		part.Start, part.Length = 0, 0
		return yield(part, cid)
	})
	if err != nil {
		return err
	}
	return eachChunk(ctx, r, id, length, func(part object.IndirectObjectEntry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return one(part)
	})
}

// verifyIndex looks for every content of the restore point's files in the index, and for their packs on the
// storage.
func (v *verifier) verifyIndex(ctx context.Context, s *snapshot.Manifest) error {
	if _, ok := v.entries[""]; !ok { // the directory itself
		v.entries[""] = &snapshot.DirEntry{ObjectID: s.RootEntry.ObjectID, FileSize: unknownLength}
	}
	packs := packLengths{}
	for _, e := range v.inOrder() {
		if err := v.lookUp(ctx, e, packs); err != nil {
			return err
		}
	}
	bad, err := packs.bad(ctx, v.rep.BlobReader())
	if err != nil || len(bad) == 0 {
		return err
	}
	for _, e := range v.inOrder() {
		if err := v.affected(ctx, e, bad); err != nil {
			return err
		}
	}
	return nil
}

// A verifiedFile is a file of the restore point.
type verifiedFile struct {
	name string
	disk *Disk // that it is of; nil: of none
	*snapshot.DirEntry
}

// part is what of a file is damaged.
func (f verifiedFile) part(offset, length int64, err error) Damage {
	d := Damage{File: f.name, Err: err}
	if f.disk != nil {
		d.Disk = f.disk.Label
		if f.name == f.disk.File {
			d.Offset, d.Length = offset, length
		}
	}
	return d
}

// inOrder are the files that there are, the disks last and their hashes before them.
func (v *verifier) inOrder() []verifiedFile {
	var files []verifiedFile
	for _, name := range slices.Sorted(maps.Keys(v.entries)) {
		f := verifiedFile{name: name, DirEntry: v.entries[name]}
		disks := v.result.Manifest.Disks
		if i := slices.IndexFunc(disks, func(d Disk) bool { return d.File == name || d.Hashes == name }); i >= 0 {
			f.disk = &disks[i]
		}
		files = append(files, f)
	}
	slices.SortStableFunc(files, func(a, b verifiedFile) int { return cmp.Compare(a.rank(), b.rank()) })
	return files
}

func (f verifiedFile) rank() int {
	switch {
	case f.disk == nil:
		return 0
	case f.name != f.disk.File:
		return 1
	default:
		return 2
	}
}

// lookUp looks for the contents of a file in the index, and enters their packs. The chunks of a disk's hole, one
// content many times over, are looked up once.
func (v *verifier) lookUp(ctx context.Context, f verifiedFile, packs packLengths) error {
	var last content.ID
	var missing error
	err := eachContent(ctx, v.rep, f.ObjectID, f.FileSize, func(part object.IndirectObjectEntry, cid content.ID) error {
		if cid != last {
			info, err := v.rep.ContentInfo(ctx, cid)
			switch {
			case err == nil:
				packs.add(info)
			case isMissing(err):
				err = fmt.Errorf("%w: %w", errContent, err)
			default:
				return err
			}
			last, missing = cid, err
		}
		if f.disk != nil && f.name == f.disk.File {
			v.advance(part.Length)
		}
		if missing == nil {
			return nil
		}
		return v.damaged(ctx, f.part(part.Start, part.Length, missing))
	})
	if err != nil {
		return v.damaged(ctx, f.part(0, 0, err))
	}
	return nil
}

// errContent says that the index knows nothing of a piece of a file, or that it isn't what was backed up.
var errContent = fmt.Errorf("%w: a part is lost", ErrDamaged)

// bad returns the packs that are missing or too short.
func (p packLengths) bad(ctx context.Context, storage blob.Reader) (map[blob.ID]*packError, error) {
	bad := map[blob.ID]*packError{}
	err := p.compare(ctx, storage, func(id blob.ID, length int64) error {
		bad[id] = &packError{id, length}
		return nil
	})
	return bad, err
}

// affected enters what of a file is in packs that are damaged.
func (v *verifier) affected(ctx context.Context, f verifiedFile, bad map[blob.ID]*packError) error {
	err := eachContent(ctx, v.rep, f.ObjectID, f.FileSize, func(part object.IndirectObjectEntry, cid content.ID) error {
		info, err := v.rep.ContentInfo(ctx, cid)
		if isMissing(err) {
			return nil // was entered before
		}
		if err != nil {
			return err
		}
		damage, ok := bad[info.PackBlobID]
		if !ok || int64(info.PackOffset)+int64(info.PackedLength) <= damage.length {
			return nil
		}
		return v.damaged(ctx, f.part(part.Start, part.Length, damage))
	})
	if errors.Is(readError(err), ErrDamaged) {
		return nil // as above
	}
	return err
}
