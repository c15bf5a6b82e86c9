package repository

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// A Place is where a repository is kept that is not in a directory: *S3, *GCS, *Azure, *SFTP, *B2 or *WebDAV.
type Place interface {
	fmt.Stringer // names it, without secrets

	// connect reaches the place, whether there is a repository or not.
	connect(ctx context.Context) (blob.Storage, error)

	// lock is for how long what is written can't be deleted; nil: it can.
	lock() *ObjectLock

	// around are the places that this one is within, where there could be another repository.
	around() []Place
}

// defaultMaxOutage is Config.MaxOutage unless it says otherwise: a switch or a gateway that starts anew.
const defaultMaxOutage = 5 * time.Minute

// remoteStorage is the storage of a Place. What fails because the storage can't be reached is tried again, until an
// outage is too long. Its errors say what failed in a few words: what clients of storage services give names requests
// in full, some with secrets in them, and repeats itself on every level.
type remoteStorage struct {
	blob.Storage
	place     Place
	maxOutage time.Duration
	log       *slog.Logger
	outages   outages
	cache     *indexCache // nil: none

	answer time.Duration // how long an answer may take at all

	unlocked  atomic.Pointer[error] // why a blob couldn't be locked; nil: all could
	uploading chan struct{}         // has a token for each pack that a worker uploads
	lengths   sync.Map              // of index blobs, by ID, as they were listed; they never change

	mu      sync.Mutex
	current blob.Storage // the connection in use
}

// connectPlace reaches a place. An outage now is not waited for: nothing is under way yet.
func connectPlace(ctx context.Context, c Config) (*remoteStorage, error) {
	s := &remoteStorage{place: c.Place, maxOutage: c.MaxOutage, log: c.Log, cache: newIndexCache(c.Cache), answer: attemptTimeout,
		uploading: make(chan struct{}, maxUploads)}
	if s.maxOutage == 0 {
		s.maxOutage = defaultMaxOutage
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	base, err := reach(ctx, c.Place)
	if err != nil {
		return nil, failed(ctx, "connect", "", err)
	}
	s.Storage, s.current = base, base
	return s, nil
}

// reach connects to a place. A connection that comes when nobody waits for it any more is closed.
func reach(ctx context.Context, place Place) (blob.Storage, error) {
	return attempt(ctx, attemptTimeout, func(ctx context.Context) (blob.Storage, error) {
		base, err := place.connect(ctx)
		if err == nil && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), base.Close(context.WithoutCancel(ctx)))
		}
		return base, err
	})
}

// client is the connection in use.
func (s *remoteStorage) client() blob.Storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// reconnect takes another connection into use instead of one that gives no answer. Kopia's clients go on with the
// connection that they have for as long as nobody closes it, also when what is between forgot it.
func (s *remoteStorage) reconnect(ctx context.Context, silent blob.Storage) {
	if s.client() != silent {
		return // somebody did
	}
	fresh, err := reach(ctx, s.place)
	if err != nil {
		s.log.DebugContext(ctx, "connecting to the repository's storage again", "error", failed(ctx, "connect", "", err))
		return
	}
	s.mu.Lock()
	old := fresh
	if s.current == silent {
		old, s.current = silent, fresh
	}
	s.mu.Unlock()
	go func() { _ = old.Close(context.WithoutCancel(ctx)) }() // which may not answer either
}

// Close implements blob.Storage.
func (s *remoteStorage) Close(ctx context.Context) error {
	return failed(ctx, "close", "", attemptOnly(ctx, attemptTimeout, s.client().Close))
}

// GetBlob implements blob.Storage. What is not exactly what was asked for is read again, unless there is no more: a
// client that connects again in the middle of a read (Kopia's of SFTP, v0.23.1) gives twice what it had read before.
func (s *remoteStorage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if s.cache.holds(id) {
		return s.getIndex(ctx, id, offset, length, out)
	}
	return s.getBlob(ctx, id, offset, length, out)
}

func (s *remoteStorage) getBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	size := length
	if size < 0 {
		size = largestBlob
	}
	return s.do(ctx, "read", id, func(client blob.Storage) error {
		read, err := attempt(ctx, s.timeFor(size), func(ctx context.Context) (*buffer, error) {
			return readBlob(ctx, client, id, offset, length)
		})
		if err != nil {
			return err
		}
		if listed, ok := s.lengths.Load(id); ok && length < 0 && listed != int64(read.Len()) {
			return fmt.Errorf("%w: it gave %d bytes, and lists %d", ErrUnreachable, read.Len(), listed)
		}
		out.Reset()
		_, err = read.WriteTo(out)
		return err
	})
}

func readBlob(ctx context.Context, client blob.Storage, id blob.ID, offset, length int64) (*buffer, error) {
	read := new(buffer)
	err := client.GetBlob(ctx, id, offset, length, read)
	if !errors.Is(err, blob.ErrInvalidRange) {
		return read, err
	}
	m, metaErr := client.GetMetadata(ctx, id)
	switch {
	case metaErr != nil:
		return nil, metaErr
	case m.Length < offset+max(length, 0): // there is no more
		return nil, err
	}
	return nil, fmt.Errorf("%w: it gave something else than was asked for", ErrUnreachable)
}

// GetMetadata implements blob.Storage.
func (s *remoteStorage) GetMetadata(ctx context.Context, id blob.ID) (m blob.Metadata, err error) {
	err = s.do(ctx, "look for", id, func(client blob.Storage) (err error) {
		m, err = attempt(ctx, s.answer, func(ctx context.Context) (blob.Metadata, error) {
			return client.GetMetadata(ctx, id)
		})
		return err
	})
	return m, err
}

