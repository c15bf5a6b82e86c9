package backup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

const (
	// sampleShare is the share of a disk's unchanged chunks that RecheckSample reads: one of so many.
	sampleShare = 100
	// minSample is how many bytes it reads at least, if there are as many.
	minSample = 16 << 20
)

// A copied disk is a disk that is in the repository now.
type copied struct {
	disk    repository.Disk
	stored  int64
	base    *base  // that only changes were read since; nil: all was
	warning string // empty: all went as could be expected
}

// An opening is a disk that is open for reading.
type opening struct {
	hypervisor.DiskReader
	base    *base       // what is already there; nil: nothing, or it doesn't matter
	changed *disk.Areas // since the base
	areas   *disk.Areas // that are read
	sample  *disk.Areas // those of them that didn't change
	whole   bool        // all of the disk is read, and compared with the base where it should be the same
}

// copyDisks copies the disks, as many at a time as the hypervisor lets read. The first that fails ends
// the others.
func (b *backup) copyDisks(ctx context.Context, w writer, point hypervisor.PointInTime) ([]copied, error) {
	disks := point.Config().Summary.Disks
	all := make([]copied, len(disks))
	var count meter
	for _, d := range disks {
		count.total.Add(d.Capacity)
	}
	ctx, phase := progress.Enter(ctx, "copying the disks", "vm", b.vm.Path)
	defer phase.Leave()
	phase.Measure(count.figures)
	group, groupCtx := errgroup.WithContext(ctx)
	for i, d := range disks {
		group.Go(func() (err error) {
			if err = groupCtx.Err(); err == nil {
				all[i], err = b.copyDisk(groupCtx, w, point, d, &count)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.warning != "" {
			b.warn(ctx, fmt.Sprintf("%s (%s) of %s was read in full, not only what changed: %s",
				c.disk.Label, c.disk.Address, b.vm.Name, c.warning))
		}
	}
	return all, nil
}

// copyDisk copies a disk: what changed since its base, or all of it.
func (b *backup) copyDisk(
	ctx context.Context, w writer, point hypervisor.PointInTime, d hypervisor.Disk, count *meter,
) (c copied, err error) {
	began := b.m.now()
	from, reason := b.baseOf(d)
	c.warning = reason
	open, err := b.openDisk(ctx, point, d, from)
	if err != nil {
		return c, fmt.Errorf("open %s: %w", d.Label, err)
	}
	plan := open.Plan()
	if from != nil && open.base == nil && !b.due(from) {
		c.warning = plan.FullReason
	}
	c.disk = repository.Disk{
		Key: string(d.Key), Label: d.Label, Address: d.Address, UUID: d.UUID, Capacity: d.Capacity,
		Datastore: d.Datastore, Path: d.Path, File: diskFile(d.Key),
		Tracking: plan.Tracking, Transport: plan.Transport, TransportReason: plan.TransportReason,
	}
	if open.base != nil && !open.whole {
		c.base = open.base
		c.disk.Parent, c.disk.Incrementals = from.id, from.disk.Incrementals+1
		c.disk.ChangedBytes = open.changed.Bytes()
	}
	result, err := b.write(ctx, w, c.disk.File, open, count)
	var wrong *repository.TrackingError
	if open.whole && errors.As(err, &wrong) {
		c.warning = fmt.Sprintf("That was due, and showed that %v. This backup is right. Earlier ones since the last "+
			"full read may lack changes.", wrong)
		if open.DiskReader, err = point.OpenDisk(ctx, d.Key, hypervisor.DiskRequest{Everything: true}); err != nil {
			return c, fmt.Errorf("open %s: %w", d.Label, err)
		}
		open.base = nil
		result, err = b.write(ctx, w, c.disk.File, open, &meter{}) // counted already, for the most part
	}
	if err != nil {
		return c, fmt.Errorf("copy %s: %w", d.Label, err)
	}
	c.disk.Digest, c.disk.Hashes, c.disk.ChunkSize = result.Digest, result.Hashes, result.ChunkSize
	c.disk.DataBytes, c.disk.ReadBytes, c.stored = result.DataBytes, result.ReadBytes, result.StoredBytes
	b.m.log.InfoContext(ctx, "disk copied", "vm", b.vm.Path, "disk", d.Label, "capacity_bytes", d.Capacity,
		"transport", plan.Transport, "transport_reason", plan.TransportReason, "changes_only", c.base != nil,
		"read_bytes", result.ReadBytes, "data_bytes", result.DataBytes, "stored_bytes", result.StoredBytes,
		"duration", progress.Since(began, b.m.now()))
	return c, nil
}

// write writes a disk to the repository.
func (b *backup) write(
	ctx context.Context, w writer, file string, open opening, count *meter,
) (repository.DiskResult, error) {
	source := countedSource{Source: open.DiskReader, meter: count}
	if open.base == nil {
		return w.WriteDisk(ctx, file, source)
	}
	source.areas = open.areas
	count.total.Add(open.areas.Bytes() - source.Capacity()) // the rest is done already
	return w.WriteChanges(ctx, file, source,
		repository.Base{ID: open.base.id, Disk: open.base.disk, Areas: open.areas, Sample: open.sample})
}

// openDisk opens a disk for reading what changed since the base; and, of what didn't, a sample if that is
// asked for, or all if that is due. What changed is known when it is open, so that it is opened once more
// then.
func (b *backup) openDisk(
	ctx context.Context, point hypervisor.PointInTime, d hypervisor.Disk, from *base,
) (open opening, err error) {
	request := hypervisor.DiskRequest{
		Granularity: repository.ChunkSize(d.Capacity),
		Everything:  b.full || b.Mode == ModeFull || from != nil && b.due(from),
	}
	if from != nil {
		request.Base = &hypervisor.Base{Tracking: from.disk.Tracking}
	}
	if open.DiskReader, err = point.OpenDisk(ctx, d.Key, request); err != nil {
		return open, err
	}
	open.changed = open.Plan().Areas
	if from == nil || open.changed == nil {
		return open, nil
	}
	open.base, open.areas = from, open.changed
	switch {
	case b.due(from):
		open.whole = true
		open.sample = open.changed.Others(d.Capacity, rand.Int64N)
		open.areas = disk.NewAreas(d.Capacity, request.Granularity)
		open.areas.Add(disk.Extent{Length: d.Capacity})
		request.Base = nil
	case b.Recheck == RecheckSample:
		unchanged := d.Capacity - open.changed.Bytes()
		chunks := (max(unchanged/sampleShare, minSample)-1)/request.Granularity + 1
		open.sample = open.changed.Others(chunks, rand.Int64N)
		request.Base.Also = open.sample
	default:
		return open, nil
	}
	if open.DiskReader, err = point.OpenDisk(ctx, d.Key, request); err != nil || open.whole {
		return open, err
	}
	if open.areas = open.Plan().Areas; open.areas == nil { // though a moment ago it could tell
		open.base = nil
	}
	return open, nil
}
