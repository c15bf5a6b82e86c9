package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// rangeAttempts is how often a range of a file is asked for; with the delays of backoff it is given up
// after some 3 s of trouble.
const rangeAttempts = 5

// A folderFile is a file of a datastore that is read over HTTP.
type folderFile struct {
	name string // "[datastore] directory/file"
	url  string
	size int64 // bytes
}

// A rangeError is the failure of one request for a range.
type rangeError struct {
	err   error
	again bool // another attempt may succeed
}

func (e *rangeError) Error() string { return e.err.Error() }

func (e *rangeError) Unwrap() error { return e.err }

// An incompleteError is an answer for which what is read is incomplete. Like an answerError it wraps
// hypervisor.ErrLost and doesn't say so.
type incompleteError struct{ err error }

func (e *incompleteError) Error() string { return e.err.Error() }

func (e *incompleteError) Unwrap() []error { return []error{e.err, hypervisor.ErrLost} }

var (
	errRange   = errors.New("the server sent something else than the range that was asked for")
	errStalled = errors.New("the server sent nothing for too long")
)

// readRange fills buf, which is as long as e, with a range of a file. What an attempt got before it failed
// isn't read again. Error: hypervisor.ErrLost.
func (c *Client) readRange(ctx context.Context, f folderFile, e disk.Extent, buf []byte) error {
	for attempt := 1; ; attempt++ {
		n, err := c.getRange(ctx, f, e, buf)
		e.Offset, e.Length, buf = e.Offset+int64(n), e.Length-int64(n), buf[n:]
		var failure *rangeError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &failure) || !failure.again || attempt == rangeAttempts:
			return fmt.Errorf("read %s at byte %d: %w", f.name, e.Offset, err)
		}
		c.log.DebugContext(ctx, "repeating a read of a datastore's file",
			"file", f.name, "offset", e.Offset, "attempt", attempt, "error", err)
		if pause(ctx, backoff(attempt)) != nil {
			return context.Cause(ctx)
		}
	}
}

// getRange makes one request and returns how many bytes of buf are right. An answer counts only if it says
// that it is exactly what was asked for, of a file of the right size, and if it is no shorter and no
// longer than that.
func (c *Client) getRange(ctx context.Context, f folderFile, e disk.Extent, buf []byte) (n int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	stall := time.AfterFunc(c.config.ReadTimeout, func() { cancel(errStalled) })
	defer stall.Stop()

	res, err := c.requestRange(ctx, f.url, e)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	first, last, size, err := parseContentRange(res.Header.Get("Content-Range"))
	if err != nil || first != e.Offset || last != e.End()-1 || size != f.size ||
		res.ContentLength >= 0 && res.ContentLength != e.Length || res.Header.Get("Content-Encoding") != "" {
		return 0, &rangeError{fmt.Errorf("%w: %w (Content-Range %q, Content-Length %d)", hypervisor.ErrLost, errRange,
			res.Header.Get("Content-Range"), res.ContentLength), true}
	}
	for n < len(buf) {
		m, err := res.Body.Read(buf[n:])
		n += m
		stall.Reset(c.config.ReadTimeout)
		if err != nil && n < len(buf) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, brokenRange(ctx, err)
		}
	}
	if m, err := io.ReadFull(res.Body, make([]byte, 1)); m > 0 || !errors.Is(err, io.EOF) {
		return 0, &rangeError{fmt.Errorf("%w: %w: there is more of it", hypervisor.ErrLost, errRange), true}
	}
	return n, nil
}

// requestRange asks for a range. A session that has ended is renewed for the next attempt.
func (c *Client) requestRange(ctx context.Context, url string, e disk.Extent) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("malformed URL")
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", e.Offset, e.End()-1))
	req.Header.Set("Accept-Encoding", "identity")
	seen, err := c.session.current(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.vim.Client.Client.Do(req)
	if err != nil {
		return nil, brokenRange(ctx, err)
	}
	if res.StatusCode == http.StatusPartialContent {
		return res, nil
	}
	_ = res.Body.Close()
	again := res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests
	if res.StatusCode == http.StatusUnauthorized {
		if err := c.session.renew(ctx, seen); err != nil {
			return nil, fmt.Errorf("renew the session: %w", err)
		}
		again = true
	}
	return nil, &rangeError{&incompleteError{fileError(res)}, again}
}

// brokenRange is the error of a connection that broke, or stood still.
func brokenRange(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return &rangeError{fmt.Errorf("%w: %w", hypervisor.ErrLost, errStalled), true}
	}
	err = transferError(ctx, err)
	var certificate *hypervisor.CertificateError
	return &rangeError{err, !errors.As(err, &certificate)}
}

// parseContentRange reads the header of an answer that is part of a file (RFC 9110, section 14.4): first
// and last byte, both part of it, and the size of the whole file. A size that isn't known is an error.
func parseContentRange(header string) (first, last, size int64, err error) {
	bad := fmt.Errorf("Content-Range %q is not understood", header)
	unit, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	span, total, ok := strings.Cut(strings.TrimSpace(rest), "/")
	from, to, dash := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !ok || !dash {
		return 0, 0, 0, bad
	}
	var numbers [3]int64
	for i, text := range []string{from, to, total} {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return 0, 0, 0, bad
		}
		numbers[i] = int64(n) //nolint:gosec // 63 bits
	}
	first, last, size = numbers[0], numbers[1], numbers[2]
	if first > last || last >= size {
		return 0, 0, 0, bad
	}
	return first, last, size, nil
}
