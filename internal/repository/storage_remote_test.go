package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/minio/minio-go/v7"
)

// An oddStorage is a storage in a directory that behaves as clients of storage services do now and then.
type oddStorage struct {
	blob.Storage
	get  func(ctx context.Context, out blob.OutputBuffer, really func() error) error
	put  func(data blob.Bytes) error
	more []blob.Metadata // that it lists besides

	hides blob.ID // begins what it doesn't list; empty: all is listed
}

func (s *oddStorage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	really := func() error { return s.Storage.GetBlob(ctx, id, offset, length, out) }
	if s.get == nil {
		return really()
	}
	return s.get(ctx, out, really)
}

func (s *oddStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if s.put == nil {
		return s.Storage.PutBlob(ctx, id, data, o)
	}
	return s.put(data)
}

func (s *oddStorage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	for _, m := range s.more {
		if err := yield(m); err != nil {
			return err
		}
	}
	return s.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if s.hides != "" && strings.HasPrefix(string(m.BlobID), string(s.hides)) {
			return nil
		}
		return yield(m)
	})
}

// newOddStorage is a storage with one blob, "p1", seen as that of a Place.
func newOddStorage(t *testing.T, odd *oddStorage) *remoteStorage {
	t.Helper()
	base, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	if err == nil {
		err = base.PutBlob(t.Context(), "p1", blobBytes("0123456789"), blob.PutOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	odd.Storage = base
	return &remoteStorage{Storage: odd, current: odd, place: oddPlace{base: base}, maxOutage: time.Minute, answer: time.Minute,
		log: slog.New(slog.DiscardHandler)}
}

// TestRemote_index has an index blob listed twice, and something else, or a part of it, come in its place. That is an outage, and
// isn't kept on this machine.
func TestRemote_index(t *testing.T) {
	t.Parallel()
	for _, cached := range []bool{false, true} {
		var answers []string
		odd := &oddStorage{get: func(_ context.Context, out blob.OutputBuffer, really func() error) error {
			if len(answers) == 0 {
				return really()
			}
			out.Reset()
			_, err := io.WriteString(out, answers[0])
			answers = answers[1:]
			return err
		}, more: []blob.Metadata{{BlobID: "xn0_1", Length: 10}}}
		s := newOddStorage(t, odd)
		if cached {
			s.cache = newIndexCache(Cache{Directory: t.TempDir(), Size: mib})
		}
		if err := odd.Storage.PutBlob(t.Context(), "xn0_1", blobBytes("0123456789"), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		answers = []string{"<html>Log in, please</html>", "01234"}
		if all, err := blob.ListAllBlobs(t.Context(), s, "x"); err != nil || len(all) != 1 {
			t.Errorf("cached %t: it lists %v, %v", cached, all, err)
		}
		for range 2 {
			var read buffer
			if err := s.GetBlob(t.Context(), "xn0_1", 0, -1, &read); err != nil || read.String() != "0123456789" {
				t.Errorf("cached %t: it read %q, %v", cached, read.String(), err)
			}
		}
	}
}

// TestRemote_readTwice has a client connect again in the middle of a read and give what it had before once more. It
// is no damage.
func TestRemote_readTwice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ offset, length int64 }{
		"a range": {2, 5}, "another": {0, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reads atomic.Int32
			s := newOddStorage(t, &oddStorage{get: func(_ context.Context, out blob.OutputBuffer, really func() error) error {
				if reads.Add(1) > 1 {
					return really()
				}
				var once buffer
				if _, err := once.Write([]byte("23")); err != nil {
					return err
				}
				if err := really(); err != nil {
					return err
				}
				if _, err := once.WriteTo(out); err != nil {
					return err
				}
				return blob.ErrInvalidRange
			}})
			var got buffer
			if err := s.GetBlob(t.Context(), "p1", test.offset, test.length, &got); err != nil || reads.Load() != 2 {
				t.Errorf("after %d reads: %v", reads.Load(), err)
			}
			want := []byte("0123456789")[test.offset : test.offset+test.length]
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("it gave %q, want %q", got.Bytes(), want)
			}
		})
	}
}

// TestRemote_noSuchRange reads what isn't there, which is no outage.
func TestRemote_noSuchRange(t *testing.T) {
	t.Parallel()
	s := newOddStorage(t, &oddStorage{get: func(_ context.Context, _ blob.OutputBuffer, really func() error) error {
		if err := really(); err == nil || errors.Is(err, blob.ErrBlobNotFound) {
			return err
		}
		return blob.ErrInvalidRange
	}})
	var got buffer
	if err := s.GetBlob(t.Context(), "p1", 8, 5, &got); !errors.Is(err, blob.ErrInvalidRange) {
		t.Errorf("error %v, want %v", err, blob.ErrInvalidRange)
	}
	if err := s.GetBlob(t.Context(), "p2", 0, -1, &got); !errors.Is(err, blob.ErrBlobNotFound) {
		t.Errorf("error %v, want %v", err, blob.ErrBlobNotFound)
	}
}

