package repository

import (
	"context"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// fewManifests is how many contents with manifests are left alone. With as many, Kopia puts them into one.
const fewManifests = 16

// upkeep keeps a repository quick to open and to list, however many restore points it has. Nothing of it
// may fail an operation: what failed now is done after the next change.
func (r *Repository) upkeep(ctx context.Context) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if r.countManifests(ctx) >= fewManifests {
		r.compact(ctx)
	}
	r.mergeIndex(ctx)
}

// countManifests looks into the index alone.
func (r *Repository) countManifests(ctx context.Context) (n int) {
	_ = r.rep.ContentReader().IterateContents(ctx,
		content.IterateOptions{Range: index.PrefixRange(manifest.ContentPrefix)},
		func(content.Info) error { n++; return nil })
	return n
}

// compact lets Kopia put many small contents with manifests into one, which it does while it reads them.
func (r *Repository) compact(ctx context.Context) {
	r.manifests.Lock()
	defer r.manifests.Unlock()
	r.storage.compacting.Store(true)
	defer r.storage.compacting.Store(false)
	_ = repo.WriteSession(ctx, r.rep, writeOptions("compact"),
		func(ctx context.Context, w repo.RepositoryWriter) error {
			_, err := w.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
			return err
		})
}

// mergeIndex merges the index blobs of a time that is over, of which every write adds one: Kopia loads all
// of them when it opens a repository. Kopia's maintenance does the same, in the same way, about once in 24
// hours of writing; any number of processes may do it at once. Merged blobs are deleted hours later, when
// everybody has seen what replaces them.
func (r *Repository) mergeIndex(ctx context.Context) {
	epochs, ok, err := r.rep.ContentReader().EpochManager(ctx)
	if err != nil || !ok {
		return
	}
	if _, err := epochs.MaybeAdvanceWriteEpoch(ctx); err != nil {
		return
	}
	merged, err := epochs.MaybeCompactSingleEpoch(ctx)
	if err != nil || merged == nil {
		return
	}
	if _, err := epochs.MaybeGenerateRangeCheckpoint(ctx); err != nil {
		return
	}
	_, _ = epochs.CleanupSupersededIndexes(ctx) // as above
}
