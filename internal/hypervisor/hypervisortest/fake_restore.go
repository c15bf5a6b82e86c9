package hypervisortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// CheckRestore implements hypervisor.Restorer.
func (f *Fake) CheckRestore(ctx context.Context, spec hypervisor.RestoreSpec) ([]string, error) {
	if err := f.at(ctx, BeforeCheckRestore); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.plan(spec)
	if err != nil {
		return nil, err
	}
	warnings := v.missing(spec)
	for _, r := range f.inTheWay(v, spec) {
		warnings = append(warnings,
			r.vm.Path+" was being made by a restore; if that was killed, it is removed first, else this one is refused.")
	}
	return warnings, nil
}

// inTheWay are the VMs in the making of abandoned runs that have what the restore needs.
func (f *Fake) inTheWay(v *fakeVM, spec hypervisor.RestoreSpec) (dead []*fakeRestore) {
	for _, r := range f.making {
		if spec.Abandoned != nil && spec.Abandoned(r.unfinished()) && clash(v, r.vm) != nil {
			dead = append(dead, r)
		}
	}
	return dead
}

// missing says which disks of the captured VM are not in the backup, and which an original goes without.
func (v *fakeVM) missing(spec hypervisor.RestoreSpec) (warnings []string) {
	var c fakeConfig
	if json.Unmarshal(spec.Config.Data, &c) != nil {
		return nil // plan has said so
	}
	has := func(disks []hypervisor.Disk, key hypervisor.DiskKey) bool {
		return slices.ContainsFunc(disks, func(d hypervisor.Disk) bool { return d.Key == key })
	}
	for _, d := range c.VM.Disks {
		switch {
		case !has(spec.Config.Summary.Disks, d.Key):
			warnings = append(warnings, d.Label+" is not in the backup.")
		case !has(v.Disks, d.Key) && spec.Identity == hypervisor.IdentityOriginal:
			warnings = append(warnings, d.Label+" is not among the disks to restore.")
		}
	}
	return warnings
}

// chosen are the disks to restore.
func chosen(spec hypervisor.RestoreSpec) ([]hypervisor.Disk, error) {
	disks := slices.Clone(spec.Config.Summary.Disks)
	if spec.Disks == nil {
		return disks, nil
	}
	if len(spec.Disks) == 0 {
		return nil, errors.New("the list of disks to restore is empty")
	}
	for _, key := range spec.Disks {
		if !slices.ContainsFunc(disks, func(d hypervisor.Disk) bool { return d.Key == key }) {
			return nil, &hypervisor.NotAvailableError{
				Kind: "disk in the backup", Name: string(key), Available: []string{hypervisor.ListDisks(disks)},
			}
		}
	}
	return slices.DeleteFunc(disks, func(d hypervisor.Disk) bool { return !slices.Contains(spec.Disks, d.Key) }), nil
}

// plan builds the VM that a restore leads to, without disks' bytes. The caller holds the lock.
func (f *Fake) plan(spec hypervisor.RestoreSpec) (*fakeVM, error) {
	var c fakeConfig
	if spec.Config.Format != FakeConfigFormat || json.Unmarshal(spec.Config.Data, &c) != nil {
		return nil, fmt.Errorf("%w: %q", hypervisor.ErrConfigFormat, spec.Config.Format)
	}
	v := &fakeVM{VM: c.VM, images: map[hypervisor.DiskKey]*image{}, network: c.Network, connected: !spec.Disconnect && !spec.Isolated}
	var err error
	if v.Disks, err = chosen(spec); err != nil {
		return nil, err
	}
	v.PowerState, v.GuestAgent, v.Obstacles = hypervisor.PoweredOff, false, nil
	if spec.Name != "" {
		v.Name = spec.Name
	}
	folder := FakeFolder
	if spec.Folder != "" {
		folder = spec.Folder
	}
	if folder != FakeFolder {
		return nil, &hypervisor.NotAvailableError{Kind: "folder", Name: folder, Available: []string{FakeFolder}}
	}
	v.Path = folder + "/" + v.Name
	if target, ok := spec.Networks[v.network]; ok {
		v.network = target
	}
	if spec.Isolated && !slices.Contains(f.networks, v.network) && len(f.networks) > 0 {
		v.network = f.networks[0]
	}
	if !slices.Contains(f.networks, v.network) {
		return nil, &hypervisor.NotAvailableError{Kind: "network", Name: v.network, Available: f.networks}
	}
	for key := range spec.DiskDatastores {
		if !slices.ContainsFunc(v.Disks, func(d hypervisor.Disk) bool { return d.Key == key }) {
			return nil, fmt.Errorf("datastore of disk %s: no such disk is to be restored", key)
		}
	}
	for i := range v.Disks {
		d := &v.Disks[i]
		if spec.Datastore != "" {
			d.Datastore = spec.Datastore
		}
		if ds, ok := spec.DiskDatastores[d.Key]; ok {
			d.Datastore = ds
		}
		if !slices.Contains(f.datastores, d.Datastore) {
			return nil, &hypervisor.NotAvailableError{Kind: "datastore", Name: d.Datastore, Available: f.datastores}
		}
		d.Path = fmt.Sprintf("[%s] %s/disk%d", d.Datastore, v.Name, i)
	}
	return v, f.identify(v, spec)
}

