package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// allAreas is the change ID since which everything that is allocated has changed.
const allAreas = "*"

// changes finds the areas of a disk that changed since a base. They are nil when the whole disk has to be
// read; then full says why in a sentence. The only errors are those of the request and of ctx.
func (p *pointInTime) changes(
	ctx context.Context, d *pointDisk, request hypervisor.DiskRequest,
) (areas *disk.Areas, full string, err error) {
	base := request.Base
	if base == nil {
		return nil, "", nil
	}
	if request.Granularity <= 0 {
		return nil, "", fmt.Errorf("a granularity of %d bytes", request.Granularity)
	}
	if full := p.unrelated(ctx, d, base.Tracking); full != "" {
		return nil, full, ctx.Err()
	}
	areas = disk.NewAreas(d.capacity, request.Granularity)
	if also := base.Also; also != nil {
		if also.Capacity() != d.capacity || also.Granularity() != request.Granularity {
			return nil, "", errors.New("the areas to be read besides are of another disk")
		}
		areas.AddAll(also)
	}
	token, err := parseToken(base.Tracking)
	if err != nil {
		return nil, "", err // unrelated has parsed it
	}
	if err := p.queryChanges(ctx, d, token.ChangeID, areas.Add); err != nil {
		if ctx.Err() != nil {
			return nil, "", fmt.Errorf("list changed areas: %w", context.Cause(ctx))
		}
		p.client.log.WarnContext(ctx, "list changed areas", "vm", p.vm, "disk", d.label, "error", err)
		return nil, fmt.Sprintf("The server could not tell what changed: %v.", err), nil
	}
	return areas, "", nil
}

// unrelated says in a sentence why what changed since a base can't be told, whatever the server would
// answer. Empty: it can be asked.
func (p *pointInTime) unrelated(ctx context.Context, d *pointDisk, base string) string {
	if why := p.untracked(d); why != "" {
		return why
	}
	if base == "" {
		return "Change tracking didn't run when the base was taken."
	}
	token, err := parseToken(base)
	if err != nil {
		return fmt.Sprintf("What the base says about change tracking can't be read: %v.", err)
	}
	if why := p.token(d).differs(token); why != "" {
		return why
	}
	return p.unsettledSince(ctx, token.Log)
}

// unsettledSince says in a sentence what happened to the VM since a position in the server's log that
// makes changes untellable, or why that isn't known: a revert leaves change IDs valid, but makes the answer
// to them wrong. What was found out is kept, since the bases of a VM's disks are of the same time.
func (p *pointInTime) unsettledSince(ctx context.Context, since logPosition) string {
	p.logMu.Lock()
	defer p.logMu.Unlock()
	why, ok := p.unsettled[since]
	if ok {
		return why
	}
	why, err := p.client.unsettledSince(ctx, vmRef(p.vm), since)
	if err != nil {
		return fmt.Sprintf("Whether the virtual machine was reverted to a snapshot since isn't known: %v.", err)
	}
	p.unsettled[since] = why
	return why
}

func (c *Client) unsettledSince(
	ctx context.Context, vm types.ManagedObjectReference, since logPosition,
) (why string, err error) {
	if since.Key == 0 {
		return "Whether the virtual machine was reverted to a snapshot since isn't known: the server's log of events " +
			"could not be read when the base was taken.", nil
	}
	var complete bool
	for attempt := 1; ; attempt++ {
		why = ""
		complete, err = c.eventsSince(ctx, vm, since, func(e types.BaseEvent) {
			if why == "" {
				why = unsettles(e)
			}
		})
		if err == nil || ctx.Err() != nil || attempt == logAttempts {
			break
		}
	}
	switch {
	case err != nil || why != "":
		return why, err
	case !complete:
		return "Whether the virtual machine was reverted to a snapshot since isn't known: the server's log of events " +
			"doesn't reach back as far as the base.", nil
	}
	return "", nil
}

// disturbed says in a sentence what happened to the VM since the point in time was opened that makes what
// was read from its datastore doubtful. Empty: nothing is known.
func (p *pointInTime) disturbed(ctx context.Context) (why string, err error) {
	if p.tracking.log.Key == 0 {
		return "", nil
	}
	_, err = p.client.eventsSince(ctx, vmRef(p.vm), p.tracking.log, func(e types.BaseEvent) {
		if why == "" {
			why = disturbs(e)
		}
	})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil { // that the snapshot is there, and the disk in its place, is known from elsewhere
		p.client.log.WarnContext(ctx, "look for what happened during the backup", "vm", p.vm, "error", err)
	}
	return why, nil
}

// errChanges: the server's answer makes no sense.
var errChanges = errors.New("the answer makes no sense")

// queryChanges calls add for every area of a disk that changed since a change ID, or is allocated. The
// answer comes in parts of some thousand areas, each of which says how far it goes.
//
// The library's own function isn't used: it needs the snapshot of the change ID, which is gone.
func (p *pointInTime) queryChanges(
	ctx context.Context, d *pointDisk, changeID string, add func(disk.Extent),
) error {
	snapshot := snapshotRef(p.snapshot.ID)
	for offset := int64(0); offset < d.capacity; {
		res, err := methods.QueryChangedDiskAreas(ctx, p.client.vim, &types.QueryChangedDiskAreas{
			This: vmRef(p.vm), Snapshot: &snapshot, DeviceKey: d.device, StartOffset: offset, ChangeId: changeID,
		})
		if err != nil {
			return fmt.Errorf("query changed areas: %w", classify(err))
		}
		next, err := checkChanges(&res.Returnval, offset, d.capacity)
		if err != nil {
			return fmt.Errorf("query changed areas: %w", err)
		}
		for _, a := range res.Returnval.ChangedArea {
			add(disk.Extent{Offset: a.Start, Length: a.Length})
		}
		offset = next
	}
	return nil
}

// checkChanges returns where the next part of an answer begins. Error: errChanges.
func checkChanges(info *types.DiskChangeInfo, offset, capacity int64) (next int64, err error) {
	if info.StartOffset != offset || info.Length <= 0 || info.Length > capacity-offset {
		return 0, fmt.Errorf("%w: asked from byte %d of %d, it covers %d bytes from byte %d",
			errChanges, offset, capacity, info.Length, info.StartOffset)
	}
	for _, a := range info.ChangedArea {
		if a.Start < 0 || a.Length <= 0 || a.Length > capacity || a.Start > capacity-a.Length {
			return 0, fmt.Errorf("%w: %d bytes at byte %d of %d", errChanges, a.Length, a.Start, capacity)
		}
	}
	return offset + info.Length, nil
}
