package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// readBackTimeout bounds looking at the VM after the caller's context has ended.
const readBackTimeout = 30 * time.Second

// Restore builds a VM from a restore point, or puts restored disks into one that exists.
//
// When it returns an error together with a Result, the VM exists, complete, with the restored disks, and the
// caller must record it: all that is missing is that it could not be started (ErrNotStarted, only of a new
// VM), or that its guest is not ready (ErrGuest). With any other error nothing is left behind, and a VM that
// was to be restored into is as it was, except where the error says otherwise (*InPlaceError).
//
// Errors: ErrRequest, repository.ErrNotFound, repository.ErrDamaged (*repository.DigestError), a
// *VerifyError, and those of hypervisor.Restorer. In place: ErrOtherVM, a *hypervisor.InterruptedError (somebody
// else is restoring into the VM), an *InPlaceError, and those of hypervisor.InPlaceRestorer.
func (m *Manager) Restore(ctx context.Context, r Request) (*Result, error) {
	j, err := m.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	release, err := m.repo.Hold(ctx, r.BackupID) // nobody may prune it meanwhile
	if err != nil {
		return nil, fmt.Errorf("restore from %s: %w", r.BackupID, err)
	}
	defer release()
	do := m.restoreNew
	if r.InPlace != nil {
		do = m.restoreInPlace
	}
	result, err := do(ctx, j)
	cleaned := j.clean.end(ctx, err == nil)
	if result != nil {
		result.Warnings = append(result.Warnings, cleaned...)
	}
	if err != nil {
		return result, j.failed(err)
	}
	return result, nil
}

// restoreNew builds a VM.
func (m *Manager) restoreNew(ctx context.Context, j *job) (*Result, error) {
	if err := m.cleanUp(ctx, j); err != nil {
		return nil, err
	}
	warnings, err := m.hv.CheckRestore(ctx, j.spec)
	var inUse *hypervisor.IdentityInUseError
	if errors.As(err, &inUse) && j.clean.watching() { // maybe by what is watched
		j.warnings = append(j.warnings, j.clean.end(ctx, true)...)
		warnings, err = m.hv.CheckRestore(ctx, j.spec)
	}
	if err != nil {
		return nil, err
	}
	j.warnings = append(j.warnings, warnings...)
	result, err := m.build(ctx, j)
	if err != nil {
		return nil, err
	}
	if !j.powerOn(false) {
		result.warnNoGuest(j)
		return result, nil
	}
	if err := m.powerOn(ctx, result); err != nil {
		return result, fmt.Errorf("all disks of %s are restored, but %w: %w", result.VM.Path, ErrNotStarted, err)
	}
	return result, m.awaitGuest(ctx, j, result)
}

// start begins the run of a restore.
func (m *Manager) start(ctx context.Context) run.Run {
	deadline, _ := ctx.Deadline()
	return run.Start(m.now(), deadline)
}

// build makes the VM and fills its disks. Until it returns without error, the VM can't be started;
// with an error it is gone.
func (m *Manager) build(ctx context.Context, j *job) (_ *Result, err error) {
	this := m.start(ctx)
	defer this.End()
	j.spec.RunID, j.spec.Then = this.Token(), j.then(false)
	if j.Verify {
		j.spec.Verify = func(ctx context.Context, vm hypervisor.VMID) error { return m.verify(ctx, j, this, vm, nil) }
	}
	began := m.now()
	m.log.InfoContext(ctx, "creating the VM", "vm", j.name(), "backup", string(j.BackupID))
	creating, phase := progress.Enter(ctx, "creating the virtual machine", "vm", j.name())
	restore, err := m.hv.StartRestore(creating, j.spec)
	phase.Leave()
	if err != nil {
		return nil, fmt.Errorf("create the VM: %w", err)
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, phase := progress.Enter(ctx, "removing the virtual machine again", "vm", j.name())
		defer phase.Leave()
		if abortErr := restore.Abort(ctx); abortErr != nil {
			err = errors.Join(err, &LeftBehindError{VM: restore.VM(), Err: abortErr})
		}
	}()
	m.log.InfoContext(ctx, "the VM is created, with empty disks", "vm", j.name(), "id", string(restore.VM()),
		"duration", progress.Since(began, m.now()))
	disks, err := m.writeDisks(ctx, j, restore)
	if err != nil {
		return nil, err
	}
	m.log.DebugContext(ctx, "all disks are written; finishing the VM", "vm", j.name())
	committing, phase := progress.Enter(ctx, "completing the virtual machine", "vm", j.name())
	vm, warnings, err := restore.Commit(committing)
	phase.Leave()
	if err != nil {
		return nil, fmt.Errorf("finish the VM: %w", err)
	}
	m.log.InfoContext(ctx, "VM restored", "vm", vm.Path, "backup", string(j.BackupID), "duration", progress.Since(began, m.now()))
	return m.newResult(j, vm, disks, warnings), nil
}

