package provider

import (
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestRestoreDestroyPrivileges destroys a copy that runs, as a user who may delete it and may not switch it off: that is
// said before anything happens to it.
func TestRestoreDestroyPrivileges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.takeBackup("web01")
	copied := w.rpc().apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": string(id), "power_on": true, "new_vm": map[string]any{"name": "copy", "identity": "copy"},
	})
	noErrors(t, copied.diagnostics)
	const user = "deleter"
	for _, c := range []struct {
		privileges []string
		left       int
	}{
		{[]string{"VirtualMachine.Inventory.Delete"}, 2},
		{[]string{"VirtualMachine.Inventory.Delete", "VirtualMachine.Interact.PowerOff"}, 1},
	} {
		if err := w.lab.AddUser(lab.UserSpec{Name: user, Password: user, Privileges: c.privileges}); err != nil {
			t.Fatal(err)
		}
		r := w.rpc()
		noErrors(t, r.configure(map[string]any{
			"vsphere": map[string]any{"thumbprint": w.lab.Fingerprint(), "user": user, "password": user}, "repository": map[string]any{},
		}))
		text := show(r.destroy(t.Context(), "vm_restore", copied), tfprotov6.DiagnosticSeverityError)
		if n := len(w.lab.Status().VMs); n != c.left {
			t.Errorf("with %q: %d VMs are left:\n%s", c.privileges, n, text)
		}
		if c.left == 1 {
			continue
		}
		if !strings.Contains(text, "VirtualMachine.Interact.PowerOff is missing on "+w.path("copy")) {
			t.Errorf("the error says:\n%s", text)
		}
		if state := w.vm("copy").PowerState; state != "poweredOn" {
			t.Errorf("the copy is %s", state)
		}
	}
}
