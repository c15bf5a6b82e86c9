package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

const (
	// recordTimeout bounds keeping what became of a verification, which is worth it also for a caller who left.
	recordTimeout = 2 * time.Minute

	// maxProblems is how many damages of a restore point are kept, and named in an error.
	maxProblems = 20
)

// A VerifyRequest says which restore points are to be verified, and how. How far that is can be followed (package
// progress).
type VerifyRequest struct {
	Points []repository.RestorePoint
	Level  repository.VerifyLevel // VerifyIndex or VerifyData
}

// A VerifyResult is what became of verifying one restore point.
type VerifyResult struct {
	Point     repository.RestorePoint
	Level     repository.VerifyLevel
	ReadBytes int64
	Damage    *DamageError // nil: it is as it was backed up
	Duration  time.Duration
	Recorded  bool
	Warnings  []string
}

// A DamageError says that a restore point can't be had back as it was backed up. It wraps
// repository.ErrDamaged.
type DamageError struct {
	Point  repository.RestorePoint
	Level  repository.VerifyLevel
	Damage []repository.Damage
	More   int // that are not listed
}

func (e *DamageError) Error() string {
	lines := e.problems()
	return fmt.Sprintf("backup %s of %s, taken at %s, is damaged:\n  %s", e.Point.ID, e.Point.VMPath,
		e.Point.CreatedAt.UTC().Format(time.RFC3339), strings.Join(lines, "\n  "))
}

// Unwrap makes it a repository.ErrDamaged.
func (e *DamageError) Unwrap() error { return repository.ErrDamaged }

// problems are the damages, a line each.
func (e *DamageError) problems() []string {
	var lines []string
	more := e.More
	for i, d := range e.Damage {
		if i == maxProblems {
			more += len(e.Damage) - i
			break
		}
		lines = append(lines, d.String())
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// Verify verifies restore points, one after the other, and keeps the outcome of each in the repository. A restore
// point that is damaged doesn't end it.
//
// With an error there are the results so far. Errors: ErrRequest; a *DamageError for each that is damaged, after
// all were verified; repository.ErrNotFound of one that went meanwhile, and others of the repository.
func (m *Manager) Verify(ctx context.Context, r VerifyRequest) ([]VerifyResult, error) {
	if !repository.VerifyData.Covers(r.Level) {
		return nil, fmt.Errorf("%w: level %q is none of %s, %s", ErrRequest, r.Level, repository.VerifyIndex, repository.VerifyData)
	}
	var results []VerifyResult
	var damaged []error
	for i, p := range r.Points {
		v := &verification{m: m, VerifyRequest: r, point: p, number: i + 1}
		result, err := v.run(ctx)
		if err != nil {
			return results, errors.Join(append(damaged, fmt.Errorf("verify backup %s of %s: %w", p.ID, p.VMPath, err))...)
		}
		results = append(results, *result)
		if result.Damage != nil {
			damaged = append(damaged, result.Damage)
		}
	}
	return results, errors.Join(damaged...)
}

// A verification is that of one restore point.
type verification struct {
	VerifyRequest
	m      *Manager
	point  repository.RestorePoint
	number int
	done   atomic.Int64
	total  atomic.Int64
}

func (v *verification) run(ctx context.Context) (*VerifyResult, error) {
	start := v.m.now()
	release, err := v.m.repo.Hold(ctx, v.point.ID) // nobody may prune it meanwhile
	if err != nil {
		return nil, err
	}
	defer release()
	found, err := v.verify(ctx)
	if err != nil {
		return nil, err
	}
	end := v.m.now()
	result := &VerifyResult{Point: v.point, Level: v.Level, ReadBytes: found.ReadBytes, Duration: end.Sub(start)}
	if len(found.Damage) > 0 {
		result.Damage = &DamageError{Point: v.point, Level: v.Level, Damage: found.Damage, More: found.More}
		v.m.log.ErrorContext(ctx, "the backup is damaged", "vm", v.point.VMPath, "id", string(v.point.ID),
			"level", string(v.Level), "error", result.Damage)
	}
	v.record(ctx, result, start)
	v.m.log.InfoContext(ctx, "backup verified", "vm", v.point.VMPath, "id", string(v.point.ID), "level", string(v.Level),
		"read_bytes", found.ReadBytes, "damaged", result.Damage != nil, "duration", result.Duration.String())
	return result, nil
}

// record keeps the outcome. Without it, the verification is as good.
func (v *verification) record(ctx context.Context, result *VerifyResult, start time.Time) {
	record := repository.Verification{
		Point: v.point.ID, Level: v.Level, At: start, OK: result.Damage == nil, Duration: result.Duration, Version: v.m.version,
	}
	if result.Damage != nil {
		record.At, record.Problems = start.Add(result.Duration), result.Damage.problems()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := v.m.repo.RecordVerification(ctx, record); err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf("backup %s of %s was verified, but that is not kept: %v.",
			v.point.ID, v.point.VMPath, err))
		return
	}
	result.Recorded = true
}

// verify is the verification itself.
func (v *verification) verify(ctx context.Context) (*repository.VerifyResult, error) {
	name := fmt.Sprintf("verifying backup %s of %s", v.point.ID, v.point.VMPath)
	if n := len(v.Points); n > 1 {
		name += fmt.Sprintf(" (%d of %d)", v.number, n)
	}
	ctx, phase := progress.Enter(ctx, name, "level", string(v.Level))
	defer phase.Leave()
	if v.Level == repository.VerifyIndex { // reads nothing of the disks
		return v.m.repo.Verify(ctx, v.point.ID, v.Level, func(done, total int64) {
			progress.Percent(ctx, int(100*(float64(done)/float64(max(total, 1)))))
		})
	}
	phase.Measure(func() progress.Figures {
		done := v.done.Load()
		return progress.Figures{Done: done, Total: v.total.Load(), Moved: done}
	})
	return v.m.repo.Verify(ctx, v.point.ID, v.Level, func(done, total int64) {
		v.done.Store(done)
		v.total.Store(total)
	})
}
