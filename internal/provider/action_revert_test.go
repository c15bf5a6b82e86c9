package provider

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// must invokes an action that must succeed.
func (r *rpc) must(name string, config map[string]any) string {
	r.t.Helper()
	noErrors(r.t, r.checkAction(name, config))
	got := r.invoke(r.t.Context(), name, config, nil)
	noErrors(r.t, got.diagnostics)
	return got.said()
}

// TestActionSnapshotRevert goes back to the newest snapshot that was taken for something, and to one by its ID.
func TestActionSnapshotRevert(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01"})
	r := w.rpc()
	var contents []string
	for _, mark := range []string{"one", "two", "now"} {
		if err := w.lab.WriteDisk("web01", 0, 8192, []byte(mark)); err != nil {
			t.Fatal(err)
		}
		contents = append(contents, string(w.content("web01", 0)))
		if mark != "now" {
			r.must("vm_snapshot_create", map[string]any{"vm": "web01", "name": "before update", "memory": mark == "two"})
		}
	}
	at := func(what, want string, power string) {
		t.Helper()
		if string(w.content("web01", 0)) != want || w.vm("web01").PowerState != power {
			t.Errorf("%s: the disk has %q, and it is %s", what, w.content("web01", 0)[8192:8195], w.vm("web01").PowerState)
		}
	}
	config := map[string]any{"vm": "web01", "name": "before update"}
	text := show(r.checkAction("vm_snapshot_revert", config), tfprotov6.DiagnosticSeverityWarning)
	newest := w.vm("web01").Snapshots[1]
	for _, want := range []string{
		"[AttributeName(\"name\")] Revert Loses What Was Done Since", newest.Name, newest.Created.UTC().Format("2006-01-02 15:04:05 MST"),
		"That is snapshot " + w.vm("web01").InstanceUUID + "/" + newest.ID + ", the newest now that was taken for \"before update\".",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan doesn't warn of %q: %s", want, text)
		}
	}
	said := r.must("vm_snapshot_revert", config)
	at("the newest", contents[1], "poweredOn")
	if !strings.Contains(said, "reverted /DC0/vm/web01 to the snapshot \"before update-") && !strings.Contains(said, "reverted "+w.path("web01")) {
		t.Errorf("it said:\n%s", said)
	}
	r.must("vm_snapshot_revert", config) // again
	at("again", contents[1], "poweredOn")

	snapshots := w.vm("web01").Snapshots
	id := w.vm("web01").InstanceUUID + "/" + snapshots[0].ID
	r.must("vm_snapshot_revert", map[string]any{"vm": w.path("web01"), "snapshot_id": id})
	at("by its ID", contents[0], "poweredOff")
	r.must("vm_snapshot_revert", map[string]any{"vm": "web01", "snapshot_id": id, "power_on": true, "wait_for_guest": map[string]any{"agent": true}})
	at("powered on", contents[0], "poweredOn")
	if n := len(w.vm("web01").Snapshots); n != 2 {
		t.Errorf("%d snapshots are left", n)
	}

	for name, c := range map[string]struct {
		config map[string]any
		want   string
	}{
		"no such name":  {map[string]any{"vm": "web01", "name": "x"}, "[AttributeName(\"name\")] Unable to Plan Revert: " + w.path("web01") + " has no snapshot \"x\"; it has: before update-"},
		"another VM's":  {map[string]any{"vm": "db01", "snapshot_id": id}, "[AttributeName(\"snapshot_id\")] Unable to Plan Revert: Snapshot " + snapshots[0].ID + " is none of " + w.path("db01")},
		"none":          {map[string]any{"vm": "web01"}, "snapshot_id,name"},
		"two":           {map[string]any{"vm": "web01", "name": "x", "snapshot_id": id}, "snapshot_id,name"},
		"not an ID":     {map[string]any{"vm": "web01", "snapshot_id": "x"}, "Invalid Snapshot ID"},
		"wait for none": {map[string]any{"vm": "web01", "name": "x", "power_on": false, "wait_for_guest": map[string]any{}}, "Conflicting Arguments"},
	} {
		if text := show(r.checkAction("vm_snapshot_revert", c.config), tfprotov6.DiagnosticSeverityError); !strings.Contains(text, c.want) {
			t.Errorf("%s: got %s", name, text)
		}
	}
}

// TestActionSnapshotRevertInterrupted ends the context in the middle. The action can be invoked again.
func TestActionSnapshotRevertInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	config := map[string]any{"vm": "web01", "name": "n"}
	r.must("vm_snapshot_create", config)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.lab.OnCall("RevertToSnapshot_Task", func(context.Context) { cancel() })
	if got := r.invoke(ctx, "vm_snapshot_revert", config, nil); !got.failed() {
		t.Errorf("it succeeded:\n%s", got.said())
	}
	w.lab.OnCall("RevertToSnapshot_Task", nil)
	r.must("vm_snapshot_revert", config)
	if n := len(w.vm("web01").Snapshots); n != 1 {
		t.Errorf("%d snapshots are left", n)
	}
}

// TestActionConsolidate merges what a removal left, where something is left.
func TestActionConsolidate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	config := map[string]any{"vm": "web01"}
	if said := r.must("vm_consolidate", config); !strings.Contains(said, "nothing to do: no delta disk of "+w.path("web01")+" is without a snapshot") {
		t.Errorf("without deltas it said:\n%s", said)
	}
	file, content := w.vm("web01").Disks[0].File, string(w.content("web01", 0))
	leave := func() {
		t.Helper()
		c, vm := w.client(), hypervisor.VMID(w.vm("web01").ID)
		id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "s"})
		if err == nil {
			err = c.RemoveSnapshot(t.Context(), vm, id, hypervisor.RemoveOptions{NoConsolidate: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	leave()
	delta := w.vm("web01").Disks[0].File
	said := r.must("vm_consolidate", config)
	if !strings.Contains(said, "consolidated the disks of "+w.path("web01")) ||
		!strings.Contains(said, "Hard disk 1 is on "+file+" now, not on "+delta) {
		t.Errorf("it said:\n%s", said)
	}
	labtest.AssertClean(t, w.lab)
	if string(w.content("web01", 0)) != content {
		t.Error("the disk differs")
	}

	// Interrupted, and refused for want of space: the next one does it.
	leave()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.lab.OnCall("ConsolidateVMDisks_Task", func(context.Context) { cancel() })
	got := r.invoke(ctx, "vm_consolidate", config, nil)
	w.lab.OnCall("ConsolidateVMDisks_Task", nil)
	if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError); text != "" && !strings.Contains(text, "Unable to Complete Consolidation") {
		t.Errorf("interrupted: %s", text)
	}
	r.must("vm_consolidate", config)
	leave()
	w.lab.Fault(lab.Fault{Method: "ConsolidateVMDisks_Task", Fault: "NoDiskSpace"})
	got = r.invoke(t.Context(), "vm_consolidate", config, nil)
	if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError); !strings.Contains(text, "Unable to Complete Consolidation") || !strings.Contains(text, "not enough space") {
		t.Errorf("without space: %s", text)
	}
	r.must("vm_consolidate", config)
	labtest.AssertClean(t, w.lab)
	if text := show(r.checkAction("vm_consolidate", map[string]any{"vm": nobodysUUID}), tfprotov6.DiagnosticSeverityError); !strings.Contains(text, "[AttributeName(\"vm\")] Unable to Plan Consolidation") {
		t.Errorf("a VM that isn't there: %s", text)
	}
}
