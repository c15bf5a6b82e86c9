package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A fileServer serves one file as a datastore does, but for what answer makes of it.
type fileServer struct {
	content []byte

	// answer answers the n-th request, from 1; false: it is answered properly.
	answer func(n int, w http.ResponseWriter, r *http.Request) bool

	mu     sync.Mutex
	ranges []string // that were asked for
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ranges = append(s.ranges, strings.TrimPrefix(r.Header.Get("Range"), "bytes="))
	n := len(s.ranges)
	s.mu.Unlock()
	if s.answer == nil || !s.answer(n, w, r) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.content))
	}
}

// start serves the file and makes a client that reads it.
func (s *fileServer) start(t *testing.T) (*Client, folderFile) {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(u, true)
	t.Cleanup(sc.CloseIdleConnections)
	c := &Client{
		config: Config{MaxRangesPerDisk: 4, ReadTimeout: time.Minute}, vim: &vim25.Client{Client: sc},
		log: slog.New(slog.DiscardHandler),
	}
	c.session = newSession(c.vim, "user", secret.New("password"), c.log)
	return c, folderFile{name: "[ds] a/a-flat.vmdk", url: server.URL + "/folder/a/a-flat.vmdk", size: int64(len(s.content))}
}

// numbered is content in which every position is different.
func numbered(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i += 8 {
		b = append(b, fmt.Sprintf("%08x", i)...)
	}
	return b[:n]
}

// partly answers a range properly but for its header and what is sent of it.
func partly(contentRange string, length int, body []byte) func(int, http.ResponseWriter, *http.Request) bool {
	return func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Range", contentRange)
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		w.WriteHeader(http.StatusPartialContent)
		if f, ok := w.(http.Flusher); ok && length < 0 {
			f.Flush() // or a short body gets a length by itself
		}
		_, _ = w.Write(body)
		return true
	}
}

func TestReadRange(t *testing.T) {
	t.Parallel()
	const first, length, size = 1000, 3000, 10_000
	content := numbered(size)
	whole := content[first : first+length]
	right := fmt.Sprintf("bytes %d-%d/%d", first, first+length-1, size)
	for name, test := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
		ranges []string // what is asked for; nil: twice the same
		fails  error
	}{
		"good":                {ranges: []string{"1000-3999"}},
		"without a length":    {answer: partly(right, -1, whole), ranges: []string{"1000-3999"}},
		"other place":         {answer: partly("bytes 1001-4000/10000", length, content[1001:4001])},
		"other beginning":     {answer: partly("bytes 1001-3999/10000", length, whole)},
		"other end":           {answer: partly("bytes 1000-4000/10000", length, whole)},
		"shorter":             {answer: partly("bytes 1000-3998/10000", length-1, whole[:length-1])},
		"longer":              {answer: partly("bytes 1000-4000/10000", length+1, content[1000:4001])},
		"other size of file":  {answer: partly("bytes 1000-3999/10001", length, whole)},
		"unknown size":        {answer: partly("bytes 1000-3999/*", length, whole)},
		"no header":           {answer: partly("", length, whole)},
		"wrong length":        {answer: partly(right, length+10, content[first:first+length+10])},
		"more than it says":   {answer: partly(right, -1, content[first:first+length+1])},
		"ends early":          {answer: partly(right, -1, whole[:1200]), ranges: []string{"1000-3999", "2200-3999"}},
		"broken off":          {answer: partly(right, length, whole[:1200]), ranges: []string{"1000-3999", "2200-3999"}},
		"broken off at once":  {answer: partly(right, length, nil)},
		"busy":                {answer: status(2, http.StatusServiceUnavailable), ranges: []string{"1000-3999", "1000-3999", "1000-3999"}},
		"locked for a moment": {answer: status(1, http.StatusInternalServerError)},
		"too many requests":   {answer: status(1, http.StatusTooManyRequests)},
		"the whole file":      {answer: status(1, http.StatusOK), ranges: []string{"1000-3999"}, fails: hypervisor.ErrLost},
		"not there":           {answer: status(9, http.StatusNotFound), ranges: []string{"1000-3999"}, fails: hypervisor.ErrLost},
		"forbidden":           {answer: status(9, http.StatusForbidden), ranges: []string{"1000-3999"}, fails: hypervisor.ErrLost},
		"beyond the end":      {answer: status(9, http.StatusRequestedRangeNotSatisfiable), ranges: []string{"1000-3999"}, fails: hypervisor.ErrLost},
		"always busy":         {answer: status(9, http.StatusServiceUnavailable), ranges: slices.Repeat([]string{"1000-3999"}, rangeAttempts), fails: hypervisor.ErrLost},
		"compressed": {answer: func(n int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return n == 1 && partly(right, length, whole)(n, w, r)
		}, ranges: slices.Repeat([]string{"1000-3999"}, rangeAttempts), fails: errRange},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &fileServer{content: content, answer: test.answer}
			c, file := server.start(t)
			got := make([]byte, length)
			err := c.readRange(t.Context(), file, disk.Extent{Offset: first, Length: length}, got)
			if test.fails != nil {
				if !errors.Is(err, test.fails) || !errors.Is(err, hypervisor.ErrLost) {
					t.Errorf("got error %v, want %v", err, test.fails)
				}
			} else if err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%v, or other bytes", err)
			}
			if test.ranges == nil {
				test.ranges = []string{"1000-3999", "1000-3999"}
			}
			if !slices.Equal(server.ranges, test.ranges) {
				t.Errorf("asked for %q, want %q", server.ranges, test.ranges)
			}
		})
	}
}

