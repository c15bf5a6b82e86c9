package hypervisortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// history is which blocks of an image were written, and when. Time is counted in epochs: freezing an
// image ends one.
type history struct {
	id      string // empty: changes are not tracked
	epoch   int64
	written map[int64]int64 // epoch of the last write, by block
	frozen  bool            // of a copy, which a revert makes a running image again
}

// note notes a write.
func (h *history) note(block int64) {
	if h.id != "" {
		h.written[block] = h.epoch
	}
}

// track begins to track an image that is about to be frozen, or goes on. An image that came back from a
// snapshot begins anew: what was written between the snapshot and the revert is unknown to it.
func (h *history) track(on bool) {
	if !on || h.frozen {
		*h = history{}
	}
	if on && h.id == "" {
		*h = history{id: newUUID(), written: map[int64]int64{}}
	}
}

// end is the history of a frozen copy. A running image goes on in the next epoch.
func (h *history) end() history {
	copied := *h
	copied.written, copied.frozen = maps.Clone(h.written), true
	if !h.frozen {
		h.epoch++
	}
	return copied
}

// A fakeToken is what a Fake's tokens say.
type fakeToken struct {
	ID       string
	Epoch    int64
	VM       hypervisor.VMID
	Disk     string // its UUID
	Capacity int64
}

func (p *fakePointInTime) token(d hypervisor.Disk) fakeToken {
	h := p.snapshot.images[d.Key].history
	return fakeToken{ID: h.id, Epoch: h.epoch, VM: p.vm, Disk: d.UUID, Capacity: d.Capacity}
}

// enable prepares change tracking for a point in time, before its snapshot is taken. It returns why changes
// can't be told, if they can't.
func (f *Fake) enable(id hypervisor.VMID, want hypervisor.ChangeTracking) (reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.vms[id]
	switch {
	case !ok: // taking the snapshot says so
	case want == hypervisor.TrackingIgnore:
		return "Change tracking is to be ignored."
	case v.ChangeTracking:
	case want != hypervisor.TrackingEnable:
		return "Change tracking is off."
	case len(v.snapshots) > 0:
		return "Change tracking can't be switched on while the VM has snapshots."
	default:
		v.ChangeTracking = true
	}
	return ""
}

// plan decides what of a disk is read.
func (p *fakePointInTime) plan(
	ctx context.Context, d hypervisor.Disk, request hypervisor.DiskRequest,
) (hypervisor.ReadPlan, error) {
	plan := hypervisor.ReadPlan{Transport: "memory"}
	if p.untracked == "" {
		token, err := json.Marshal(p.token(d))
		if err != nil {
			return plan, err
		}
		plan.Tracking = string(token)
	}
	base := request.Base
	if base == nil {
		return plan, nil
	}
	if request.Granularity <= 0 {
		return plan, fmt.Errorf("open disk %s: a granularity of %d bytes", d.Key, request.Granularity)
	}
	areas, reason := p.changed(ctx, d, base.Tracking, request.Granularity)
	if areas == nil {
		plan.FullReason = reason
		return plan, ctx.Err()
	}
	if also := base.Also; also != nil {
		if also.Capacity() != d.Capacity || also.Granularity() != request.Granularity {
			return plan, fmt.Errorf("open disk %s: areas of another disk", d.Key)
		}
		areas.AddAll(also)
	}
	plan.Areas = areas
	return plan, nil
}

// changed are the areas that changed since a token, or nil and why they are unknown.
func (p *fakePointInTime) changed(
	ctx context.Context, d hypervisor.Disk, base string, granularity int64,
) (*disk.Areas, string) {
	if p.untracked != "" {
		return nil, p.untracked
	}
	if base == "" {
		return nil, "Changes were not tracked when the base was taken."
	}
	if err := p.f.at(ctx, BeforeChangedAreas); err != nil {
		return nil, fmt.Sprintf("The changed areas could not be listed: %v.", err)
	}
	var then fakeToken
	if err := json.Unmarshal([]byte(base), &then); err != nil {
		return nil, "The token of the base can't be read."
	}
	now := p.token(d)
	switch {
	case then.VM != now.VM || then.Disk != now.Disk:
		return nil, "The base is of another disk."
	case then.Capacity != now.Capacity:
		return nil, fmt.Sprintf("The disk had %d bytes and now has %d.", then.Capacity, now.Capacity)
	case then.ID != now.ID || then.Epoch > now.Epoch:
		return nil, "Change tracking was started anew since the base was taken."
	}
	areas := disk.NewAreas(d.Capacity, granularity)
	for block, epoch := range p.snapshot.images[d.Key].written {
		if epoch > then.Epoch {
			areas.Add(disk.Extent{Offset: block * imageBlock, Length: imageBlock})
		}
	}
	return areas, ""
}

// SetChangeTracking switches change tracking of a VM on or off, as somebody else may do. Tracking begins
// anew with the next snapshot.
func (f *Fake) SetChangeTracking(id hypervisor.VMID, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vms[id]
	v.ChangeTracking = on
	for _, m := range v.images {
		m.track(false)
	}
}

// Revert brings the disks of a VM back to a snapshot, as somebody else may do.
func (f *Fake) Revert(id hypervisor.VMID, snapshot hypervisor.SnapshotID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return err
	}
	s := v.find(snapshot)
	if s == nil {
		return fmt.Errorf("revert to %s: %w", snapshot, hypervisor.ErrSnapshotNotFound)
	}
	for i, d := range v.Disks {
		m, ok := s.images[d.Key]
		if !ok {
			continue
		}
		v.images[d.Key] = m.freeze()
		v.Disks[i].Capacity = m.capacity
	}
	v.current = snapshot
	return nil
}

// ResizeDisk makes the n-th disk of a VM larger, as somebody else may do. That needs a VM without snapshots.
func (f *Fake) ResizeDisk(id hypervisor.VMID, n int, capacity int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return err
	}
	d := &v.Disks[n]
	if len(v.snapshots) > 0 || capacity < d.Capacity {
		return errors.New("resize: the VM has snapshots, or the disk would get smaller")
	}
	m := v.images[d.Key].freeze()
	m.capacity, d.Capacity = capacity, capacity
	v.images[d.Key] = m
	return nil
}

// WriteDiskUnnoticed writes to a disk like WriteDisk, but change tracking doesn't notice: it plays a
// hypervisor with a bug.
func (f *Fake) WriteDiskUnnoticed(id hypervisor.VMID, n int, p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vms[id]
	m := v.images[v.Disks[n].Key]
	was := m.history
	m.history = history{}
	defer func() { m.history = was }()
	return m.writeAt(p, off)
}

// within yields the parts of an extent that are in areas, which are sorted; nil are all.
func within(areas []disk.Extent, off int64, data []byte, yield func(off int64, data []byte) error) error {
	if areas == nil {
		return yield(off, data)
	}
	end := off + int64(len(data))
	first, _ := slices.BinarySearchFunc(areas, off, func(a disk.Extent, off int64) int {
		if a.End() <= off {
			return -1
		}
		return 1
	})
	for _, a := range areas[first:] {
		if a.Offset >= end {
			break
		}
		from, to := max(off, a.Offset), min(end, a.End())
		if err := yield(from, data[from-off:to-off]); err != nil {
			return err
		}
	}
	return nil
}
