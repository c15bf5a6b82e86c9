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

// TestReplacementWithoutVM replaces a backup and snapshots of VMs that were renamed. What there is would be deleted before it
// turns out that nothing can take its place, and may be all that is left of a VM.
func TestReplacementWithoutVM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "app01"}, lab.VMSpec{Name: "db01"})
	s := w.workspace()
	config := func(trigger string) string {
		return w.provider() + strings.ReplaceAll(`
resource "vm_backup" "b" {
  vm         = "web01"
  on_destroy = "delete"
  triggers   = { again = "TRIGGER" }
}
resource "vm_snapshot" "s" {
  vm       = "db01"
  name     = "before"
  triggers = { again = "TRIGGER" }
}
resource "vm_snapshot_set" "t" {
  members  = [{ vm = "app01" }]
  name     = "before"
  triggers = { again = "TRIGGER" }
}
`, "TRIGGER", trigger)
	}
	s.write(config("1"))
	s.must("apply", "-auto-approve")
	before := s.must("state", "pull")
	for _, name := range []string{"web01", "app01", "db01"} {
		task, err := w.byHand(name).Rename(t.Context(), name+"-old")
		if err == nil {
			err = task.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("that VMs are renamed is a reason to plan something:\n%s", out)
	}
	refused := []string{"Unable to Plan Backup", "Unable to Plan Snapshot", "Unable to Plan Snapshot Set", "Nothing is replaced"}
	s.refused(refused, "apply", "-auto-approve", "-replace=vm_backup.b", "-replace=vm_snapshot.s", "-replace=vm_snapshot_set.t")
	s.write(config("2"))
	s.refused(refused, "apply", "-auto-approve")
	if after := s.must("state", "pull"); after != before {
		t.Errorf("the state is\n%s\nwas\n%s", after, before)
	}
	for _, name := range []string{"db01-old", "app01-old"} {
		if n := len(w.vm(name).Snapshots); n != 1 {
			t.Errorf("%s has %d snapshots", name, n)
		}
	}
}