// status answers the first n requests with a status, and the whole of nothing.
func status(n, code int) func(int, http.ResponseWriter, *http.Request) bool {
	return func(i int, w http.ResponseWriter, _ *http.Request) bool {
		if i <= n {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "<html>")
		}
		return i <= n
	}
}

// TestReadRange_stalls gives up on a server that is silent, and reads on from there.
func TestReadRange_stalls(t *testing.T) {
	t.Parallel()
	content := numbered(100_000)
	released := make(chan struct{})
	server := &fileServer{content: content, answer: func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		partly("bytes 0-99999/100000", len(content), content[:70_000])(n, w, r)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		<-r.Context().Done()
		close(released)
		return true
	}}
	c, file := server.start(t)
	c.config.ReadTimeout = time.Second
	got := make([]byte, len(content))
	if err := c.readRange(t.Context(), file, disk.Extent{Length: int64(len(content))}, got); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%v, or other bytes", err)
	}
	<-released
	if len(server.ranges) < 2 { // a busy machine may seem to stall once more
		t.Errorf("asked for %q", server.ranges)
	}
}

// TestReadRanges reads extents that are aligned to nothing, in order, however the answers come.
func TestReadRanges(t *testing.T) {
	t.Parallel()
	content := numbered(24<<20 + 512)
	var asked, yielded, ahead atomic.Int64
	server := &fileServer{content: content, answer: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		ahead.Store(max(ahead.Load(), asked.Add(1)-yielded.Load()))
		if n%7 == 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			asked.Add(-1)
			return true
		}
		return false
	}}
	c, file := server.start(t)
	extents := []disk.Extent{{Offset: 512, Length: 3<<20 + 100}, {Offset: 5 << 20, Length: 1}, {Offset: 6<<20 - 5, Length: 10 << 20}, {Offset: 24 << 20, Length: 512}}
	want, got := make([]byte, len(content)), make([]byte, len(content))
	for _, e := range extents {
		copy(want[e.Offset:], content[e.Offset:e.End()])
	}
	end := int64(0)
	err := c.readRanges(t.Context(), file, slices.Values(extents), func(off int64, data []byte) error {
		if off < end {
			t.Errorf("%d comes after %d", off, end)
		}
		end = off + int64(len(data))
		copy(got[off:], data)
		yielded.Add(1)
		return nil
	})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other bytes", err)
	}
	// What is asked for and not yet yielded is held in memory.
	if limit := int64(2*c.config.MaxRangesPerDisk) + 1; ahead.Load() > limit {
		t.Errorf("read %d ranges ahead, want at most %d", ahead.Load(), limit)
	}
	for _, r := range server.ranges {
		var first, last int64
		if _, err := fmt.Sscanf(r, "%d-%d", &first, &last); err != nil || first/rangeSize != last/rangeSize {
			t.Errorf("asked for %s: %v", r, err)
		}
	}
}

