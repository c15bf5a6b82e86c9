package provider

import (
	"context"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// backedUp is a world with a backup of web01, and a provider that speaks with the test.
func backedUp(t *testing.T, more ...lab.VMSpec) (*world, *rpc, string) {
	t.Helper()
	w := newWorld(t, more...)
	r := w.rpc()
	b := r.apply(t.Context(), "vm_backup", map[string]any{"vm": "web01"})
	noErrors(t, b.diagnostics)
	return w, r, b.attributes(t).text(t, "id")
}

// rot changes a byte of the first disk of a VM when a snapshot of it is taken, once: to read it back.
func (w *world) rot() {
	const method = "CreateSnapshotEx_Task"
	w.lab.OnCall(method, func(context.Context) {
		w.lab.OnCall(method, nil)
		if err := w.lab.WriteDisk(w.lab.Status().VMs[0].Name, 0, 4096, []byte{0x5a}); err != nil {
			w.t.Error(err)
		}
	})
}

// fault injects a fault. Where it loses an answer nobody knows of the lease that was in it: it runs out.
func (w *world) fault(f lab.Fault) {
	w.lab.Fault(f)
	if f.Fault == "lost" {
		labtest.ExpireWhenRefused(w.lab)
	}
}

// TestRestoreInPlaceFaults fails at every step of a restore in place. The VM then is as it was and runs, nothing
// else is left behind, and the next apply restores.
func TestRestoreInPlaceFaults(t *testing.T) {
	t.Parallel()
	with := func(method, fault string, after int) lab.Fault {
		return lab.Fault{Method: method, Fault: fault, After: after}
	}
	for name, c := range map[string]struct {
		fault    lab.Fault
		inPlace  map[string]any
		verify   bool
		rots     bool // the storage doesn't keep what was written
		snapshot bool
		survives bool // the restore succeeds in spite of it
	}{
		"journal is refused":             {fault: with("ReconfigVM_Task", "NoPermission", 0)},
		"no space for the disks":         {fault: with("ImportVApp", "NoDiskSpace", 0)},
		"import's answer is lost":        {fault: with("ImportVApp", "lost", 0)},
		"upload breaks":                  {fault: with("POST /nfc", "drop", 0)},
		"upload is refused":              {fault: with("POST /nfc", "503", 0)},
		"upload is changed on its way":   {fault: with("POST /nfc", "corrupt", 0)},
		"manifest is refused":            {fault: with("HttpNfcLeaseGetManifest", "call:InvalidState", 0)},
		"lease can't be completed":       {fault: with("HttpNfcLeaseComplete", "call:InvalidState", 0)},
		"upload gives no disks away":     {fault: with("ReconfigVM_Task", "InvalidState", 1)},
		"no mark before the exchange":    {fault: with("ReconfigVM_Task", "InvalidState", 2)},
		"disks can't be exchanged":       {fault: with("ReconfigVM_Task", "InvalidState", 3)},
		"next reconfiguration":           {fault: with("ReconfigVM_Task", "InvalidState", 4), survives: true},
		"journal can't be removed":       {fault: with("ReconfigVM_Task", "InvalidState", 5), survives: true},
		"upload's VM can't be removed":   {fault: with("Destroy_Task", "InvalidState", 0), survives: true},
		"guest can't be asked":           {fault: with("ShutdownGuest", "call:ToolsUnavailable", 0)},
		"guest doesn't shut down":        {fault: with("ShutdownGuest", "ignore", 0), inPlace: map[string]any{"shutdown_timeout": "3s"}},
		"guest is stopped hard":          {fault: with("ShutdownGuest", "ignore", 0), inPlace: map[string]any{"shutdown_timeout": "3s", "power_off": true}, survives: true},
		"VM doesn't start":               {fault: with("PowerOnVM_Task", "InsufficientResourcesFault", 0)},
		"replaced disks can't be erased": {fault: with("DeleteVirtualDisk_Task", "NoPermission", 0), survives: true},
		"snapshots can't be removed":     {fault: with("RemoveAllSnapshots_Task", "InvalidState", 0), inPlace: map[string]any{"remove_snapshots": true}, snapshot: true},
		"no snapshot to read back from":  {fault: with("CreateSnapshot_Task", "NoDiskSpace", 0), verify: true},
		"disks don't keep their bytes":   {rots: true, verify: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r, id := backedUp(t)
			content := w.content("web01", 0)
			if c.snapshot {
				s := r.apply(t.Context(), "vm_snapshot", map[string]any{"vm": "web01", "name": "in the way"})
				noErrors(t, s.diagnostics)
			}
			w.spoil("web01", 0)
			spoiled, before := w.content("web01", 0), w.vm("web01")
			if c.inPlace == nil {
				c.inPlace = map[string]any{}
			}
			config := map[string]any{"backup_id": id, "in_place": c.inPlace}
			if c.verify {
				config["verify"] = true
			}
			if c.rots {
				w.rot()
			} else {
				w.fault(c.fault)
			}
			m := r.apply(t.Context(), "vm_restore", config)
			t.Logf("errors: %s\nwarnings: %s", show(m.diagnostics, tfprotov6.DiagnosticSeverityError), show(m.diagnostics, tfprotov6.DiagnosticSeverityWarning))
			if m.failed() == c.survives || m.state.IsNull() == c.survives {
				t.Fatalf("failed is %v, the state is %s", m.failed(), m.state)
			}
			now := w.vm("web01")
			if now.ID != before.ID || now.PowerState != "poweredOn" {
				t.Errorf("the VM is %s and %s, was %s", now.ID, now.PowerState, before.ID)
			}
			if !c.survives {
				if err := w.holds("web01", 0, spoiled); err != nil {
					t.Error(err)
				}
				if !c.snapshot {
					labtest.AssertClean(t, w.lab)
				}
				m = r.apply(t.Context(), "vm_restore", config)
				noErrors(t, m.diagnostics)
			}
			if err := w.holds("web01", 0, content); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestoreFaults fails at every step of a restore of a VM that was lost. Nothing of it is left behind, and the
// next apply restores.
func TestRestoreFaults(t *testing.T) {
	t.Parallel()
	with := func(method, fault string, after int) lab.Fault {
		return lab.Fault{Method: method, Fault: fault, After: after}
	}
	for name, c := range map[string]struct {
		fault    lab.Fault
		verify   bool
		rots     bool // the storage doesn't keep what was written
		survives bool // the restore succeeds in spite of it
	}{
		"no space for the disks":        {fault: with("ImportVApp", "NoDiskSpace", 0)},
		"import is refused":             {fault: with("ImportVApp", "NoPermission", 0)},
		"import's answer is lost":       {fault: with("ImportVApp", "lost", 0)},
		"upload breaks":                 {fault: with("POST /nfc", "drop", 0)},
		"upload's answer is lost":       {fault: with("POST /nfc", "lost", 0)},
		"upload is refused":             {fault: with("POST /nfc", "503", 0)},
		"upload is changed on its way":  {fault: with("POST /nfc", "corrupt", 0)},
		"manifest is refused":           {fault: with("HttpNfcLeaseGetManifest", "call:InvalidState", 0)},
		"lease can't be completed":      {fault: with("HttpNfcLeaseComplete", "call:InvalidState", 0)},
		"completion's answer is lost":   {fault: with("HttpNfcLeaseComplete", "lost", 0)},
		"firmware can't be written":     {fault: with("PUT /folder", "503", 0)},
		"first reconfiguration":         {fault: with("ReconfigVM_Task", "InvalidState", 0)},
		"last reconfiguration":          {fault: with("ReconfigVM_Task", "NoPermission", 1)},
		"attribute can't be set":        {fault: with("SetField", "call:NoPermission", 0)},
		"no snapshot to read back from": {fault: with("CreateSnapshot_Task", "NoDiskSpace", 0), verify: true},
		"disks don't keep their bytes":  {rots: true, verify: true},
		"snapshot can't be removed":     {fault: with("RemoveSnapshot_Task", "InvalidState", 0), verify: true},
		"session ends":                  {fault: with("CreateContainerView", "NotAuthenticated", 0), survives: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r, id := backedUp(t)
			content, before := w.content("web01", 0), w.vm("web01")
			w.destroyVM("web01")
			config := map[string]any{"backup_id": id}
			if c.verify {
				config["verify"] = true
			}
			if c.rots {
				w.rot()
			} else {
				w.fault(c.fault)
			}
			m := r.apply(t.Context(), "vm_restore", config)
			t.Logf("errors: %s\nwarnings: %s", show(m.diagnostics, tfprotov6.DiagnosticSeverityError), show(m.diagnostics, tfprotov6.DiagnosticSeverityWarning))
			if m.failed() == c.survives || m.state.IsNull() == c.survives {
				t.Fatalf("failed is %v, the state is %s", m.failed(), m.state)
			}
			if !c.survives {
				if vms := w.lab.Status().VMs; len(vms) != 0 {
					t.Errorf("left behind: %+v", vms)
				}
				labtest.AssertClean(t, w.lab)
				m = r.apply(t.Context(), "vm_restore", config)
				noErrors(t, m.diagnostics)
			}
			labtest.AssertClean(t, w.lab)
			if err := w.holds("web01", 0, content); err != nil {
				t.Error(err)
			}
			if now := w.vm("web01"); now.BIOSUUID != before.BIOSUUID || now.PowerState != "poweredOn" {
				t.Errorf("the VM has the UUID %s and is %s, had %s", now.BIOSUUID, now.PowerState, before.BIOSUUID)
			}
		})
	}
}
