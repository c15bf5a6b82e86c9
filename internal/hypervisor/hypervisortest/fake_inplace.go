package hypervisortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A fakeJournal is what a VM of a Fake carries while its disks are replaced.
type fakeJournal struct {
	runID   string
	holder  string
	renewed int  // how often the holder has renewed its lease
	busy    bool // the server is carrying out something on the VM
	stopped bool // by the restore
	swapped bool
	keep    time.Duration
	disks   []fakeSwap
}

// A fakeSwap is one disk that is replaced.
type fakeSwap struct {
	captured hypervisor.DiskKey
	own      hypervisor.Disk // of the VM
	path     string          // of the restored one
}

// LooseDisks are the paths of disks that no VM has: what a restore in place wrote or took out.
func (f *Fake) LooseDisks() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.loose))
}

// LooseDisk is the content of a disk that no VM has, nil if there is no such disk.
func (f *Fake) LooseDisk(path string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.loose[path]; ok {
		return m.bytes()
	}
	return nil
}

// CheckInPlace implements hypervisor.InPlaceRestorer.
func (f *Fake) CheckInPlace(ctx context.Context, spec hypervisor.InPlaceSpec) ([]string, error) {
	if err := f.at(ctx, BeforeCheckInPlace); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _, err := f.planInPlace(spec)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, s := range v.snapshots {
		warnings = append(warnings, fmt.Sprintf("Snapshot %q is removed.", s.Name))
	}
	return warnings, nil
}

// planInPlace checks a restore in place and matches the disks. The caller holds the lock.
func (f *Fake) planInPlace(spec hypervisor.InPlaceSpec) (*fakeVM, []fakeSwap, error) {
	v, err := f.vm(spec.VM)
	if err != nil {
		return nil, nil, err
	}
	var c fakeConfig
	if spec.Config.Format != FakeConfigFormat || json.Unmarshal(spec.Config.Data, &c) != nil {
		return nil, nil, fmt.Errorf("%w: %q", hypervisor.ErrConfigFormat, spec.Config.Format)
	}
	captured, err := chosen(hypervisor.RestoreSpec{Config: spec.Config, Disks: spec.Disks})
	if err != nil {
		return nil, nil, err
	}
	var swaps []fakeSwap
	for _, d := range captured {
		own, err := v.match(d)
		if err != nil {
			return nil, nil, err
		}
		swaps = append(swaps, fakeSwap{
			captured: d.Key, own: own, path: fmt.Sprintf("[%s] %s/%s-%s", own.Datastore, v.Name, own.Key, spec.RunID),
		})
	}
	var obstacles []hypervisor.Obstacle
	for _, o := range v.Obstacles {
		if o.Disk == "" || slices.ContainsFunc(swaps, func(s fakeSwap) bool { return s.own.Key == o.Disk }) {
			obstacles = append(obstacles, o)
		}
	}
	switch {
	case len(obstacles) > 0:
		return nil, nil, &hypervisor.ObstacleError{VM: v.Path, Action: "restored into", Obstacles: obstacles}
	case len(v.snapshots) > 0 && !spec.RemoveSnapshots:
		return nil, nil, fmt.Errorf("%s: %w: %q", v.Path, hypervisor.ErrSnapshotsInTheWay, v.snapshots[0].Name)
	case v.PowerState != hypervisor.PoweredOff && !v.GuestAgent && !spec.PowerOff,
		v.PowerState == hypervisor.Suspended && !spec.PowerOff:
		return nil, nil, fmt.Errorf("%s: %w", v.Path, hypervisor.ErrGuestAgent)
	}
	return v, swaps, nil
}

