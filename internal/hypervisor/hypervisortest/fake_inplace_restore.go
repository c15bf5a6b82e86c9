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

type fakeInPlace struct {
	f    *Fake
	vm   *fakeVM
	spec hypervisor.InPlaceSpec

	before fakeConfig // what the VM was before the swap

	mu      sync.Mutex
	written map[hypervisor.DiskKey]bool
	ended   bool
}

func (r *fakeInPlace) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	if err := r.f.at(ctx, BeforeWriteDisk); err != nil {
		return err
	}
	r.f.mu.Lock()
	var m *image
	if j := r.vm.journal; j != nil {
		for _, s := range j.disks {
			if s.captured == key {
				m = r.f.loose[s.path]
			}
		}
	}
	r.f.mu.Unlock()
	if err := r.f.fill(ctx, key, m, src); err != nil {
		return err
	}
	r.mu.Lock()
	r.written[key] = true
	r.mu.Unlock()
	return r.f.at(ctx, AfterWriteDisk)
}

func (r *fakeInPlace) Swap(ctx context.Context) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	if err := r.f.at(ctx, BeforeSwap); err != nil {
		return nil, nil, nil, err
	}
	if err := r.stop(); err != nil {
		return nil, nil, nil, err
	}
	if err := r.f.at(ctx, DuringSwap); err != nil {
		return nil, nil, nil, err
	}
	r.f.mu.Lock()
	v := r.vm
	if err := r.holds(); err != nil {
		r.f.mu.Unlock()
		return nil, nil, nil, fmt.Errorf("swap disks of %s: %w", v.Path, err)
	}
	if len(v.snapshots) > 0 && !r.spec.RemoveSnapshots {
		r.f.mu.Unlock()
		return nil, nil, nil, fmt.Errorf("swap disks of %s: %w", v.Path, hypervisor.ErrSnapshotsInTheWay)
	}
	v.snapshots, v.current = nil, ""
	r.exchange(func(s fakeSwap) string { return s.path })
	v.journal.swapped = true
	r.before = fakeConfig{VM: v.VM, Network: v.network}
	var c fakeConfig
	if r.spec.Hardware && json.Unmarshal(r.spec.Config.Data, &c) == nil { // planInPlace has read it
		r.hardware(c)
	}
	replaced := v.journal.replaced()
	vm := v.copy()
	r.f.mu.Unlock()
	if err := r.f.at(ctx, AfterSwap); err != nil {
		return nil, nil, nil, &hypervisor.SwappedError{Err: err}
	}
	return vm, replaced, nil, nil
}

// stop brings the VM down.
func (r *fakeInPlace) stop() error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.vm
	if err := r.holds(); err != nil {
		return fmt.Errorf("swap disks: %w", err)
	}
	switch {
	case r.ended:
		return errors.New("swap disks: the restore has ended")
	case len(r.written) < len(v.journal.disks):
		return errors.New("swap disks: not all disks were written")
	case v.PowerState == hypervisor.PoweredOff:
		return nil
	case (!v.GuestAgent || v.PowerState == hypervisor.Suspended) && !r.spec.PowerOff:
		return fmt.Errorf("shut down %s: %w", v.Name, hypervisor.ErrGuestAgent)
	}
	v.journal.stopped = v.journal.stopped || v.PowerState == hypervisor.PoweredOn
	v.PowerState, v.GuestAgent = hypervisor.PoweredOff, false
	return nil
}

// exchange puts other files into the VM's disks; what was there becomes loose. The caller holds the lock.
func (r *fakeInPlace) exchange(file func(fakeSwap) string) {
	v := r.vm
	for _, s := range v.journal.disks {
		i := slices.IndexFunc(v.Disks, func(d hypervisor.Disk) bool { return d.Key == s.own.Key })
		in := r.f.loose[file(s)]
		delete(r.f.loose, file(s))
		r.f.loose[v.Disks[i].Path] = v.images[s.own.Key]
		v.images[s.own.Key] = in
		v.Disks[i].Path = file(s)
	}
}

// hardware makes the VM what a configuration says, as far as a Fake has any.
func (r *fakeInPlace) hardware(c fakeConfig) {
	r.vm.CPUs, r.vm.MemoryBytes, r.vm.GuestID = c.VM.CPUs, c.VM.MemoryBytes, c.VM.GuestID
	if slices.Contains(r.f.networks, c.Network) {
		r.vm.network = c.Network
	}
}

func (r *fakeInPlace) Back(ctx context.Context) error {
	if err := r.f.at(ctx, BeforeBack); err != nil {
		return err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	v := r.vm
	if err := r.holds(); err != nil {
		return fmt.Errorf("put disks back: %w", err)
	}
	switch {
	case !v.journal.swapped:
		return errors.New("put disks back: they were not replaced")
	case v.PowerState != hypervisor.PoweredOff:
		return fmt.Errorf("put disks back: the VM is %s", v.PowerState)
	}
	r.exchange(func(s fakeSwap) string { return s.own.Path })
	v.journal.swapped = false
	r.hardware(r.before)
	return nil
}

// holds tells whether the VM is the run's. The caller holds the lock.
func (r *fakeInPlace) holds() error {
	switch j := r.vm.journal; {
	case j == nil:
		return errors.New("the restore has ended")
	case j.holder != r.spec.RunID:
		return fmt.Errorf("%s: %w", r.vm.Path, hypervisor.ErrTakenOver)
	}
	return nil
}

func (r *fakeInPlace) Holds(ctx context.Context) error {
	if err := r.f.at(ctx, BeforeHolds); err != nil {
		return err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.holds()
}

func (r *fakeInPlace) Leave() { r.end() }

func (r *fakeInPlace) Finish(ctx context.Context, kept []hypervisor.Replaced) error {
	if err := r.f.at(ctx, BeforeFinish); err != nil {
		return err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if err := r.holds(); err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	if !r.vm.journal.swapped {
		return errors.New("finish: the disks were not replaced")
	}
	r.vm.journal = nil
	r.vm.remember(kept)
	r.end()
	return nil
}

func (r *fakeInPlace) Abort(ctx context.Context) error {
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	if ended {
		return nil
	}
	if err := r.f.at(context.WithoutCancel(ctx), BeforeAbort); err != nil {
		return fmt.Errorf("undo the restore of %q: %w", r.vm.Name, err)
	}
	r.undo()
	return nil
}

// undo removes what was written unless the VM has it, and the journal.
func (r *fakeInPlace) undo() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.end()
	switch v := r.vm; {
	case r.holds() != nil: // another run undoes it
	case v.journal.swapped:
		if v.journal.stopped {
			v.PowerState, v.GuestAgent = hypervisor.PoweredOn, true
		}
		v.journal = nil
	default:
		r.f.drop(v)
	}
}

func (r *fakeInPlace) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}
