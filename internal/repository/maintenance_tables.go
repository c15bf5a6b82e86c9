package repository

import (
	"context"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// tableStreams is a session in which maintenance looks for what is used. Kopia reads the chunk table of each disk
// as a whole for that, several at once: of a disk of 16 TiB that alone takes two gigabytes of memory. This
// reads it piece by piece.
type tableStreams struct{ repo.DirectRepositoryWriter }

// VerifyObject implements repo.Repository: it lists the contents that an object consists of, each of which is
// there. It takes Kopia's word for what is of another form than our disks, and for what is wrong.
func (s tableStreams) VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error) {
	if _, ok := id.IndexObjectID(); !ok {
		return s.DirectRepositoryWriter.VerifyObject(ctx, id)
	}
	var ids []content.ID
	known := map[content.ID]struct{}{}
	err := eachContent(ctx, s.DirectRepositoryWriter, id, unknownLength,
		func(_ object.IndirectObjectEntry, cid content.ID) error {
			if _, ok := known[cid]; ok {
				return nil
			}
			known[cid] = struct{}{}
			ids = append(ids, cid)
			_, err := s.ContentInfo(ctx, cid)
			return err
		})
	if err != nil {
		return s.DirectRepositoryWriter.VerifyObject(ctx, id)
	}
	return ids, nil
}