// PutBlob implements blob.Storage. What an attempt writes that nobody waits for any more is the same as what the next
// one writes. Kopia's client of S3 (v0.23.1), asked for the time of what it writes, looks at the object also where
// writing failed, and gives that error: the time is asked for afterwards.
func (s *remoteStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	done, err := s.upload(ctx)
	if err != nil {
		return failed(ctx, "write", id, err)
	}
	defer done()
	lent, giveBack := lend(data) // the caller uses it again once this returns
	defer giveBack()
	s.place.lock().apply(id, &o) // also where the repository doesn't say so yet
	at := o.GetModTime
	o.GetModTime = nil
	err = s.do(ctx, "write", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.timeFor(int64(lent.Length())), func(ctx context.Context) error {
			return client.PutBlob(ctx, id, lent, o)
		})
	})
	if err != nil || at == nil {
		return err
	}
	m, err := s.GetMetadata(ctx, id)
	*at = m.Timestamp
	return err
}

// upload waits until a worker may upload what it has, and lets another one work meanwhile. Who isn't a worker doesn't
// wait. A worker that waits lets none, so that no more packs are made than can be uploaded. It doesn't come back to work
// afterwards: Kopia may have it hold what those wait for who work.
func (s *remoteStorage) upload(ctx context.Context) (done func(), err error) {
	leave, ok := ctx.Value(leaveKey{}).(func())
	if !ok {
		return func() {}, nil
	}
	select {
	case s.uploading <- struct{}{}:
		leave()
		return func() { <-s.uploading }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// DeleteBlob implements blob.Storage.
func (s *remoteStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	return s.do(ctx, "delete", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.answer, func(ctx context.Context) error { return client.DeleteBlob(ctx, id) })
	})
}

// ExtendBlobRetention implements blob.Storage. Kopia's maintenance says only how many blobs couldn't be locked: the first
// error is kept.
func (s *remoteStorage) ExtendBlobRetention(ctx context.Context, id blob.ID, o blob.ExtendOptions) error {
	err := s.do(ctx, "lock", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.answer, func(ctx context.Context) error {
			return client.ExtendBlobRetention(ctx, id, o)
		})
	})
	if err != nil {
		s.unlocked.CompareAndSwap(nil, &err)
	}
	return err
}

// ListBlobs implements blob.Storage. It leaves out what is below another prefix: no blob of a repository has a slash
// in its name, and what Kopia's maintenance finds under a letter of its own and doesn't know, it removes.
func (s *remoteStorage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	return s.listAll(ctx, prefix, func(m blob.Metadata) error {
		if strings.Contains(string(m.BlobID), "/") {
			return nil
		}
		return yield(m)
	})
}

// listAll lists blobs and whatever else there is. The whole list is had before any of it is told, about 100 bytes
// each: so it can begin again after an outage.
func (s *remoteStorage) listAll(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	var all []blob.Metadata
	err := s.do(ctx, "list", prefix, func(client blob.Storage) (err error) {
		all, err = attempt(ctx, listTimeout, func(ctx context.Context) (found []blob.Metadata, err error) {
			err = client.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
				found = append(found, m)
				return ctx.Err()
			})
			if err == nil {
				err = ctx.Err() // minio-go (v7.2.0) says nothing of a list that it breaks off between two pages
			}
			if err == nil {
				err = checkEmpty(ctx, client, prefix, len(found))
			}
			return found, err
		})
		return err
	})
	if strings.HasPrefix(string(prefix), indexPrefix) {
		all = s.listedIndex(all)
	}
	for i := 0; i < len(all) && err == nil; i++ {
		err = yield(all[i])
	}
	return err
}

// listedIndex keeps how long index blobs are, which Kopia reads as a whole. It leaves out what is listed twice: Kopia counts (v0.23.1,
// completeset.FindFirst) whether all that belong together are there.
func (s *remoteStorage) listedIndex(all []blob.Metadata) []blob.Metadata {
	slices.SortStableFunc(all, func(a, b blob.Metadata) int { return strings.Compare(string(a.BlobID), string(b.BlobID)) })
	all = slices.CompactFunc(all, func(a, b blob.Metadata) bool { return a.BlobID == b.BlobID })
	for _, m := range all {
		s.lengths.Store(m.BlobID, m.Length)
	}
	return all
}

// do does something, and does it again while the storage can't be reached.
func (s *remoteStorage) do(
	ctx context.Context, operation string, id blob.ID, once func(client blob.Storage) error,
) error {
	var began time.Time // of the outage
	for delay := newBackoff(); ; {
		start, client := time.Now(), s.client()
		err := failed(ctx, operation, id, once(client))
		silent := errors.Is(err, errNoAnswer)
		switch {
		case err == nil && !began.IsZero():
			s.log.InfoContext(ctx, "the repository's storage can be reached again", "outage", time.Since(began))
			return nil
		case !errors.Is(err, ErrUnreachable):
			return err
		case began.IsZero() && silent: // nobody knows since when
			began = time.Now()
		case began.IsZero():
			began = start
		}
		if time.Since(began) >= s.maxOutage {
			if !isAnswer(err) { // else it is this one thing that it can't do
				s.outages.begin(err)
			}
			return err
		}
		s.log.WarnContext(ctx, "the repository's storage can't be reached, trying again", "error", err,
			"until", began.Add(s.maxOutage))
		if err := delay.wait(ctx); err != nil {
			return failed(ctx, operation, id, err)
		}
		if silent {
			s.reconnect(ctx, client)
		}
	}
}
