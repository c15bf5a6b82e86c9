package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
)

// sweepAge is how old a file has to be that its process left behind. It takes seconds to write one, and
// nobody of ours writes while it is looked for: the age is for others' tools, and for clocks that differ.
const sweepAge = 24 * time.Hour

// temporaryFile matches what Kopia v0.23.1 writes a blob, or how blobs are laid out, to before it gives it its name. It never
// removes any. Others may have files in the directory as well, whose names end in the same way.
var temporaryFile = regexp.MustCompile(`(\` + sharded.CompleteBlobSuffix + `|^\` + sharded.ParametersFile + `)\.tmp\.[0-9a-f]+$`)

// writeTest begins the names of the files by which checkWritable finds out.
const writeTest = ".terraform-vm-write-"

// isLeftover reports whether a file is one that only a process has which writes it or uses it.
func isLeftover(name string) bool {
	return temporaryFile.MatchString(name) || strings.HasPrefix(name, writeTest) || strings.HasPrefix(name, holdPrefix)
}

// sweep removes old files that killed processes left behind. The repository's lock is held.
func (r *Repository) sweep(ctx context.Context) (files int, bytes int64, err error) {
	old := time.Now().Add(-sweepAge)
	if r.directory == "" {
		return r.remote.sweep(ctx, old)
	}
	err = filepath.WalkDir(r.directory, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // its owner was faster
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !d.Type().IsRegular() || !isLeftover(d.Name()):
			return nil
		}
		info, err := d.Info()
		if err != nil || info.ModTime().After(old) {
			return nil //nolint:nilerr // it went, or it is left for the next time
		}
		removed, err := removeLeftover(ctx, path)
		if removed {
			files++
			bytes += info.Size()
		}
		return err
	})
	return files, bytes, err
}

// sweep removes old files that writing left behind which was broken off, where blobs are files.
func (s *remoteStorage) sweep(ctx context.Context, old time.Time) (files int, bytes int64, err error) {
	if _, ok := s.client().(*fileStorage); !ok {
		return 0, 0, nil
	}
	type swept struct {
		files int
		bytes int64
	}
	err = s.do(ctx, "sweep", "", func(client blob.Storage) error {
		all, err := attempt(ctx, listTimeout, func(ctx context.Context) (n swept, err error) {
			n.files, n.bytes, err = client.(*fileStorage).sweep(ctx, old) //nolint:forcetypeassert // of the same place
			return n, err
		})
		files, bytes = all.files, all.bytes
		return err
	})
	return files, bytes, err
}

// removeLeftover removes a file unless it is one by which somebody holds a restore point.
func removeLeftover(ctx context.Context, path string) (removed bool, err error) {
	if strings.HasPrefix(filepath.Base(path), holdPrefix) {
		held, err := lockPath(ctx, path, true, false)
		if errors.Is(err, ErrInUse) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer held.Unlock() //nolint:errcheck // as closing does when the process ends
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
