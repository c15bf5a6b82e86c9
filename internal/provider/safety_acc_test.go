package provider

import (
	"regexp"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// says reports whether an output holds words in this order, whatever is between them: the CLI breaks lines
// where it likes.
func says(out string, words ...string) bool {
	patterns := make([]string, len(words))
	for i, w := range words {
		patterns[i] = strings.Join(strings.Fields(regexp.QuoteMeta(w)), `[\s│]+`)
	}
	return regexp.MustCompile(`(?s)` + strings.Join(patterns, ".*")).MatchString(out)
}

// refused runs a command that must fail and say something.
func (s *workspace) refused(words []string, args ...string) {
	s.w.t.Helper()
	if out, err := s.run(args...); err == nil || !says(out, words...) {
		s.w.t.Errorf("%s: %v\n%s\nwant an error that says %q", strings.Join(args, " "), err, out, words)
	}
}

// id is the ID of a resource in the state.
func (s *workspace) id(address string) string {
	s.w.t.Helper()
	out := s.must("state", "show", address)
	found := regexp.MustCompile(`\n    id\s+= "(.*)"`).FindStringSubmatch(out)
	if found == nil {
		s.w.t.Fatalf("no ID in:\n%s", out)
	}
	return found[1]
}

// failedStart is a world in which web01 was lost and restored, but could not be started.
func failedStart(t *testing.T, more string) (*world, *workspace) {
	t.Helper()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	w.destroyVM("web01")
	w.lab.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: "InsufficientResourcesFault"})
	s.write(w.provider() + restoreConfig[:len(restoreConfig)-2] + more + "}\n")
	s.refused([]string{"could not be started", "untaint"}, "apply", "-auto-approve")
	return w, s
}

// powerOn starts a VM behind Terraform's back.
func (w *world) powerOn(name string) {
	w.t.Helper()
	if err := w.client().PowerOn(w.t.Context(), hypervisor.VMID(w.vm(name).ID)); err != nil {
		w.t.Fatal(err)
	}
}

// TestStartedAfterFailedStart has a VM that could not be started, and that somebody uses since: no apply
// may take it away.
func TestStartedAfterFailedStart(t *testing.T) {
	t.Parallel()
	w, s := failedStart(t, "")
	before := w.vm("web01").ID
	w.powerOn("web01")
	s.refused([]string{"Unable to Plan Restore", "somebody may be using it", "terraform untaint"}, "plan")
	s.refused([]string{"Unable to Delete Virtual Machine", "somebody may be using it", "terraform untaint"},
		"destroy", "-auto-approve", "-refresh=false")
	s.refused([]string{"somebody may be using it"}, "destroy", "-auto-approve")
	if vm := w.vm("web01"); vm.ID != before || vm.PowerState != "poweredOn" {
		t.Errorf("the VM is %s, %s; was %s", vm.ID, vm.PowerState, before)
	}
	s.must("untaint", "vm_restore.r")
	s.must("apply", "-auto-approve")
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the plan after untaint isn't empty:\n%s", out)
	}
	s.must("destroy", "-auto-approve") // on_destroy is keep again
	if vm := w.vm("web01"); vm.ID != before {
		t.Errorf("the VM is %s, was %s", vm.ID, before)
	}
	labtest.AssertClean(t, w.lab)
}

// TestFailedStartOfKept writes that the VM is kept: then it is, although it could not be started.
func TestFailedStartOfKept(t *testing.T) {
	t.Parallel()
	w, s := failedStart(t, "  on_destroy = \"keep\"\n")
	before := w.vm("web01").ID
	s.refused([]string{"Unable to Plan Restore", "in use by"}, "apply", "-auto-approve")
	s.must("destroy", "-auto-approve", "-refresh=false") // with a refresh, Terraform plans it again first
	if vm := w.vm("web01"); vm.ID != before {
		t.Errorf("the VM is %s, was %s", vm.ID, before)
	}
	labtest.AssertClean(t, w.lab)
}

