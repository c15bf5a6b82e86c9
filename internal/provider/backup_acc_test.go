package provider

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

const (
	backupConfig = `
resource "vm_backup" "b" {
  vm = "web01"
}
`
	restoreConfig = backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
}
`
)

func attribute(address, name string, check knownvalue.Check) statecheck.StateCheck {
	return statecheck.ExpectKnownValue(address, tfjsonpath.New(name), check)
}

// destroyVM removes a VM behind Terraform's back, disks and all.
func (w *world) destroyVM(name string) {
	w.t.Helper()
	if err := w.client().DestroyVM(w.t.Context(), hypervisor.VMID(w.vm(name).ID)); err != nil {
		w.t.Fatal(err)
	}
}

// TestBackupLoseRestore is what the provider is for.
func TestBackupLoseRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01", Disks: []string{
		labtest.RawDisk(t, 4<<20, 2), labtest.RawDisk(t, 3<<20+512, 3),
	}})
	before := w.vm("db01")
	disks := [][]byte{w.content("db01", 0), w.content("db01", 1)}
	config := `
resource "vm_backup" "b" {
  vm          = "db01"
  description = "before the change"
  tags        = { release = "1" }
}
`
	withRestore := config + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
}
`
	unharmed := func(*terraform.State) error { return w.sameVM(before, disks) }
	w.run(
		resource.TestStep{
			Config: config,
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_backup.b", "vm_name", knownvalue.StringExact("db01")),
				attribute("vm_backup.b", "vm_uuid", knownvalue.StringExact(before.BIOSUUID)),
				attribute("vm_backup.b", "vm_instance_uuid", knownvalue.StringExact(before.InstanceUUID)),
				attribute("vm_backup.b", "power_state", knownvalue.StringExact("powered_on")),
				attribute("vm_backup.b", "consistency", knownvalue.StringExact("crash")),
				attribute("vm_backup.b", "incremental", knownvalue.Bool(false)),
				attribute("vm_backup.b", "parent_id", knownvalue.Null()),
				// Nothing tells what of its disks is zero: they are read in the way that leaves that out.
				attribute("vm_backup.b", "transport", knownvalue.StringExact("export")),
				attribute("vm_backup.b", "size_bytes", knownvalue.Int64Exact(7<<20+512)),
				attribute("vm_backup.b", "on_destroy", knownvalue.StringExact("retain")),
				attribute("vm_backup.b", "disks", knownvalue.ListSizeExact(2)),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
			Check: func(*terraform.State) error {
				labtest.AssertClean(t, w.lab)
				return nil
			},
		},
		// The VM may disappear: the backup stays in the state, and nothing is planned.
		resource.TestStep{
			PreConfig: func() { w.destroyVM("db01") },
			Config:    config, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
		resource.TestStep{
			Config: withRestore,
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "vm_uuid", knownvalue.StringExact(before.BIOSUUID)),
				attribute("vm_restore.r", "vm_instance_uuid", knownvalue.StringExact(before.InstanceUUID)),
				attribute("vm_restore.r", "on_destroy", knownvalue.StringExact("keep")),
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_on")),
				attribute("vm_restore.r", "disks", knownvalue.ListSizeExact(2)),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
			Check:            unharmed,
		},
		// Lost once more: the next plan restores it again.
		resource.TestStep{
			PreConfig: func() { w.destroyVM("db01") },
			Config:    withRestore,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: unharmed,
		},
	)
	// Destroyed with on_destroy = "keep" by default, the VM stays.
	if err := w.sameVM(before, disks); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, w.lab)
}

// sameVM compares a VM of the lab with what it was: identity, hardware that others see, every byte.
func (w *world) sameVM(before lab.VMStatus, disks [][]byte) error {
	now := w.vm(before.Name)
	switch {
	case now.BIOSUUID != before.BIOSUUID || now.InstanceUUID != before.InstanceUUID:
		return fmt.Errorf("identity is %s %s, was %s %s", now.BIOSUUID, now.InstanceUUID, before.BIOSUUID, before.InstanceUUID)
	case now.PowerState != before.PowerState:
		return fmt.Errorf("power state is %s, was %s", now.PowerState, before.PowerState)
	case now.Folder != before.Folder || now.ResourcePool != before.ResourcePool:
		return fmt.Errorf("it is in %s and %s, was in %s and %s", now.Folder, now.ResourcePool, before.Folder, before.ResourcePool)
	case fmt.Sprint(now.NICs) != fmt.Sprint(before.NICs):
		return fmt.Errorf("network adapters are %+v, were %+v", now.NICs, before.NICs)
	case fmt.Sprint(now.Tags, now.CustomAttributes) != fmt.Sprint(before.Tags, before.CustomAttributes):
		return fmt.Errorf("tags are %v %v, were %v %v", now.Tags, now.CustomAttributes, before.Tags, before.CustomAttributes)
	case len(now.Disks) != len(before.Disks):
		return fmt.Errorf("%d disks, were %d", len(now.Disks), len(before.Disks))
	}
	for i, d := range now.Disks {
		if d.UUID != before.Disks[i].UUID || d.Label != before.Disks[i].Label || d.Controller != before.Disks[i].Controller {
			return fmt.Errorf("disk %d is %+v, was %+v", i, d, before.Disks[i])
		}
		if !bytes.Equal(w.content(before.Name, i), disks[i]) {
			return fmt.Errorf("disk %d has other bytes", i)
		}
	}
	return nil
}

func TestBackupLifecycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var id string
	w.run(
		resource.TestStep{Config: backupConfig, Check: resource.TestCheckResourceAttrWith("vm_backup.b", "id", func(v string) error {
			id = v
			return nil
		})},
		resource.TestStep{
			Config:           "resource \"vm_backup\" \"b\" {\n  vm = \"" + w.vm("web01").BIOSUUID + "\"\n}\n",
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
		resource.TestStep{
			Config: backupConfig, ResourceName: "vm_backup.b", ImportState: true, ImportStateVerify: true,
			ImportStateVerifyIgnore: []string{"vm"},
		},
		resource.TestStep{
			Config: backupConfig, ResourceName: "vm_backup.b", ImportState: true,
			ImportStateKind: resource.ImportBlockWithID,
		},
		resource.TestStep{
			Config: backupConfig[:len(backupConfig)-2] + "  on_destroy = \"delete\"\n  triggers = { again = \"1\" }\n}\n",
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_backup.b", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
		},
		// The first was retained, the second is deleted with the resource.
		resource.TestStep{
			Config: "data \"vm_backups\" \"all\" {\n  vm = \"web01\"\n}\n",
			ConfigStateChecks: []statecheck.StateCheck{
				statecheck.ExpectKnownValue("data.vm_backups.all", tfjsonpath.New("backups"), knownvalue.ListSizeExact(2)),
			},
		},
		resource.TestStep{
			Config: "data \"vm_backups\" \"all\" {}\ndata \"vm_backup\" \"newest\" {\n  vm = \"web01\"\n}\n",
			ConfigStateChecks: []statecheck.StateCheck{
				statecheck.ExpectKnownValue("data.vm_backups.all", tfjsonpath.New("backups"), knownvalue.ListSizeExact(1)),
				statecheck.ExpectKnownValue("data.vm_backup.newest", tfjsonpath.New("id"), knownvalue.StringFunc(func(v string) error {
					if v != id {
						return fmt.Errorf("%s is left, want %s", v, id)
					}
					return nil
				})),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

func TestBackupOfAnotherRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(
		resource.TestStep{Config: backupConfig},
		// Not there is an error, and so is another one: neither reads as "the backup is gone".
		resource.TestStep{
			PreConfig:   func() { w.setenv(envRepositoryPath, w.repo+"-elsewhere") },
			Config:      backupConfig,
			ExpectError: regexp.MustCompile(`(?s)Unable to Read Backup.*Check\s+repository\.path`),
		},
		resource.TestStep{
			PreConfig: func() {
				other := newWorld(t)
				other.run(resource.TestStep{Config: backupConfig})
				w.setenv(envRepositoryPath, other.repo)
			},
			Config:      backupConfig,
			ExpectError: regexp.MustCompile(`(?s)Unable to Read Backup.*configured\s+for\s+another\s+repository`),
		},
		resource.TestStep{
			PreConfig: func() { w.setenv(envRepositoryPath, w.repo) },
			Config:    backupConfig, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
	)
}

func TestBackupExcludesDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01", Disks: []string{labtest.RawDisk(t, 2<<20, 2), labtest.RawDisk(t, 1<<20, 3)}})
	w.run(
		resource.TestStep{
			Config:      "resource \"vm_backup\" \"b\" {\n  vm = \"db01\"\n  exclude_disks = [\"Hard disk 9\"]\n}\n",
			ExpectError: regexp.MustCompile(`(?s)Unable to Plan Backup.*no\s+disk\s+"Hard disk 9"`),
		},
		resource.TestStep{
			Config: "resource \"vm_backup\" \"b\" {\n  vm = \"db01\"\n  exclude_disks = [\"scsi0:1\"]\n}\n",
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_backup.b", "size_bytes", knownvalue.Int64Exact(2<<20)),
				attribute("vm_backup.b", "disks", knownvalue.ListSizeExact(1)),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		},
	)
	labtest.AssertClean(t, w.lab)
}
