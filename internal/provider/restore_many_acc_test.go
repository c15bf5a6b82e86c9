package provider

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestTenCopies makes ten copies of one backup in one apply.
func TestTenCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original, content := w.vm("web01"), w.content("web01", 0)
	s := w.workspace()
	s.write(w.provider() + backupConfig + `
resource "vm_restore" "copy" {
  for_each  = toset([for i in range(10) : tostring(i)])
  backup_id = vm_backup.b.id
  new_vm = {
    name     = "copy-${each.key}"
    identity = "copy"
  }
  power_on = false
}
`)
	s.recovers()
	seen := map[string]string{original.BIOSUUID: "web01", original.InstanceUUID: "web01", original.NICs[0].MAC: "web01"}
	for i := range 10 {
		name := fmt.Sprintf("copy-%d", i)
		vm := w.vm(name)
		for _, id := range []string{vm.BIOSUUID, vm.InstanceUUID, vm.NICs[0].MAC, vm.Disks[0].File} {
			if other, ok := seen[id]; ok {
				t.Errorf("%s has %s, as %s has", name, id, other)
			}
			seen[id] = name
		}
		if err := w.holds(name, 0, content); err != nil {
			t.Error(err)
		}
	}
	s.must("destroy", "-auto-approve")
	if vms := w.lab.Status().VMs; len(vms) != 1 {
		t.Errorf("%d VMs are left", len(vms))
	}
	labtest.AssertClean(t, w.lab)
}

// TestTenVMs loses ten VMs, and brings all back in one apply.
func TestTenVMs(t *testing.T) {
	t.Parallel()
	var more []lab.VMSpec
	for i := range 10 {
		more = append(more, lab.VMSpec{Name: fmt.Sprintf("lab-%d", i), Disks: []string{labtest.RawDisk(t, 2<<20, uint64(i))}})
	}
	w := newWorld(t, more...)
	s := w.workspace()
	config := `
locals {
  vms = toset([for i in range(10) : "lab-${i}"])
}
resource "vm_backup" "b" {
  for_each = local.vms
  vm       = each.key
}
`
	s.write(w.provider() + config)
	s.must("apply", "-auto-approve")
	content, uuids := map[string][]byte{}, map[string]string{}
	for _, vm := range more {
		content[vm.Name], uuids[vm.Name] = w.content(vm.Name, 0), w.vm(vm.Name).BIOSUUID
		w.destroyVM(vm.Name)
	}
	s.write(w.provider() + config + `
resource "vm_restore" "r" {
  for_each  = local.vms
  backup_id = vm_backup.b[each.key].id
}
`)
	s.recovers()
	for name, want := range content {
		if vm := w.vm(name); vm.BIOSUUID != uuids[name] || vm.PowerState != "poweredOn" {
			t.Errorf("%s has the UUID %s and is %s, had %s", name, vm.BIOSUUID, vm.PowerState, uuids[name])
		}
		if !bytes.Equal(w.content(name, 0), want) {
			t.Errorf("%s has other bytes", name)
		}
	}
	labtest.AssertClean(t, w.lab)
}

// TestWaitForGuest waits for a guest that doesn't come up: the VM is complete, and in the state; nobody deletes it
// as long as it runs.
func TestWaitForGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "mute", ToolsNotRunning: true})
	r := w.rpc()
	b := r.apply(t.Context(), "vm_backup", map[string]any{"vm": "mute"})
	noErrors(t, b.diagnostics)
	id := b.attributes(t).text(t, "id")
	wait := map[string]any{"agent": true, "timeout": "200ms"}
	m := r.apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": id, "new_vm": map[string]any{"name": "copy", "identity": "copy"}, "wait_for_guest": wait,
	})
	expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityError, "is complete, and in the state, tainted: the next apply deletes it and "+
		"restores again if it is powered off before. To keep it as it is, run \"terraform untaint\".")
	expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityError, `[AttributeName("wait_for_guest")] Unable to Restore Virtual Machine: `)
	expect(t, r.destroy(t.Context(), "vm_restore", m), tfprotov6.DiagnosticSeverityError, "somebody may be using it")
	if vm := w.vm("copy"); vm.PowerState != "poweredOn" {
		t.Errorf("the copy is %s", vm.PowerState)
	}

	first := w.vm("mute").Disks[0].File
	m = r.apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": id, "in_place": map[string]any{"power_off": true}, "wait_for_guest": wait,
	})
	expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityError, "has the restored disks, and is in the state, tainted: the next apply "+
		"restores into it once more.")
	if !w.has(first) {
		t.Errorf("%s, what the VM was before, is gone", first)
	}
	expect(t, r.destroy(t.Context(), "vm_restore", m), tfprotov6.DiagnosticSeverityWarning, "Replaced Disks Stay")
	if !w.has(first) {
		t.Errorf("%s, what the VM was before, is gone after the destruction", first)
	}
}

// TestRestoreLate runs out of time in the middle of a restore in place: the VM is as it was.
func TestRestoreLate(t *testing.T) {
	t.Parallel()
	w, r, id := backedUp(t)
	w.spoil("web01", 0)
	spoiled := w.content("web01", 0)
	w.lab.Fault(lab.Fault{Method: "POST /nfc", Delay: time.Minute})
	m := r.apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": id, "in_place": map[string]any{}, "timeouts": map[string]any{"create": "10s"},
	})
	expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityError, `[AttributeName("timeouts").AttributeName("create")] Unable to Restore Virtual Machine`)
	if err := w.holds("web01", 0, spoiled); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, w.lab)
}
