package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// What ends a restore in place, also of a caller that has gone, may take so long. Stopping a VM and
// exchanging its disks are quick; the server may be busy.
const (
	undoTimeout   = 30 * time.Minute
	finishTimeout = 10 * time.Minute
)

// An InPlaceError says what a VM is like after a restore into it that failed once it had begun.
type InPlaceError struct {
	VM string // inventory path

	// Swapped is set when the VM has the restored disks: its own could not be put back. They still exist,
	// and the next restore into the VM recovers from this.
	Swapped bool

	PowerState hypervisor.PowerState // of the VM now; empty: it could not be read
	Err        error
}

func (e *InPlaceError) Error() string {
	disks, state := "the disks that it had", "in an unknown power state"
	if e.Swapped {
		disks = "the restored disks"
	}
	switch e.PowerState {
	case hypervisor.PoweredOn:
		state = "running"
	case hypervisor.PoweredOff:
		state = "powered off"
	case hypervisor.Suspended:
		state = "suspended"
	}
	return fmt.Sprintf("%v; %s has %s and is %s", e.Err, e.VM, disks, state)
}

// Unwrap gives what went wrong.
func (e *InPlaceError) Unwrap() error { return e.Err }

// An inPlace is a restore into a VM that exists.
type inPlace struct {
	*job
	m    *Manager
	spec hypervisor.InPlaceSpec
	vm   *hypervisor.VM // as it was before
	ran  bool           // the VM was running before

	// finished is set when a restore that was killed had replaced disks. recovered are those that earlier
	// restores replaced, if nobody but the VM knows of them; foreign are those that somebody else may know of, and
	// wants to keep.
	finished  bool
	recovered []hypervisor.Replaced
	foreign   []hypervisor.Replaced
	observed  bool // whether it was killed was not told by its process, but by its lease

	replaced []hypervisor.Replaced // by this restore
	this     run.Run
	restore  hypervisor.InPlaceRestore
}

// newInPlace finds the VM and makes sure that it is the one that was backed up.
func (m *Manager) newInPlace(ctx context.Context, j *job) (*inPlace, error) {
	p := &inPlace{job: j, m: m}
	captured := j.manifest.VM
	var err error
	if j.InPlace.VM == "" {
		p.vm, err = m.hv.VMByInstanceUUID(ctx, captured.InstanceUUID)
	} else {
		p.vm, err = m.hv.FindVM(ctx, j.InPlace.VM)
	}
	if err != nil {
		return nil, err
	}
	j.target = p.vm.Path
	if !j.InPlace.OtherVM {
		if err := m.captured(ctx, p.vm, captured); err != nil {
			return nil, err
		}
	}
	p.ran = p.vm.PowerState == hypervisor.PoweredOn
	p.spec = hypervisor.InPlaceSpec{
		VM: p.vm.ID, Config: j.spec.Config, Disks: j.spec.Disks, Hardware: !j.InPlace.KeepHardware,
		RemoveSnapshots: j.InPlace.RemoveSnapshots, PowerOff: j.InPlace.PowerOff,
		ShutdownTimeout: j.InPlace.ShutdownTimeout, Then: j.then(p.ran),
		Keep: j.InPlace.KeepReplacedDisks,
	}
	return p, nil
}

// captured makes sure that a VM is the one that was backed up: by its instance UUID, which is unique on a server.
// A VM that was registered anew has another one; it is known by its BIOS UUID, but only if nobody else can be
// meant: clones made by hand share that.
func (m *Manager) captured(ctx context.Context, vm *hypervisor.VM, was repository.VM) error {
	if was.InstanceUUID != "" && vm.InstanceUUID == was.InstanceUUID {
		return nil
	}
	other := fmt.Errorf("%s has BIOS UUID %s and instance UUID %s, the backup is of %s with %s and %s: %w",
		vm.Path, vm.BIOSUUID, vm.InstanceUUID, was.Path, was.BIOSUUID, was.InstanceUUID, ErrOtherVM)
	if was.BIOSUUID == "" || vm.BIOSUUID != was.BIOSUUID {
		return other
	}
	var notFound *hypervisor.VMNotFoundError
	if was.InstanceUUID != "" {
		switch original, err := m.hv.VMByInstanceUUID(ctx, was.InstanceUUID); {
		case err == nil:
			return fmt.Errorf("%w; %s is", other, original.Path)
		case !errors.As(err, &notFound):
			return fmt.Errorf("tell whether %s is the virtual machine that was backed up: %w", vm.Path, err)
		}
	}
	var ambiguous *hypervisor.AmbiguousVMError
	switch only, err := m.hv.FindVM(ctx, hypervisor.VMRef(was.BIOSUUID)); {
	case errors.As(err, &ambiguous):
		return fmt.Errorf("%w for certain, more than one has its BIOS UUID: %s", other, strings.Join(ambiguous.Matches, ", "))
	case err != nil:
		return fmt.Errorf("tell whether %s is the virtual machine that was backed up: %w", vm.Path, err)
	case only.ID != vm.ID:
		return other
	}
	return nil
}