func (f *Fake) identify(v *fakeVM, spec hypervisor.RestoreSpec) error {
	if spec.Identity == hypervisor.IdentityCopy {
		v.BIOSUUID, v.InstanceUUID = newUUID(), newUUID()
		for i := range v.Disks {
			v.Disks[i].UUID = newUUID()
		}
	}
	all := make([]*fakeVM, 0, len(f.vms)+len(f.making))
	for _, o := range f.vms {
		all = append(all, o)
	}
	for _, r := range f.making {
		if spec.Abandoned == nil || !spec.Abandoned(r.unfinished()) {
			all = append(all, r.vm)
		}
	}
	for _, o := range all {
		if err := clash(v, o); err != nil {
			return err
		}
	}
	return nil
}

// clash says what two VMs have that only one may have.
func clash(v, o *fakeVM) error {
	switch {
	case o.InstanceUUID == v.InstanceUUID:
		return &hypervisor.IdentityInUseError{Kind: "instance UUID", Value: o.InstanceUUID, VM: o.Path}
	case o.BIOSUUID == v.BIOSUUID:
		return &hypervisor.IdentityInUseError{Kind: "BIOS UUID", Value: o.BIOSUUID, VM: o.Path}
	case o.Path == v.Path:
		return &hypervisor.NameInUseError{Name: v.Name, Folder: FakeFolder}
	}
	return nil
}

// StartRestore implements hypervisor.Restorer.
func (f *Fake) StartRestore(ctx context.Context, spec hypervisor.RestoreSpec) (hypervisor.Restore, error) {
	if err := f.at(ctx, BeforeStartRestore); err != nil {
		return nil, err
	}
	f.mu.Lock()
	v, err := f.plan(spec)
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	if err := f.missing([]string{v.Path}, spec.Then); err != nil {
		f.mu.Unlock()
		return nil, err
	}
	for _, r := range f.inTheWay(v, spec) {
		delete(f.making, r.vm.ID)
	}
	v.ID = hypervisor.VMID(f.next("vm"))
	for _, d := range v.Disks {
		v.images[d.Key] = newImage(d.Capacity)
	}
	r := &fakeRestore{f: f, vm: v, runID: spec.RunID, verify: spec.Verify, written: map[hypervisor.DiskKey]bool{}}
	f.making[v.ID] = r
	f.mu.Unlock()
	if err := f.at(ctx, DuringStartRestore); err != nil {
		r.drop()
		return nil, err
	}
	return r, nil
}

// CleanUpRestores implements hypervisor.Restorer.
func (f *Fake) CleanUpRestores(
	ctx context.Context, abandoned func(hypervisor.Unfinished) bool,
) (removed []string, err error) {
	if err := f.at(ctx, BeforeCleanUpRestores); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, r := range f.making {
		if abandoned(r.unfinished()) {
			removed = append(removed, r.vm.Path)
			delete(f.making, id)
		}
	}
	slices.Sort(removed)
	return removed, nil
}

// unfinished is what others see of the restore. The caller holds the lock.
func (r *fakeRestore) unfinished() hypervisor.Unfinished {
	u := hypervisor.Unfinished{Name: r.vm.Path, RunID: r.runID, Busy: r.busy}
	if r.renewed > 0 {
		u.Lease = fmt.Sprintf("%s %d", r.runID, r.renewed)
	}
	return u
}

