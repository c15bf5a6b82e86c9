package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// attempts is how often a backup that reads all of the disks is tried when the repository lost data that
// it re-uses: what is gone is then written again. One that takes over unread data comes before.
const attempts = 2

// Take takes a backup. It is all or nothing: on error no restore point is listed and no snapshot
// is left behind, except where the error or a warning names one. When the backup stands but its
// temporary snapshot could not be removed, there is no error and a warning names the snapshot.
//
// Errors: ErrRequest, those of finding a VM, *hypervisor.ObstacleError, hypervisor.ErrQuiesce,
// hypervisor.ErrGuestAgent, hypervisor.ErrLost, and those of the repository.
func (m *Manager) Take(ctx context.Context, r Request) (*Result, error) {
	start := m.now()
	c, err := m.Check(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := m.hv.CheckPrivileges(ctx, []hypervisor.VMID{c.VM.ID}, hypervisor.ToBackUp); err != nil {
		return nil, fmt.Errorf("back up %s: %w", c.VM.Path, err)
	}
	if c.shared {
		r.Retention = nil
	}
	notes, err := m.cleanUp(ctx, c.VM, c.snapshots)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", c.VM.Path, err)
	}
	known, err := m.repo.Verifications(ctx)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", c.VM.Path, err)
	}
	damaged := isDamaged(known)
	if damaged {
		notes = append(notes, "backups in the repository are known to be damaged, of which this one could use data; so it was "+
			"read back as a whole.")
	}
	for left, full := attempts, false; ; full = true {
		b := &backup{m: m, Request: r, vm: c.VM, excluded: c.Excluded, start: start, full: full, known: known}
		b.warnings = append(b.warnings, c.Warnings...)
		result, err := b.take(ctx)
		if len(b.bases) == 0 {
			left--
		}
		if err == nil && damaged {
			err = m.readBack(ctx, result)
		}
		switch {
		case err == nil:
			result.Duration = m.now().Sub(start)
			result.Warnings = append(notes, result.Warnings...)
			m.prune(ctx, r, result)
			return result, nil
		case !errors.Is(err, repository.ErrIncomplete) || left == 0 || ctx.Err() != nil:
			return nil, fmt.Errorf("back up %s: %w", c.VM.Path, err)
		}
		damaged = damaged || errors.Is(err, repository.ErrDamaged)
		m.log.WarnContext(ctx, "taking the backup again", "vm", c.VM.Path, "error", err)
		notes = append(notes, fmt.Sprintf("the backup was taken again, with all of the disks read: %v.", err))
	}
}

// A backup is one attempt to take one.
type backup struct {
	Request
	m        *Manager
	vm       *hypervisor.VM
	excluded []hypervisor.Disk
	start    time.Time
	full     bool // whatever the request says, as an attempt before failed
	known    map[repository.ID][]repository.Verification
	bases    map[string]base // by UUID of the disk
	warnings []string
}

// take goes through the steps. The repository comes first: what is wrong with it should not cost
// the VM a snapshot.
func (b *backup) take(ctx context.Context) (result *Result, err error) {
	began := b.m.now()
	opening, phase := progress.Enter(ctx, "opening the repository for the backup", "vm", b.vm.Path)
	w, err := b.m.newWriter(opening)
	phase.Leave()
	if err != nil {
		return nil, err
	}
	if waited := b.m.now().Sub(began); waited > time.Minute {
		b.warn(ctx, fmt.Sprintf("the backup waited %s for maintenance of the repository.", waited.Round(time.Second)))
	}
	defer func() {
		if closeErr := w.Close(context.WithoutCancel(ctx)); closeErr != nil {
			b.m.log.WarnContext(ctx, "closing the repository's writer", "vm", b.vm.Path, "error", closeErr)
		}
	}()

	if b.bases, err = b.findBases(ctx); err != nil {
		return nil, fmt.Errorf("look for the last backup: %w", err)
	}
	deadline, _ := ctx.Deadline()
	this := run.Start(b.m.now(), deadline)
	defer this.End()
	point, err := b.open(ctx, this)
	if err != nil {
		return nil, fmt.Errorf("open a point in time: %w", err)
	}
	defer func() {
		began := b.m.now()
		closing, phase := progress.Enter(ctx, "removing the temporary snapshot", "vm", b.vm.Path)
		closeErr := point.Close(closing)
		phase.Leave()
		switch {
		case closeErr == nil:
			b.m.log.InfoContext(ctx, "the temporary snapshot is removed", "vm", b.vm.Path, "duration", progress.Since(began, b.m.now()))
		case err != nil:
			err = errors.Join(err, b.left(this, point, closeErr))
		default:
			warning := fmt.Sprintf("the backup stands, but %v.", b.left(this, point, closeErr))
			b.m.log.WarnContext(ctx, warning)
			result.Warnings = append(result.Warnings, warning)
		}
	}()
	if s := point.Snapshot(); b.Quiesce.Mode == quiesce.Required && !s.Quiesced {
		return nil, fmt.Errorf("the temporary snapshot came back not quiesced: %w", hypervisor.ErrQuiesce)
	}
	return b.store(ctx, w, point)
}

