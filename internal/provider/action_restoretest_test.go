package provider

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// copies begins the names of the copies that restore tests make.
const copies = "tf-restore-*"

// wantOnly makes sure that there is web01 alone in the lab, and that it runs with the content that it had.
func (w *world) wantOnly(content []byte) {
	w.t.Helper()
	labtest.AssertClean(w.t, w.lab)
	vms := w.lab.Status().VMs
	if len(vms) != 1 || vms[0].Name != "web01" || vms[0].PowerState != "poweredOn" {
		w.t.Errorf("%+v", vms)
		return
	}
	if !bytes.Equal(w.content("web01", 0), content) {
		w.t.Error("web01 has other bytes")
	}
}

func TestActionRestoreTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := w.content("web01", 0)
	w.takeBackup("web01")
	id := w.takeBackup("web01")
	w.lab.SetGuestBoot(copies, lab.GuestComesUp)
	picture := filepath.Join(t.TempDir(), "web01.png")
	r := w.rpc()
	config := map[string]any{"vm": "web01", "screenshot_file": picture}
	noErrors(t, r.checkAction("vm_restore_test", config))
	got := r.invoke(t.Context(), "vm_restore_test", config, nil)
	noErrors(t, got.diagnostics)
	for _, want := range []string{string(id), w.path("web01"), "can be restored", "the copy is removed"} {
		if !strings.Contains(got.said(), want) {
			t.Errorf("it doesn't say %q:\n%s", want, got.said())
		}
	}
	p, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.DecodeConfig(bytes.NewReader(p)); err != nil {
		t.Error(err)
	}
	w.wantOnly(content)
	all, err := w.openRepository().Verifications(t.Context())
	if v, ok := repository.Verified(all[id], repository.VerifyRestore); err != nil || !ok || len(all) != 1 || v.Version != "test" {
		t.Errorf("kept: %+v, %v", all, err)
	}
}

// TestActionRestoreTestFails has the guest hang, and arguments that are wrong.
func TestActionRestoreTestFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := w.content("web01", 0)
	r := w.rpc()
	// There is no backup yet; the same apply may take it.
	noErrors(t, r.checkAction("vm_restore_test", map[string]any{"vm": "web01"}))
	w.takeBackup("web01")
	w.lab.SetGuestBoot(copies, lab.GuestHangs)
	picture := filepath.Join(t.TempDir(), "web01.png")
	got := r.invoke(t.Context(), "vm_restore_test", map[string]any{
		"vm": "web01", "screenshot_file": picture, "heartbeat_timeout": "100ms",
	}, nil)
	text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError)
	for _, want := range []string{"Unable to Test Restore", "no heartbeat within 100ms", "The copy was removed", "heartbeat_timeout"} {
		if !strings.Contains(text, want) {
			t.Errorf("the error doesn't say %q:\n%s", want, text)
		}
	}
	if _, err := os.Stat(picture); err != nil {
		t.Error(err)
	}
	w.wantOnly(content)
	for want, config := range map[string]map[string]any{
		"no datastore \"nothing\"": {"vm": "web01", "datastore": "nothing"},
		"no folder \"nothing\"":    {"vm": "web01", "folder": "nothing"},
		"doesn't exist":            {"vm": "web01", "screenshot_file": filepath.Join(t.TempDir(), "x", "y.png")},
		"is not a regular file":    {"vm": "web01", "screenshot_file": t.TempDir()},
		"restore point not found":  {"backup_id": "nothing"},
		"Invalid Duration":         {"vm": "web01", "heartbeat_timeout": "soon"},
		"No attribute specified":   {},
		"2 attributes specified":   {"vm": "web01", "backup_id": "x"},
	} {
		text := show(r.checkAction("vm_restore_test", config), tfprotov6.DiagnosticSeverityError)
		if !strings.Contains(text, want) {
			t.Errorf("%v: %s", config, text)
		}
		if strings.Contains(text, "new_vm") {
			t.Errorf("the action has no new_vm: %s", text)
		}
	}
}

// TestActionRestoreTestCancelled leaves while the guest is waited for.
func TestActionRestoreTestCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := w.content("web01", 0)
	w.takeBackup("web01")
	w.lab.SetGuestBoot(copies, lab.GuestHangs)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := w.rpc().invoke(ctx, "vm_restore_test", map[string]any{"vm": "web01"}, func(line string) {
		if strings.HasPrefix(line, "waiting for the guest's heartbeat") {
			cancel()
		}
	})
	if !got.failed() {
		t.Errorf("it said:\n%s", got.said())
	}
	w.wantOnly(content)
}
