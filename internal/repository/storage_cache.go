package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/zeebo/blake3"
)

// Cache says where the index of a repository in a Place is kept on this machine: without it, every process reads all
// of the index when it opens the repository.
type Cache struct {
	Directory string // is made; empty: none
	Size      int64  // in bytes; what was not used for longest goes first
}

// indexPrefix begins the names of the blobs that hold the index. They never change, and what is in them is encrypted
// and authenticated. Nothing else is cached: what a backup or a verification relies on is read from the storage.
const indexPrefix = "x"

const cacheSuffix = ".index"

// An indexCache holds blobs of the index in a directory, which any number of processes share. What it can't do costs
// time, and fails nothing.
type indexCache struct {
	Cache
	mu sync.Mutex // of those who make room
}

// newIndexCache makes a cache; nil: none is wanted, or it can't be.
func newIndexCache(c Cache) *indexCache {
	if c.Directory == "" || c.Size <= 0 || os.MkdirAll(c.Directory, 0o700) != nil {
		return nil
	}
	return &indexCache{Cache: c}
}

func (c *indexCache) holds(id blob.ID) bool {
	return c != nil && strings.HasPrefix(string(id), indexPrefix)
}

// file is where a blob of a place is, which says nothing of the place.
func (c *indexCache) file(place string, id blob.ID) string {
	sum := blake3.Sum256([]byte(place + "\x00" + string(id)))
	return filepath.Join(c.Directory, hex.EncodeToString(sum[:16])+cacheSuffix)
}

// get returns a blob, if it is there as it was put.
func (c *indexCache) get(place string, id blob.ID) ([]byte, bool) {
	file := c.file(place, id)
	b, err := os.ReadFile(file)
	if err != nil || len(b) < blake3Size {
		return nil, false
	}
	b, sum := b[:len(b)-blake3Size], b[len(b)-blake3Size:]
	if want := blake3.Sum256(b); !bytes.Equal(sum, want[:]) {
		_ = os.Remove(file) // a power failure can do that
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(file, now, now) // it was used
	return b, true
}

const blake3Size = 32

// put keeps a blob.
func (c *indexCache) put(place string, id blob.ID, b []byte) {
	if int64(len(b))+blake3Size > c.Size {
		return
	}
	sum := blake3.Sum256(b)
	temporary, err := os.CreateTemp(c.Directory, "new-*"+cacheSuffix)
	if err != nil {
		return
	}
	_, err = temporary.Write(append(slices.Clip(b), sum[:]...))
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), c.file(place, id))
	}
	if err != nil {
		_ = os.Remove(temporary.Name()) // the next process makes room
		return
	}
	c.makeRoom()
}

// makeRoom removes what was not used for longest, until the rest is not too large.
func (c *indexCache) makeRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	names, err := filepath.Glob(filepath.Join(c.Directory, "*"+cacheSuffix))
	if err != nil {
		return
	}
	var files []fs.FileInfo
	var size int64
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			files, size = append(files, info), size+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if size <= c.Size {
			return
		}
		if os.Remove(filepath.Join(c.Directory, f.Name())) == nil {
			size -= f.Size()
		}
	}
}

// getIndex reads a blob of the index, from the cache if it is there.
func (s *remoteStorage) getIndex(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	place := cacheKey(s.place)
	all, ok := s.cache.get(place, id)
	if !ok {
		var read buffer
		if err := s.getBlob(ctx, id, 0, -1, &read); err != nil {
			return err
		}
		all = read.Bytes()
		s.cache.put(place, id, all)
	}
	if length < 0 {
		length = int64(len(all)) - offset
	}
	if offset < 0 || length < 0 || offset+length > int64(len(all)) {
		return failed(ctx, "read", id, blob.ErrInvalidRange)
	}
	out.Reset()
	_, err := out.Write(all[offset : offset+length])
	return err
}

// cacheKey tells places apart, also those that have the same name elsewhere.
func cacheKey(p Place) string {
	switch p := p.(type) {
	case *S3:
		return p.String() + " " + p.Endpoint
	case *Azure:
		return p.String() + " " + p.Endpoint
	default:
		return p.String()
	}
}

// checkIndex compares what the storage has of the index with what is in the cache, which this process read in its
// place. Error: ErrDamaged, and those of a storage that can't be reached.
func (r *Repository) checkIndex(ctx context.Context) error {
	if r.remote == nil || r.remote.cache == nil {
		return nil
	}
	place := cacheKey(r.remote.place)
	return r.remote.ListBlobs(ctx, indexPrefix, func(m blob.Metadata) error {
		cached, ok := r.remote.cache.get(place, m.BlobID)
		if !ok {
			return nil
		}
		var read buffer
		err := r.remote.getBlob(ctx, m.BlobID, 0, -1, &read)
		switch {
		case errors.Is(err, blob.ErrBlobNotFound): // it was replaced meanwhile
			return nil
		case err != nil:
			return err
		case !bytes.Equal(read.Bytes(), cached):
			return fmt.Errorf("%w: the index blob %s is not what was written, so that nobody can open the repository anew",
				ErrDamaged, m.BlobID)
		}
		return nil
	})
}
