package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

const (
	manifestFile = "backup.json"

	// pin keeps restore points out of reach of Kopia's retention policies, whose defaults apply to
	// every snapshot.
	pin = "terraform"

	// commitTimeout bounds what must not stop half-way: the last flush. askTimeout bounds the question of what
	// became of it.
	commitTimeout = 10 * time.Minute
	askTimeout    = 2 * time.Minute

	// guardValidity is for how long what guard found out is relied on. In a Place, maintenance doesn't wait for
	// writers: what it marks as deleted afterwards can be gone no sooner than five hours later (Kopia's
	// MarginBetweenSnapshotGC and DropContentFromIndexExtraMargin), and not if there is a restore point by then.
	guardValidity = time.Hour
)

// Commit makes the restore point of the written disks, m and files (the captured configuration by
// file name, which m.Config names). The schema version is filled in. All is checked to be there before the Kopia manifest that makes
// the restore point appear is written, last of all. The Writer is used up if Commit succeeds.
//
// Errors: those of an invalid manifest; ErrIncomplete if data that was in the repository already was
// removed meanwhile (take the backup again); ErrSharedDamage if such data is damaged; ErrReadOnly, ErrFull.
// With an error there is no restore point, except with ErrUncertain.
func (w *Writer) Commit(ctx context.Context, m *Manifest, files map[string][]byte) (ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.repository
	if w.closed {
		return "", fmt.Errorf("commit to repository %s: %w", r.path, errWriterDone)
	}
	stamped := *m
	stamped.SchemaVersion = SchemaVersion
	if err := w.check(&stamped, files); err != nil {
		return "", fmt.Errorf("commit to repository %s: %w", r.path, err)
	}
	id, err := r.commit(ctx, &stamped, w.disks, files)
	if err != nil {
		return "", fmt.Errorf("commit to repository %s: %w", r.path, writeError(err))
	}
	r.upkeep(ctx)
	w.done()
	return id, nil
}

// check sees to it that the manifest is one that can be read again, and that it speaks of the disks
// and files that there are.
func (w *Writer) check(m *Manifest, files map[string][]byte) error {
	if err := m.Validate(); err != nil {
		return err
	}
	for _, d := range m.Disks {
		written := w.disks[d.File]
		switch {
		case written == nil:
			return fmt.Errorf("the manifest's disk %q was not written", d.File)
		case d.Capacity != written.capacity, d.Digest != written.result.Digest,
			d.Hashes != written.result.Hashes, d.ChunkSize != written.result.ChunkSize,
			d.DataBytes != written.result.DataBytes:
			return fmt.Errorf("the manifest's disk %q is not what was written: capacity %d, %+v",
				d.File, written.capacity, written.result)
		}
	}
	if len(w.disks) != len(m.Disks) {
		return fmt.Errorf("%d disks were written or tried, but the manifest has %d", len(w.disks), len(m.Disks))
	}
	for name := range files {
		if _, ok := w.disks[strings.TrimSuffix(name, hashesSuffix)]; ok || name == manifestFile {
			return fmt.Errorf("file %q is there already", name)
		}
		if err := checkFileName(name); err != nil {
			return err
		}
	}
	for _, name := range []string{m.Config.File, m.Config.NVRAM} {
		if _, ok := files[name]; name != "" && !ok {
			return fmt.Errorf("the manifest's configuration file %q is missing", name)
		}
	}
	return nil
}

func (r *Repository) commit(
	ctx context.Context, m *Manifest, disks map[string]*writtenDisk, files map[string][]byte,
) (_ ID, err error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	ctx, session, err := r.rep.NewDirectWriter(ctx, writeOptions("commit"))
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := session.Close(context.WithoutCancel(ctx)); err == nil {
			err = closeErr
		}
	}()
	entries, err := writeFiles(ctx, session, m, files)
	if err != nil {
		return "", err
	}
	for name, d := range disks {
		entries = append(entries, fileEntry(name, d.capacity, d.id),
			fileEntry(d.result.Hashes, hashesLength(d.capacity), d.hashes))
	}
	root, err := writeRoot(ctx, session, m, entries)
	if err != nil {
		return "", err
	}
	start := session.Time()
	if err := guard(ctx, session, root, entries, disks); err != nil {
		return "", err
	}
	if took := session.Time().Sub(start); took > guardValidity {
		return "", fmt.Errorf("%w: or may be, as looking it up took %s", ErrIncomplete, took.Round(time.Second))
	}
	return r.saveSnapshot(ctx, session, newSnapshot(m, root, session.Time()))
}