// match finds the disk of a VM that a captured one replaces.
func (v *fakeVM) match(captured hypervisor.Disk) (hypervisor.Disk, error) {
	i := slices.IndexFunc(v.Disks, func(d hypervisor.Disk) bool { return strings.EqualFold(d.UUID, captured.UUID) })
	if i < 0 {
		i = slices.IndexFunc(v.Disks, func(d hypervisor.Disk) bool { return d.Address == captured.Address })
	}
	reason := ""
	switch {
	case i < 0:
		reason = "the virtual machine has no disk with its UUID or address"
	case v.Disks[i].Capacity != captured.Capacity:
		reason = fmt.Sprintf("it has %d bytes and the virtual machine's %d", captured.Capacity, v.Disks[i].Capacity)
	default:
		return v.Disks[i], nil
	}
	e := &hypervisor.DiskMismatchError{VM: v.Path, Disk: captured.Label + " (" + captured.Address + ")", Reason: reason}
	for _, d := range v.Disks {
		e.Disks = append(e.Disks, d.Label+" ("+d.Address+")")
	}
	return hypervisor.Disk{}, e
}

// StartInPlace implements hypervisor.InPlaceRestorer.
func (f *Fake) StartInPlace(ctx context.Context, spec hypervisor.InPlaceSpec) (hypervisor.InPlaceRestore, error) {
	if err := f.at(ctx, BeforeStartInPlace); err != nil {
		return nil, err
	}
	f.mu.Lock()
	v, swaps, err := f.planInPlace(spec)
	if err == nil && v.journal != nil {
		err = v.interrupted()
	}
	if err == nil {
		err = f.missing([]string{v.Path}, spec.Then)
	}
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	v.journal = &fakeJournal{runID: spec.RunID, holder: spec.RunID, stopped: spec.Ran, keep: spec.Keep, disks: swaps}
	for _, s := range swaps {
		f.loose[s.path] = newImage(s.own.Capacity)
	}
	r := &fakeInPlace{f: f, vm: v, spec: spec, written: map[hypervisor.DiskKey]bool{}}
	f.mu.Unlock()
	if err := f.at(ctx, DuringStartInPlace); err != nil {
		r.undo()
		return nil, err
	}
	return r, nil
}

func (v *fakeVM) interrupted() *hypervisor.InterruptedError {
	j := v.journal
	return &hypervisor.InterruptedError{
		VM: v.Path, Interrupted: hypervisor.Interrupted{
			RunID: j.runID, Holder: j.holder, Lease: fmt.Sprint(j.holder, " ", j.renewed), Busy: j.busy,
			Swapped: j.swapped, Stopped: j.stopped,
		},
	}
}

// RenewInPlace plays the holder of a VM's journal, which shows that it lives. Nothing else does: time stands still
// in a Fake.
func (f *Fake) RenewInPlace(id hypervisor.VMID) {
	f.journal(id, func(j *fakeJournal) { j.renewed++ })
}

// TakeInPlace plays another run, by, that takes the restore in place of a VM over.
func (f *Fake) TakeInPlace(id hypervisor.VMID, by string) {
	f.journal(id, func(j *fakeJournal) { j.holder, j.renewed = by, 0 })
}

// SetBusy says whether the server is carrying out something on a VM whose disks are being replaced.
func (f *Fake) SetBusy(id hypervisor.VMID, busy bool) {
	f.journal(id, func(j *fakeJournal) { j.busy = busy })
}

// journal changes the journal of a VM if it has one.
func (f *Fake) journal(id hypervisor.VMID, edit func(*fakeJournal)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, err := f.vm(id); err == nil && v.journal != nil {
		edit(v.journal)
	}
}

// InterruptedInPlace implements hypervisor.InPlaceRestorer.
func (f *Fake) InterruptedInPlace(ctx context.Context, id hypervisor.VMID) (*hypervisor.Interrupted, error) {
	if err := f.at(ctx, BeforeInterruptedInPlace); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil || v.journal == nil {
		return nil, err
	}
	return &v.interrupted().Interrupted, nil
}

