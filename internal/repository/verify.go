package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// A VerifyLevel says how thoroughly a restore point is verified. Each level covers those before it.
type VerifyLevel string

const (
	// VerifyIndex: every piece that the restore point consists of is in the index, in a pack that is there and
	// long enough. Of what is stored, only the manifest and the chunk tables are read.
	VerifyIndex VerifyLevel = "index"
	// VerifyData: every byte is read, decrypted and compared with the digests that were taken with the backup.
	VerifyData VerifyLevel = "data"
	// VerifyRestore: a VM was built from it, and its guest came up.
	VerifyRestore VerifyLevel = "restore"
)

// VerifyLevels are all levels, the least first.
func VerifyLevels() []VerifyLevel { return []VerifyLevel{VerifyIndex, VerifyData, VerifyRestore} }

// Covers reports whether a verification of level l is one of level other, too.
func (l VerifyLevel) Covers(other VerifyLevel) bool {
	levels := VerifyLevels()
	mine, others := slices.Index(levels, l), slices.Index(levels, other)
	return others >= 0 && mine >= others
}

// Damage is a part of a restore point that can't be had back as it was backed up.
type Damage struct {
	File string // of the restore point; empty: its directory
	Disk string // label of the disk that the file is of; empty: of none

	// Offset and Length are the bytes of the disk that are affected. Length zero: the file as a whole.
	Offset, Length int64

	Err error // what is the matter: ErrDamaged, and a *DigestError
}

func (d Damage) String() string {
	name := d.File
	switch {
	case name == "":
		name = "the list of files"
	case d.Disk != "" && d.Length > 0:
		return fmt.Sprintf("%s (%s), bytes %d to %d: %v", d.Disk, d.File, d.Offset, d.Offset+d.Length-1, d.Err)
	case d.Disk != "":
		name = fmt.Sprintf("%s (%s)", d.Disk, d.File)
	}
	return fmt.Sprintf("%s: %v", name, d.Err)
}

// maxDamages is how many damages are told apart; of the others there only is a count.
const maxDamages = 100

// A VerifyResult is what a verification found.
type VerifyResult struct {
	Manifest  *Manifest // nil: it can't be read
	ReadBytes int64     // of disks' data that was read and is as it should be; zero at VerifyIndex
	Damage    []Damage  // in the order of the files; adjacent ones of one reason are one
	More      int       // damages that are not listed any more
}

// A verifier verifies one restore point.
type verifier struct {
	*Repository
	id       ID
	level    VerifyLevel
	progress func(done, total int64)
	entries  map[string]*snapshot.DirEntry // the restore point's files
	total    int64                         // of progress
	done     int64
	result   VerifyResult
}

// Verify verifies a restore point, at VerifyIndex or VerifyData. It changes nothing. Whoever calls it holds the
// restore point (Hold). progress is told how far it is, in bytes of the disks, never by two goroutines at once; nil:
// nobody wants to know.
//
// What is damaged is in the result, and no error. Errors: ErrNotFound, ErrSchemaVersion, those of a storage that
// can't be read and, of a repository in which the restore point can't be found for damage, ErrDamaged.
func (r *Repository) Verify(
	ctx context.Context, id ID, level VerifyLevel, progress func(done, total int64),
) (*VerifyResult, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	v := &verifier{Repository: r, id: id, level: level, progress: progress}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify restore point %s in repository %s: %w", id, r.path, err)
	}
	return &v.result, nil
}