// saveSnapshot makes the restore point appear. From here on it is done or not, whatever becomes of
// ctx: a caller that is told of a failure must not find a restore point. Kopia has more to do when
// the index that makes it visible is written, and a failure of that is none of the restore point.
// So what counts is what the repository says.
func (r *Repository) saveSnapshot(
	ctx context.Context, session repo.RepositoryWriter, s *snapshot.Manifest,
) (ID, error) {
	id, err := snapshot.SaveSnapshot(ctx, session, s)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	flushCtx, cancel := context.WithTimeout(ctx, r.commitTimeout)
	defer cancel()
	flushCtx, unbind := r.bind(flushCtx)
	defer unbind()
	flushErr := session.Flush(flushCtx)
	if flushErr == nil {
		return ID(id), nil
	}
	askCtx, cancelAsk := context.WithTimeout(ctx, min(askTimeout, r.commitTimeout))
	defer cancelAsk()
	_, err = r.snapshot(askCtx, ID(id))
	switch {
	case err == nil:
		return ID(id), nil
	case errors.Is(err, ErrNotFound) && !errors.Is(flushErr, ErrUnreachable):
		return "", flushErr
	case errors.Is(err, ErrNotFound): // what was sent may arrive yet
		err = nil
	}
	return "", fmt.Errorf("restore point %s: %w: %w", id, ErrUncertain, errors.Join(writeError(flushErr), err))
}

// writeFiles stores the manifest and the files.
func writeFiles(
	ctx context.Context, session repo.RepositoryWriter, m *Manifest, files map[string][]byte,
) ([]*snapshot.DirEntry, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	all := maps.Clone(files)
	if all == nil {
		all = map[string][]byte{}
	}
	all[manifestFile] = append(b, '\n')
	var entries []*snapshot.DirEntry
	for _, name := range slices.Sorted(maps.Keys(all)) {
		id, err := writeObject(ctx, session, all[name])
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		entries = append(entries, fileEntry(name, int64(len(all[name])), id))
	}
	return entries, nil
}

func writeObject(ctx context.Context, session repo.RepositoryWriter, b []byte) (object.ID, error) {
	ow := session.NewObjectWriter(ctx, object.WriterOptions{
		Splitter: formatSplitter, Compressor: compressor, MetadataCompressor: compressor,
	})
	defer ow.Close() //nolint:errcheck // always nil
	if _, err := ow.Write(b); err != nil {
		return object.EmptyID, err
	}
	return ow.Result()
}

func fileEntry(name string, size int64, id object.ID) *snapshot.DirEntry {
	return &snapshot.DirEntry{
		Name: name, Type: snapshot.EntryTypeFile, Permissions: 0o600, FileSize: size, ObjectID: id,
	}
}

// writeRoot stores the directory of the restore point. Its files have the time of the disks.
func writeRoot(
	ctx context.Context, session repo.RepositoryWriter, m *Manifest, entries []*snapshot.DirEntry,
) (*snapshot.DirEntry, error) {
	at := kopiafs.UTCTimestampFromTime(m.CreatedAt)
	var b snapshotfs.DirManifestBuilder
	for _, e := range entries {
		e.ModTime = at
		b.AddEntry(e)
	}
	directory := b.Build(at, "")
	id, err := snapshotfs.WriteDirManifest(ctx, session, ".", directory, compressor)
	if err != nil {
		return nil, fmt.Errorf("write the directory: %w", err)
	}
	return &snapshot.DirEntry{
		Name: m.VM.Name, Type: snapshot.EntryTypeDirectory, Permissions: 0o700,
		ModTime: at, ObjectID: id, DirSummary: directory.Summary,
	}, nil
}

func newSnapshot(m *Manifest, root *snapshot.DirEntry, now time.Time) *snapshot.Manifest {
	return &snapshot.Manifest{
		Source:      snapshot.SourceInfo{UserName: clientUser, Host: m.VM.Server, Path: m.VM.Path},
		Description: m.Description,
		StartTime:   kopiafs.UTCTimestampFromTime(m.CreatedAt),
		EndTime:     kopiafs.UTCTimestampFromTime(now),
		Stats: snapshot.Stats{
			TotalFileCount:      int32(root.DirSummary.TotalFileCount),
			TotalFileSize:       root.DirSummary.TotalFileSize,
			TotalDirectoryCount: 1,
		},
		RootEntry: root,
		Tags:      labels(m),
		Pins:      []string{pin},
	}
}

// Delete removes a restore point from the list; its data goes through maintenance. Deleting one that
// is gone is no error.
func (r *Repository) Delete(ctx context.Context, id ID) error {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	_, err := r.snapshot(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete restore point %s: %w", id, err)
	}
	unlock, err := r.share(ctx)
	if errors.Is(err, ErrFull) { // deleting is the way out of that, and relies on no data that could go meanwhile
		unlock, err = func() {}, nil
	}
	if err != nil {
		return fmt.Errorf("delete restore point %s from repository %s: %w", id, r.path, err)
	}
	defer unlock()
	verifications, err := r.verificationsOf(ctx, id)
	if err != nil {
		return fmt.Errorf("delete restore point %s from repository %s: %w", id, r.path, err)
	}
	r.manifests.RLock()
	err = repo.WriteSession(ctx, r.rep, writeOptions("delete"),
		func(ctx context.Context, w repo.RepositoryWriter) error {
			for _, v := range verifications {
				if err := w.DeleteManifest(ctx, v); err != nil {
					return err
				}
			}
			return w.DeleteManifest(ctx, manifest.ID(id))
		})
	r.manifests.RUnlock()
	if err != nil {
		return fmt.Errorf("delete restore point %s from repository %s: %w", id, r.path, writeError(err))
	}
	r.upkeep(ctx)
	return nil
}
