package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// openLease returns the lease and the items of its disks by slot. Readers that come while it is being
// opened wait. A lease that was lost isn't replaced: what was read through it may be incomplete, and
// whoever reads has to hear of it.
func (p *pointInTime) openLease(ctx context.Context) (*lease, map[string]leaseItem, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errClosedPoint
	}
	if p.lease != nil {
		return p.lease, p.items, p.lease.lost()
	}
	ref, err := p.client.exportSnapshot(ctx, p.snapshot.ID)
	if err != nil {
		return nil, nil, err
	}
	l, err := p.client.openLease(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	disks := make([]leaseDisk, len(p.disks))
	for i, d := range p.disks {
		disks[i] = leaseDisk{slot: d.slot, capacity: d.capacity}
	}
	items, err := l.diskItems(disks)
	if err != nil {
		abortCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseCleanup)
		defer cancel()
		return nil, nil, errors.Join(err, l.abort(abortCtx))
	}
	p.lease, p.items, p.sha256 = l, items, l.agreeOnChecksum(ctx)
	return p.lease, p.items, nil
}

// exportSnapshot starts an export. The task of a lease that somebody lost blocks the VM until the
// server gives that lease up, which is waited for.
func (c *Client) exportSnapshot(
	ctx context.Context, snapshot hypervisor.SnapshotID,
) (types.ManagedObjectReference, error) {
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return types.ManagedObjectReference{}, fmt.Errorf("export %s: %w", snapshot, context.Cause(ctx))
		}
		// The call itself runs to its end: a lease whose answer nobody hears keeps the VM's disks open.
		callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		res, err := methods.ExportSnapshot(callCtx, c.vim, &types.ExportSnapshot{This: snapshotRef(snapshot)})
		cancel()
		if err == nil {
			return res.Returnval, nil
		}
		busy, ok := inProgress(err)
		if !ok || c.waitForOther(ctx, busy, attempt) != nil {
			return types.ManagedObjectReference{}, fmt.Errorf("export %s: %w", snapshot, classify(err))
		}
	}
}

// progress counts what was read and tells the lease, so that the server's task shows it.
func (p *pointInTime) progress(bytes int64) {
	read := p.read.Add(bytes)
	p.mu.Lock()
	l := p.lease
	p.mu.Unlock()
	if l != nil && p.total > 0 {
		l.percent.Store(int32(min(read*100/p.total, 100))) //nolint:gosec // at most 100
	}
}
