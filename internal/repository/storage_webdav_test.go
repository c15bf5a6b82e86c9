package repository

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/studio-b12/gowebdav"
)

const (
	davHead = `<?xml version="1.0" encoding="UTF-8"?><D:multistatus xmlns:D="DAV:">`
	davSelf = `<D:response><D:href>/dav/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>` +
		`<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`
	davBlob = `<D:response><D:href>/dav/a.f</D:href><D:propstat><D:prop><D:resourcetype/><D:getcontentlength>5</D:getcontentlength>` +
		`</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`
	davOther = `<D:response><D:href>/dav/b/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>` +
		`<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`
	davForbidden = `<D:response><D:href>/dav/c.f</D:href><D:propstat><D:prop/><D:status>HTTP/1.1 403 Forbidden</D:status></D:propstat></D:response>`
	davTail      = `</D:multistatus>`
)

// TestWebDAV_incomplete is told less than there is. That is an outage, and not all there is.
func TestWebDAV_incomplete(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]string{
		"in an element":    davHead + davSelf + davBlob[:60],
		"between elements": davHead + davSelf,
		"before the end":   davHead + davSelf + davBlob,
		"nothing":          "",
		"no response":      davHead + davTail,
		"another document": "<html><body>Log in, please</body></html>",
		"without leave":    davHead + davSelf + davForbidden + davTail,
		"in another order": davHead + davOther + davSelf + davBlob + davTail,
		"bytes":            davHead + davSelf + "\xff" + davTail,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := listAll(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusMultiStatus)
				_, _ = io.WriteString(w, list)
			})
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("it listed all of it: %v", err)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		err := listAll(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = io.WriteString(w, davHead+davSelf)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("it listed all of it: %v", err)
		}
	})
	if err := listAll(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusMultiStatus)
		_, _ = io.WriteString(w, davHead+davSelf+davBlob+davTail)
	}); err != nil {
		t.Errorf("a list that is complete: %v", err)
	}
}

// listAll lists what a server says it has, after it said that there is a directory.
func listAll(t *testing.T, list http.HandlerFunc) error {
	t.Helper()
	s := connectDAV(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/dav/":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("Depth") == "0":
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = io.WriteString(w, davHead+davSelf+davTail)
		default:
			list(w, r)
		}
	})
	return s.ListBlobs(t.Context(), "", func(blob.Metadata) error { return nil })
}

func connectDAV(t *testing.T, handler http.HandlerFunc) *remoteStorage {
	t.Helper()
	return connectTo(t, func(address string) Place { return &WebDAV{URL: "http://" + address + "/dav"} }, handler)
}

// TestWebDAV_unanswered loses the answer to a request. Whichever it was, the service can't be reached; it refused nothing.
func TestWebDAV_unanswered(t *testing.T) {
	t.Parallel()
	s := connectDAV(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/dav/.shards" && r.Method == http.MethodGet:
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path != "/dav/":
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = io.WriteString(w, davHead+davSelf+davTail)
		}
	})
	for name, call := range map[string]func(ctx context.Context) error{
		"delete": func(ctx context.Context) error { return s.DeleteBlob(ctx, "a") },
		"write":  func(ctx context.Context) error { return s.PutBlob(ctx, "a", blobBytes("x"), blob.PutOptions{}) },
		"stat": func(ctx context.Context) error {
			_, err := s.GetMetadata(ctx, "a")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := call(t.Context()); !errors.Is(err, ErrUnreachable) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// TestWebDAV_notFound has something before the server say that nothing is there. What has been listed is there.
func TestWebDAV_notFound(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T, s *remoteStorage, id blob.ID) {
		t.Helper()
		if err := s.GetBlob(t.Context(), id, 0, -1, new(buffer)); !errors.Is(err, ErrUnreachable) {
			t.Errorf("reading: %v", err)
		}
		if _, err := s.GetMetadata(t.Context(), id); !errors.Is(err, ErrUnreachable) {
			t.Errorf("looking: %v", err)
		}
	}
	t.Run("a directory", func(t *testing.T) {
		t.Parallel()
		if err := listAll(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = io.WriteString(w, davHead+davSelf+davOther+davTail)
		}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("it listed all of it: %v", err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		t.Parallel()
		gone(t, connectDAV(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == "PROPFIND" && r.URL.Path == "/dav/" && r.Header.Get("Depth") == "0":
				w.WriteHeader(http.StatusMultiStatus)
				_, _ = io.WriteString(w, davHead+davSelf+davTail)
			case r.Method == "PROPFIND" && r.URL.Path == "/dav/":
				w.WriteHeader(http.StatusMultiStatus)
				_, _ = io.WriteString(w, davHead+davSelf+davBlob+davTail)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}), "a")
	})
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		gone(t, connectDAV(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/dav/" || r.Header.Get("Depth") != "0" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = io.WriteString(w, davHead+davSelf+davTail)
		}), "p0123456789abcdef0123456789abcdef")
	})
}

// listed is a server that says always the same.
type listed string

func (s listed) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusMultiStatus, Body: io.NopCloser(strings.NewReader(string(s))), Request: r}, nil
}

// FuzzWebDAV_list makes sure that the library finds as much in a list as there is, or there is an error.
func FuzzWebDAV_list(f *testing.F) {
	for _, list := range []string{
		davHead + davSelf + davBlob + davOther + davTail, davHead + davSelf + davTail, davHead + davSelf + davBlob, davHead + davForbidden + davTail,
		davHead + davTail, "", strings.ReplaceAll(davHead+davSelf+davBlob+davTail, "200", "2000"),
	} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		files := &davFiles{url: "http://dav.example/dav", login: gowebdav.NewEmptyAuth(), base: listed(list)}
		if info, err := files.stat(t.Context(), "/"); err == nil {
			info.IsDir() // it is there
		}
		entries, err := files.list(t.Context(), "/")
		if n, parseErr := countListing([]byte(list)); err == nil && (parseErr != nil || len(entries) != n-1) {
			t.Errorf("%d files of %d, %v", len(entries), n-1, parseErr)
		}
	})
}
