package provider

import (
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// dependents are made of what a restored VM is called and where it is: a change of either replaces them.
const dependents = `
resource "vm_backup" "of" {
  vm = vm_restore.r.vm_id
}
resource "vm_snapshot" "s" {
  vm         = vm_restore.r.vm_path
  name       = vm_restore.r.vm_name
  depends_on = [vm_backup.of]
}
resource "vm_restore" "back" {
  snapshot_id = vm_snapshot.s.id
}
resource "terraform_data" "of_back" {
  input = [vm_restore.back.vm_path, vm_restore.back.reverted[0].vm_id]
}
`

// onlyUpdated are the checks of a plan that updates one resource in place and touches nothing that is made of it.
func onlyUpdated(address string, more ...string) resource.ConfigPlanChecks {
	checks := actionPlan(address, plancheck.ResourceActionUpdate)
	for _, other := range append(more, "vm_backup.of", "vm_snapshot.s", "vm_restore.back", "terraform_data.of_back") {
		checks = append(checks, plancheck.ExpectResourceAction(other, plancheck.ResourceActionNoop))
	}
	return resource.ConfigPlanChecks{PreApply: checks, PostApplyPostRefresh: emptyPlan()}
}

// TestUpdateReplacesNothing changes arguments that concern Terraform alone of a VM that other resources are made of: its
// snapshot is not taken anew, and above all it is not reverted again.
func TestUpdateReplacesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	restored := func(arguments string) string {
		return backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "copy"
    identity = "copy"
  }
  power_on = false
` + arguments + `}
resource "terraform_data" "of_guest" {
  triggers_replace = [vm_restore.r.power_state, vm_restore.r.guest_ip_address, vm_restore.r.guest_ip_addresses]
}
`
	}
	child := func(name string) string {
		return `
resource "vm_snapshot" "child" {
  vm         = vm_restore.r.vm_path
  name       = "` + name + `"
  depends_on = [vm_restore.back]
}
resource "terraform_data" "of_child" {
  triggers_replace = [vm_snapshot.child.parent_id, vm_snapshot.child.chain_depth]
}
`
	}
	w.run(
		resource.TestStep{Config: restored("") + dependents},
		resource.TestStep{
			Config:           restored("  on_destroy = \"keep\"\n  verify = true\n  timeouts {\n    read = \"3m\"\n  }\n") + dependents,
			ConfigPlanChecks: onlyUpdated("vm_restore.r", "terraform_data.of_guest"),
		},
		resource.TestStep{
			Config:           restored("  on_destroy = \"delete\"\n") + dependents + child("child"),
			ConfigPlanChecks: onlyUpdated("vm_restore.r"),
		},
		resource.TestStep{
			Config: restored("  on_destroy = \"delete\"\n") + dependents + child("renamed"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: append(actionPlan("terraform_data.of_child", plancheck.ResourceActionNoop),
					plancheck.ExpectResourceAction("vm_snapshot.child", plancheck.ResourceActionUpdate)),
				PostApplyPostRefresh: emptyPlan(),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

// TestDeletionOfReplacedDisksReplacesNothing has disks that a restore in place replaced fall due, which happens by itself
// some day.
func TestDeletionOfReplacedDisksReplacesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.vm("web01").Disks[0].File
	w.run(
		resource.TestStep{Config: inPlaceConfig(`keep_replaced_disks = "1h"`, "") + dependents},
		resource.TestStep{
			Config:           inPlaceConfig(`keep_replaced_disks = "1ms"`, "") + dependents,
			ConfigPlanChecks: onlyUpdated("vm_restore.r"),
			Check: func(*terraform.State) error {
				if w.has(first) {
					return fmt.Errorf("%s is not deleted", first)
				}
				return nil
			},
		},
	)
}