// restoreInPlace puts restored disks into a VM. Until they are swapped, the VM runs on. What goes wrong until
// it runs again is undone: what it was before was good. From then on the restore stands.
func (m *Manager) restoreInPlace(ctx context.Context, j *job) (*Result, error) {
	p, err := m.newInPlace(ctx, j)
	if err != nil {
		return nil, err
	}
	p.this = m.start(ctx)
	defer p.this.End()
	var result *Result
	if err = p.recover(ctx); err == nil {
		result, err = p.replace(ctx)
	}
	if result == nil && p.finished {
		err = p.leave(ctx, err)
	}
	return result, err
}

// leave ends a restore that failed after it had finished another one, which was killed: the VM keeps the disks
// of that one, and runs if it did before it. Nobody finds that out later, unless the restore had begun: then it is
// undone, and that starts the VM.
func (p *inPlace) leave(ctx context.Context, err error) error {
	var others *hypervisor.InterruptedError
	taken := errors.As(err, &others)
	if p.ran && p.restore == nil && !taken {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		if startErr := p.m.hv.PowerOn(ctx, p.vm.ID); startErr != nil {
			err = fmt.Errorf("%w; the virtual machine, which an earlier restore had stopped, could not be started: %w", err, startErr)
		}
	}
	return fmt.Errorf("%w; disks that an earlier restore replaced, which was killed, are still there: %s",
		err, paths(p.recovered))
}

// replace goes through the steps.
func (p *inPlace) replace(ctx context.Context) (*Result, error) {
	if err := p.m.cleanUp(ctx, p.job); err != nil {
		return nil, err
	}
	warnings, err := p.m.hv.CheckInPlace(ctx, p.spec)
	if err != nil {
		return nil, err
	}
	p.warnings = append(p.warnings, warnings...)
	if err := p.refuseReaders(ctx); err != nil {
		return nil, err
	}
	p.spec.RunID = p.this.Token()
	p.m.log.InfoContext(ctx, "restoring in place", "vm", p.vm.Path, "backup", string(p.BackupID))
	starting, phase := progress.Enter(ctx, "making room for the disks", "vm", p.vm.Path)
	p.restore, err = p.m.hv.StartInPlace(starting, p.spec)
	phase.Leave()
	if err != nil {
		return nil, fmt.Errorf("make room for the disks: %w", err)
	}
	defer p.restore.Leave()
	result, err := p.swap(ctx)
	if err != nil {
		return nil, err
	}
	return result, p.finish(ctx, result)
}

// swap writes the disks, puts them in place and starts the VM. With an error, all of that is undone.
func (p *inPlace) swap(ctx context.Context) (*Result, error) {
	disks, err := p.m.writeDisks(ctx, p.job, p.restore)
	if err != nil {
		return nil, p.undo(ctx, false, err)
	}
	if err := p.refuseReaders(ctx); err != nil { // that took long
		return nil, p.undo(ctx, false, err)
	}
	p.m.log.InfoContext(ctx, "all disks are written; replacing those of the VM", "vm", p.vm.Path)
	swapping, phase := progress.Enter(ctx, "replacing the disks", "vm", p.vm.Path)
	vm, replaced, warnings, err := p.restore.Swap(swapping)
	phase.Leave()
	p.replaced = replaced
	if err != nil {
		var swapped *hypervisor.SwappedError
		return nil, p.undo(ctx, errors.As(err, &swapped), fmt.Errorf("replace the disks: %w", err))
	}
	result := p.m.newResult(p.job, vm, disks, warnings)
	result.Replaced = append(slices.Clone(p.recovered), replaced...)
	if err := p.restore.Holds(ctx); err != nil {
		return nil, p.undo(ctx, true, err)
	}
	if p.Verify {
		if err := p.m.verify(ctx, p.job, p.this, vm.ID, p.others(result)); err != nil {
			return nil, p.undo(ctx, true, err)
		}
	}
	if err := ctx.Err(); err != nil { // or nobody hears of the result
		return nil, p.undo(ctx, true, err)
	}
	if !p.powerOn(p.ran) {
		return result, nil
	}
	if err := p.restore.Holds(ctx); err != nil { // that took long
		return nil, p.undo(ctx, true, err)
	}
	if err := p.m.powerOn(ctx, result); err != nil {
		return nil, p.undo(ctx, true, fmt.Errorf("%w: %w", ErrNotStarted, err))
	}
	return result, nil
}

// others are the disks of the VM that are not restored.
func (p *inPlace) others(result *Result) []hypervisor.DiskKey {
	var keys []hypervisor.DiskKey
	for _, d := range result.VM.Disks {
		if !slices.ContainsFunc(result.Disks, func(r Disk) bool { return r.Key == d.Key }) {
			keys = append(keys, d.Key)
		}
	}
	return keys
}

