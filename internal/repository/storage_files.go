package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
)

// A fileServer keeps files, by path. What isn't there gives fs.ErrNotExist.
type fileServer interface {
	// read gives a part of a file, all of it with a negative length. Where there is less, it gives blob.ErrInvalidRange.
	read(ctx context.Context, name string, offset, length int64, out blob.OutputBuffer) error
	stat(ctx context.Context, name string) (fs.FileInfo, error)
	// write gives a file its content, with the directories above it: it has the old one or the new one at any time.
	write(ctx context.Context, name string, content []byte) error
	remove(ctx context.Context, name string) error
	list(ctx context.Context, directory string) ([]fs.FileInfo, error)
	close() error

	// leftover matches the names of the files that writing leaves behind when it is broken off. The first group is
	// that of the file which was to be written.
	leftover() *regexp.Regexp
}

// listParallelism is how many directories are read at once.
const listParallelism = 8

// A fileStorage is the storage in a directory of a fileServer. Its files are where Kopia's own clients (v0.23.1) have
// them. These are not used: they try everything up to a hundred times on their own, for minutes in which nobody knows of an outage,
// and write to the server when they are to read.
type fileStorage struct {
	sharded.Storage
	blob.DefaultProviderImplementation
	server fileServer
	name   string
}

func newFileStorage(server fileServer, root, name string) *fileStorage {
	o := sharded.Options{ListParallelism: listParallelism}
	return &fileStorage{
		Storage: sharded.New(&fileLayout{server: server, root: root}, root, o, false), server: server, name: name,
	}
}

// ConnectionInfo implements blob.Storage. Nobody asks: see storage.
func (s *fileStorage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType}
}

// DisplayName implements blob.Storage.
func (s *fileStorage) DisplayName() string { return s.name }

// Close implements blob.Storage.
func (s *fileStorage) Close(context.Context) error { return s.server.close() }

// left names what making a repository left behind that was killed, and refuses a directory with anything else in it.
// What is below it isn't looked at.
func (s *fileStorage) left(ctx context.Context) (ids []blob.ID, err error) {
	entries, err := s.server.list(ctx, s.RootPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == configFile:
			ids = append(ids, blob.ID(strings.TrimSuffix(name, sharded.CompleteBlobSuffix)))
		case name == sharded.ParametersFile, name == "lost+found", strings.HasPrefix(ownBlobPrefix, name),
			s.server.leftover().MatchString(name):
		default:
			return nil, notEmpty(name)
		}
	}
	return ids, err
}

// sweepings take, as the value of a context, what directories hold that writing left behind.
type sweepings struct {
	mu    sync.Mutex
	files []string
	bytes int64
	old   time.Time // younger ones may be written now
}

type sweepingsKey struct{}

// sweep removes old files that writing left behind.
func (s *fileStorage) sweep(ctx context.Context, old time.Time) (files int, size int64, err error) {
	l := &sweepings{old: old}
	if err := s.ListBlobs(context.WithValue(ctx, sweepingsKey{}, l), "", func(blob.Metadata) error { return ctx.Err() }); err != nil {
		return 0, 0, err
	}
	for _, name := range l.files {
		if err := s.server.remove(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
	}
	return len(l.files), l.bytes, nil
}

// A fileLayout has blobs in files, for sharded.Storage. That one writes down how they are laid out as soon as somebody reads; it
// is done here when somebody writes.
type fileLayout struct {
	server fileServer
	root   string
	shards atomic.Pointer[[]byte] // to be written; nil: nothing
}

// GetBlobFromPath implements sharded.Impl.
func (l *fileLayout) GetBlobFromPath(ctx context.Context, _, name string, offset, length int64, out blob.OutputBuffer) error {
	if offset < 0 {
		return blob.ErrInvalidRange
	}
	return l.notFound(ctx, name, l.server.read(ctx, name, offset, length, out))
}

// GetMetadataFromPath implements sharded.Impl.
func (l *fileLayout) GetMetadataFromPath(ctx context.Context, _, name string) (blob.Metadata, error) {
	info, err := l.server.stat(ctx, name)
	if err != nil {
		return blob.Metadata{}, l.notFound(ctx, name, err)
	}
	return blob.Metadata{Length: info.Size(), Timestamp: info.ModTime()}, nil
}

// PutBlobInPath implements sharded.Impl.
func (l *fileLayout) PutBlobInPath(ctx context.Context, _, name string, data blob.Bytes, o blob.PutOptions) error {
	switch {
	case o.HasRetentionOptions(), o.DoNotRecreate:
		return blob.ErrUnsupportedPutBlobOption
	case !o.SetModTime.IsZero():
		return blob.ErrSetTimeUnsupported
	}
	var b bytes.Buffer
	b.Grow(data.Length())
	if _, err := data.WriteTo(&b); err != nil {
		return err
	}
	content := b.Bytes()
	parameters := path.Join(l.root, sharded.ParametersFile)
	if name == parameters {
		l.shards.Store(&content)
		return nil
	}
	if shards := l.shards.Load(); shards != nil {
		if err := l.server.write(ctx, parameters, *shards); err != nil {
			return err
		}
		l.shards.Store(nil)
	}
	if err := l.server.write(ctx, name, content); err != nil || o.GetModTime == nil {
		return err
	}
	info, err := l.server.stat(ctx, name)
	if err == nil {
		*o.GetModTime = info.ModTime()
	}
	return err
}

// DeleteBlobInPath implements sharded.Impl.
func (l *fileLayout) DeleteBlobInPath(ctx context.Context, _, name string) error {
	err := l.server.remove(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ReadDir implements sharded.Impl. Nobody removes a directory, and what is in it is made before anything is listed: one that
// is gone is on a disk that isn't mounted, or before the server is something that knows nothing of it for the moment.
func (l *fileLayout) ReadDir(ctx context.Context, directory string) ([]fs.FileInfo, error) {
	entries, err := l.server.list(ctx, directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the server doesn't find the directory %q any more", ErrUnreachable, directory)
	}
	if found, ok := ctx.Value(sweepingsKey{}).(*sweepings); ok && err == nil {
		found.add(directory, entries, l.server.leftover())
	}
	return entries, err
}

func (l *sweepings) add(directory string, entries []fs.FileInfo, pattern *regexp.Regexp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		m := pattern.FindStringSubmatch(e.Name())
		if m == nil || !e.Mode().IsRegular() || e.ModTime().After(l.old) ||
			!strings.HasSuffix(m[1], sharded.CompleteBlobSuffix) && m[1] != sharded.ParametersFile {
			continue
		}
		l.files = append(l.files, path.Join(directory, e.Name()))
		l.bytes += e.Size()
	}
}

// notFound gives the error of a file that isn't there the meaning that Kopia knows, if the list of its directory says so, too: what
// is before a server that starts anew finds nothing.
func (l *fileLayout) notFound(ctx context.Context, name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	missing, root := name, path.Clean(l.root)
	for {
		directory, at := path.Dir(missing), l.root
		if directory != root {
			at = directory
		}
		entries, err := l.server.list(ctx, at)
		switch {
		case err == nil && !slices.ContainsFunc(entries, func(e fs.FileInfo) bool { return e.Name() == path.Base(missing) }),
			errors.Is(err, fs.ErrNotExist) && path.Dir(name) == root: // which is made with the first file
			return fmt.Errorf("%w", blob.ErrBlobNotFound)
		case err == nil, errors.Is(err, fs.ErrNotExist) && directory == root:
			return fmt.Errorf("%w: the server doesn't find %q although it should be there", ErrUnreachable, missing)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		missing = directory
	}
}
