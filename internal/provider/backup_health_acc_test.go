package provider

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

const healthConfig = `
data "vm_backup_health" "web01" {
  vm      = "web01"
  max_age = "1h"
}
data "vm_backup_health" "unverified" {
  vm               = "web01"
  max_age          = "1h"
  min_verification = "none"
}
data "vm_backup_health" "restored" {
  vm                   = "web01"
  max_age              = "1h"
  min_verification     = "restore"
  max_verification_age = "1h"
}
data "vm_backup_health" "application" {
  vm              = "web01"
  max_age         = "1h"
  min_consistency = "application"
}
data "vm_backups" "verified" {
  vm               = "web01"
  min_verification = "data"
}
`

// TestBackupHealth follows a virtual machine's backups, while there is the machine and when it is gone.
func TestBackupHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	older := w.takeBackup("web01")
	repo := w.openRepository()
	var newest repository.ID
	record := func(id *repository.ID, level repository.VerifyLevel, ago time.Duration, problems ...string) func() {
		return func() {
			v := repository.Verification{Point: *id, Level: level, At: time.Now().Add(-ago), OK: len(problems) == 0, Problems: problems}
			if err := repo.RecordVerification(t.Context(), v); err != nil {
				t.Error(err)
			}
		}
	}
	check := func(name, attribute, value string) resource.TestCheckFunc {
		return resource.TestCheckResourceAttr("data.vm_backup_health."+name, attribute, value)
	}
	match := func(name, attribute, pattern string) resource.TestCheckFunc {
		return resource.TestMatchResourceAttr("data.vm_backup_health."+name, attribute, regexp.MustCompile(pattern))
	}
	listed := func(n int) resource.TestCheckFunc {
		return resource.TestCheckResourceAttr("data.vm_backups.verified", "backups.#", fmt.Sprint(n))
	}
	step := func(before func(), checks ...resource.TestCheckFunc) resource.TestStep {
		return resource.TestStep{PreConfig: before, Config: healthConfig, Check: resource.ComposeAggregateTestCheckFunc(checks...)}
	}
	w.run(
		step(nil,
			check("web01", "ok", "false"), match("web01", "reason", `level "data"; the newest is `+string(older)), check("web01", "newest_id", string(older)),
			resource.TestCheckNoResourceAttr("data.vm_backup_health.web01", "backup_id"), check("web01", "failed_ids.#", "0"),
			check("unverified", "ok", "true"), check("unverified", "backup_id", string(older)), check("unverified", "reason", ""),
			resource.TestCheckNoResourceAttr("data.vm_backup_health.unverified", "verification"),
			match("application", "reason", `no backup of "web01" that is application-consistent`),
			resource.TestCheckNoResourceAttr("data.vm_backup_health.application", "newest_id"), listed(0),
		),
		step(func() { newest = w.takeBackup("web01"); record(&older, repository.VerifyRestore, 2*time.Hour)() },
			check("web01", "ok", "true"), check("web01", "backup_id", string(older)), check("web01", "verification", "restore"),
			match("web01", "verified_at", "^20.*Z$"), match("web01", "created_at", "^20.*Z$"), match("web01", "age_hours", "^0"),
			check("restored", "ok", "false"), match("restored", "reason", "was verified 2h0m0s ago; allowed are 1h0m0s"), listed(1),
		),
		step(record(&newest, repository.VerifyData, 0),
			check("web01", "ok", "true"), check("web01", "verification", "data"), listed(2),
			func(s *terraform.State) error { return check("web01", "backup_id", string(newest))(s) },
		),
		step(record(&newest, repository.VerifyIndex, -time.Minute, "pack p1 is missing"),
			check("web01", "ok", "true"), check("web01", "backup_id", string(older)), check("web01", "failed_ids.#", "1"),
			check("web01", "failed_description", "pack p1 is missing"), listed(1), check("unverified", "backup_id", string(older)),
			func(s *terraform.State) error { return check("web01", "failed_ids.0", string(newest))(s) },
		),
		step(func() {
			if err := w.client().DestroyVM(t.Context(), hypervisor.VMID(w.vm("web01").ID)); err != nil {
				t.Error(err)
			}
		}, check("web01", "ok", "true"), check("web01", "backup_id", string(older))),
	)
}

// TestBackupHealthSeveral has backups of two virtual machines of one name.
func TestBackupHealthSeveral(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.takeBackup("web01")
	if err := w.client().DestroyVM(t.Context(), hypervisor.VMID(w.vm("web01").ID)); err != nil {
		t.Fatal(err)
	}
	if err := w.lab.AddVM(t.Context(), lab.VMSpec{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 2)}}); err != nil {
		t.Fatal(err)
	}
	w.takeBackup("web01")
	s := w.workspace()
	s.write(w.provider() + "data \"vm_backup_health\" \"web01\" {\n  vm = \"web01\"\n  max_age = \"1h\"\n  min_verification = \"none\"\n}\n")
	if out := s.must("plan"); !strings.Contains(out, "Backups of Several Virtual Machines") || strings.Count(out, "(instance UUID ") != 2 {
		t.Errorf("the plan says:\n%s", out)
	}
}
