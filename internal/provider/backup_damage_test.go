package provider

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// TestBackupKnownDamage looks for a backup, and plans its restore, while it is known to be damaged: both say so, and which
// other one can be taken.
func TestBackupKnownDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.takeBackup("web01")
	bad := w.takeBackup("web01")
	judge := func(id repository.ID, level repository.VerifyLevel, problems ...string) {
		t.Helper()
		v := repository.Verification{Point: id, Level: level, At: time.Now(), OK: len(problems) == 0, Problems: problems}
		if err := w.openRepository().RecordVerification(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	r := w.rpc()
	wants := func(name string, texts ...string) {
		t.Helper()
		_, found := r.read("vm_backup", map[string]any{"vm": "web01"})
		planned := r.plan("vm_restore", nil, map[string]any{
			"backup_id": string(bad), "new_vm": map[string]any{"name": "copy", "identity": "copy"},
		}, "")
		for where, diags := range map[string][]*tfprotov6.Diagnostic{"data source": found, "plan": planned.diagnostics} {
			text := show(diags, tfprotov6.DiagnosticSeverityWarning)
			if len(texts) == 0 && strings.Contains(text, "Damaged") {
				t.Errorf("%s: the %s warns:\n%s", name, where, text)
			}
			for _, want := range texts {
				if !strings.Contains(text, want) {
					t.Errorf("%s: the %s doesn't say %q:\n%s", name, where, want, text)
				}
			}
		}
	}
	wants("before")
	judge(bad, repository.VerifyRestore, "its guest didn't come up")
	wants("of a guest alone")
	judge(bad, repository.VerifyData, "pack p12 is cut off")
	wants("damaged", "Backup Known to Be Damaged", string(bad), w.path("web01"), "(data) found it damaged at ", ": pack p12 is cut off.",
		"wasn't found damaged is "+string(good))
	judge(good, repository.VerifyIndex, "pack p13 is missing")
	// A VM isn't deleted to make way for one that can't be restored, whoever wants it replaced.
	state := inPlaceState(nil, map[string]any{"backup_id": string(bad), "on_destroy": "delete"})
	state["in_place"], state["new_vm"] = nil, map[string]any{"name": "replaced", "identity": "copy"}
	config := map[string]any{"backup_id": string(bad), "new_vm": state["new_vm"]}
	noErrors(t, r.plan("vm_restore", nil, config, "").diagnostics)
	noErrors(t, r.plan("vm_restore", state, config, "").diagnostics)
	expect(t, r.plan("vm_restore", nil, config, "").diagnostics, tfprotov6.DiagnosticSeverityError,
		"Nothing is replaced")
	wants("both damaged", string(bad), "There is no other backup of this virtual machine")
	judge(bad, repository.VerifyData)
	wants("mended")
}
