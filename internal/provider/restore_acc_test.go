package provider

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func copyConfig(more string) string {
	return backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "web01-copy"
    identity = "copy"
` + more + `
  }
  power_on = false
}
`
}

func TestRestoreCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.vm("web01")
	poweredOn := regexp.MustCompile(`power_on = false`).ReplaceAllString(copyConfig(""), "power_on = true")
	w.run(
		resource.TestStep{Config: backupConfig},
		resource.TestStep{
			Config: copyConfig(""),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: []plancheck.PlanCheck{
					plancheck.ExpectResourceAction("vm_restore.r", plancheck.ResourceActionCreate),
				},
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "vm_name", knownvalue.StringExact("web01-copy")),
				attribute("vm_restore.r", "on_destroy", knownvalue.StringExact("delete")),
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_off")),
			},
			Check: func(*terraform.State) error {
				made := w.vm("web01-copy")
				if made.BIOSUUID == original.BIOSUUID || made.InstanceUUID == original.InstanceUUID ||
					made.NICs[0].MAC == original.NICs[0].MAC {
					return fmt.Errorf("the copy %+v has an identity of the original %+v", made, original)
				}
				if !bytes.Equal(w.content("web01", 0), w.content("web01-copy", 0)) {
					return fmt.Errorf("the copy has other bytes")
				}
				return nil
			},
		},
		resource.TestStep{
			Config: poweredOn,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionUpdate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_on")),
			},
		},
		// A change of the target restores anew: the name is free by then.
		resource.TestStep{
			Config: copyConfig("    connect_networks = true"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
		},
		// Without the resource, the copy is gone.
		resource.TestStep{Config: backupConfig, Check: func(*terraform.State) error {
			if n := len(w.lab.Status().VMs); n != 1 {
				return fmt.Errorf("%d VMs are left, want 1", n)
			}
			return nil
		}},
	)
	labtest.AssertClean(t, w.lab)
}

// TestRestoreRefused goes through what can be known before anything is created.
func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "taken"})
	refused := func(config, want string) resource.TestStep {
		return resource.TestStep{Config: config, PlanOnly: true, ExpectError: regexp.MustCompile(want)}
	}
	w.run(
		resource.TestStep{Config: backupConfig},
		refused(restoreConfig, `(?s)Unable to Plan Restore.*UUID.*in\s+use\s+by.*web01.*identity\s+=\s+"copy"`),
		refused(backupConfig+`
resource "vm_restore" "r" {
  backup_id = "0123456789abcdef0123456789abcdef"
}
`, `(?s)Unable to Plan Restore.*backup_id.*restore\s+point\s+not\s+found.*vm_backups`),
		refused(copyConfig(`    network_map = { "VM Network" = "Nowhere" }`), `(?s)no\s+network\s+"Nowhere".*there\s+is:.*new_vm\.network_map`),
		refused(copyConfig(`    datastore = "Nowhere"`), `(?s)no\s+datastore\s+"Nowhere".*LocalDS_0`),
		refused(copyConfig(`    resource_pool = "Nowhere"`), `(?s)no\s+resource pool\s+"Nowhere".*Resources`),
		refused(copyConfig(`    folder = "/DC0/vm/Nowhere"`), `(?s)no\s+folder\s+"/DC0/vm/Nowhere"`),
		refused(backupConfig+`
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "taken"
    identity = "copy"
  }
}
`, `(?s)already\s+holds\s+"taken"`),
	)
	if n := len(w.lab.Status().VMs); n != 2 {
		t.Errorf("%d VMs, want 2", n)
	}
	labtest.AssertClean(t, w.lab)
}

// TestReplacementRefused has a slip of the pen in what replaces a copy: the plan fails, before the old copy is
// deleted to make room.
func TestReplacementRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + copyConfig(""))
	s.must("apply", "-auto-approve")
	before := w.vm("web01-copy").ID
	for slip, words := range map[string][]string{
		`    network_map = { "VM Network" = "Nowhere" }`:    {"Unable to Plan Restore", `no network "Nowhere"`},
		`    network_map = { "Nowhere" = "VM Network" }`:    {"Unable to Plan Restore", "Nowhere"},
		`    datastore = "Nowhere"`:                         {"Unable to Plan Restore", `no datastore "Nowhere"`},
		`    disk_datastores = { "scsi0:9" = "LocalDS_0" }`: {"Unable to Plan Restore", "scsi0:9"},
	} {
		s.write(w.provider() + copyConfig(slip))
		s.refused(words, "apply", "-auto-approve")
		if now := w.vm("web01-copy").ID; now != before {
			t.Fatalf("%s: the copy was %s, now there is %s", slip, before, now)
		}
	}
	labtest.AssertClean(t, w.lab)
}

// inside looks at a VM of the lab as no client can, or changes it.
func (w *world) inside(name string, do func(sim *simulator.Context, vm *simulator.VirtualMachine)) {
	w.t.Helper()
	sim := *w.lab.Model().Service.Context
	vm, ok := sim.Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: w.vm(name).ID}).(*simulator.VirtualMachine)
	if !ok {
		w.t.Fatal("the lab doesn't know the VM")
	}
	sim.WithLock(vm, func() { do(&sim, vm) })
}

// TestRestoreDoesNotFit has a target that is too small, or too old.
func TestRestoreDoesNotFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "new"})
	w.inside("new", func(sim *simulator.Context, vm *simulator.VirtualMachine) {
		sim.Update(vm, []types.PropertyChange{{Name: "config.version", Val: "vmx-99"}})
	})
	w.run(
		resource.TestStep{
			PreConfig: func() { w.lab.Fault(lab.Fault{Method: "ImportVApp", Fault: "NoDiskSpace"}) },
			Config:    copyConfig(""),
			ExpectError: regexp.MustCompile(
				`(?s)Unable to Restore Virtual Machine.*not\s+enough\s+space\s+on\s+datastore\s+"LocalDS_0".*Free\s+space`),
		},
		resource.TestStep{
			PreConfig: func() { w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace"}) },
			Config:    backupConfig + snapshotConfig,
			ExpectError: regexp.MustCompile(
				`(?s)Unable to Take Snapshot.*not\s+enough\s+space\s+on\s+datastore\s+"LocalDS_0".*Free\s+space`),
		},
		resource.TestStep{Config: strings.ReplaceAll(backupConfig, "web01", "new")},
		resource.TestStep{
			Config:      strings.ReplaceAll(copyConfig(""), `"web01"`, `"new"`),
			PlanOnly:    true,
			ExpectError: regexp.MustCompile(`(?s)Unable to Plan Restore.*hardware\s+version\s+vmx-99.*Restore\s+to\s+newer\s+hosts`),
		},
	)
	labtest.AssertClean(t, w.lab)
}

// TestRestoreThatDoesNotStart has a VM that is complete, but off.
func TestRestoreThatDoesNotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(
		resource.TestStep{Config: backupConfig},
		resource.TestStep{
			PreConfig: func() {
				w.destroyVM("web01")
				w.lab.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: "InsufficientResourcesFault"})
			},
			Config:      restoreConfig,
			ExpectError: regexp.MustCompile(`(?s)Unable to Restore Virtual Machine.*complete.*tainted.*untaint`),
		},
		// Although its identity is the original, it makes way for the next attempt.
		resource.TestStep{
			Config: restoreConfig,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_on")),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}
