package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// maxFileSize bounds the files that are read into memory, in bytes: the manifest, configurations,
// firmware variables.
const maxFileSize = 64 << 20

// Get returns the manifest of a restore point.
//
// Errors: ErrNotFound, ErrSchemaVersion, ErrDamaged.
func (r *Repository) Get(ctx context.Context, id ID) (*Manifest, error) {
	b, err := r.ReadFile(ctx, id, manifestFile)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("read restore point %s: %s: %w", id, manifestFile, readError(err))
	}
	return m, nil
}

// ReadFile returns one of the files that were given to Commit.
//
// Errors: ErrNotFound, ErrDamaged.
func (r *Repository) ReadFile(ctx context.Context, id ID, name string) ([]byte, error) {
	b, err := r.readFile(ctx, id, name)
	if err != nil {
		return nil, fmt.Errorf("read %s of restore point %s in repository %s: %w", name, id, r.path, err)
	}
	return b, nil
}

func (r *Repository) readFile(ctx context.Context, id ID, name string) ([]byte, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	e, err := r.entry(ctx, id, name)
	if err != nil {
		return nil, err
	}
	if e.FileSize > maxFileSize {
		return nil, fmt.Errorf("%d bytes are too many for a file", e.FileSize)
	}
	object, err := r.rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return nil, readError(err)
	}
	defer object.Close() //nolint:errcheck // nothing to lose after reading
	b := make([]byte, e.FileSize)
	if _, err := io.ReadFull(object, b); err != nil {
		return nil, readError(err)
	}
	return b, nil
}

// OpenDisk opens a disk that the restore point's manifest names. The DiskReader needs no closing.
//
// Errors: ErrNotFound, ErrDamaged.
func (r *Repository) OpenDisk(ctx context.Context, id ID, d Disk) (*DiskReader, error) {
	e, err := r.entry(ctx, id, d.File)
	if err == nil {
		_, err = disk.ParseDigest(string(d.Digest))
	}
	if err == nil && (e.FileSize != d.Capacity || d.Capacity <= 0) {
		err = fmt.Errorf("%w: it has %d bytes, the manifest says %d", ErrDamaged, e.FileSize, d.Capacity)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk %s of restore point %s in repository %s: %w", d.File, id, r.path, err)
	}
	return &DiskReader{repository: r, id: id, disk: d, object: e.ObjectID}, nil
}

// snapshot loads the Kopia manifest of a restore point.
func (r *Repository) snapshot(ctx context.Context, id ID) (*snapshot.Manifest, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if !id.valid() {
		return nil, fmt.Errorf("%w: %q is not the ID of one", ErrNotFound, string(id))
	}
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	r.manifests.RLock()
	defer r.manifests.RUnlock()
	var s snapshot.Manifest
	meta, err := r.rep.GetManifest(ctx, manifest.ID(id), &s)
	if errors.Is(err, manifest.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, readError(err)
	}
	if _, ok := restorePoint(meta); !ok || s.RootEntry == nil {
		return nil, fmt.Errorf("%w: the object with this ID is something else", ErrNotFound)
	}
	return &s, nil
}

// entry finds a file of a restore point.
func (r *Repository) entry(ctx context.Context, id ID, name string) (*snapshot.DirEntry, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	s, err := r.snapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	root, err := snapshotfs.SnapshotRoot(r.rep, s)
	if err != nil {
		return nil, readError(err)
	}
	directory, ok := root.(kopiafs.Directory)
	if !ok {
		return nil, fmt.Errorf("%w: its root is not a directory", ErrDamaged)
	}
	child, err := directory.Child(ctx, name)
	if errors.Is(err, kopiafs.ErrEntryNotFound) {
		return nil, errors.New("the restore point has no such file")
	}
	if err != nil {
		return nil, readError(err)
	}
	file, ok := child.(snapshot.HasDirEntry)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not a file", ErrDamaged, name)
	}
	return file.DirEntry(), nil
}
