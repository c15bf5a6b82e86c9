package backup_test

import (
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	_, repo, points, _ := taken(t)
	newest, older := points[0], points[1]
	record := func(p repository.RestorePoint, level repository.VerifyLevel, ok bool, ago time.Duration) {
		t.Helper()
		v := repository.Verification{Point: p.ID, Level: level, OK: ok, At: time.Now().Add(-ago)}
		if err := repo.RecordVerification(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	check := func(step string, r backup.HealthRule, verified *repository.RestorePoint, reason string) {
		t.Helper()
		if r.MaxAge == 0 {
			r.MaxAge = time.Hour
		}
		verifications, err := repo.Verifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h := r.Judge("web", points, verifications, time.Now())
		if h.OK != (reason == "") || !strings.Contains(h.Reason, reason) {
			t.Errorf("%s: %+v, want the reason %q", step, h, reason)
		}
		if (h.Verified == nil) != (verified == nil) || verified != nil && h.Verified.ID != verified.ID {
			t.Errorf("%s: verified is %+v, want %+v", step, h.Verified, verified)
		}
	}
	data := backup.HealthRule{Level: repository.VerifyData}
	check("not verified", backup.HealthRule{}, &newest, "")
	check("too old", backup.HealthRule{MaxAge: time.Nanosecond}, &newest, "allowed are")
	check("none is verified", data, nil, string(newest.ID))
	record(newest, repository.VerifyRestore, false, 0)
	check("no guest came up, which is no damage", backup.HealthRule{}, &newest, "")
	record(newest, repository.VerifyIndex, true, 0)
	check("not thoroughly enough", data, nil, `level "data"`)
	record(older, repository.VerifyRestore, true, 2*time.Hour)
	check("the older one is", data, &older, "")
	check("too long ago", backup.HealthRule{Level: repository.VerifyData, MaxVerificationAge: time.Hour}, &older, "was verified 2h0m0s ago")
	record(newest, repository.VerifyData, true, 0)
	check("the newest one is", data, &newest, "")
	record(newest, repository.VerifyRestore, false, 0)
	check("its guest doesn't come up", data, &newest, "")
	check("the older one's does", backup.HealthRule{Level: repository.VerifyRestore}, &older, "")
	points[0].Excluded = "scsi0:1"
	check("the newest one leaves out a disk", data, &older, "")
	check("which may be", backup.HealthRule{Level: repository.VerifyData, AllowExcluded: true}, &newest, "")
	check("and so it is too old", backup.HealthRule{MaxAge: time.Nanosecond}, &older, "that has all disks")
	points[0].Excluded = ""
	record(newest, repository.VerifyData, true, -48*time.Hour) // by a clock that is two days ahead
	record(newest, repository.VerifyIndex, false, 0)
	check("the newest one is damaged", data, &older, "")
	check("what is damaged doesn't count", backup.HealthRule{}, &older, "")
	record(older, repository.VerifyIndex, false, 0)
	check("both are", backup.HealthRule{}, nil, "damaged ones: 2")
	if h := (backup.HealthRule{MaxAge: time.Hour}).Judge("db", nil, nil, time.Now()); h.OK || h.Reason != "There is no backup of db." {
		t.Errorf("of a VM without backups: %+v", h)
	}
}