// RenewRestore plays the run that makes a VM and shows that it lives. Nothing else does: time stands still in a Fake.
func (f *Fake) RenewRestore(runID string) {
	f.made(runID, func(r *fakeRestore) { r.renewed++ })
}

// SetBusyRestore says whether the server is carrying out something on the VM that a run makes.
func (f *Fake) SetBusyRestore(runID string, busy bool) {
	f.made(runID, func(r *fakeRestore) { r.busy = busy })
}

// made changes what a run makes.
func (f *Fake) made(runID string, edit func(*fakeRestore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.making {
		if r.runID == runID {
			edit(r)
		}
	}
}

// DestroyVM implements hypervisor.Restorer.
func (f *Fake) DestroyVM(ctx context.Context, id hypervisor.VMID) error {
	if err := f.at(ctx, BeforeDestroyVM); err != nil {
		return err
	}
	f.Lose(id)
	return nil
}

type fakeRestore struct {
	f     *Fake
	vm    *fakeVM
	runID string

	verify func(ctx context.Context, vm hypervisor.VMID) error

	// Guarded by the Fake's lock.
	verifying bool // verify has been called
	renewed   int  // the lease, as often
	busy      bool

	mu      sync.Mutex
	written map[hypervisor.DiskKey]bool
	ended   bool
}

func (r *fakeRestore) VM() hypervisor.VMID { return r.vm.ID }

func (r *fakeRestore) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	if err := r.f.at(ctx, BeforeWriteDisk); err != nil {
		return err
	}
	if err := r.f.fill(ctx, key, r.vm.images[key], src); err != nil {
		return err
	}
	r.mu.Lock()
	r.written[key] = true
	r.mu.Unlock()
	return r.f.at(ctx, AfterWriteDisk)
}

// fill writes what a source yields to the image of a disk; nil: there is none.
func (f *Fake) fill(ctx context.Context, key hypervisor.DiskKey, m *image, src disk.Source) error {
	if m == nil || m.capacity != src.Capacity() {
		return fmt.Errorf("write disk %s: there is no such disk of %d bytes", key, src.Capacity())
	}
	err := src.Extents(ctx, func(off int64, data []byte) error {
		if err := f.at(ctx, DuringWriteDisk); err != nil {
			return err
		}
		return m.writeAt(data, off)
	})
	if err != nil {
		return fmt.Errorf("write disk %s: %w", key, err)
	}
	return nil
}

func (r *fakeRestore) Commit(ctx context.Context) (*hypervisor.VM, []string, error) {
	if err := r.f.at(ctx, BeforeCommit); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	missing := len(r.written) < len(r.vm.Disks)
	r.mu.Unlock()
	if missing {
		return nil, nil, errors.New("commit: not all disks were written")
	}
	r.f.RenewRestore(r.runID)
	if r.verify != nil {
		r.f.mu.Lock()
		r.verifying = true
		r.f.mu.Unlock()
		if err := r.verify(ctx, r.vm.ID); err != nil {
			return nil, nil, fmt.Errorf("commit: %w", err)
		}
	}
	if err := r.f.at(ctx, AfterCommit); err != nil {
		return nil, nil, err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if _, ok := r.f.making[r.vm.ID]; !ok {
		return nil, nil, &hypervisor.VMNotFoundError{Ref: string(r.vm.ID), Where: FakeServer}
	}
	delete(r.f.making, r.vm.ID)
	r.f.vms[r.vm.ID] = r.vm
	r.end()
	return r.vm.copy(), nil, nil
}

func (r *fakeRestore) Abort(ctx context.Context) error {
	if r.end() {
		return nil
	}
	if err := r.f.at(context.WithoutCancel(ctx), BeforeAbort); err != nil {
		return fmt.Errorf("remove VM in the making %q: %w", r.vm.Name, err)
	}
	r.drop()
	return nil
}

// end marks the restore as ended and reports whether it already was.
func (r *fakeRestore) end() (already bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	already, r.ended = r.ended, true
	return already
}

func (r *fakeRestore) drop() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	delete(r.f.making, r.vm.ID)
}
