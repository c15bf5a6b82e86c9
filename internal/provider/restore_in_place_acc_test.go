package provider

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// inPlaceConfig restores a backup of web01 into a VM that exists.
func inPlaceConfig(inPlace, more string) string {
	return backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  in_place  = {` + inPlace + `}
` + more + `
}
`
}

// spoil writes to a disk as a guest does when something goes wrong in it.
func (w *world) spoil(vm string, disk int) {
	w.t.Helper()
	if err := w.lab.WriteDisk(vm, disk, 1<<20, bytes.Repeat([]byte("spoiled "), 16<<10)); err != nil {
		w.t.Fatal(err)
	}
}

// holds checks that a disk of a VM has some content.
func (w *world) holds(vm string, disk int, want []byte) error {
	if got := w.content(vm, disk); !bytes.Equal(got, want) {
		return fmt.Errorf("disk %d of %s has other bytes than it should", disk, vm)
	}
	return nil
}

func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01", Disks: []string{labtest.RawDisk(t, 4<<20, 7), labtest.RawDisk(t, 2<<20, 8)}})
	before, content := w.vm("web01"), w.content("web01", 0)
	w.run(
		resource.TestStep{Config: backupConfig},
		resource.TestStep{
			PreConfig: func() { w.spoil("web01", 0) },
			Config:    inPlaceConfig("", "  verify = true\n  wait_for_guest = {}"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "vm_uuid", knownvalue.StringExact(before.BIOSUUID)),
				attribute("vm_restore.r", "vm_id", knownvalue.StringExact(before.ID)),
				attribute("vm_restore.r", "on_destroy", knownvalue.StringExact("keep")),
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_on")),
				attribute("vm_restore.r", "verified", knownvalue.Bool(true)),
				attribute("vm_restore.r", "replaced_disks", knownvalue.ListSizeExact(0)),
				attribute("vm_restore.r", "guest_ip_addresses", knownvalue.ListSizeExact(1)),
			},
			Check: func(*terraform.State) error {
				now := w.vm("web01")
				if now.ID != before.ID || now.PowerState != "poweredOn" || now.Disks[0].UUID != before.Disks[0].UUID {
					return fmt.Errorf("the VM is %+v, was %+v", now, before)
				}
				return w.holds("web01", 0, content)
			},
		},
	)
	labtest.AssertClean(t, w.lab)
	if now := w.vm("web01").ID; now != before.ID {
		t.Errorf("after destroying the restore the VM is %s, was %s", now, before.ID)
	}
}
