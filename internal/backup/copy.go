package backup

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

const (
	// sampleShare is the share of a disk's unchanged chunks that VerifySample reads: one of so many.
	sampleShare = 100
	// minSample is how many bytes it reads at least, if there are as many.
	minSample = 16 << 20
)

// A copied disk is a disk that is in the repository now.
type copied struct {
	disk    repository.Disk
	stored  int64
	base    *base  // that only changes were read since; nil: all was
	warning string // why all was, although only changes could be expected; empty: it is as expected
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
	defer b.watch(ctx, &count)()
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
	c.base, c.warning = b.baseOf(d)
	reader, sample, err := b.openDisk(ctx, point, d, c.base)
	if err != nil {
		return c, fmt.Errorf("open %s: %w", d.Label, err)
	}
	plan := reader.Plan()
	if plan.Areas == nil {
		if c.base != nil {
			c.warning = plan.FullReason
		}
		c.base = nil
	}
	c.disk = repository.Disk{
		Key: string(d.Key), Label: d.Label, Address: d.Address, UUID: d.UUID, Capacity: d.Capacity,
		Datastore: d.Datastore, Path: d.Path, File: diskFile(d.Key),
		Tracking: plan.Tracking, Transport: plan.Transport, TransportReason: plan.TransportReason,
	}
	source := countedSource{Source: reader, meter: count}
	var result repository.DiskResult
	if c.base == nil {
		result, err = w.WriteDisk(ctx, c.disk.File, source)
	} else {
		source.areas = plan.Areas
		count.total.Add(plan.Areas.Bytes() - d.Capacity) // the rest is done already
		c.disk.Parent, c.disk.Incrementals = c.base.id, c.base.disk.Incrementals+1
		c.disk.ChangedBytes = plan.Areas.Bytes()
		if sample != nil {
			c.disk.ChangedBytes -= sample.Bytes()
		}
		result, err = w.WriteChanges(ctx, c.disk.File, source,
			repository.Base{ID: c.base.id, Disk: c.base.disk, Areas: plan.Areas, Sample: sample})
	}
	if err != nil {
		return c, fmt.Errorf("copy %s: %w", d.Label, err)
	}
	c.disk.Digest, c.disk.Hashes, c.disk.ChunkSize = result.Digest, result.Hashes, result.ChunkSize
	c.disk.DataBytes, c.disk.ReadBytes, c.stored = result.DataBytes, result.ReadBytes, result.StoredBytes
	return c, nil
}

// openDisk opens a disk for reading what changed since the base, and a sample of what didn't if that is
// asked for. What didn't is known when it was opened, so that it has to be opened once more then.
func (b *backup) openDisk(
	ctx context.Context, point hypervisor.PointInTime, d hypervisor.Disk, from *base,
) (_ hypervisor.DiskReader, sample *disk.Areas, err error) {
	request := hypervisor.DiskRequest{Granularity: repository.ChunkSize(d.Capacity)}
	if from != nil {
		request.Base = &hypervisor.Base{Tracking: from.disk.Tracking}
	}
	reader, err := point.OpenDisk(ctx, d.Key, request)
	if err != nil || from == nil || b.Verify != VerifySample || reader.Plan().Areas == nil {
		return reader, nil, err
	}
	changed := reader.Plan().Areas
	unchanged := d.Capacity - changed.Bytes()
	units := (max(unchanged/sampleShare, minSample)-1)/request.Granularity + 1
	sample = changed.Others(units, rand.Int64N)
	request.Base.Also = sample
	reader, err = point.OpenDisk(ctx, d.Key, request)
	return reader, sample, err
}
