package provider

import (
	"context"
	"math/big"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// points are the restore points in the world's repository, newest first.
func (w *world) points() []repository.RestorePoint {
	t := w.t
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{Path: w.repo, Password: secret.New(repositoryPassword)})
	if err != nil {
		t.Fatal(err)
	}
	points, err := repo.List(t.Context(), repository.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return points
}

var backupID = regexp.MustCompile(`[0-9a-f]{32}`)

// runBackup invokes vm_backup_run and returns the ID that it told.
func (r *rpc) runBackup(config map[string]any) string {
	r.t.Helper()
	noErrors(r.t, r.checkAction("vm_backup_run", config))
	got := r.invoke(r.t.Context(), "vm_backup_run", config, nil)
	noErrors(r.t, got.diagnostics)
	id := backupID.FindString(got.said())
	if id == "" || !strings.Contains(got.said(), "copying the disks: done, ") {
		r.t.Fatalf("it told no ID, or not how it went:\n%s", got.said())
	}
	return id
}

// TestActionBackup takes backups, restores one of them, and prunes.
func TestActionBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	content := w.content("web01", 0)
	// There is no repository yet; the same apply may make it.
	if _, err := os.Stat(w.repo); err == nil {
		t.Error("there is a repository")
	}
	noErrors(t, r.checkAction("vm_backup_prune", map[string]any{"vm": "web01", "retention": map[string]any{"keep_last": big.NewFloat(1)}}))
	noErrors(t, r.checkAction("vm_backup_verify", map[string]any{"vm": "web01"}))
	governed := map[string]any{
		"vm": "web01", "description": "by an action", "quiesce": map[string]any{"mode": "required"}, "mode": "auto",
		"tags": map[string]any{"job": "nightly"}, "retention": map[string]any{"keep_last": big.NewFloat(10)}, "verify": "sample",
		"change_tracking": "enable", "full_every": big.NewFloat(3),
	}
	first, second, third := r.runBackup(governed), r.runBackup(governed), r.runBackup(governed)
	pinned := r.runBackup(map[string]any{"vm": w.path("web01")})
	labtest.AssertClean(t, w.lab)
	points := w.points()
	if len(points) != 4 || string(points[0].ID) != pinned || points[0].Governed || !points[1].Governed ||
		points[3].Tags["job"] != "nightly" || points[3].Consistency != "filesystem" {
		t.Fatalf("the repository has %+v", points)
	}

	// As a dry run says, so it is done; again, there is nothing to do.
	rules := map[string]any{"keep_last": big.NewFloat(1)}
	dry := map[string]any{"vm": "web01", "retention": rules, "dry_run": true}
	noErrors(t, r.checkAction("vm_backup_prune", dry))
	got := r.invoke(t.Context(), "vm_backup_prune", dry, nil)
	noErrors(t, got.diagnostics)
	wantGoing := func(verb string, got invoked) {
		t.Helper()
		for _, id := range []string{first, second} {
			if !strings.Contains(got.said(), verb+": "+id) {
				t.Errorf("it doesn't say %s: %s, but:\n%s", verb, id, got.said())
			}
		}
		if strings.Contains(got.said(), third) || strings.Contains(got.said(), pinned) ||
			!regexp.MustCompile(verb+`: 2 of 4 backups; [0-9.]+ [KM]?i?B comes back to the repository in \d+ hours`).MatchString(got.said()) {
			t.Errorf("it said:\n%s", got.said())
		}
	}
	wantGoing("would be removed", got)
	if n := len(w.points()); n != 4 {
		t.Fatalf("a dry run left %d backups", n)
	}
	prune := map[string]any{"vm": w.vm("web01").ID, "retention": rules} // what only the hypervisor can resolve
	got = r.invoke(t.Context(), "vm_backup_prune", prune, nil)
	noErrors(t, got.diagnostics)
	wantGoing("removed", got)
	if points := w.points(); len(points) != 2 || string(points[0].ID) != pinned || string(points[1].ID) != third {
		t.Errorf("the repository has %+v", points)
	}
	got = r.invoke(t.Context(), "vm_backup_prune", prune, nil)
	noErrors(t, got.diagnostics)
	if !strings.Contains(got.said(), "nothing to remove: all 2 backups are kept") {
		t.Errorf("again:\n%s", got.said())
	}
	got = r.invoke(t.Context(), "vm_backup_prune", map[string]any{"vm": "nobody", "retention": rules}, nil)
	noErrors(t, got.diagnostics)
	if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityWarning); !strings.Contains(text, "No Backups to Prune") {
		t.Errorf("of a VM that has none: %q", text)
	}

	// What the action took can be restored.
	restored := r.apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": third, "power_on": false, "new_vm": map[string]any{"name": "copy", "identity": "copy"},
	})
	noErrors(t, restored.diagnostics)
	if string(w.content("copy", 0)) != string(content) {
		t.Error("the restored disk differs")
	}
}

// TestActionBackupInterrupted ends the context of a backup in the middle of each phase: no backup and no snapshot
// stays, and the next one succeeds.
func TestActionBackupInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	r.runBackup(map[string]any{"vm": "web01"})
	for _, method := range []string{"CreateSnapshotEx_Task", "GET /folder", "RemoveSnapshot_Task"} {
		ctx, cancel := context.WithCancel(t.Context())
		w.lab.OnCall(method, func(context.Context) { cancel() })
		got := r.invoke(ctx, "vm_backup_run", map[string]any{"vm": "web01", "mode": "full"}, nil)
		w.lab.OnCall(method, nil)
		if ctx.Err() == nil {
			t.Errorf("%s was not called", method)
		}
		labtest.AssertClean(t, w.lab)
		want := 1
		if method == "RemoveSnapshot_Task" { // the backup is complete by then
			want = 2
		}
		if n := len(w.points()); n != want || (want == 1) != got.failed() {
			t.Errorf("interrupted in %s: %d backups, failed %t:\n%s", method, n, got.failed(), got.said())
		}
		cancel()
	}
	r.runBackup(map[string]any{"vm": "web01"})
}
