package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// OpenDisk implements hypervisor.PointInTime. The lease that all exported disks share is opened when the
// first of them is read.
func (p *pointInTime) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, context.Cause(ctx))
	}
	i := slices.IndexFunc(p.disks, func(d *pointDisk) bool { return d.key == key })
	if i < 0 || slices.Contains(p.exclude, key) {
		return nil, fmt.Errorf("open disk %s: it is not part of the point in time", key)
	}
	if err := p.reading(ctx); err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, err)
	}
	reader, err := p.openDisk(ctx, p.disks[i], request)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("open disk %s: %w", key, errClosedPoint)
	}
	if !p.opened[key] {
		p.opened[key] = true
		p.pending++
	}
	return reader, nil
}

// openDisk decides what of a disk is read, and how: in the first of the configured ways that is possible.
func (p *pointInTime) openDisk(
	ctx context.Context, d *pointDisk, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	var plan hypervisor.ReadPlan
	var err error
	if plan.Areas, plan.FullReason, err = p.changes(ctx, d, request); err != nil {
		return nil, err
	}
	if token := p.token(d); token != nil {
		if plan.Tracking, err = token.encode(); err != nil {
			return nil, err
		}
	}
	p.wayMu.Lock()
	defer p.wayMu.Unlock()
	for i, transport := range p.client.config.Transports {
		plan.Transport = transport
		if transport == TransportExport {
			p.ways[d.key] = transport
			return &exportedDisk{diskPass{point: p, pointDisk: d, plan: plan}}, nil
		}
		reader, why, err := p.openFile(ctx, d, request, plan, slices.Contains(p.client.config.Transports[i:], TransportExport))
		if err != nil {
			return nil, err
		}
		if why == "" {
			p.ways[d.key] = transport
			return reader, nil
		}
		plan.TransportReason = why
	}
	return nil, fmt.Errorf("no transport that is allowed can read it: %s: %w", plan.TransportReason, hypervisor.ErrNotSupported)
}

// openFile opens a disk for reading from its datastore. Where that can't be done, or an export is possible
// and better, why says so in a sentence. wayMu is held.
func (p *pointInTime) openFile(
	ctx context.Context, d *pointDisk, request hypervisor.DiskRequest, plan hypervisor.ReadPlan, export bool,
) (reader *datastoreDisk, why string, err error) {
	file, why, err := p.probeOnce(ctx, d)
	if err == nil && why == "" && export {
		why, err = p.exportedTogether(ctx, d)
	}
	if err != nil || why != "" {
		return nil, why, err
	}
	var allocated *disk.Areas
	// Where changes can't be told, the list of what is allocated, which comes from the same tracking, is no better.
	if plan.Areas == nil && plan.FullReason == "" && !request.Everything {
		if allocated, err = p.findAllocated(ctx, d); err != nil {
			return nil, "", err
		}
	}
	// What is read first to know what changed, and then as a whole, is read in one way.
	whole := plan.Areas == nil && allocated == nil || request.Everything
	if whole && export && !p.readsOtherFile(d) {
		if why, err = p.sparse(ctx, d); err != nil || why != "" {
			return nil, why, err
		}
	}
	return &datastoreDisk{diskPass: diskPass{point: p, pointDisk: d, plan: plan}, file: file, allocated: allocated}, "", nil
}

// A diskPass is what all ways to read a disk of a point in time have in common: a disk.Source for one pass.
type diskPass struct {
	point *pointInTime
	*pointDisk
	plan    hypervisor.ReadPlan
	started atomic.Bool
}

var errSecondPass = errors.New("the disk was read already")

// Plan implements hypervisor.DiskReader.
func (d *diskPass) Plan() hypervisor.ReadPlan { return d.plan }

// Capacity implements disk.Source.
func (d *diskPass) Capacity() int64 { return d.capacity }

// pass carries the pass out with read, as soon as there is a transfer for it. An error of yield comes back as it
// is; verb begins all others.
func (d *diskPass) pass(
	ctx context.Context, verb string,
	read func(ctx context.Context, yield func(offset int64, data []byte) error) error,
	yield func(offset int64, data []byte) error,
) error {
	if d.started.Swap(true) {
		return fmt.Errorf("%s %s: %w", verb, d.label, errSecondPass)
	}
	var yieldErr error
	err := d.transfer(ctx, func() error {
		return read(ctx, func(offset int64, data []byte) error {
			yieldErr = yield(offset, data)
			return yieldErr
		})
	})
	switch {
	case yieldErr != nil:
		return yieldErr
	case err == nil:
		d.point.diskDone(d.key)
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s %s: %w", verb, d.label, err)
}

// transfer reads with one of the transfers that are allowed at a time, if there is anything to read.
func (d *diskPass) transfer(ctx context.Context, read func() error) error {
	if d.plan.Areas != nil && d.plan.Areas.Bytes() == 0 {
		return d.point.reading(ctx)
	}
	release, err := d.point.client.acquireTransfer(ctx, string(d.point.vm), d.point.host)
	if err != nil {
		return err
	}
	defer release()
	return read()
}

// reading returns an error when nothing can be read any more.
func (p *pointInTime) reading(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.life.Err() != nil:
		return errClosedPoint
	}
	return nil
}

// whileOpen returns a context that ends with ctx or when the point in time is closed.
func (p *pointInTime) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	return either(ctx, p.life)
}

// diskDone notes that a disk was read to its end.
func (p *pointInTime) diskDone(key hypervisor.DiskKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened[key] {
		p.opened[key] = false
		p.pending--
	}
}
