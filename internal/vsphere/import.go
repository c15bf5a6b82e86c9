package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// An importedDisk is one disk of a VM in the making.
type importedDisk struct {
	label    string
	capacity int64
	item     leaseItem
	started  atomic.Bool
	done     atomic.Bool

	// What was sent, for the comparison with the server's manifest. Written before done is set.
	sent checksums
}

// streamVMDK is the content type of an upload (VMware's Web Services SDK samples; what ESXi accepts).
const streamVMDK = "application/x-vnd.vmware-streamVmdk"

// WriteDisk implements hypervisor.Restore. A disk whose upload failed can't be written again: the
// server doesn't take a second stream for it.
func (r *restore) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	d, ok := r.disks[key]
	if !ok {
		return fmt.Errorf("write disk %s: the VM has no such disk", key)
	}
	if src.Capacity() != d.capacity {
		return fmt.Errorf("write %s: the content has %d bytes, the disk %d", d.label, src.Capacity(), d.capacity)
	}
	if d.started.Swap(true) {
		return fmt.Errorf("write %s: it was written already", d.label)
	}
	if err := r.upload(ctx, d, src); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("write %s: %w", d.label, err)
	}
	d.done.Store(true)
	return nil
}

func (r *restore) upload(ctx context.Context, d *importedDisk, src disk.Source) error {
	release, err := r.client.acquireTransfer(ctx, r.vm.Value, r.host)
	if err != nil {
		return err
	}
	defer release()
	if err := r.lease.lost(); err != nil {
		return err
	}
	ctx, stop := r.lease.during(ctx)
	defer stop()

	body := newDiskBody(ctx, &progressSource{src, r}, r.sha256)
	postErr := r.client.post(ctx, d.item, body)
	encodeErr := body.end()
	switch {
	case r.lease.lost() != nil:
		return r.lease.lost()
	case encodeErr != nil && !errors.Is(encodeErr, errBody):
		return encodeErr
	case postErr != nil:
		return postErr
	case encodeErr != nil: // the server said that all is well without having read all
		return fmt.Errorf("%w: the server stopped reading after %d bytes", hypervisor.ErrLost, body.size)
	}
	d.sent = body.sums()
	entry, _, err := r.lease.manifest(ctx, d.item.key)
	if err != nil {
		return err
	}
	return r.compare(d, entry)
}

// compare checks that the server has what was sent. Error: errChecksum, also where it can't be told.
func (r *restore) compare(d *importedDisk, entry *types.HttpNfcLeaseManifestEntry) error {
	if entry == nil {
		return fmt.Errorf("%w: it has none", errChecksum)
	}
	if (entry.Capacity != 0 || d.item.guessed) && entry.Capacity != d.capacity {
		return fmt.Errorf("%w: the server has a disk of %d bytes instead of %d", errChecksum, entry.Capacity, d.capacity)
	}
	confirmed, err := d.sent.compare(entry)
	if err == nil && !confirmed {
		return fmt.Errorf("%w: it has none", errChecksum)
	}
	return err
}

// post uploads a stream whose length isn't known beforehand. It returns when the server has taken all
// of it, or an error.
func (c *Client) post(ctx context.Context, item leaseItem, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, item.url.String(), body)
	if err != nil {
		return errors.New("lease has a malformed URL")
	}
	req.ContentLength = -1 // chunked
	req.Header.Set("Content-Type", streamVMDK)
	res, err := c.vim.Client.Client.Do(req)
	if err != nil {
		return transferError(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return statusError(res)
	}
	return nil
}

// A progressSource tells the lease how far a disk is, by offset: holes count as done.
type progressSource struct {
	disk.Source
	restore *restore
}

// Extents implements disk.Source.
func (s *progressSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	var at int64
	err := s.Source.Extents(ctx, func(offset int64, data []byte) error {
		end := offset + int64(len(data))
		s.restore.progress(end - at)
		at = end
		return yield(offset, data)
	})
	if err == nil {
		s.restore.progress(s.Capacity() - at)
	}
	return err
}

func (r *restore) progress(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written += bytes
	if r.total > 0 {
		r.lease.percent.Store(int32(min(r.written*100/r.total, 100))) //nolint:gosec // at most 100
	}
}
