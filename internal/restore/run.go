package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// readBackTimeout bounds looking at the VM after the caller's context has ended.
const readBackTimeout = 30 * time.Second

// Restore builds a VM from a restore point.
//
// When it returns an error together with a Result, the VM exists, complete, and the caller must
// record it: all that is missing is that it could not be started. With any other error nothing is
// left behind, except where the error names it.
//
// Errors: ErrRequest, repository.ErrNotFound, repository.ErrDamaged (*repository.DigestError), and
// those of hypervisor.Restorer.
func (m *Manager) Restore(ctx context.Context, r Request) (*Result, error) {
	j, err := m.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return fmt.Errorf("restore %q from %s: %w", j.name(), r.BackupID, err) }
	if err := m.cleanUp(ctx, j); err != nil {
		return nil, fail(err)
	}
	warnings, err := m.hv.CheckRestore(ctx, j.spec)
	if err != nil {
		return nil, fail(err)
	}
	j.warnings = append(j.warnings, warnings...)
	result, err := m.build(ctx, j)
	if err != nil {
		return nil, fail(err)
	}
	if j.powerOn() {
		if err := m.powerOn(ctx, result); err != nil {
			return result, fail(fmt.Errorf("all disks of %s are restored, but it could not be started: %w",
				result.VM.Path, err))
		}
	}
	return result, nil
}

// abandoned reports whether nobody is behind a run any more.
func (m *Manager) abandoned(runID string) bool {
	r, err := run.ParseToken(runID)
	return err == nil && r.Dead(m.now())
}

// cleanUp removes what killed restores left behind: the space and the directory that this one needs may
// be in use by it. What the server doesn't let go yet is waited for only if it is in the way, when the
// VM is created.
func (m *Manager) cleanUp(ctx context.Context, j *job) error {
	removed, err := m.hv.CleanUpRestores(ctx, m.abandoned)
	for _, name := range removed {
		j.warnings = append(j.warnings, fmt.Sprintf(
			"removed %q, which a restore left behind that was killed.", name))
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("clean up after killed restores: %w", err)
	}
	if err != nil { // in nobody's way, or CheckRestore tells of what
		j.warnings = append(j.warnings, fmt.Sprintf("cleaning up after killed restores: %v.", err))
	}
	return nil
}

// build makes the VM and fills its disks. Until it returns without error, the VM can't be started;
// with an error it is gone.
func (m *Manager) build(ctx context.Context, j *job) (_ *Result, err error) {
	deadline, _ := ctx.Deadline()
	this := run.Start(m.now(), deadline)
	defer this.End()
	j.spec.RunID = this.Token()
	m.log.InfoContext(ctx, "creating the VM", "vm", j.name(), "backup", string(j.BackupID))
	restore, err := m.hv.StartRestore(ctx, j.spec)
	if err != nil {
		return nil, fmt.Errorf("create the VM: %w", err)
	}
	defer func() {
		if err == nil {
			return
		}
		if abortErr := restore.Abort(ctx); abortErr != nil {
			err = errors.Join(err, fmt.Errorf("the incomplete VM %s stays behind: %w", restore.VM(), abortErr))
		}
	}()
	disks, err := m.writeDisks(ctx, j, restore)
	if err != nil {
		return nil, err
	}
	vm, warnings, err := restore.Commit(ctx)
	if err != nil {
		return nil, fmt.Errorf("finish the VM: %w", err)
	}
	m.log.InfoContext(ctx, "VM restored", "vm", vm.Path, "backup", string(j.BackupID))
	result := &Result{VM: vm, Disks: disks, Warnings: j.warnings, CompletedAt: m.now().UTC()}
	for _, w := range warnings {
		if !slices.Contains(result.Warnings, w) { // CheckRestore may have said so before
			result.Warnings = append(result.Warnings, w)
		}
	}
	result.describeDisks()
	return result, nil
}

// writeDisks writes all disks, as many at a time as the hypervisor lets write. The first that fails ends
// the others.
func (m *Manager) writeDisks(ctx context.Context, j *job, restore hypervisor.Restore) ([]Disk, error) {
	disks := make([]Disk, len(j.manifest.Disks))
	var count meter
	defer m.watch(ctx, j, &count)()
	group, groupCtx := errgroup.WithContext(ctx)
	for i, d := range j.manifest.Disks {
		group.Go(func() error {
			if err := groupCtx.Err(); err != nil {
				return err
			}
			n, err := m.writeDisk(groupCtx, j, restore, d, &count)
			if err != nil {
				return fmt.Errorf("write %s: %w", d.Label, err)
			}
			disks[i] = Disk{Disk: j.spec.Config.Summary.Disks[i], RestoredBytes: n, Digest: string(d.Digest)}
			return nil
		})
	}
	return disks, group.Wait()
}

func (m *Manager) writeDisk(
	ctx context.Context, j *job, restore hypervisor.Restore, d repository.Disk, count *meter,
) (written int64, err error) {
	reader, err := m.repo.OpenDisk(ctx, j.BackupID, d)
	if err != nil {
		return 0, err
	}
	source := &checkedSource{Source: reader, meter: count}
	err = restore.WriteDisk(ctx, hypervisor.DiskKey(d.Key), source)
	return source.verdict(err)
}

// powerOn starts the VM. What became of it is read back, not assumed: a VM that runs was started,
// whatever went wrong on the way, and must not be taken for one that wasn't.
func (m *Manager) powerOn(ctx context.Context, result *Result) error {
	powerErr := m.hv.PowerOn(ctx, result.VM.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	vm, err := m.hv.VMByInstanceUUID(ctx, result.VM.InstanceUUID)
	switch {
	case err == nil && vm.PowerState == hypervisor.PoweredOn:
		result.VM = vm
		if powerErr != nil {
			m.log.WarnContext(ctx, "the VM runs although starting it failed", "vm", vm.Path, "error", powerErr)
		}
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

// describeDisks replaces what the backup says about disks by what the new VM says, which has paths,
// datastores and, for a copy, UUIDs of its own. Address is what both have in common.
func (r *Result) describeDisks() {
	for i := range r.Disks {
		r.RestoredBytes += r.Disks[i].RestoredBytes
		for _, d := range r.VM.Disks {
			if d.Address == r.Disks[i].Address {
				r.Disks[i].Disk = d
			}
		}
	}
}
