package provider

import (
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestReplacementWarns replaces what its first plan warned of: the warnings are as true of the replacement, and there once.
func TestReplacementWarns(t *testing.T) {
	t.Parallel()
	disk := labtest.RawDisk(t, 1<<20, 2)
	w := newWorld(t, lab.VMSpec{Name: "db01", Disks: []string{disk, disk}})
	s := w.workspace()
	config := func(trigger string) string {
		return w.provider() + `
resource "vm_snapshot" "s" {
  vm   = "web01"
  name = "before upgrade"
}
resource "vm_restore" "r" {
  snapshot_id = vm_snapshot.s.id
  triggers    = { again = "` + trigger + `" }
}
resource "vm_backup" "b" {
  vm            = "db01"
  exclude_disks = ["Hard disk 2"]
  triggers      = { again = "` + trigger + `" }
}
`
	}
	s.write(config("1"))
	s.must("apply", "-auto-approve")
	if out := s.must("plan"); strings.Contains(out, "Warning: Revert") || strings.Contains(out, "Warning: Backup") {
		t.Errorf("a plan of nothing warns:\n%s", out)
	}
	s.write(config("2"))
	out := s.must("plan")
	for _, want := range []string{"Revert Loses What Was Done Since", "Backup With Reservations"} {
		if n := strings.Count(out, "Warning: "+want); n != 1 {
			t.Errorf("the plan says %d times %q:\n%s", n, want, out)
		}
	}
}