// TestRemote_deaf ends a read whose server says nothing more, of a client that knows nothing of contexts.
func TestRemote_deaf(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	deaf := make(chan struct{})
	defer close(deaf)
	s := newOddStorage(t, &oddStorage{get: func(context.Context, blob.OutputBuffer, func() error) error {
		cancel()
		<-deaf
		return nil
	}})
	var got buffer
	if err := s.GetBlob(ctx, "p1", 0, -1, &got); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

// An oddPlace is a place to which a new connection can be made.
type oddPlace struct {
	Place
	base blob.Storage
}

func (p oddPlace) String() string                                { return "odd" }
func (p oddPlace) connect(context.Context) (blob.Storage, error) { return p.base, nil }
func (p oddPlace) lock() *ObjectLock                             { return nil }

// TestRemote_silent has a connection that gives no answer any more, as one that a firewall forgot. Another is made.
func TestRemote_silent(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	defer close(silent)
	var reads atomic.Int32
	s := newOddStorage(t, &oddStorage{get: func(context.Context, blob.OutputBuffer, func() error) error {
		reads.Add(1)
		<-silent
		return nil
	}})
	s.answer = 10 * time.Millisecond // of what never comes, and what comes of a file
	var got buffer
	if err := s.GetBlob(t.Context(), "p1", 0, 1, &got); err != nil || got.String() != "0" || reads.Load() != 1 {
		t.Errorf("it gave %q after %d reads: %v", got.String(), reads.Load(), err)
	}
}

// TestRemote_answers has a service refuse something: it is no outage, and ends nothing else.
func TestRemote_answers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		400: ErrRefused, 403: ErrRefused, 404: ErrNoRepository, 429: ErrUnreachable, 500: ErrUnreachable, 507: ErrFull,
	} {
		err := failed(t.Context(), "read", "p1", minio.ErrorResponse{StatusCode: status, Code: "Code", Message: "Text."})
		if !errors.Is(err, want) || !isAnswer(err) || !strings.Contains(err.Error(), "Code: Text") {
			t.Errorf("status %d: %v, want %v", status, err, want)
		}
	}
	if err := failed(t.Context(), "read", "p1", errors.New("connection reset")); !errors.Is(err, ErrUnreachable) || isAnswer(err) {
		t.Errorf("error %v, want %v", err, ErrUnreachable)
	}
}

// TestRemote_login has the login of Azure refuse, and its server fail.
func TestRemote_login(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{401: ErrRefused, 503: ErrUnreachable} {
		answer := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("the whole answer"))}
		err := failed(t.Context(), "connect", "", &azidentity.AuthenticationFailedError{RawResponse: answer})
		if !errors.Is(err, want) || strings.Contains(err.Error(), "whole") || !strings.Contains(err.Error(), strconv.Itoa(status)) {
			t.Errorf("status %d: %v, want %v", status, err, want)
		}
	}
	if err := failed(t.Context(), "connect", "", &azidentity.AuthenticationFailedError{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without an answer: %v", err)
	}
}

// TestRemote_lent has a client read what it was to write after it was told to stop. It doesn't get what its owner uses
// for something else by then.
func TestRemote_lent(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	told, read := make(chan struct{}), make(chan error, 1)
	s := newOddStorage(t, &oddStorage{put: func(data blob.Bytes) error {
		r := data.Reader()
		cancel()
		<-told
		_, err := io.ReadAll(r)
		read <- errors.Join(err, r.Close())
		return err
	}})
	content := []byte("0123456789")
	if err := s.PutBlob(ctx, "p2", blobBytes(content), blob.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	clear(content)
	close(told)
	if err := <-read; !errors.Is(err, errGivenBack) {
		t.Errorf("it reads on: %v", err)
	}
}

// TestRemote_belowAnotherPrefix lists what another repository has below, whose names could be taken for packs.
func TestRemote_belowAnotherPrefix(t *testing.T) {
	t.Parallel()
	odd := &oddStorage{more: []blob.Metadata{{BlobID: "qa/kopia.repository"}, {BlobID: "site1/"}}}
	s := newOddStorage(t, odd)
	var names []blob.ID
	err := s.ListBlobs(t.Context(), "", func(m blob.Metadata) error {
		names = append(names, m.BlobID)
		return nil
	})
	if err != nil || !slices.Equal(names, []blob.ID{"p1"}) {
		t.Errorf("it lists %v (%v), want p1 alone", names, err)
	}
	if err := s.Storage.DeleteBlob(t.Context(), "p1"); err != nil {
		t.Fatal(err)
	}
	if _, err := leftBlobs(t.Context(), s); !errors.Is(err, ErrNoRepository) {
		t.Errorf("a place in use can be had: %v", err)
	}
}

// TestClaim_unlisted takes no claim in a storage that doesn't list it.
func TestClaim_unlisted(t *testing.T) {
	t.Parallel()
	s := newOddStorage(t, &oddStorage{hides: ownBlobPrefix})
	if _, err := takeClaim(t.Context(), s, maintainClaim, maintainClaimAge); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want %v", err, ErrBusy)
	}
}

// TestFailed_cause says why a context ended.
func TestFailed_cause(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 0, ErrUnreachable)
	defer cancel()
	s := newOddStorage(t, &oddStorage{})
	if _, err := s.GetMetadata(ctx, "p1"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want %v", err, ErrUnreachable)
	}
}

func TestAround(t *testing.T) {
	t.Parallel()
	for want, place := range map[string]Place{
		"[s3://b/ s3://b/a/]": &S3{Bucket: "b", Prefix: "a/b/"},
		"[gs://b/]":           &GCS{Bucket: "b", Prefix: "a/"},
		"[azure://a/c/]":      &Azure{Account: "a", Container: "c", Prefix: "x/"},
		"[b2://b/]":           &B2{Bucket: "b", Prefix: "x/"},
		"[]":                  &S3{Bucket: "b"},
	} {
		var names []string
		for _, p := range place.around() {
			names = append(names, p.String())
		}
		if got := "[" + strings.Join(names, " ") + "]"; got != want {
			t.Errorf("around %s are %s, want %s", place, got, want)
		}
	}
}
