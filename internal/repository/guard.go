package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// guardAttempts is how often data that maintenance marked as deleted is brought back.
const guardAttempts = 3

// packPrefixes begin the names of the blobs that hold contents: Kopia's packs of data and of metadata.
var packPrefixes = []blob.ID{content.PackBlobIDPrefixRegular, content.PackBlobIDPrefixSpecial}

// guard makes sure that everything that the restore point consists of is in the repository and
// stays. Writing data that is there already writes nothing, and maintenance of another process may
// have removed it since, or have marked it as deleted, to be removed later. Or the storage lost or
// damaged it, of which the index knows nothing: so the packs must be there and long enough, and all
// but the chunks of the disks is read back.
func guard(ctx context.Context, session repo.DirectRepositoryWriter,
	root *snapshot.DirEntry, entries []*snapshot.DirEntry, disks map[string]*writtenDisk,
) error {
	entries = append(slices.Clone(entries), root)
	packs, err := keep(ctx, session, entries)
	if err != nil {
		return err
	}
	if err := packs.check(ctx, session.BlobReader()); err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := disks[e.Name]; ok && e != root {
			continue
		}
		if err := readBack(ctx, session, e.ObjectID); err != nil {
			return fmt.Errorf("check %s: %w", e.Name, guardError(err))
		}
	}
	return nil
}

// keep sees to it that the index has all contents of the entries, none of them marked as deleted, and returns
// the packs that they are in.
func keep(ctx context.Context, session repo.DirectRepositoryWriter, entries []*snapshot.DirEntry) (packLengths, error) {
	for range guardAttempts {
		if err := session.Flush(ctx); err != nil {
			return nil, err
		}
		if err := session.Refresh(ctx); err != nil {
			return nil, readError(err)
		}
		revived, packs := 0, packLengths{}
		for _, e := range entries {
			n, err := revive(ctx, session, e.ObjectID, packs)
			if err != nil {
				return nil, fmt.Errorf("check %s: %w", e.Name, guardError(err))
			}
			revived += n
		}
		if revived == 0 {
			return packs, nil
		}
	}
	return nil, fmt.Errorf("%w: maintenance keeps deleting it", ErrIncomplete)
}

// guardError says which outcome it is that data can't be read which should be there. What the index doesn't
// have is written when the backup is taken again; what is lost otherwise isn't.
func guardError(err error) error {
	switch read := readError(err); {
	case errors.Is(err, content.ErrContentNotFound), errors.Is(err, object.ErrObjectNotFound):
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	case errors.Is(read, ErrDamaged):
		return fmt.Errorf("%w: %w", ErrSharedDamage, err)
	default:
		return read
	}
}

// revive looks for every content of an object and writes those anew that are marked as deleted. It
// returns their number, and enters the packs of the others. It does what Kopia's VerifyObject does
// without holding the chunk table.
func revive(
	ctx context.Context, session repo.DirectRepositoryWriter, id object.ID, packs packLengths,
) (revived int, err error) {
	var last content.ID // runs of zero chunks are long
	err = eachContent(ctx, session, id, unknownLength, func(_ object.IndirectObjectEntry, cid content.ID) error {
		if cid == last {
			return nil
		}
		last = cid
		info, err := session.ContentInfo(ctx, cid)
		if err != nil {
			return fmt.Errorf("content %s: %w", cid, err)
		}
		if !info.Deleted {
			packs.add(info)
			return nil
		}
		if err := session.ContentManager().UndeleteContent(ctx, cid); err != nil {
			return fmt.Errorf("content %s in %s: %w", cid, info.PackBlobID, err)
		}
		revived++
		return nil
	})
	return revived, err
}

// packLengths are the least lengths in bytes of packs, by what is in them.
type packLengths map[blob.ID]int64

func (p packLengths) add(info content.Info) {
	p[info.PackBlobID] = max(p[info.PackBlobID], int64(info.PackOffset)+int64(info.PackedLength))
}

// check returns ErrSharedDamage unless all packs are there and long enough. It uses them up.
func (p packLengths) check(ctx context.Context, storage blob.Reader) error {
	return p.compare(ctx, storage, func(id blob.ID, length int64) error {
		if length < 0 {
			return fmt.Errorf("%w: pack %s is missing", ErrSharedDamage, id)
		}
		return fmt.Errorf("%w: pack %s has %d bytes instead of at least %d", ErrSharedDamage, id, length, p[id])
	})
}

// compare calls bad for every pack that is too short or, with a negative length, missing. It uses the others up.
func (p packLengths) compare(
	ctx context.Context, storage blob.Reader, bad func(id blob.ID, length int64) error,
) error {
	for _, prefix := range packPrefixes {
		err := storage.ListBlobs(ctx, prefix, func(b blob.Metadata) error {
			if least, ok := p[b.BlobID]; ok && b.Length >= least {
				delete(p, b.BlobID)
			}
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("list packs: %w", readError(err))
		}
	}
	for id, least := range p { // a network file system may list what was a moment ago
		b, err := storage.GetMetadata(ctx, id)
		if errors.Is(err, blob.ErrBlobNotFound) {
			b.Length, err = -1, nil
		}
		if err == nil && b.Length < least {
			err = bad(id, b.Length)
		} else if err != nil {
			err = fmt.Errorf("pack %s: %w", id, readError(err))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBack reads an object.
func readBack(ctx context.Context, r repo.Repository, id object.ID) error {
	reader, err := r.OpenObject(ctx, id)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // nothing to lose after reading
	_, err = io.Copy(io.Discard, &contextReader{ctx, reader})
	return err
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context // of the one read
	io.Reader
}

func (r *contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}
