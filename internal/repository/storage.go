package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/throttling"
	"github.com/kopia/kopia/repo/format"
)

// Kopia opens a repository only through a configuration file that describes the storage, with its
// credentials in clear. Ours holds a key to the storage that this process has already opened.
const storageType = "terraform-vm-open-storage"

var openStorages sync.Map // key → *storage

type storageKey struct {
	Key string `json:"key"`
}

func init() {
	blob.AddSupportedStorage(storageType, storageKey{},
		func(_ context.Context, k *storageKey, _ bool) (blob.Storage, error) {
			if s, ok := openStorages.Load(k.Key); ok {
				if s, ok := s.(*storage); ok {
					return s, nil
				}
			}
			return nil, fmt.Errorf("storage %q is not open", k.Key)
		})
}

// storage is the storage of one open Repository.
type storage struct {
	blob.Storage
	key        string
	remote     bool    // it is in a Place
	outages    outages // of a directory
	compacting atomic.Bool
	writing    atomic.Int64 // writes under way, also those that a limit delays
}

func registerStorage(base blob.Storage, remote bool) *storage {
	s := &storage{Storage: base, key: uuid.NewString(), remote: remote}
	openStorages.Store(s.key, s)
	return s
}

func (s *storage) unregister() { openStorages.Delete(s.key) }

// ConnectionInfo implements blob.Storage.
func (s *storage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &storageKey{s.key}}
}

// IsReadOnly implements blob.Storage. Kopia v0.23.1 asks in one place: before it compacts manifests
// in the middle of reading them, which would make listing fail on a full or read-only directory.
// So they are compacted only when Repository.compact says so.
func (s *storage) IsReadOnly() bool { return !s.compacting.Load() }

// PutBlob implements blob.Storage.
func (s *storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	s.writing.Add(1)
	defer s.writing.Add(-1)
	return s.Storage.PutBlob(ctx, id, data, o)
}

// ListBlobs implements blob.Storage. Kopia asks a directory for its index for as long as that fails, whatever the error is.
func (s *storage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	if s.remote || !strings.HasPrefix(string(prefix), indexPrefix) {
		return s.Storage.ListBlobs(ctx, prefix, yield)
	}
	all, err := blob.ListAllBlobs(ctx, s.Storage, prefix)
	if err == nil {
		err = checkEmpty(ctx, s.Storage, prefix, len(all))
	}
	if err != nil && ctx.Err() == nil {
		s.outages.begin(err)
	}
	for i := 0; i < len(all) && err == nil; i++ {
		err = yield(all[i])
	}
	return err
}

// checkEmpty makes sure that the repository is there that has no index blobs with a prefix. Without, all its data would be
// unused: its disk isn't mounted any more, and what is seen is the empty directory below.
func checkEmpty(ctx context.Context, s blob.Reader, prefix blob.ID, found int) error {
	if found > 0 || !strings.HasPrefix(string(prefix), indexPrefix) {
		return nil
	}
	_, err := s.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("%w: there is nothing any more where it was", ErrUnreachable)
	}
	return err
}

// checkWritable finds out early what would otherwise fail with the first full pack.
func (r *Repository) checkWritable(ctx context.Context) error {
	if r.directory == "" {
		if err := r.storage.PutBlob(ctx, writableBlob, blobBytes("x"), blob.PutOptions{}); err != nil {
			return err
		}
		return r.storage.DeleteBlob(ctx, writableBlob)
	}
	f, err := os.CreateTemp(r.directory, writeTest+"*")
	if err != nil {
		return writeError(err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// writableBlob is the blob by which checkWritable finds out. Several may do so at once.
const writableBlob = ownBlobPrefix + "write-test"

// The client that writes and maintains repositories. It is the same everywhere, so that any process
// of this provider may run maintenance, and no user of the kopia command does by accident.
const (
	clientUser = "terraform"
	clientHost = "terraform-provider-vm"
)

// writeClientConfig makes a directory with the configuration file for s.
//
// There are no caching options in it on purpose. Without them Kopia keeps the index in memory,
// reads everything else from the repository's directory, and ignores KOPIA_CACHE_DIRECTORY; with a
// cache directory but no cache size it dereferences nil when it reads (v0.23.1, fetchBlobInternal).
func writeClientConfig(s *storage) (dir, file string, err error) {
	dir, err = os.MkdirTemp("", "terraform-vm-repository-")
	if err != nil {
		return "", "", err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir) // the first error tells more
		}
	}()
	// Kopia takes a relative path for something else than it is.
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	info := s.ConnectionInfo()
	config, err := json.Marshal(repo.LocalConfig{
		Storage:       &info,
		ClientOptions: repo.ClientOptions{Hostname: clientHost, Username: clientUser},
	})
	if err != nil {
		return "", "", err
	}
	file = filepath.Join(dir, "repository.config")
	return dir, file, os.WriteFile(file, config, 0o600)
}

// writeOptions are those of a session that counts nothing.
func writeOptions(purpose string) repo.WriteSessionOptions {
	return repo.WriteSessionOptions{Purpose: purpose}
}

// Kopia's own window and beginning of a throttler (v0.23.1, repo/open.go).
const (
	limitWindow = time.Minute
	limitStart  = 0.1
)

// apply limits what goes to and comes from a storage. Kopia would do so too, but above ours, which then couldn't tell
// that a write waits.
func (l Limits) apply(base blob.Storage) (blob.Storage, error) {
	if l == (Limits{}) {
		return base, nil
	}
	throttler, err := throttling.NewThrottler(throttling.Limits{
		UploadBytesPerSecond: float64(l.Upload), DownloadBytesPerSecond: float64(l.Download),
	}, limitWindow, limitStart)
	if err != nil {
		return nil, err
	}
	return &limitedStorage{Storage: throttling.NewWrapper(base, throttler), unlimited: base, throttler: throttler}, nil
}

// limitedStorage is a storage with limits. Kopia's wrapper takes 20 MB off the limit for each blob that is read whole,
// whatever its length, and gives back what was too much when it has been read (v0.23.1,
// repo/blob/throttling/throttling_storage.go): a handful of small index blobs would wait for minutes. Here their
// lengths count.
type limitedStorage struct {
	blob.Storage
	unlimited blob.Storage
	throttler throttling.Throttler
}

// GetBlob implements blob.Storage.
func (s *limitedStorage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, output blob.OutputBuffer) error {
	if length >= 0 {
		return s.Storage.GetBlob(ctx, id, offset, length, output)
	}
	err := s.unlimited.GetBlob(ctx, id, offset, length, output)
	s.throttler.BeforeDownload(ctx, int64(output.Length()))
	return err
}