// newResult is what a restore that is complete has to say.
func (m *Manager) newResult(j *job, vm *hypervisor.VM, disks []Disk, warnings []string) *Result {
	result := &Result{VM: vm, Disks: disks, Verified: j.Verify, Warnings: j.warnings, CompletedAt: m.now().UTC()}
	for _, w := range warnings {
		if !slices.Contains(result.Warnings, w) { // the check may have said so before
			result.Warnings = append(result.Warnings, w)
		}
	}
	result.describeDisks()
	return result
}

// A diskWriter takes the content of restored disks, by their captured keys.
type diskWriter interface {
	WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error
}

// writeDisks writes all disks, as many at a time as the hypervisor lets write. The first that fails ends
// the others.
func (m *Manager) writeDisks(ctx context.Context, j *job, w diskWriter) ([]Disk, error) {
	disks := make([]Disk, len(j.disks))
	var count meter
	ctx, phase := m.follow(ctx, "writing the disks", j, &count)
	defer phase.Leave()
	group, groupCtx := errgroup.WithContext(ctx)
	for i, d := range j.disks {
		group.Go(func() error {
			if err := groupCtx.Err(); err != nil {
				return err
			}
			n, err := m.writeDisk(groupCtx, j, w, d, &count)
			if err != nil {
				return fmt.Errorf("write %s: %w", d.Label, err)
			}
			disks[i] = Disk{Disk: portDisk(d), RestoredBytes: n, Digest: string(d.Digest)}
			return nil
		})
	}
	return disks, group.Wait()
}

func (m *Manager) writeDisk(
	ctx context.Context, j *job, w diskWriter, d repository.Disk, count *meter,
) (written int64, err error) {
	began := m.now()
	reader, err := m.repo.OpenDisk(ctx, j.BackupID, d)
	if err != nil {
		return 0, err
	}
	source := &checkedSource{Source: reader, meter: count}
	err = w.WriteDisk(ctx, hypervisor.DiskKey(d.Key), source)
	if written, err = source.verdict(err); err == nil {
		m.log.InfoContext(ctx, "disk written", "vm", j.name(), "disk", d.Label, "capacity_bytes", d.Capacity,
			"written_bytes", written, "duration", progress.Since(began, m.now()))
	}
	return written, err
}

// powerOn starts the VM. What became of it is read back, not assumed: a VM that runs was started,
// whatever went wrong on the way, and must not be taken for one that wasn't.
func (m *Manager) powerOn(ctx context.Context, result *Result) error {
	began := m.now()
	starting, phase := progress.Enter(ctx, "starting the virtual machine", "vm", result.VM.Path)
	powerErr := m.hv.PowerOn(starting, result.VM.ID)
	phase.Leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	vm, err := m.hv.VMByInstanceUUID(ctx, result.VM.InstanceUUID)
	switch {
	case err == nil && vm.PowerState == hypervisor.PoweredOn:
		result.VM = vm
		if powerErr != nil {
			m.log.WarnContext(ctx, "the VM runs although starting it failed", "vm", vm.Path, "error", powerErr)
		}
		m.log.InfoContext(ctx, "VM started", "vm", vm.Path, "duration", progress.Since(began, m.now()))
		return nil
	case err == nil:
		result.VM = vm
	case powerErr == nil:
		result.VM.PowerState = hypervisor.PoweredOn
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"%s was started, but can't be read: %v.", result.VM.Path, err))
	}
	return powerErr
}

// describeDisks replaces what the backup says about disks by what the VM says, which has paths, datastores
// and, for a copy, UUIDs of its own.
func (r *Result) describeDisks() {
	restored := make([]hypervisor.Disk, len(r.Disks))
	for i, d := range r.Disks {
		restored[i] = d.Disk
		r.RestoredBytes += d.RestoredBytes
	}
	for i, n := range matchDisks(r.VM.Disks, restored) {
		if n >= 0 {
			r.Disks[i].Disk = r.VM.Disks[n]
		}
	}
}
