package hypervisortest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// maxDepth is the deepest chain of snapshots that a Fake allows.
const maxDepth = 32

// CreateSnapshot implements hypervisor.Snapshotter.
func (f *Fake) CreateSnapshot(
	ctx context.Context, id hypervisor.VMID, spec hypervisor.SnapshotSpec,
) (hypervisor.SnapshotID, error) {
	if err := f.at(ctx, BeforeCreateSnapshot); err != nil {
		return "", err
	}
	s, err := f.snapshot(id, spec)
	if err != nil {
		return "", err
	}
	return s.ID, f.at(ctx, AfterCreateSnapshot)
}

func (f *Fake) snapshot(id hypervisor.VMID, spec hypervisor.SnapshotSpec) (*fakeSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return nil, err
	}
	for _, o := range v.Obstacles {
		if o.BlocksSnapshot {
			return nil, &hypervisor.ObstacleError{VM: v.Path, Obstacles: []hypervisor.Obstacle{o}}
		}
	}
	s := &fakeSnapshot{images: map[hypervisor.DiskKey]*image{}, Snapshot: hypervisor.Snapshot{
		ID: hypervisor.SnapshotID(f.next("snapshot")), Name: spec.Name, Description: spec.Description,
		CreatedAt: f.now().Add(v.clock), PowerState: v.PowerState, Parent: v.current, Path: spec.Name, Depth: 1, SizeBytes: -1,
	}}
	if parent := v.find(v.current); parent != nil {
		s.Depth, s.Path = parent.Depth+1, parent.Path+"/"+spec.Name
	}
	if s.Depth > maxDepth {
		return nil, fmt.Errorf("create snapshot of %s: %w", v.Name, hypervisor.ErrTooManySnapshots)
	}
	on := v.PowerState == hypervisor.PoweredOn
	s.Memory = spec.Memory && on
	if !s.Memory { // a revert leads to a VM that is off
		s.PowerState = hypervisor.PoweredOff
	}
	s.Quiesced = spec.Quiesce != nil && on && v.GuestAgent && !f.QuiesceIgnored
	s.Application = s.Quiesced && f.QuiesceApplication
	for key, m := range v.images {
		m.track(v.ChangeTracking)
		s.images[key] = m.freeze()
	}
	s.config, s.network, s.connected = *v.copy(), v.network, v.connected
	v.snapshots = append(v.snapshots, s)
	v.current = s.ID
	return s, nil
}

func (v *fakeVM) find(id hypervisor.SnapshotID) *fakeSnapshot {
	i := slices.IndexFunc(v.snapshots, func(s *fakeSnapshot) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return v.snapshots[i]
}

// SnapshotExists implements hypervisor.Snapshotter.
func (f *Fake) SnapshotExists(ctx context.Context, id hypervisor.SnapshotID) (bool, error) {
	if err := f.at(ctx, BeforeSnapshotExists); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.vms {
		if v.find(id) != nil {
			return true, nil
		}
	}
	return false, nil
}

// Snapshots implements hypervisor.Snapshotter.
func (f *Fake) Snapshots(ctx context.Context, id hypervisor.VMID) ([]hypervisor.Snapshot, error) {
	if err := f.at(ctx, BeforeSnapshots); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return nil, err
	}
	all := make([]hypervisor.Snapshot, len(v.snapshots))
	for i, s := range v.snapshots { // a parent is older than its children, so it comes first
		all[i] = s.Snapshot
		all[i].Current = s.ID == v.current
		for _, c := range v.snapshots {
			if c.Parent == s.ID {
				all[i].Children = append(all[i].Children, c.ID)
			}
		}
	}
	return all, nil
}

// RenameSnapshot implements hypervisor.Snapshotter.
func (f *Fake) RenameSnapshot(
	ctx context.Context, id hypervisor.VMID, snapshot hypervisor.SnapshotID, name, description string,
) error {
	if err := f.at(ctx, BeforeRenameSnapshot); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return err
	}
	s := v.find(snapshot)
	if s == nil {
		return fmt.Errorf("rename snapshot %s: %w", snapshot, hypervisor.ErrSnapshotNotFound)
	}
	s.Name, s.Description = name, description
	v.relink()
	return nil
}

// RemoveSnapshot implements hypervisor.Snapshotter.
func (f *Fake) RemoveSnapshot(
	ctx context.Context, id hypervisor.VMID, snapshot hypervisor.SnapshotID, options hypervisor.RemoveOptions,
) error {
	if err := f.at(ctx, BeforeRemoveSnapshot); err != nil {
		return err
	}
	f.mu.Lock()
	if v, err := f.vm(id); err == nil {
		v.deltas = options.NoConsolidate && (v.deltas || v.find(snapshot) != nil)
		v.remove(snapshot, options.Children)
	}
	f.mu.Unlock()
	return f.at(ctx, AfterRemoveSnapshot)
}

