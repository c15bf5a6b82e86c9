package backup

import (
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A HealthRule says what is wanted of the backups of a VM.
type HealthRule struct {
	MaxAge time.Duration          // of the newest restore point that counts
	Level  repository.VerifyLevel // it counts if it is verified at least so; empty: it needs no verification

	// MaxVerificationAge is how long ago that may be. Zero: any time.
	MaxVerificationAge time.Duration

	// AllowExcluded has restore points count that leave out disks.
	AllowExcluded bool
}

// Health is how good the backups of a VM are.
type Health struct {
	OK     bool
	Reason string // a sentence that says why not; empty: OK

	Newest   *repository.RestorePoint  // nil: there is none
	Verified *repository.RestorePoint  // the newest that is verified at the level that was asked for; nil: none is
	By       repository.Verification   // how Verified was verified
	Age      time.Duration             // of Verified, or of Newest where no verification is needed
	Failed   []repository.RestorePoint // that are damaged
	Excluded int                       // how many don't count because they leave out disks
}

// Judge says whether there is a restore point of a VM that is not older than allowed and verified as thoroughly as
// wanted. vm is what the VM is called if there is none; points are its restore points, the newest first. One that is
// damaged never counts.
func (r HealthRule) Judge(
	vm string, points []repository.RestorePoint, verifications map[repository.ID][]repository.Verification, now time.Time,
) *Health {
	h := &Health{}
	for i := range points {
		p := &points[i]
		if h.Newest == nil {
			h.Newest = p
		}
		all := verifications[p.ID]
		if p.Excluded != "" && !r.AllowExcluded {
			h.Excluded++
			continue
		}
		if repository.Damaged(all) {
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
	h.Reason = r.reason(vm, h, now)
	h.OK = h.Reason == ""
	return h
}

func (r HealthRule) level() repository.VerifyLevel {
	if r.Level == "" {
		return repository.VerifyIndex
	}
	return r.Level
}

// reason says why the health is not as wanted.
func (r HealthRule) reason(vm string, h *Health, now time.Time) string {
	if h.Newest == nil {
		return fmt.Sprintf("There is no backup of %s.", vm)
	}
	var verified string
	if r.Level != "" {
		verified = fmt.Sprintf(" that is verified at level %q", r.Level)
	}
	if h.Excluded > 0 {
		verified += " and has all disks"
		if r.Level == "" {
			verified = " that has all disks"
		}
	}
	switch {
	case h.Verified == nil && len(h.Failed) > 0:
		return fmt.Sprintf("There is no backup of %s%s; damaged ones: %d, the newest of them %s.",
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
