package backup_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	m, _, points, _ := taken(t)
	newest, older := points[0], points[1]
	record := func(p repository.RestorePoint, level repository.VerifyLevel, ok bool, ago time.Duration) {
		t.Helper()
		v := repository.Verification{Point: p.ID, Level: level, OK: ok, At: time.Now().Add(-ago)}
		if err := m.Record(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	check := func(step string, r backup.HealthRequest, verified *repository.RestorePoint, reason string) {
		t.Helper()
		if r.VM == "" {
			r.VM = "web"
		}
		if r.MaxAge == 0 {
			r.MaxAge = time.Hour
		}
		h, err := m.Health(t.Context(), r)
		switch {
		case err != nil:
			t.Fatal(step, err)
		case h.OK != (reason == "") || !strings.Contains(h.Reason, reason):
			t.Errorf("%s: %+v, want the reason %q", step, h, reason)
		case (h.Verified == nil) != (verified == nil) || verified != nil && h.Verified.ID != verified.ID:
			t.Errorf("%s: verified is %+v, want %+v", step, h.Verified, verified)
		}
	}
	data := backup.HealthRequest{Level: repository.VerifyData}
	check("not verified", backup.HealthRequest{}, &newest, "")
	check("too old", backup.HealthRequest{MaxAge: time.Nanosecond}, &newest, "allowed are")
	check("of another VM", backup.HealthRequest{VM: "db"}, nil, "There is no backup of db")
	check("not as consistent", backup.HealthRequest{MinConsistency: "application"}, nil, "application-consistent")
	check("none is verified", data, nil, string(newest.ID))
	record(newest, repository.VerifyIndex, true, 0)
	check("not thoroughly enough", data, nil, `level "data"`)
	record(older, repository.VerifyRestore, true, 2*time.Hour)
	check("the older one is", data, &older, "")
	check("too long ago", backup.HealthRequest{Level: repository.VerifyData, MaxVerificationAge: time.Hour}, &older, "was verified 2h0m0s ago")
	record(newest, repository.VerifyData, true, 0)
	check("the newest one is", data, &newest, "")
	record(newest, repository.VerifyRestore, false, 0)
	check("its guest doesn't come up", data, &newest, "")
	check("the older one's does", backup.HealthRequest{Level: repository.VerifyRestore}, &older, "")
	record(newest, repository.VerifyIndex, false, 0)
	check("the newest one is damaged", data, &older, "")
	check("what is damaged doesn't count", backup.HealthRequest{}, &older, "")
	record(older, repository.VerifyIndex, false, 0)
	check("both are", backup.HealthRequest{}, nil, "2 failed")
	for _, r := range []backup.HealthRequest{
		{MaxAge: time.Hour}, {VM: "web"}, {VM: "web", MaxAge: -1}, {VM: "web", MaxAge: 1, MaxVerificationAge: -1},
		{VM: "web", MaxAge: 1, Level: "other"},
	} {
		if _, err := m.Health(t.Context(), r); !errors.Is(err, backup.ErrRequest) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
