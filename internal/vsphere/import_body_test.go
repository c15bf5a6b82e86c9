package vsphere

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
)

// A repeated is a disk of one byte over and over.
type repeated struct {
	capacity int64
	err      error // after half of it
}

func (r repeated) Capacity() int64 { return r.capacity }

func (r repeated) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	piece := bytes.Repeat([]byte{7}, 1<<20)
	for at := int64(0); at < r.capacity; at += 1 << 20 {
		if r.err != nil && at >= r.capacity/2 {
			return r.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(at, piece); err != nil {
			return err
		}
	}
	return nil
}

var _ disk.Source = repeated{}

func decoded(t *testing.T, stream io.Reader) (bytesRead int64, err error) {
	t.Helper()
	d, err := vmdk.NewDecoder(t.Context(), stream, vmdk.DecodeOptions{})
	if err != nil {
		return 0, err
	}
	err = d.Extents(t.Context(), func(_ int64, data []byte) error { bytesRead += int64(len(data)); return nil })
	return bytesRead, err
}

// TestDiskBody sends a body to a server that takes it, to one that answers before it has it, and to nobody.
func TestDiskBody(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	failure := errors.New("the source failed")
	taken := make(chan error, 1)
	takes := func(t *testing.T) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n, err := decoded(t, r.Body)
			if err == nil && n != size {
				err = io.ErrShortWrite
			}
			taken <- err
			w.WriteHeader(http.StatusCreated)
		}
	}
	for _, test := range []struct {
		name     string
		handler  http.HandlerFunc // nil: takes
		source   disk.Source
		hide     bool // what the client doesn't know
		sent, is error
	}{
		{name: "whole", source: repeated{capacity: size}},
		{name: "read", source: repeated{capacity: size}, hide: true},
		{name: "source fails", source: repeated{size, failure}, sent: failure, is: failure},
		{name: "source fails, read", source: repeated{size, failure}, hide: true, sent: failure, is: failure},
		{name: "early answer", handler: func(http.ResponseWriter, *http.Request) {}, source: repeated{capacity: 1 << 40}, is: errBody},
		{name: "early answer, read", handler: func(http.ResponseWriter, *http.Request) {}, source: repeated{capacity: 1 << 40}, hide: true, is: errBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler := test.handler
			if handler == nil {
				handler = takes(t)
			}
			server := httptest.NewTLSServer(handler)
			defer server.Close()
			body := newDiskBody(t.Context(), test.source, true)
			var sent io.Reader = body
			if test.hide {
				sent = struct{ io.ReadCloser }{body}
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, sent)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = -1
			res, err := server.Client().Do(req)
			if err == nil {
				err = res.Body.Close()
			}
			if !errors.Is(err, test.sent) {
				t.Errorf("the request: got %v, want %v", err, test.sent)
			}
			if err := body.end(); !errors.Is(err, test.is) {
				t.Errorf("the body: got %v, want %v", err, test.is)
			}
			if test.handler == nil {
				if err := <-taken; (err == nil) != (test.is == nil) {
					t.Errorf("the server: %v", err)
				}
			}
			if n, err := body.WriteTo(io.Discard); n != 0 || !errors.Is(err, errBody) {
				t.Errorf("a second time: %d bytes, %v", n, err)
			}
		})
	}
	unused := newDiskBody(t.Context(), repeated{capacity: size}, false)
	if err := unused.end(); !errors.Is(err, errBody) {
		t.Errorf("a body that nobody took: %v", err)
	}
}