// TestWrongServer applies, destroys and refreshes with the server of another lab, which has a VM of the same
// identity with a snapshot of the same handle.
func TestWrongServer(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	other.repo = w.repo
	other.setenv(envRepositoryPath, w.repo)
	const restored = "  on_destroy = \"delete\"\n}\n"
	config := restoreConfig[:len(restoreConfig)-2] + restored
	named := func(name string) string {
		return "resource \"vm_snapshot\" \"s\" {\n  vm   = vm_restore.r.vm_instance_uuid\n  name = \"" + name + "\"\n}\n"
	}
	s := w.workspace()
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	id := s.id("vm_backup.b")
	w.destroyVM("web01")
	s.write(w.provider() + config + named("before"))
	s.must("apply", "-auto-approve")

	o := other.workspace()
	o.write(other.provider() + backupConfig) // gives out as many handles as the other lab has
	o.must("apply", "-auto-approve")
	other.destroyVM("web01")
	o.write(other.provider() + "resource \"vm_restore\" \"r\" {\n  backup_id = \"" + id + "\"\n}\n" + named("theirs"))
	o.must("apply", "-auto-approve")
	ours, theirs := w.vm("web01"), other.vm("web01")
	if ours.InstanceUUID != theirs.InstanceUUID || ours.Snapshots[0].ID != theirs.Snapshots[0].ID {
		t.Fatalf("the labs have different VMs: %s with %s, %s with %s", ours.InstanceUUID, ours.Snapshots[0].ID,
			theirs.InstanceUUID, theirs.Snapshots[0].ID)
	}

	for name, value := range map[string]string{envServer: other.lab.URL().Host, envPassword: other.lab.Password()} {
		was := w.getenv(name)
		w.setenv(name, value)
		defer w.setenv(name, was)
	}
	wrong := "configured for another server"
	s.write(other.provider() + config + named("after"))
	s.refused([]string{"Unable to Read", wrong}, "plan")
	s.refused([]string{"Unable to Rename Snapshot", wrong}, "apply", "-auto-approve", "-refresh=false")
	s.write(other.provider() + config + named("before") + "output \"o\" {\n  value = vm_restore.r.vm_id\n}\n")
	s.refused([]string{"Unable to Remove Snapshot", wrong}, "destroy", "-auto-approve", "-refresh=false", "-target=vm_snapshot.s")
	s.must("state", "rm", "vm_snapshot.s")
	s.refused([]string{"Unable to Delete Virtual Machine", wrong}, "destroy", "-auto-approve", "-refresh=false", "-target=vm_restore.r")
	s.must("taint", "vm_restore.r") // of which Terraform passes no private state
	s.refused([]string{"Unable to Delete Virtual Machine", wrong}, "destroy", "-auto-approve", "-refresh=false", "-target=vm_restore.r")
	s.must("untaint", "vm_restore.r")
	s.write(other.provider() + strings.Replace(config, restored, "  power_on = true\n"+restored, 1))
	s.refused([]string{"Unable to Start Virtual Machine", wrong}, "apply", "-auto-approve", "-refresh=false")

	if now := other.vm("web01"); now.ID != theirs.ID || now.Snapshots[0].Name != "theirs" {
		t.Errorf("theirs is %s with %+v, was %s", now.ID, now.Snapshots, theirs.ID)
	}
	if now := w.vm("web01"); now.ID != ours.ID || now.Snapshots[0].Name != "before" {
		t.Errorf("ours is %s with %+v, was %s", now.ID, now.Snapshots, ours.ID)
	}
}

// TestAnotherRestoreOfTheSame lets somebody else restore the same backup once ours was lost: it has the same
// identity, and isn't ours to delete.
func TestAnotherRestoreOfTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	id := s.id("vm_backup.b")
	w.destroyVM("web01")
	config := w.provider() + "resource \"vm_restore\" \"r\" {\n  backup_id = \"" + id + "\"\n  on_destroy = \"delete\"\n}\n"
	first, second := w.workspace(), w.workspace()
	first.write(config)
	first.must("apply", "-auto-approve")
	first.must("apply", "-auto-approve", "-replace=vm_restore.r") // its own VM makes way
	// A new resource isn't let in by what another one would delete.
	first.write(strings.Replace(config, `"r"`, `"new"`, 1))
	first.refused([]string{"Unable to Plan Restore", "in use by"}, "plan")
	first.write(config)

	w.destroyVM("web01")
	second.write(config)
	second.must("apply", "-auto-approve")
	theirs := w.vm("web01").ID
	first.refused([]string{"Another Virtual Machine Has Its Identity", "in use by"}, "plan")
	if out := first.must("destroy", "-auto-approve", "-refresh=false"); !says(out, "Another Virtual Machine Has Its Identity", "no longer in the state") {
		t.Errorf("destroy doesn't warn:\n%s", out)
	}
	if now := w.vm("web01").ID; now != theirs {
		t.Errorf("their VM was %s, now there is %s", theirs, now)
	}
	if out := first.must("state", "list"); out != "" {
		t.Errorf("in the state is:\n%s", out)
	}
	second.must("destroy", "-auto-approve")
	if vms := w.lab.Status().VMs; len(vms) != 0 {
		t.Errorf("left: %+v", vms)
	}
	labtest.AssertClean(t, w.lab)
}
