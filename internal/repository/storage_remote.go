package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/studio-b12/gowebdav"
	"gopkg.in/kothar/go-backblaze.v0"
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

	mu      sync.Mutex
	current blob.Storage // the connection in use
}

// connectPlace reaches a place. An outage now is not waited for: nothing is under way yet.
func connectPlace(ctx context.Context, c Config) (*remoteStorage, error) {
	s := &remoteStorage{place: c.Place, maxOutage: c.MaxOutage, log: c.Log, cache: newIndexCache(c.Cache), answer: attemptTimeout}
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
	var mine bytes.Buffer // the caller uses its own again once this returns
	if _, err := data.WriteTo(&mine); err != nil {
		return err
	}
	s.place.lock().apply(id, &o) // also where the repository doesn't say so yet
	at := o.GetModTime
	o.GetModTime = nil
	err := s.do(ctx, "write", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.timeFor(int64(mine.Len())), func(ctx context.Context) error {
			return client.PutBlob(ctx, id, blobBytes(mine.Bytes()), o)
		})
	})
	if err != nil || at == nil {
		return err
	}
	m, err := s.GetMetadata(ctx, id)
	*at = m.Timestamp
	return err
}

// DeleteBlob implements blob.Storage.
func (s *remoteStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	return s.do(ctx, "delete", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.answer, func(ctx context.Context) error { return client.DeleteBlob(ctx, id) })
	})
}

// ExtendBlobRetention implements blob.Storage.
func (s *remoteStorage) ExtendBlobRetention(ctx context.Context, id blob.ID, o blob.ExtendOptions) error {
	return s.do(ctx, "lock", id, func(client blob.Storage) error {
		return attemptOnly(ctx, s.answer, func(ctx context.Context) error {
			return client.ExtendBlobRetention(ctx, id, o)
		})
	})
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
			return found, err
		})
		return err
	})
	for i := 0; i < len(all) && err == nil; i++ {
		err = yield(all[i])
	}
	return err
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

// storageOutcomes are what Kopia decides by.
var storageOutcomes = []error{
	blob.ErrBlobNotFound, blob.ErrInvalidRange, blob.ErrBlobAlreadyExists, blob.ErrSetTimeUnsupported,
	blob.ErrUnsupportedPutBlobOption,
}

// failed says what the failure of an operation means.
func failed(ctx context.Context, operation string, id blob.ID, err error) error {
	if err == nil {
		return nil
	}
	what := strings.TrimSpace(operation + " " + string(id))
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); isOutcome(cause) { // says more
			return fmt.Errorf("%s: %w", what, cause)
		}
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	if isOutcome(err) { // of our own making
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, outcome := range storageOutcomes {
		if errors.Is(err, outcome) {
			return fmt.Errorf("%s: %w", what, reduced{outcome, reason(err), 0})
		}
	}
	return fmt.Errorf("%s: %w", what, reduced{meaning(err), reason(err), statusOf(err)})
}

// reduced is an outcome with the reason in words. It wraps nothing else.
type reduced struct {
	outcome error
	reason  string
	status  int // of HTTP; zero: none
}

// isAnswer reports whether an error is what a service answered, and not that it didn't.
func isAnswer(err error) bool {
	var r reduced
	return errors.As(err, &r) && r.status != 0
}

func (e reduced) Error() string {
	switch text := e.outcome.Error(); {
	case e.reason == "", e.reason == text:
		return text
	case strings.HasPrefix(e.reason, text):
		return e.reason
	default:
		return text + ": " + e.reason
	}
}

func (e reduced) Unwrap() error { return e.outcome }

// meaning is the outcome that an error of a storage service is. All that may pass counts as a service that can't be
// reached.
func meaning(err error) error {
	switch status := statusOf(err); {
	case status == http.StatusUnauthorized, status == http.StatusForbidden,
		errors.Is(err, blob.ErrInvalidCredentials), errors.Is(err, fs.ErrPermission):
		return ErrRefused
	case status == http.StatusInsufficientStorage:
		return ErrFull
	case status == http.StatusNotFound:
		return ErrNoRepository
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusLocked, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, isPassing(err):
		return ErrUnreachable
	case status >= 400 && status < 500:
		return ErrRefused
	default:
		return ErrUnreachable
	}
}

// isPassing reports whether an error is one of those that S3 gives with the status of a request that is wrong, although
// the same request may succeed (Amazon S3 API reference, list of error codes).
func isPassing(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.Code == "RequestTimeout" || answer.Code == "IncompleteBody" || answer.Code == "BadDigest")
}

// statusOf is the HTTP status that an error of a storage service has; zero: none.
func statusOf(err error) int {
	var s3Error minio.ErrorResponse
	var azureError *azcore.ResponseError
	var b2Error *backblaze.B2Error
	var davError gowebdav.StatusError
	switch {
	case errors.As(err, &s3Error):
		return s3Error.StatusCode
	case errors.As(err, &azureError):
		return azureError.StatusCode
	case errors.As(err, &b2Error):
		return b2Error.Status
	case errors.As(err, &davError):
		return davError.Status
	default:
		return 0
	}
}

// reason is the innermost cause of an error, in words that name no request.
func reason(err error) string {
	var s3Error minio.ErrorResponse
	if errors.As(err, &s3Error) {
		return strings.TrimSuffix(strings.TrimSpace(s3Error.Code+": "+s3Error.Message), ".")
	}
	var azureError *azcore.ResponseError
	if errors.As(err, &azureError) {
		return fmt.Sprintf("%s (status %d)", azureError.ErrorCode, azureError.StatusCode)
	}
	for {
		var request *url.Error // its text has the query, which is a secret on Azure
		var network *net.OpError
		var path *os.PathError
		switch {
		case errors.As(err, &request):
			err = request.Err
		case errors.As(err, &network):
			return network.Error()
		case errors.As(err, &path):
			err = path.Err
		case errors.Unwrap(err) != nil:
			err = errors.Unwrap(err)
		default:
			return err.Error()
		}
	}
}
