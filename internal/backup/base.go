package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// lookBack is how many restore points of a VM are looked through, newest first, for the last ones of its
// disks: another configuration may leave out a disk in every other backup, or ignore change tracking.
const lookBack = 8

// A base is a disk as the repository has it already.
type base struct {
	id        repository.ID // of the restore point
	createdAt time.Time
	disk      repository.Disk
}

// findBases finds the newest restore point of each disk of the VM that can be a base, by the disk's UUID: keys and addresses
// are given to other disks when one is removed. A UUID that two disks have says nothing.
func (b *backup) findBases(ctx context.Context) (map[string]base, error) {
	if b.full || b.Mode == ModeFull || b.ChangeTracking == hypervisor.TrackingIgnore || b.vm.InstanceUUID == "" {
		return nil, nil
	}
	points, err := b.m.repo.List(ctx, repository.Filter{VM: b.vm.InstanceUUID})
	if err != nil {
		return nil, err
	}
	wanted := unique(b.vm.Disks, func(d hypervisor.Disk) string { return d.UUID })
	for _, d := range b.excluded {
		delete(wanted, strings.ToLower(d.UUID))
	}
	bases := map[string]base{}
	for looked, p := range points {
		if looked == lookBack || len(bases) == len(wanted) {
			break
		}
		if repository.Damaged(b.known[p.ID]) {
			continue
		}
		manifest, err := b.m.repo.Get(ctx, p.ID)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			// It was deleted meanwhile, or it is of a newer version, or damaged. None of it should keep anybody
			// from making a backup.
			if !errors.Is(err, repository.ErrNotFound) {
				b.m.log.WarnContext(ctx, "reading an earlier backup", "vm", b.vm.Path, "id", string(p.ID), "error", err)
			}
			continue
		}
		if manifest.VM.Server != b.vm.Server || !strings.EqualFold(manifest.VM.InstanceUUID, b.vm.InstanceUUID) {
			continue
		}
		for uuid, d := range unique(manifest.Disks, func(d repository.Disk) string { return d.UUID }) {
			_, want := wanted[uuid]
			_, found := bases[uuid]
			if want && !found && d.Tracking != "" && d.Hashes != "" {
				bases[uuid] = base{id: p.ID, createdAt: manifest.CreatedAt, disk: d}
			}
		}
	}
	return bases, nil
}

// unique are the disks with a UUID that no other has, by UUID in lower case.
func unique[D any](disks []D, uuid func(D) string) map[string]D {
	found, twice := map[string]D{}, map[string]bool{}
	for _, d := range disks {
		id := strings.ToLower(uuid(d))
		if _, ok := found[id]; ok || id == "" {
			twice[id] = true
		}
		found[id] = d
	}
	for id := range twice {
		delete(found, id)
	}
	return found
}

// baseOf decides what is taken for the base of a disk. The reason is a sentence that says why there is none
// although there could be expected to be one.
func (b *backup) baseOf(d hypervisor.Disk) (found *base, reason string) {
	from, ok := b.bases[strings.ToLower(d.UUID)]
	switch {
	case !ok:
		return nil, ""
	case !from.disk.IsBaseFor(d.Capacity):
		return nil, fmt.Sprintf("It had %d bytes in the last backup and now has %d.", from.disk.Capacity, d.Capacity)
	}
	return &from, ""
}

// due reports whether it is time again for all of a disk to be read.
func (b *backup) due(from *base) bool {
	every := b.FullEvery
	if every == 0 {
		every = DefaultFullEvery
	}
	return every > 0 && from.disk.Incrementals >= every
}
