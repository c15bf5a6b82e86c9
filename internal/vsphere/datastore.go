package vsphere

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// The ways to read disks, as a Config names them.
const (
	// TransportDatastore reads areas of a disk's file over HTTP.
	TransportDatastore = "datastore"
	// TransportExport reads the whole disk as a stream through a lease.
	TransportExport = "export"
)

// A datastoreDisk reads one disk of a point in time from the file that the temporary snapshot has frozen.
// It is a disk.Source for one pass.
type datastoreDisk struct {
	diskPass
	file folderFile

	// allocated is what of the disk isn't zero, when all of it is read and the server can tell. Nil: it can't.
	allocated *disk.Areas
}

// Extents implements disk.Source. When the connection breaks, or the file isn't any more what it was when
// the disk was opened, the error wraps hypervisor.ErrLost.
func (d *datastoreDisk) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	return d.pass(ctx, "read", d.read, yield)
}

func (d *datastoreDisk) read(ctx context.Context, yield func(offset int64, data []byte) error) error {
	c := d.point.client
	ctx, stop := d.point.whileOpen(ctx)
	defer stop()
	if err := c.readRanges(ctx, d.file, d.extents(), yield); err != nil {
		return err
	}
	return d.confirm(ctx)
}

// extents are what is read.
func (d *datastoreDisk) extents() iter.Seq[disk.Extent] {
	switch {
	case d.plan.Areas != nil:
		return d.plan.Areas.Each
	case d.allocated != nil:
		return d.allocated.Each
	}
	return func(yield func(disk.Extent) bool) { yield(disk.Extent{Length: d.capacity}) }
}

// confirm finds out, when everything was read, whether it was read from the right place all the time.
// Nothing held the disk there: it may have been moved to another datastore, or the snapshot that kept it
// from being written to may have been removed.
func (d *datastoreDisk) confirm(ctx context.Context) error {
	c := d.point.client
	// One that is under way may be that of the temporary snapshot, which is there until the end of it.
	if err := c.awaitRemovals(ctx, d.point.vm); err != nil {
		return err
	}
	var frozen mo.VirtualMachineSnapshot
	err := c.properties(ctx, snapshotRef(d.point.snapshot.ID), []string{"config.hardware.device"}, &frozen)
	switch {
	case fault.Is(err, &types.ManagedObjectNotFound{}), errors.Is(err, hypervisor.ErrSnapshotNotFound):
		return fmt.Errorf("%w: the temporary snapshot was removed meanwhile", hypervisor.ErrLost)
	case err != nil:
		return err
	}
	now := ""
	for _, device := range orderedDisks(frozen.Config.Hardware.Device) {
		if device.Key == d.device {
			now = describeBacking(device.Backing).fileName
		}
	}
	switch now {
	case d.backing.fileName:
	case "":
		return fmt.Errorf("%w: the temporary snapshot has the disk %s no more", hypervisor.ErrLost, d.backing.fileName)
	default:
		return fmt.Errorf("%w: the disk was moved meanwhile, from %s to %s", hypervisor.ErrLost, d.backing.fileName, now)
	}
	why, err := d.point.disturbed(ctx)
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%w: %s", hypervisor.ErrLost, why)
	}
	return nil
}

// awaitRemovals waits for the end of what removes snapshots of a VM at the moment, or consolidates its disks.
func (c *Client) awaitRemovals(ctx context.Context, id hypervisor.VMID) error {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, vmRef(id), []string{"recentTask"}, &vm); err != nil {
		return err
	}
	for _, ref := range vm.RecentTask {
		info, err := c.taskInfo(ctx, ref)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case info == nil || !goesOn(info.State) || !removes(info):
			continue
		}
		if _, err := c.watchTask(ctx, ref); err != nil {
			return fmt.Errorf("wait for %s: %w", ref.Value, err)
		}
	}
	return nil
}

// allocatedUnit is the granularity of what is read of a disk of which only the allocated areas are read, in
// bytes: gaps that are smaller cost less to read than another request. It is also the unit in which VMFS
// allocates.
const allocatedUnit = 1 << 20

// findAllocated lists what of a disk isn't zero. It returns nil where that can't be relied on: then all of
// the disk has to be read. What a server lists may be incomplete if change tracking was switched on above a
// snapshot, which nobody can see afterwards; but then it is less than what the disk occupies. That is known
// of thin disks on VMFS only.
func (p *pointInTime) findAllocated(ctx context.Context, d *pointDisk) (*disk.Areas, error) {
	datastore, _ := splitPath(d.backing.base)
	thin := d.backing.thin != nil && *d.backing.thin
	if p.untracked(d) != "" || p.datastores[datastore] != "VMFS" || !thin {
		return nil, nil
	}
	at, err := p.measured(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("measure the disk: %w", context.Cause(ctx))
	case err != nil:
		p.client.log.InfoContext(ctx, "measure a disk; the whole disk is read", "vm", p.vm, "disk", d.label, "error", err)
		return nil, nil
	}
	extent := at.extent(p.snapshot.ID, d)
	if extent == nil {
		return nil, nil
	}
	areas := disk.NewAreas(d.capacity, allocatedUnit)
	err = p.queryChanges(ctx, d, allAreas, areas.Add)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("list allocated areas: %w", context.Cause(ctx))
	case err != nil:
		p.client.log.InfoContext(ctx, "list allocated areas; the whole disk is read", "vm", p.vm, "disk", d.label, "error", err)
		return nil, nil
	case areas.Bytes() < min(max(extent.Size, extent.UniqueSize), d.capacity):
		p.client.log.WarnContext(ctx, "the list of allocated areas is incomplete; the whole disk is read",
			"vm", p.vm, "disk", d.label, "listed", areas.Bytes(), "occupied", extent.Size)
		return nil, nil
	}
	return areas, nil
}