// left says what stays behind of a point in time that could not be closed, and what to do.
func (b *backup) left(this run.Run, point hypervisor.PointInTime, err error) error {
	if errors.Is(err, hypervisor.ErrConsolidationNeeded) {
		return fmt.Errorf("%s still runs on delta disks of the temporary snapshot, which itself is gone; they grow "+
			"until the disks of the VM are consolidated: %w", b.vm.Path, err)
	}
	return fmt.Errorf("the temporary snapshot %q (%s) stays on %s until the next backup of it removes it: %w",
		snapshotName(this), point.Snapshot().ID, b.vm.Path, err)
}

// open opens the point in time, a second time without quiescing where quiescing failed and was
// only preferred.
func (b *backup) open(ctx context.Context, this run.Run) (hypervisor.PointInTime, error) {
	description, err := snapshotDescription(this, b.start)
	if err != nil {
		return nil, err
	}
	spec := hypervisor.PointInTimeSpec{
		Name: snapshotName(this), Description: description, ChangeTracking: b.ChangeTracking,
	}
	for _, d := range b.excluded {
		spec.Exclude = append(spec.Exclude, d.Key)
	}
	preferred := b.Quiesce.Mode == quiesce.Preferred
	if quiesce.Possible(b.vm) {
		spec.Quiesce = b.Quiesce.Spec()
	}
	began := b.m.now()
	b.m.log.InfoContext(ctx, "taking a temporary snapshot", "vm", b.vm.Path, "snapshot", spec.Name, "quiesce", spec.Quiesce != nil)
	ctx, phase := progress.Enter(ctx, "taking the temporary snapshot", "vm", b.vm.Path, "snapshot", spec.Name)
	defer phase.Leave()
	point, err := b.m.hv.OpenPointInTime(ctx, b.vm.ID, spec)
	failed := errors.Is(err, hypervisor.ErrQuiesce) || errors.Is(err, hypervisor.ErrGuestAgent)
	if failed && preferred && spec.Quiesce != nil {
		b.warn(ctx, fmt.Sprintf("the backup is crash-consistent: %v.", err))
		spec.Quiesce = nil
		point, err = b.m.hv.OpenPointInTime(ctx, b.vm.ID, spec)
	}
	if err != nil {
		return nil, err
	}
	b.m.log.InfoContext(ctx, "the point in time is open", "vm", b.vm.Path, "snapshot_id", string(point.Snapshot().ID),
		"quiesced", point.Snapshot().Quiesced, "disks", len(point.Config().Summary.Disks), "duration", progress.Since(began, b.m.now()))
	if spec.Quiesce != nil && preferred && !point.Snapshot().Quiesced {
		b.warn(ctx, fmt.Sprintf("the backup is crash-consistent: %s was asked to quiesce and was not.", b.vm.Name))
	}
	return point, nil
}

// store copies disks and configuration to the repository and commits.
func (b *backup) store(ctx context.Context, w writer, point hypervisor.PointInTime) (*Result, error) {
	disks, err := b.copyDisks(ctx, w, point)
	if err != nil {
		return nil, err
	}
	config := point.Config()
	for _, warning := range config.Warnings {
		b.warn(ctx, warning)
	}
	manifest := b.manifest(point, disks)
	files := map[string][]byte{configFile: config.Data}
	if config.NVRAM != nil {
		files[nvramFile] = config.NVRAM
	}
	b.m.log.DebugContext(ctx, "committing the backup", "vm", b.vm.Path)
	began := b.m.now()
	committing, phase := progress.Enter(ctx, "completing the backup", "vm", b.vm.Path)
	id, err := w.Commit(committing, manifest, files)
	phase.Leave()
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	b.m.log.InfoContext(ctx, "backup taken", "vm", b.vm.Path, "id", string(id),
		"read_bytes", manifest.ReadBytes, "stored_bytes", manifest.StoredBytes,
		"commit_duration", progress.Since(began, b.m.now()), "duration", progress.Since(b.start, b.m.now()))
	return &Result{ID: id, Manifest: manifest, Warnings: b.warnings}, nil
}

func (b *backup) warn(ctx context.Context, warning string) {
	b.m.log.WarnContext(ctx, warning, "vm", b.vm.Path)
	b.warnings = append(b.warnings, warning)
}
