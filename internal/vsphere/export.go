package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
)

// An exportedDisk reads one disk of a point in time through the lease that exports all of them. It is
// a disk.Source for one pass.
type exportedDisk struct {
	diskPass
}

// Extents implements disk.Source. It returns nil only when the stream was complete and has the
// checksum that the server gives for it. When the connection or the lease breaks, the error wraps
// hypervisor.ErrLost.
func (d *exportedDisk) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	return d.pass(ctx, "export", d.read, func(offset int64, data []byte) error {
		d.point.progress(int64(len(data)))
		return yield(offset, data)
	})
}

func (d *exportedDisk) read(ctx context.Context, yield func(offset int64, data []byte) error) error {
	c := d.point.client
	lease, items, err := d.point.openLease(ctx)
	if err != nil {
		return err
	}
	item := items[d.slot]
	ctx, stop := lease.during(ctx)
	defer stop()
	body, err := c.get(ctx, item)
	if err != nil {
		return lostCause(ctx, lease, err)
	}
	defer func() { _ = body.Close() }()

	stream := newMeasuredReader(body, d.point.sha256)
	decoder, err := vmdk.NewDecoder(ctx, stream, vmdk.DecodeOptions{Skip: d.skip()})
	if err != nil {
		return lostCause(ctx, lease, stream.explain(err))
	}
	if decoder.Capacity() != d.capacity {
		return fmt.Errorf("the server sent a disk of %d bytes instead of %d", decoder.Capacity(), d.capacity)
	}
	if err := decoder.Extents(ctx, d.within(yield)); err != nil {
		return lostCause(ctx, lease, stream.explain(err))
	}
	if err := stream.drain(); err != nil {
		return lostCause(ctx, lease, stream.explain(err))
	}
	if err := d.confirm(ctx, lease, item.key, stream.sums()); err != nil {
		return lostCause(ctx, lease, err)
	}
	return nil
}

// skip tells which grains need not be inflated: those outside of the areas of the plan.
func (d *exportedDisk) skip() func(disk.Extent) bool {
	areas := d.plan.Areas
	if areas == nil {
		return nil
	}
	return func(e disk.Extent) bool {
		skip := true
		areas.Within(e, func(disk.Extent) bool { skip = false; return false })
		return skip
	}
}

// within yields only what is in the areas of the plan, of which a grain may hold a part.
func (d *exportedDisk) within(yield func(offset int64, data []byte) error) func(offset int64, data []byte) error {
	areas := d.plan.Areas
	if areas == nil {
		return yield
	}
	return func(offset int64, data []byte) (err error) {
		areas.Within(disk.Extent{Offset: offset, Length: int64(len(data))}, func(e disk.Extent) bool {
			err = yield(e.Offset, data[e.Offset-offset:e.End()-offset])
			return err == nil
		})
		return err
	}
}

// confirm compares what was read with what the server has sent. Without a checksum of the server there
// is nothing to check but the format, which has its own marker for the end; that gets a warning. A server
// that has checksums of other disks must have one of this, maybe in a moment.
func (d *exportedDisk) confirm(ctx context.Context, l *lease, key string, read checksums) error {
	for attempt := 1; ; attempt++ {
		entry, others, err := l.manifest(ctx, key)
		if err != nil {
			return err
		}
		confirmed, err := read.compare(entry)
		switch {
		case confirmed || err != nil:
			return err
		case entry != nil || !others:
			d.point.warn(ctx, fmt.Sprintf("The server gives no checksum of what it sent of %s: that nothing was altered "+
				"on the way is not proven.", d.label))
			return nil
		case attempt == manifestAttempts:
			return fmt.Errorf("%w: it has one of other disks, but none of this", errChecksum)
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// manifestAttempts is how often a server is asked for the checksum of a disk that it has just sent.
const manifestAttempts = 4

// lostCause replaces an error by the reason why the lease was lost, if it was: a broken stream is
// only its symptom.
func lostCause(ctx context.Context, l *lease, err error) error {
	if lost := l.lost(); lost != nil && ctx.Err() != nil {
		return lost
	}
	return err
}

// get opens an item's stream. The ticket in the URL never gets into an error.
func (c *Client) get(ctx context.Context, item leaseItem) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, item.url.String(), nil)
	if err != nil {
		return nil, errors.New("lease has a malformed URL")
	}
	res, err := c.vim.Client.Client.Do(req)
	if err != nil {
		return nil, transferError(ctx, err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, statusError(res)
	}
	return res.Body, nil
}

// transferError classifies the failure of a transfer's HTTP request: all but the end of the context and
// a certificate that isn't trusted mean that the way to the data broke.
func transferError(ctx context.Context, err error) error {
	var certificate *hypervisor.CertificateError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &certificate):
		return certificate
	}
	return fmt.Errorf("%w: %w", hypervisor.ErrLost, withoutURL(err))
}

// statusError is what an answer other than success means. The body may hold a page of HTML; it says no
// more than the status.
func statusError(res *http.Response) error { return &answerError{res.Status} }

// An answerError is an answer other than success. It wraps hypervisor.ErrLost, as what is read is incomplete,
// but doesn't say so: a server that answers, say with 403 Forbidden, was not lost.
type answerError struct{ status string }

func (e *answerError) Error() string { return "the server answered " + e.status }

func (e *answerError) Unwrap() error { return hypervisor.ErrLost }

// fileError is what an answer other than success to a request for a datastore's file means.
func fileError(res *http.Response) error {
	if res.StatusCode == http.StatusForbidden && res.Request != nil {
		return &hypervisor.PermissionError{
			Privilege: browse + " or " + manageFiles, Object: "datastore " + res.Request.URL.Query().Get("dsName"),
		}
	}
	return statusError(res)
}

// A measuredReader hashes and counts what is read through it, and remembers how it ended.
type measuredReader struct {
	*checksummer
	r   io.Reader
	err error
}

func newMeasuredReader(r io.Reader, useSHA256 bool) *measuredReader {
	return &measuredReader{r: r, checksummer: newChecksummer(useSHA256)}
}

func (m *measuredReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.add(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// explain says what an error of decoding means: a stream that broke off, or one that is damaged.
func (m *measuredReader) explain(err error) error {
	switch {
	case m.err != nil:
		return fmt.Errorf("%w after %d bytes: %w", hypervisor.ErrLost, m.size, withoutURL(m.err))
	case errors.Is(err, vmdk.ErrTruncated):
		return fmt.Errorf("%w after %d bytes: %w", hypervisor.ErrLost, m.size, err)
	}
	return err
}

// maxTrailer is how much may follow the end of a VMDK; padding to a block is known to happen.
const maxTrailer = 1 << 20

// drain reads what follows the end of the disk, which is part of what the server's checksum covers.
func (m *measuredReader) drain() error {
	n, err := io.Copy(io.Discard, io.LimitReader(m, maxTrailer))
	if err == nil && n == maxTrailer {
		return fmt.Errorf("%w: data follows the end of the disk", vmdk.ErrFormat)
	}
	return err
}
