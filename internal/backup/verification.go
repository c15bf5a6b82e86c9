package backup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A HealthRequest asks how good the backups of one VM are.
type HealthRequest struct {
	VM     string                 // a BIOS UUID, instance UUID, inventory path or name, as in a repository.Filter
	MaxAge time.Duration          // of the newest restore point that is verified
	Level  repository.VerifyLevel // it must be verified at least so; empty: it needs no verification

	// MaxVerificationAge is how long ago the verification may be. Zero: any time.
	MaxVerificationAge time.Duration
	MinConsistency     string // as in a repository.Filter
}

// Health is how good the backups of a VM are.
type Health struct {
	OK     bool
	Reason string // a sentence that says why not; empty: OK

	Newest   *repository.RestorePoint  // nil: there is none
	Verified *repository.RestorePoint  // the newest that is verified at the level that was asked for; nil: none is
	By       repository.Verification   // how Verified was verified
	Age      time.Duration             // of Verified, or of Newest where no verification is needed
	Failed   []repository.RestorePoint // at their last verification
}

// Health says whether there is a restore point of a VM that is not older than allowed and verified as thoroughly as
// wanted. It reads lists alone: neither the VM nor any data is looked at. Errors: ErrRequest, those of the
// repository.
func (m *Manager) Health(ctx context.Context, r HealthRequest) (*Health, error) {
	switch {
	case r.VM == "":
		return nil, fmt.Errorf("%w: no VM is named", ErrRequest)
	case r.MaxAge <= 0, r.MaxVerificationAge < 0:
		return nil, fmt.Errorf("%w: the age %s is none", ErrRequest, min(r.MaxAge, r.MaxVerificationAge))
	case r.Level != "" && !repository.VerifyRestore.Covers(r.Level):
		return nil, fmt.Errorf("%w: unknown level %q", ErrRequest, r.Level)
	}
	points, err := m.repo.List(ctx, repository.Filter{VM: r.VM, MinConsistency: r.MinConsistency})
	if err != nil {
		return nil, err
	}
	verifications, err := m.repo.Verifications(ctx)
	if err != nil {
		return nil, err
	}
	return r.judge(points, verifications, m.now()), nil
}

// judge makes the health of restore points, the newest first, and their verifications.
func (r HealthRequest) judge(
	points []repository.RestorePoint, verifications map[repository.ID][]repository.Verification, now time.Time,
) *Health {
	h := &Health{}
	for i := range points {
		p := &points[i]
		if h.Newest == nil {
			h.Newest = p
		}
		all := verifications[p.ID]
		if slices.ContainsFunc(all, func(v repository.Verification) bool { return !v.OK }) && !isVerified(all) {
			h.Failed = append(h.Failed, *p)
			continue
		}
		by, ok := repository.Verified(all, r.level())
		if r.Level == "" && !ok {
			ok = true
		}
		if ok && h.Verified == nil {
			h.Verified, h.By = p, by
		}
	}
	if h.Verified != nil {
		h.Age = max(now.Sub(h.Verified.CreatedAt), 0)
	}
	h.Reason = r.reason(h, now)
	h.OK = h.Reason == ""
	return h
}

func (r HealthRequest) level() repository.VerifyLevel {
	if r.Level == "" {
		return repository.VerifyIndex
	}
	return r.Level
}

// isVerified reports whether something was found wrong since the last verification that found nothing.
func isVerified(all []repository.Verification) bool {
	_, ok := repository.Verified(all, repository.VerifyIndex)
	return ok
}

// reason says why the health is not as wanted.
func (r HealthRequest) reason(h *Health, now time.Time) string {
	switch {
	case h.Newest == nil && r.MinConsistency != "":
		return fmt.Sprintf("There is no %s-consistent backup of %s.", r.MinConsistency, r.VM)
	case h.Newest == nil:
		return fmt.Sprintf("There is no backup of %s.", r.VM)
	}
	var verified string
	if r.Level != "" {
		verified = fmt.Sprintf(" that is verified at level %q", r.Level)
	}
	switch {
	case h.Verified == nil && len(h.Failed) > 0:
		return fmt.Sprintf("There is no backup of %s%s; %d failed the last verification, among them %s.",
			h.Newest.VMName, verified, len(h.Failed), describe(h.Failed[0]))
	case h.Verified == nil:
		return fmt.Sprintf("There is no backup of %s%s; the newest is %s.", h.Newest.VMName, verified, describe(*h.Newest))
	case h.Age > r.MaxAge:
		return fmt.Sprintf("The newest backup of %s%s is %s, %s old; allowed are %s.",
			h.Newest.VMName, verified, describe(*h.Verified), round(h.Age), round(r.MaxAge))
	case r.MaxVerificationAge > 0 && now.Sub(h.By.At) > r.MaxVerificationAge:
		return fmt.Sprintf("The newest backup of %s%s, %s, was verified %s ago; allowed are %s.",
			h.Newest.VMName, verified, describe(*h.Verified), round(now.Sub(h.By.At)), round(r.MaxVerificationAge))
	}
	return ""
}

func describe(p repository.RestorePoint) string {
	return fmt.Sprintf("%s of %s", p.ID, p.CreatedAt.UTC().Format(time.RFC3339))
}

// round leaves out what nobody wants to know of a duration.
func round(d time.Duration) time.Duration {
	if d > time.Minute {
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}
