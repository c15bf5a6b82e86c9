package provider

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// walkActions has snapshots taken before updates, and a backup before a destroy, where the CLI can; the actions of the
// guide are invoked without one in any case.
func walkActions(g *guide) {
	g.begin()
	r := g.w.rpc()
	for _, file := range []string{"before-update.tf", "before-destroy.tf"} {
		g.used[file] = true
		for _, a := range exampleActions(g.t, filepath.Join(g.dir, file)) {
			noErrors(g.t, r.checkAction(a.typ, a.config))
			noErrors(g.t, r.invoke(g.t.Context(), a.typ, a.config, nil).diagnostics)
		}
	}
	if n, points := len(g.w.vm("web01").Snapshots), len(g.w.points()); n != 1 || points != 1 {
		g.t.Fatalf("%d snapshots and %d backups, want one of each", n, points)
	}
	if reason := g.s.lacks("1.14.0", "actions", false); reason != "" {
		g.t.Log("invoked without a CLI alone: " + reason)
		return
	}
	g.write("before-update.tf")
	g.s.must("apply", "-auto-approve")
	out := g.s.must("apply", "-auto-approve", "-var=revision=2")
	if n := len(g.w.vm("web01").Snapshots); n != 2 || !strings.Contains(out, `took the snapshot "before-update-`) {
		g.t.Errorf("%d snapshots after an update:\n%s", n, out)
	}
	if out := g.s.must("apply", "-auto-approve", "-var=revision=2", "-invoke=action.vm_snapshot_revert.undo"); !strings.Contains(out, "reverted "+g.w.path("web01")) {
		g.t.Errorf("the revert said:\n%s", out)
	}
	// No snapshot, no update.
	g.w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace"})
	if out, err := g.s.run("apply", "-auto-approve", "-var=revision=3"); err == nil || !strings.Contains(out, "Unable to Take Snapshot") {
		g.t.Errorf("an update without a snapshot: %v\n%s", err, out)
	}
	if out := g.s.must("state", "show", "terraform_data.web01"); !strings.Contains(out, `"2"`) {
		g.t.Errorf("it was updated:\n%s", out)
	}
	g.s.must("destroy", "-auto-approve")
	if reason := g.s.lacks("1.16.0", "events before a resource is destroyed", false); reason != "" {
		g.t.Log("no backup before a destroy: " + reason)
		return
	}
	g.write("before-destroy.tf")
	g.s.must("apply", "-auto-approve")
	g.w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace"})
	if out, err := g.s.run("apply", "-auto-approve", "-var=wanted=false"); err == nil || !strings.Contains(g.s.must("state", "list"), "terraform_data.web01") {
		g.t.Errorf("destroyed without a backup: %v\n%s", err, out)
	}
	g.s.must("apply", "-auto-approve", "-var=wanted=false")
	if n := len(g.w.points()); n != 2 || g.s.must("state", "list") != "" {
		g.t.Errorf("%d backups after a destroy", n)
	}
}

// actionConfig are actions for TestActionInterrupt.
const actionConfig = `
action "vm_snapshot_create" "a" {
  config {
    vm   = "web01"
    name = "n"
  }
}
action "vm_backup_run" "a" {
  config {
    vm   = "web01"
    mode = "full"
  }
}
`

// TestActionInterrupt presses Ctrl-C while an action is under way that was invoked by hand: nothing is left behind.
// What the CLI returns then says nothing about the action.
func TestActionInterrupt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ method, action string }{
		"snapshot":          {"CreateSnapshotEx_Task", "vm_snapshot_create"},
		"backup's snapshot": {"CreateSnapshotEx_Task", "vm_backup_run"},
		"backup's reading":  {"GET /folder", "vm_backup_run"},
		"backup's export":   {"GET /nfc", "vm_backup_run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.workspace()
			s.needs("1.14.0", "actions", false)
			s.write(w.providerFor(c.method) + actionConfig)
			w.lab.Fault(lab.Fault{Method: strings.Replace(c.method, "Ex_Task", "_Task", 1), Delay: 5 * time.Second})
			if c.method == "GET /nfc" { // cleaning up takes longer than Terraform leaves a provider that it has told to end
				w.lab.Fault(lab.Fault{Method: "HttpNfcLeaseAbort", Delay: 3 * time.Second})
			}
			invoke := "-invoke=action." + c.action + ".a"
			out := s.interrupt(c.method, invoke)
			if !strings.Contains(out, "nterrupt") {
				t.Errorf("nothing was interrupted:\n%s", out)
			}
			labtest.AssertClean(t, w.lab)
			if c.action == "vm_backup_run" {
				if _, err := os.Stat(w.repo); err == nil && len(w.points()) != 0 {
					t.Error("there is a backup")
				}
			}
			s.must("apply", "-auto-approve", invoke)
		})
	}
}
