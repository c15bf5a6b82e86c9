package provider

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestValuesKnownAfterApply has everything come from a resource that is created in the same run, the
// provider's own configuration included.
func TestValuesKnownAfterApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runAs(resource.TestStep{
		Config: fmt.Sprintf(`
resource "terraform_data" "server" {
  input = %q
}
resource "terraform_data" "vm" {
  input = "web01"
}
provider "vm" {
  vsphere = {
    server     = terraform_data.server.output
    thumbprint = %q
  }
  repository = {}
}
resource "vm_snapshot" "s" {
  vm   = terraform_data.vm.output
  name = terraform_data.vm.output
}
resource "vm_backup" "b" {
  vm         = terraform_data.vm.output
  depends_on = [vm_snapshot.s]
}
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "${terraform_data.vm.output}-copy"
    identity = "copy"
  }
}
data "vm_machine" "copy" {
  vm = vm_restore.r.vm_uuid
}
data "vm_backup" "newest" {
  vm         = data.vm_machine.copy.name == "" ? "" : "web01"
  depends_on = [vm_backup.b]
}
`, w.lab.URL().Host, w.lab.Fingerprint()),
		ConfigStateChecks: []statecheck.StateCheck{
			known("name", knownvalue.StringExact("web01")),
			attribute("data.vm_machine.copy", "name", knownvalue.StringExact("web01-copy")),
			attribute("data.vm_machine.copy", "obstacles", knownvalue.ListSizeExact(0)),
			attribute("data.vm_machine.copy", "disks", knownvalue.ListSizeExact(1)),
			attribute("data.vm_backup.newest", "vm_name", knownvalue.StringExact("web01")),
		},
		ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
	})
	labtest.AssertClean(t, w.lab)
}

// TestTimeouts has backups and restores that take too long.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limited := func(config string) string {
		return config[:len(config)-2] + "  timeouts {\n    create = \"10s\"\n  }\n}\n"
	}
	clean := func() {
		labtest.AssertClean(t, w.lab)
	}
	w.run(
		resource.TestStep{
			PreConfig:   func() { w.lab.Fault(lab.Fault{Method: "GET /folder", Delay: time.Minute}) },
			Config:      limited(backupConfig),
			ExpectError: regexp.MustCompile(`(?s)Unable to Take Backup.*There is no backup.*allow more time in the timeouts`),
		},
		resource.TestStep{PreConfig: clean, Config: backupConfig},
		resource.TestStep{
			PreConfig: func() {
				clean()
				w.destroyVM("web01")
				w.lab.Fault(lab.Fault{Method: "POST /nfc", Delay: time.Minute})
			},
			Config:      limited(restoreConfig),
			ExpectError: regexp.MustCompile(`(?s)Unable to Restore Virtual Machine.*There is no new virtual machine`),
		},
		resource.TestStep{
			PreConfig: func() {
				clean()
				if vms := w.lab.Status().VMs; len(vms) != 0 {
					t.Errorf("the lab has %+v", vms)
				}
			},
			Config: restoreConfig,
		},
	)
	clean()
}

func TestSnapshotShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := snapshotConfig[:len(snapshotConfig)-2] + "  shutdown = true\n}\n"
	w.run(
		resource.TestStep{
			Config: config,
			ConfigStateChecks: []statecheck.StateCheck{
				known("consistency", knownvalue.StringExact("application")),
				known("power_state", knownvalue.StringExact("powered_off")),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
			Check: func(*terraform.State) error {
				if state := w.vm("web01").PowerState; state != "poweredOn" {
					return fmt.Errorf("afterwards the VM is %s", state)
				}
				return nil
			},
		},
		resource.TestStep{
			Config: config,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

// TestChainTooDeep warns, and in the end refuses, before anything is touched.
func TestChainTooDeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	chain := func(n int) string {
		return w.provider() + fmt.Sprintf("resource \"vm_snapshot\" \"s\" {\n  count = %d\n  vm    = \"web01\"\n  name  = \"s${count.index}\"\n}\n", n)
	}
	s.write(chain(4))
	s.must("apply", "-auto-approve")
	s.write(chain(5))
	if out := s.must("plan"); !regexp.MustCompile(`Warning: Snapshot With Reservations`).MatchString(out) {
		t.Errorf("the plan doesn't warn:\n%s", out)
	}
	s.write(chain(32))
	s.must("apply", "-auto-approve", "-parallelism=4")
	s.write(chain(33))
	if out, err := s.run("plan"); err == nil || !regexp.MustCompile(`(?s)Unable to Plan Snapshot.*Remove\s+snapshots`).MatchString(out) {
		t.Errorf("the plan doesn't refuse (%v):\n%s", err, out)
	}
	s.write(chain(32)) // to destroy is to plan first, and that would be refused too
	s.must("destroy", "-auto-approve")
	labtest.AssertClean(t, w.lab)
}

// TestSnapshotThatExistsInSpiteOfAnError is recorded, so that the next apply replaces it and nothing is
// leaked.
func TestSnapshotThatExistsInSpiteOfAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := snapshotConfig[:len(snapshotConfig)-2] + "  shutdown = true\n}\n"
	w.run(
		resource.TestStep{
			PreConfig: func() {
				w.lab.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: "InsufficientResourcesFault"})
			},
			Config:      config,
			ExpectError: regexp.MustCompile(`(?s)Unable to Take Snapshot.*exists\s+and\s+is\s+in\s+the\s+state,\s+tainted`),
		},
		resource.TestStep{
			Config: config,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: func(*terraform.State) error {
				if n := len(w.vm("web01").Snapshots); n != 1 {
					return fmt.Errorf("%d snapshots, want 1", n)
				}
				return nil
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}
