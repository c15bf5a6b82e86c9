package provider

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// openRepository opens the world's repository as somebody else than Terraform.
func (w *world) openRepository() *repository.Repository {
	w.t.Helper()
	repo, err := repository.Open(w.t.Context(), repository.Config{Path: w.repo, Password: secret.New(repositoryPassword), Create: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = repo.Close(context.Background()) }) // the test's own context has ended
	return repo
}

// takeBackup backs a VM up without Terraform.
func (w *world) takeBackup(vm string) repository.ID {
	w.t.Helper()
	m := backup.New(w.client(), w.openRepository(), slog.New(slog.DiscardHandler), time.Now, "test")
	result, err := m.Take(w.t.Context(), backup.Request{VM: hypervisor.VMRef(vm)})
	if err != nil {
		w.t.Fatal(err)
	}
	return result.ID
}

// largestPack is the file of the repository's largest pack of disks' data.
func (w *world) largestPack() (file string) {
	w.t.Helper()
	size := int64(0)
	err := filepath.WalkDir(w.repo, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(strings.TrimPrefix(name, w.repo+string(filepath.Separator)), "p") {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			file, size = name, info.Size()
		}
		return err
	})
	if err != nil || file == "" {
		w.t.Fatal("no pack", err)
	}
	return file
}

func TestActionBackupVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01"})
	ids := []repository.ID{w.takeBackup("web01"), w.takeBackup("web01"), w.takeBackup("db01")}
	logins := w.lab.Calls()["Login"]
	r := w.rpc()
	for name, c := range map[string]struct {
		config map[string]any
		want   []repository.ID
		says   string
	}{
		"newest by default": {map[string]any{"vm": "web01"}, ids[1:2], "as it was backed up ("},
		"one":               {map[string]any{"backup_id": string(ids[0]), "level": "data"}, ids[:1], "as it was backed up ("},
		"all by the index":  {map[string]any{"vm": "web01", "backups": "all", "level": "index"}, ids[:2], "complete by the index ("},
		"of another":        {map[string]any{"vm": "db01", "level": "index"}, ids[2:], "complete by the index ("},
	} {
		noErrors(t, r.checkAction("vm_backup_verify", c.config))
		got := r.invoke(t.Context(), "vm_backup_verify", c.config, nil)
		noErrors(t, got.diagnostics)
		for _, id := range ids {
			wanted := false
			for _, other := range c.want {
				wanted = wanted || other == id
			}
			if strings.Contains(got.said(), "backup "+string(id)+" of ") != wanted {
				t.Errorf("%s: it said of %s:\n%s", name, id, got.said())
			}
		}
		if n := strings.Count(got.said(), c.says); n != len(c.want) {
			t.Errorf("%s: it said:\n%s", name, got.said())
		}
	}
	all, err := w.openRepository().Verifications(t.Context())
	if err != nil || len(all) != 3 || len(all[ids[0]]) != 2 || len(all[ids[1]]) != 2 || len(all[ids[2]]) != 1 {
		t.Errorf("kept: %+v, %v", all, err)
	}
	if now := w.lab.Calls()["Login"]; now != logins {
		t.Errorf("%d logins, %d before: no hypervisor is needed", now, logins)
	}
	for name, config := range map[string]map[string]any{
		"nothing": {}, "both": {"vm": "web01", "backup_id": string(ids[0])}, "all of one": {"backup_id": string(ids[0]), "backups": "all"},
		"level": {"vm": "web01", "level": "restore"},
	} {
		if show(r.checkAction("vm_backup_verify", config), tfprotov6.DiagnosticSeverityError) == "" {
			t.Errorf("%s is accepted", name)
		}
	}
	for config, want := range map[string]string{"vm": "There is no backup of \"nobody\"", "backup_id": "restore point not found"} {
		got := r.invoke(t.Context(), "vm_backup_verify", map[string]any{config: "nobody"}, nil)
		if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError); !strings.Contains(text, want) {
			t.Errorf("%s: %s", config, text)
		}
	}
}

// TestActionBackupVerifyDamaged flips a byte, and cuts a file off: what is damaged is named.
func TestActionBackupVerifyDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.takeBackup("web01")
	pack := w.largestPack()
	b, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	whole := append([]byte(nil), b...)
	b[len(b)/3] ^= 1
	if err := os.WriteFile(pack, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.rpc()
	verify := func(level string) string {
		t.Helper()
		got := r.invoke(t.Context(), "vm_backup_verify", map[string]any{"vm": "web01", "level": level}, nil)
		return show(got.diagnostics, tfprotov6.DiagnosticSeverityError)
	}
	damaged := func(text, what string) {
		t.Helper()
		for _, want := range []string{"Unable to Verify Backup", string(id), w.path("web01"), "Hard disk 1", "bytes ", what, "1 of 1 backups were verified"} {
			if !strings.Contains(text, want) {
				t.Errorf("the error doesn't say %q:\n%s", want, text)
			}
		}
	}
	if text := verify("index"); text != "" {
		t.Errorf("by the index:\n%s", text)
	}
	damaged(verify("data"), "in pack p")
	if err := os.WriteFile(pack, whole[:len(whole)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	damaged(verify("index"), "was cut off")
	if err := os.WriteFile(pack, whole, 0o600); err != nil { // from a copy
		t.Fatal(err)
	}
	if text := verify("data"); text != "" {
		t.Errorf("mended:\n%s", text)
	}
}

// TestActionBackupVerifyCancelled leaves in the middle: nothing is kept, and nothing was changed.
func TestActionBackupVerifyCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.takeBackup("web01")
	r := w.rpc()
	ctx, cancel := context.WithCancel(t.Context())
	got := r.invoke(ctx, "vm_backup_verify", map[string]any{"vm": "web01"}, func(string) { cancel() })
	cancel()
	all, err := w.openRepository().Verifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A backup as small as this may be verified before anybody hears of it.
	if got.failed() != (len(all) == 0) {
		t.Errorf("it failed: %v; kept: %+v", got.failed(), all)
	}
	if got.failed() && !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(show(got.diagnostics, tfprotov6.DiagnosticSeverityError))
	}
}
