package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// maxSkew is how far the clocks of servers may be ahead before their restore points are from the future.
const maxSkew = 15 * time.Minute

// A PruneRequest says which restore points are to be removed.
type PruneRequest struct {
	// VM is whose restore points: a BIOS UUID, instance UUID, inventory path or name, as in a
	// repository.Filter. Where it means several VMs, the rules apply to each of them. Empty: all VMs.
	VM        string
	Retention Retention
	DryRun    bool // judge, and remove nothing

	// Now is the time; Prune sets it. Restore points from the future, of which a clock was wrong, are kept and
	// take nobody's place. Zero: none is from the future.
	Now time.Time

	// Known is what became of verifications; Prune sets it. Restore points that are damaged are kept until somebody
	// deletes them, and take nobody's place.
	Known map[repository.ID][]repository.Verification

	// taken is a restore point that stays even if the hypervisor's clock says that others are newer. Nothing
	// but its series is looked at.
	taken repository.ID
}

// A PruneResult is what became of restore points, also when not all could be removed.
type PruneResult struct {
	Verdicts []Verdict                 // on all restore points, newest first within each VM
	Removed  []repository.RestorePoint // none in a dry run
	InUse    []repository.RestorePoint // stay until the next time, as a restore reads from them
}

// Going are the restore points that the rules let go, whether they were removed or not.
func (r *PruneResult) Going() []repository.RestorePoint {
	var going []repository.RestorePoint
	for _, v := range r.Verdicts {
		if !v.Keep {
			going = append(going, v.Point)
		}
	}
	return going
}

// Prune removes the restore points that a Retention governs and doesn't keep. Any number of processes may
// prune and back up at once: each removes only what newer restore points replace that it has seen, and another
// that it has not seen yet only lets more go. Their data goes through maintenance of the repository.
//
// Errors: ErrRequest, and those of the repository; the result tells what was removed before.
func (m *Manager) Prune(ctx context.Context, r PruneRequest) (*PruneResult, error) {
	result := &PruneResult{}
	if err := r.Retention.check(); err != nil {
		return result, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	points, err := m.repo.List(ctx, repository.Filter{VM: r.VM})
	if err != nil {
		return result, fmt.Errorf("prune: %w", err)
	}
	if r.Known, err = m.repo.Verifications(ctx); err != nil {
		return result, fmt.Errorf("prune: %w", err)
	}
	r.Now = m.now()
	result.Verdicts = r.Judge(points)
	if r.DryRun {
		return result, nil
	}
	var failed []error
	for _, p := range result.Going() {
		err := m.repo.DeleteUnused(ctx, p.ID)
		switch {
		case err == nil:
			m.log.InfoContext(ctx, "pruned a backup", "vm", p.VMPath, "id", string(p.ID), "created_at", p.CreatedAt)
			result.Removed = append(result.Removed, p)
		case errors.Is(err, repository.ErrInUse):
			m.log.InfoContext(ctx, "a restore reads from a backup that is to be pruned", "vm", p.VMPath, "id", string(p.ID))
			result.InUse = append(result.InUse, p)
		case errors.Is(err, repository.ErrBusy): // each of the others would wait as long
			return result, fmt.Errorf("prune: %w", errors.Join(append(failed, err)...))
		case ctx.Err() != nil:
			return result, fmt.Errorf("prune: %w", err)
		default:
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return result, fmt.Errorf("prune: %w", err)
	}
	return result, nil
}

// Judge says what becomes of restore points, of any VMs: those of one VM that leave out the same disks are one
// series, to which the rules apply.
func (r PruneRequest) Judge(points []repository.RestorePoint) []Verdict {
	bySeries := map[series][]repository.RestorePoint{}
	var order []series
	var taken series
	for _, p := range points {
		if p.InstanceUUID == "" || r.isFuture(p) || r.isDamaged(p) { // nobody knows which VM's it is, how old, or what is left
			p.Governed = false
		}
		s := seriesOf(p)
		if _, ok := bySeries[s]; !ok {
			order = append(order, s)
		}
		bySeries[s] = append(bySeries[s], p)
		if p.ID == r.taken {
			taken = s
		}
	}
	if r.taken != "" {
		order = slices.DeleteFunc(order, func(s series) bool { return s != taken })
	}
	var all []Verdict
	for _, s := range order {
		verdicts := r.Retention.Judge(bySeries[s])
		for i := range verdicts {
			switch p := verdicts[i].Point; {
			case r.isDamaged(p):
				verdicts[i].Reasons = []string{reasonDamaged}
			case r.isFuture(p):
				verdicts[i].Reasons = []string{reasonFuture}
			case p.ID == r.taken && !verdicts[i].Keep:
				verdicts[i].keep(reasonNewest)
			}
		}
		all = append(all, verdicts...)
	}
	return all
}

// isDamaged reports whether a restore point is known to be damaged.
func (r PruneRequest) isDamaged(p repository.RestorePoint) bool {
	return repository.Damaged(r.Known[p.ID])
}

// isFuture reports whether a restore point is from the future.
func (r PruneRequest) isFuture(p repository.RestorePoint) bool {
	return !r.Now.IsZero() && p.CreatedAt.After(r.Now.Add(maxSkew))
}

// prune applies the request's retention after a backup was taken. The backup stands, whatever comes of it.
func (m *Manager) prune(ctx context.Context, r Request, result *Result) {
	if r.Retention == nil {
		return
	}
	ctx, phase := progress.Enter(ctx, "removing older backups", "vm", result.Manifest.VM.Path)
	defer phase.Leave()
	pruned, err := m.Prune(ctx, PruneRequest{
		VM: result.Manifest.VM.InstanceUUID, Retention: *r.Retention, taken: result.ID,
	})
	for _, p := range pruned.Removed {
		result.Pruned = append(result.Pruned, p.ID)
	}
	if err != nil {
		warning := fmt.Sprintf("the backup stands, but older ones were not pruned: %v. The next backup tries again.", err)
		m.log.WarnContext(ctx, warning, "vm", result.Manifest.VM.Path)
		result.Warnings = append(result.Warnings, warning)
	}
}
