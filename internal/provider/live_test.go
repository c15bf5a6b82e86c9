package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
)

// envLiveVM names the VM of a real vCenter that TestAccLive takes a snapshot and a backup of.
const envLiveVM = "VM_TEST_VM"

// TestAccLive runs the main job against the server of VSPHERE_SERVER. The VM of VM_TEST_VM keeps running
// and ends as it was; a copy of it is made beside it, never started and never connected, restored in place,
// reverted, and removed.
func TestAccLive(t *testing.T) {
	if os.Getenv(resource.EnvTfAcc) == "" || os.Getenv(envServer) == "" || os.Getenv(envLiveVM) == "" {
		t.Skipf("needs a real server: make testacc, with %s, %s, VSPHERE_PASSWORD and %s set", envServer, envUser, envLiveVM)
	}
	t.Setenv(envRepositoryPath, filepath.Join(t.TempDir(), "backups"))
	t.Setenv(envRepositoryPassword, repositoryPassword)
	config := fmt.Sprintf(`
provider "vm" {
  vsphere    = {}
  repository = {}
}
locals { vm = %q }
resource "vm_snapshot" "s" {
  vm          = local.vm
  name        = "terraform-provider-vm-test"
  description = "taken by a test, removed by it"
}
resource "vm_backup" "b" {
  vm         = local.vm
  depends_on = [vm_snapshot.s]
}
resource "vm_restore" "copy" {
  backup_id = vm_backup.b.id
  power_on  = false
  new_vm    = { name = "terraform-provider-vm-test", identity = "copy", connect_networks = false }
}
resource "vm_restore" "in_place" {
  backup_id = vm_backup.b.id
  power_on  = false
  verify    = true
  in_place  = { vm = vm_restore.copy.vm_id, allow_other_vm = true, hardware = "keep" }
}
resource "vm_snapshot_set" "set" {
  name       = "terraform-provider-vm-test"
  members    = [{ vm = vm_restore.copy.vm_id }]
  depends_on = [vm_restore.in_place]
}
resource "vm_restore" "revert" {
  snapshot_ids = vm_snapshot_set.set.snapshot_ids
}
data "vm_snapshots" "all" {
  vm         = local.vm
  depends_on = [vm_backup.b]
}
`, os.Getenv(envLiveVM))
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: map[string]func() (tfprotov6.ProviderServer, error){
			"vm": func() (tfprotov6.ProviderServer, error) { return New("test").server(), nil },
		},
		Steps: []resource.TestStep{{
			Config: config,
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_snapshot.s", "name", knownvalue.StringExact("terraform-provider-vm-test")),
				attribute("vm_backup.b", "transport", knownvalue.StringRegexp(regexp.MustCompile("^(datastore|export)$"))),
				attribute("vm_restore.copy", "power_state", knownvalue.StringExact("powered_off")),
				attribute("vm_restore.in_place", "verified", knownvalue.Bool(true)),
				attribute("vm_restore.revert", "reverted", knownvalue.ListSizeExact(1)),
			},
		}},
	})
}
