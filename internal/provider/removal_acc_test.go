package provider

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// withOnDestroy is a snapshot that goes in a way of its own.
func withOnDestroy(onDestroy string) string {
	return snapshotConfig[:len(snapshotConfig)-2] + "  on_destroy = { " + onDestroy + " }\n}\n"
}

func TestDestroyWithoutConsolidation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + withOnDestroy("consolidate = false"))
	s.must("apply", "-auto-approve")
	s.must("destroy", "-auto-approve")
	vm := w.vm("web01")
	if len(vm.Snapshots) != 0 || len(vm.Disks[0].Chain) != 2 {
		t.Errorf("%d snapshots are left, the disk is %v; want none, and a delta", len(vm.Snapshots), vm.Disks[0].Chain)
	}
}

func TestDestroyWithChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + withOnDestroy("remove_children = true"))
	s.must("apply", "-auto-approve")
	_, err := w.client().CreateSnapshot(t.Context(), hypervisor.VMID(w.vm("web01").ID), hypervisor.SnapshotSpec{Name: "child"})
	if err != nil {
		t.Fatal(err)
	}
	s.must("destroy", "-auto-approve")
	labtest.AssertClean(t, w.lab)
}

// A backup that a restore reads from stays until that has ended.
func TestDestroyBackupInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + backupConfig[:len(backupConfig)-2] + "  on_destroy = \"delete\"\n}\n")
	s.must("apply", "-auto-approve")
	repo, err := repository.Open(t.Context(), repository.Config{Path: w.repo, Password: secret.New(repositoryPassword)})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close(t.Context()) //nolint:errcheck // the test is over
	release, err := repo.Hold(t.Context(), w.backups()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	out, err := s.run("destroy", "-auto-approve")
	if err == nil || !strings.Contains(out, "restore point is in") || len(w.backups()) != 1 {
		t.Errorf("%d backups are left, error %v:\n%s", len(w.backups()), err, out)
	}
	release()
	s.must("destroy", "-auto-approve")
	if left := w.backups(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDestroyWhatIsGone destroys without a refresh, so that the provider is asked to remove what it
// can't find.
func TestDestroyWhatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + withOnDestroy("action = \"delete\"") + backupConfig[:len(backupConfig)-2] + "  on_destroy = \"delete\"\n}\n" + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "copy"
    identity = "copy"
  }
}
`)
	s.must("apply", "-auto-approve")
	w.destroyVM("web01")
	w.destroyVM("copy")
	if out := s.must("plan"); !strings.Contains(out, "vm_restore.r will be created") || !strings.Contains(out, "vm_snapshot.s will be created") {
		t.Errorf("what is gone isn't planned again:\n%s", out)
	}
	s.must("destroy", "-auto-approve", "-refresh=false")
	if out := s.must("state", "list"); out != "" {
		t.Errorf("in the state is:\n%s", out)
	}
	labtest.AssertClean(t, w.lab)
}

// TestBackupsWithoutHypervisor reads and removes backups where no hypervisor is configured.
func TestBackupsWithoutHypervisor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	backup := backupConfig[:len(backupConfig)-2] + "  on_destroy = \"delete\"\n}\n"
	s.write(w.provider() + backup)
	s.must("apply", "-auto-approve")
	w.setenv(envServer, "")
	list := `
data "vm_backups" "all" {
  vm = "web01"
}
output "count" {
  value = length(data.vm_backups.all.backups)
}
`
	s.write("provider \"vm\" {\n  repository = {}\n}\n" + backup + list)
	s.must("apply", "-auto-approve")
	if out := s.must("output", "-raw", "count"); out != "1" {
		t.Errorf("%s backups, want 1", out)
	}
	s.write("provider \"vm\" {\n  repository = {}\n}\n" + list)
	if out := s.must("apply", "-auto-approve"); !strings.Contains(out, "1 destroyed") {
		t.Errorf("the backup isn't destroyed:\n%s", out)
	}
	s.must("apply", "-auto-approve")
	if out := s.must("output", "-raw", "count"); out != "0" {
		t.Errorf("%s backups, want 0", out)
	}
	s.write("provider \"vm\" {\n  repository = {}\n}\ndata \"vm_backup\" \"none\" {\n  vm = \"web01\"\n}\n")
	if out, err := s.run("plan"); err == nil || !regexp.MustCompile(`(?s)Unable to Find Backup.*holds no backups at all`).MatchString(out) {
		t.Errorf("a backup is found where there is none: %v\n%s", err, out)
	}
}

// TestLogsOut looks for sessions that the provider's processes leave behind.
func TestLogsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := sessionsOf(w)
	s := w.workspace()
	s.write(w.provider() + snapshotConfig)
	s.must("apply", "-auto-approve")
	s.must("plan")
	if after := sessionsOf(w); len(after) > len(before) {
		t.Errorf("sessions are left: %v, before: %v", after, before)
	}
	if n := w.lab.Calls()["Login"]; n < 2 {
		t.Errorf("%d logins, want one for each command at least", n)
	}
}

func sessionsOf(w *world) []string {
	var all []string
	for _, s := range w.lab.Status().Sessions {
		all = append(all, fmt.Sprintf("%s %s", s.User, s.Agent))
	}
	return all
}