func (v *verifier) run(ctx context.Context) error {
	ctx, unbind := v.bind(ctx)
	defer unbind()
	if v.level != VerifyIndex && v.level != VerifyData {
		return fmt.Errorf("unknown level %q", v.level)
	}
	s, err := v.snapshot(ctx, v.id)
	if err != nil {
		return err
	}
	if err := v.checkIndex(ctx); err != nil {
		return v.damaged(ctx, Damage{Err: err})
	}
	if v.entries, err = v.files(ctx, s); err != nil {
		return v.damaged(ctx, Damage{Err: err})
	}
	v.result.Manifest, err = v.Get(ctx, v.id)
	if errors.Is(err, ErrSchemaVersion) {
		return err
	}
	if err != nil { // whatever else there is, nobody could make anything of it
		return v.damaged(ctx, Damage{File: manifestFile, Err: err})
	}
	if err := v.checkFiles(ctx); err != nil {
		return err
	}
	if v.level == VerifyIndex {
		return v.verifyIndex(ctx, s)
	}
	return v.verifyData(ctx)
}

// damaged enters a damage. What isn't one it returns: that the storage can't be reached says nothing about what
// is stored there.
func (v *verifier) damaged(ctx context.Context, d Damage) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d.Err = readError(d.Err); !errors.Is(d.Err, ErrDamaged) {
		return d.Err
	}
	list := v.result.Damage
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.File == d.File && d.Length > 0 && last.Offset+last.Length == d.Offset && sameDamage(last.Err, d.Err) {
			last.Length += d.Length
			return nil
		}
	}
	if len(list) == maxDamages {
		v.result.More++
		return nil
	}
	v.result.Damage = append(list, d)
	return nil
}

// sameDamage reports whether two damages come of one: of the same pack, or of the same kind.
func sameDamage(a, b error) bool {
	var one, other *packError
	if errors.As(a, &one) && errors.As(b, &other) {
		return one.pack == other.pack
	}
	return errors.Is(a, errContent) && errors.Is(b, errContent)
}

// files lists the files of a restore point.
func (v *verifier) files(ctx context.Context, s *snapshot.Manifest) (map[string]*snapshot.DirEntry, error) {
	root, err := snapshotfs.SnapshotRoot(v.rep, s)
	if err != nil {
		return nil, err
	}
	directory, ok := root.(kopiafs.Directory)
	if !ok {
		return nil, fmt.Errorf("%w: its root is not a directory", ErrDamaged)
	}
	entries := map[string]*snapshot.DirEntry{}
	err = kopiafs.IterateEntries(ctx, directory, func(_ context.Context, e kopiafs.Entry) error {
		file, ok := e.(snapshot.HasDirEntry)
		if !ok {
			return fmt.Errorf("%w: %s is not a file", ErrDamaged, e.Name())
		}
		entries[e.Name()] = file.DirEntry()
		return nil
	})
	return entries, err
}

// checkFiles makes sure that there are all files that the manifest names, and that they have their sizes. Those
// that fail are left out of what follows.
func (v *verifier) checkFiles(ctx context.Context) error {
	m := v.result.Manifest
	want := func(name, disk string, size int64) error {
		e, ok := v.entries[name]
		switch {
		case name == "":
			return nil
		case !ok:
			return v.damaged(ctx, Damage{File: name, Disk: disk, Err: fmt.Errorf("%w: there is no such file", ErrDamaged)})
		case size >= 0 && e.FileSize != size:
			delete(v.entries, name)
			return v.damaged(ctx, Damage{File: name, Disk: disk, Err: fmt.Errorf(
				"%w: it has %d bytes instead of %d", ErrDamaged, e.FileSize, size)})
		}
		return nil
	}
	for _, name := range []string{m.Config.File, m.Config.NVRAM} {
		if err := want(name, "", -1); err != nil {
			return err
		}
	}
	for _, d := range m.Disks {
		v.total += d.DataBytes
		if v.level == VerifyIndex {
			v.total += d.Capacity - d.DataBytes
		}
		if err := want(d.File, d.Label, d.Capacity); err != nil {
			return err
		}
		if err := want(d.Hashes, d.Label, hashesLength(d.Capacity)); err != nil {
			return err
		}
	}
	return nil
}

// advance tells how far it is.
func (v *verifier) advance(n int64) {
	v.done += n
	v.progress(v.done, max(v.total, v.done))
}