func TestReadRanges_ends(t *testing.T) {
	t.Parallel()
	content := numbered(8 << 20)
	all := slices.Values([]disk.Extent{{Length: int64(len(content))}})
	stop := errors.New("enough")
	t.Run("consumer stops", func(t *testing.T) {
		t.Parallel()
		c, file := (&fileServer{content: content}).start(t)
		err := c.readRanges(t.Context(), file, all, func(off int64, _ []byte) error {
			if off > 0 {
				return stop
			}
			return nil
		})
		if err != stop { //nolint:errorlint // as it is
			t.Errorf("got error %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		c, file := (&fileServer{content: content, answer: func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n == 3 {
				cancel(stop)
			}
			if n >= 3 {
				<-r.Context().Done()
			}
			return n >= 3
		}}).start(t)
		err := c.readRanges(ctx, file, all, func(int64, []byte) error { return nil })
		if !errors.Is(err, stop) {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("one range fails", func(t *testing.T) {
		t.Parallel()
		c, file := (&fileServer{content: content, answer: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if gone := strings.HasPrefix(r.Header.Get("Range"), "bytes=3145728-"); gone {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			return false
		}}).start(t)
		end := int64(0)
		err := c.readRanges(t.Context(), file, all, func(off int64, data []byte) error {
			end = off + int64(len(data))
			return nil
		})
		if !errors.Is(err, hypervisor.ErrLost) || end != 3<<20 {
			t.Errorf("got error %v after %d bytes", err, end)
		}
	})
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][3]int64{
		"bytes 0-0/1":                     {0, 0, 1},
		"bytes 5-10/20":                   {5, 10, 20},
		"Bytes  5-10/20 ":                 {5, 10, 20},
		"bytes 0-1/9223372036854775807":   {0, 1, 1<<63 - 1},
		"":                                {},
		"bytes":                           {},
		"bytes 0-1":                       {},
		"bytes 0-1/*":                     {},
		"bytes */20":                      {},
		"bytes 5-4/20":                    {},
		"bytes 5-20/20":                   {},
		"bytes -5-10/20":                  {},
		"bytes +5-10/20":                  {},
		"bytes 5-10/20/30":                {},
		"octets 5-10/20":                  {},
		"bytes 0-1/9223372036854775808":   {},
		"bytes 5-10/20, bytes 30-40/50":   {},
		"bytes 0x5-0x10/0x20":             {},
		"bytes 18446744073709551615-1/20": {},
	} {
		first, last, size, err := parseContentRange(header)
		if got := [3]int64{first, last, size}; got != want || (err == nil) != (want[2] > 0) {
			t.Errorf("%q: got %v, %v", header, got, err)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, header := range []string{"bytes 0-0/1", "bytes 5-10/20", "bytes */20", "bytes 0-1/*", "", "bytes 9-8/20"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		first, last, size, err := parseContentRange(header)
		switch {
		case err != nil && (first != 0 || last != 0 || size != 0):
			t.Errorf("%q: numbers with an error", header)
		case err != nil:
		case first < 0 || last < first || size <= last:
			t.Errorf("%q: %d-%d/%d", header, first, last, size)
		}
	})
}