func (v *fakeVM) remove(id hypervisor.SnapshotID, children bool) {
	s := v.find(id)
	if s == nil {
		return
	}
	for _, c := range slices.Clone(v.snapshots) {
		if c.Parent != id {
			continue
		}
		if children {
			v.remove(c.ID, true)
		} else {
			c.Parent = s.Parent
		}
	}
	v.snapshots = slices.DeleteFunc(v.snapshots, func(c *fakeSnapshot) bool { return c.ID == id })
	if v.current == id {
		v.current = s.Parent
	}
	v.relink()
}

// relink derives what follows from the tree.
func (v *fakeVM) relink() {
	for _, s := range v.snapshots {
		s.Depth, s.Path = 1, s.Name
		if parent := v.find(s.Parent); parent != nil {
			s.Depth, s.Path = parent.Depth+1, parent.Path+"/"+s.Name
		}
	}
}

// fakeConfig is what a Fake captures.
type fakeConfig struct {
	VM      hypervisor.VM
	Network string
}

// OpenPointInTime implements hypervisor.PointInTimeOpener.
func (f *Fake) OpenPointInTime(
	ctx context.Context, id hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	if err := f.at(ctx, BeforeOpenPointInTime); err != nil {
		return nil, err
	}
	untracked := f.enable(id, spec.ChangeTracking)
	s, err := f.snapshot(id, hypervisor.SnapshotSpec{Name: spec.Name, Description: spec.Description, Quiesce: spec.Quiesce})
	if err != nil {
		return nil, err
	}
	p := &fakePointInTime{f: f, vm: id, snapshot: s, untracked: untracked, open: true}
	if err := f.at(ctx, DuringOpenPointInTime); err != nil {
		p.release()
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return nil, err
	}
	summary := *v.copy()
	summary.Disks = slices.DeleteFunc(summary.Disks, func(d hypervisor.Disk) bool {
		return slices.Contains(spec.Exclude, d.Key)
	})
	data, err := json.Marshal(fakeConfig{VM: v.VM, Network: v.network}) // the whole configuration, excluded disks and all
	if err != nil {
		return nil, err
	}
	p.config = hypervisor.Config{Format: FakeConfigFormat, Data: data, NVRAM: []byte("nvram of " + v.Name), Summary: summary}
	if untracked != "" && spec.ChangeTracking == hypervisor.TrackingEnable {
		p.config.Warnings = append(p.config.Warnings, untracked)
	}
	return p, nil
}

type fakePointInTime struct {
	f        *Fake
	vm       hypervisor.VMID
	snapshot *fakeSnapshot
	config   hypervisor.Config

	untracked string // why changes can't be told

	mu   sync.Mutex
	open bool
}

func (p *fakePointInTime) Snapshot() hypervisor.Snapshot { return p.snapshot.Snapshot }

func (p *fakePointInTime) Config() hypervisor.Config { return p.config }

// A fakeReader reads a disk of a fake from memory.
type fakeReader struct {
	disk.Source
	plan hypervisor.ReadPlan
}

func (r fakeReader) Plan() hypervisor.ReadPlan { return r.plan }

func (p *fakePointInTime) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	if err := p.f.at(ctx, BeforeOpenDisk); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(p.config.Summary.Disks, func(d hypervisor.Disk) bool { return d.Key == key })
	if i < 0 || !p.isOpen() {
		return nil, fmt.Errorf("open disk %s: not a disk of this point in time, or closed", key)
	}
	plan, err := p.plan(ctx, p.config.Summary.Disks[i], request)
	if err != nil {
		return nil, err
	}
	src := source{image: p.snapshot.images[key], each: func(ctx context.Context) error {
		if !p.isOpen() {
			return fmt.Errorf("read disk %s: %w", key, hypervisor.ErrLost)
		}
		return p.f.at(ctx, DuringRead)
	}}
	if plan.Areas != nil {
		src.areas = []disk.Extent{}
		plan.Areas.Each(func(e disk.Extent) bool { src.areas = append(src.areas, e); return true })
	}
	return fakeReader{src, plan}, nil
}

func (p *fakePointInTime) isOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *fakePointInTime) Close(ctx context.Context) error {
	p.mu.Lock()
	was := p.open
	p.open = false
	p.mu.Unlock()
	if !was {
		return nil
	}
	if err := p.f.at(context.WithoutCancel(ctx), BeforeClose); err != nil {
		return fmt.Errorf("remove snapshot %q (%s): %w", p.snapshot.Name, p.snapshot.ID, err)
	}
	p.release()
	return nil
}

func (p *fakePointInTime) release() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if v, err := p.f.vm(p.vm); err == nil {
		v.remove(p.snapshot.ID, false)
	}
}