// RecoverInPlace implements hypervisor.InPlaceRestorer.
func (f *Fake) RecoverInPlace(
	ctx context.Context, id hypervisor.VMID, found hypervisor.Interrupted, by string,
) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	if err := f.at(ctx, BeforeRecoverInPlace); err != nil {
		return nil, nil, nil, err
	}
	f.mu.Lock()
	v, err := f.vm(id)
	if err == nil && v.journal != nil {
		if now := v.interrupted(); now.RunID != found.RunID || now.Lease != found.Lease {
			err = now
		} else {
			v.journal.holder, v.journal.renewed = by, 0
		}
	}
	f.mu.Unlock()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := f.at(ctx, DuringRecoverInPlace); err != nil {
		return nil, nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var replaced []hypervisor.Replaced
	switch {
	case v.journal == nil:
	case v.journal.swapped:
		replaced = v.journal.replaced()
		for i := range replaced {
			replaced[i].Until = time.Now().UTC().Add(v.journal.keep)
		}
		v.journal = nil
	default:
		f.drop(v)
	}
	v.remember(replaced)
	return v.copy(), replaced, nil, nil
}

// remember makes a VM remember disks that are kept.
func (v *fakeVM) remember(disks []hypervisor.Replaced) {
	for _, d := range disks {
		if i := slices.IndexFunc(v.kept, func(o hypervisor.Replaced) bool { return o.Path == d.Path }); i < 0 {
			v.kept = append(v.kept, d)
		} else if d.Until.After(v.kept[i].Until) {
			v.kept[i].Until = d.Until
		}
	}
}

// forget is the reverse of remember.
func (v *fakeVM) forget(disks []hypervisor.Replaced) {
	v.kept = slices.DeleteFunc(v.kept, func(d hypervisor.Replaced) bool {
		return slices.ContainsFunc(disks, func(o hypervisor.Replaced) bool { return o.Path == d.Path })
	})
}

// KeptDisks implements hypervisor.InPlaceRestorer.
func (f *Fake) KeptDisks(ctx context.Context, id hypervisor.VMID) ([]hypervisor.Replaced, error) {
	if err := f.at(ctx, BeforeKeptDisks); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(v.kept), func(d hypervisor.Replaced) bool { return f.loose[d.Path] == nil }), nil
}

// ForgetKept implements hypervisor.InPlaceRestorer.
func (f *Fake) ForgetKept(ctx context.Context, id hypervisor.VMID, disks []hypervisor.Replaced) error {
	if err := f.at(ctx, BeforeForgetKept); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err == nil {
		v.forget(disks)
	}
	return err
}

func (j *fakeJournal) replaced() (all []hypervisor.Replaced) {
	for _, s := range j.disks {
		all = append(all, hypervisor.Replaced{Label: s.own.Label, Path: s.own.Path, Now: s.path})
	}
	return all
}

// drop undoes what was prepared for a swap that didn't happen. The caller holds the lock.
func (f *Fake) drop(v *fakeVM) {
	for _, s := range v.journal.disks {
		delete(f.loose, s.path)
	}
	if v.journal.stopped {
		v.PowerState, v.GuestAgent = hypervisor.PoweredOn, true
	}
	v.journal = nil
}

// DeleteReplaced implements hypervisor.InPlaceRestorer.
func (f *Fake) DeleteReplaced(ctx context.Context, id hypervisor.VMID, disks []hypervisor.Replaced) error {
	if err := f.at(ctx, BeforeDeleteReplaced); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if v, err := f.vm(id); err == nil {
		v.forget(disks)
	}
	for _, d := range disks {
		delete(f.loose, d.Path)
		for _, v := range f.vms {
			if slices.ContainsFunc(v.Disks, func(own hypervisor.Disk) bool { return own.Path == d.Path }) {
				errs = append(errs, fmt.Errorf("delete %s: %s uses it", d.Path, v.Path))
			}
		}
	}
	return errors.Join(errs...)
}

var _ hypervisor.InPlaceRestorer = (*Fake)(nil)
