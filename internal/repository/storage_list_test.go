package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const (
	s3List   = `<ListBucketResult><Name>b</Name><IsTruncated>%t</IsTruncated>%s</ListBucketResult>`
	s3Object = `<Contents><Key>r/x%d</Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>5</Size></Contents>`
	s3Next   = `<NextContinuationToken>next</NextContinuationToken>`
)

// notLists are answers with the status of a list that are none, or not all of it.
var notLists = map[string]string{
	"an error":         `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>Try again</Message></Error>`,
	"another document": `<html><body><p>Log in, please</p></body></html>`,
	"nothing":          "",
	"an element":       `<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>` + s3Object[:30],
	"a text":           "upstream request timeout",
}

// TestS3_notList is told something else than a list, at once and for the second page. That is an outage, and not all there is.
func TestS3_notList(t *testing.T) {
	t.Parallel()
	first := fmt.Sprintf(s3List, true, fmt.Sprintf(s3Object, 1)+s3Next)
	for name, answer := range notLists {
		for at, pages := range map[string][]string{"first": {answer}, "second": {first, answer}} {
			t.Run(name+", "+at, func(t *testing.T) {
				t.Parallel()
				found, err := listS3(t, pages)
				if !errors.Is(err, ErrUnreachable) {
					t.Errorf("it listed %q: %v", found, err)
				}
			})
		}
	}
	t.Run("of others", func(t *testing.T) {
		t.Parallel()
		others := strings.ReplaceAll(fmt.Sprintf(s3List, false, fmt.Sprintf(s3Object, 1)), "r/x1", "q/x1")
		if found, err := listS3(t, []string{others}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("it listed %q: %v", found, err)
		}
	})
	found, err := listS3(t, []string{first, fmt.Sprintf(s3List, false, fmt.Sprintf(s3Object, 2))})
	if err != nil || fmt.Sprint(found) != "[x1 x2]" {
		t.Errorf("a list that is complete: %q, %v", found, err)
	}
}

// listS3 lists what a service says, page by page.
func listS3(t *testing.T, pages []string) (found []blob.ID, err error) {
	t.Helper()
	s := connectTo(t, func(address string) Place {
		return &S3{Endpoint: "http://" + address, Bucket: "bucket", Prefix: "r/", Region: "r", AccessKeyID: "a", SecretAccessKey: secret.New("s")}
	}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead: // of the repository
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		case !r.URL.Query().Has("list-type"):
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Query().Has("continuation-token"):
			_, _ = io.WriteString(w, pages[1])
		default:
			_, _ = io.WriteString(w, pages[0])
		}
	})
	err = s.ListBlobs(t.Context(), "x", func(m blob.Metadata) error {
		found = append(found, m.BlobID)
		return nil
	})
	return found, err
}

// TestAzure_notList is TestS3_notList for Azure.
func TestAzure_notList(t *testing.T) {
	t.Parallel()
	const page = `<EnumerationResults><Blobs><Blob><Name>r/x1</Name><Properties><Content-Length>5</Content-Length>` +
		`<Last-Modified>Mon, 02 Jan 2006 15:04:05 GMT</Last-Modified></Properties></Blob></Blobs>%s</EnumerationResults>`
	list := func(t *testing.T, pages []string) error {
		var connected atomic.Bool
		s := connectTo(t, func(address string) Place {
			return &Azure{Account: "127", Container: "c", Prefix: "r/", SASToken: secret.New("sig=a"), Endpoint: "http://0.0.1" + address[len("127.0.0.1"):]}
		}, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodHead: // of the repository
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			case connected.CompareAndSwap(false, true):
				_, _ = fmt.Fprintf(w, page, "")
			case r.URL.Query().Has("marker"):
				_, _ = io.WriteString(w, pages[1])
			default:
				_, _ = io.WriteString(w, pages[0])
			}
		})
		return s.ListBlobs(t.Context(), "x", func(blob.Metadata) error { return nil })
	}
	for name, answer := range notLists {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := list(t, []string{fmt.Sprintf(page, "<NextMarker>next</NextMarker>"), answer}); !errors.Is(err, ErrUnreachable) {
				t.Errorf("it listed all of it: %v", err)
			}
		})
	}
	if err := list(t, []string{fmt.Sprintf(page, "")}); err != nil {
		t.Errorf("a list that is complete: %v", err)
	}
}

// connectTo connects to a service that gives the answers of a handler.
func connectTo(t *testing.T, at func(address string) Place, handler http.HandlerFunc) *remoteStorage {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c := placeConfig(at(server.Listener.Addr().String()))
	c.MaxOutage = -1
	s, err := connectPlace(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.WithoutCancel(t.Context())) })
	return s
}