// undo brings back the VM as it was before: its disks and, if it was stopped, its running. It says what
// became of that. A VM that can't get its own disks back is left with the restored ones, and off, and keeps
// its journal: its own disks exist, and the next restore into it goes on from there.
func (p *inPlace) undo(ctx context.Context, swapped bool, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	ctx, phase := progress.Enter(ctx, "undoing the restore", "vm", p.vm.Path)
	defer phase.Leave()
	if p.lost(ctx, err) {
		if abortErr := p.restore.Abort(ctx); abortErr != nil {
			err = fmt.Errorf("%w; not all that was written could be removed: %w", err, abortErr)
		}
		return fmt.Errorf("%w: this one has stopped, and left %s alone", err, p.vm.Path)
	}
	p.m.log.WarnContext(ctx, "undoing the restore", "vm", p.vm.Path, "disks_replaced", swapped, "error", err)
	if swapped {
		if backErr := p.back(ctx); backErr != nil {
			err = fmt.Errorf("%w; the disks that the virtual machine had could not be put back: %w", err, backErr)
			return &InPlaceError{VM: p.vm.Path, Swapped: true, PowerState: p.powerState(ctx), Err: err}
		}
	}
	if abortErr := p.restore.Abort(ctx); abortErr != nil {
		err = fmt.Errorf("%w; not all of the restore could be undone: %w", err, abortErr)
	}
	return &InPlaceError{VM: p.vm.Path, PowerState: p.powerState(ctx), Err: err}
}

// back puts the VM's own disks back. What stands in the way of that is of this restore: that the VM may run
// after all, and the snapshot of a verification that could not be removed.
func (p *inPlace) back(ctx context.Context) error {
	// Another run may have taken the VM over and started it. If that can't be told, the journal tells the next run.
	if err := p.restore.Holds(ctx); err != nil {
		return err
	}
	if err := p.m.hv.PowerOff(ctx, p.vm.ID); err != nil {
		return err
	}
	mine := func(r run.Run) bool { return r.ID == p.this.ID }
	if err := p.m.removeTemporary(ctx, p.vm, mine); err != nil {
		return err
	}
	return p.restore.Back(ctx)
}

// powerState is that of the VM now, empty if it can't be told.
func (p *inPlace) powerState(ctx context.Context) hypervisor.PowerState {
	vm, err := p.m.hv.VMByInstanceUUID(ctx, p.vm.InstanceUUID)
	if err != nil {
		p.m.log.WarnContext(ctx, "reading the VM after a restore that failed", "vm", p.vm.Path, "error", err)
		return ""
	}
	return vm.PowerState
}

// finish ends a restore that stands: it waits for the guest and deletes the disks that were replaced, if they
// are not to be kept. That comes before the journal ends: whoever finds a journal knows of those disks, and
// nobody else does if this process is killed.
func (p *inPlace) finish(ctx context.Context, result *Result) error {
	var guestErr error
	if result.VM.PowerState == hypervisor.PoweredOn {
		guestErr = p.m.awaitGuest(ctx, p.job, result)
	} else {
		result.warnNoGuest(p.job)
	}
	result.CompletedAt = p.m.now().UTC()
	result.ReplacedUntil = p.until(result, p.keep())
	switch {
	case p.InPlace.KeepReplacedDisks > 0 || guestErr != nil:
	case p.seen(result):
		p.deleteReplaced(ctx, result)
	default:
		result.ReplacedUntil = p.until(result, MinimumKeep)
		result.Warnings = append(result.Warnings, fmt.Sprintf("%s is restored, but was neither started nor verified; so the disks "+
			"that were replaced are kept until %s: %s.", p.vm.Path, result.ReplacedUntil.Format(time.RFC3339), paths(p.replaced)))
	}
	if len(p.recovered) > 0 {
		result.Warnings = append(result.Warnings, fmt.Sprintf("%s is restored; disks that an earlier restore had taken out of "+
			"it, or had given it, before it was killed are kept: %s.", p.vm.Path, paths(p.recovered)))
	}
	if len(p.foreign) > 0 {
		result.Warnings = append(result.Warnings, fmt.Sprintf("disks that another restore has taken out of %s are still there, and "+
			"are left to that: %s.", p.vm.Path, datedPaths(p.foreign)))
	}
	finishCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err := p.restore.Finish(finishCtx, p.remembered(result, guestErr))
	switch {
	case errors.Is(err, hypervisor.ErrTakenOver): // it also has the disks that were replaced
		result.Replaced = nil
		result.Warnings = append(result.Warnings, fmt.Sprintf("%s was restored, but: %v.", p.vm.Path, err))
	case err != nil:
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"%s is restored, but its journal of that could not be removed, which the next restore into it does: %v.",
			p.vm.Path, err))
	}
	p.m.log.InfoContext(ctx, "VM restored in place", "vm", p.vm.Path, "backup", string(p.BackupID),
		"replaced_disks_kept", paths(result.Replaced))
	if guestErr != nil && len(result.Replaced) > 0 {
		return fmt.Errorf("%w; the disks that were replaced are kept: %s", guestErr, paths(result.Replaced))
	}
	return guestErr
}

// seen reports whether the restored disks have been put to the test: they were read back, or the VM runs on them.
func (p *inPlace) seen(result *Result) bool {
	return result.Verified || result.VM.PowerState == hypervisor.PoweredOn
}
