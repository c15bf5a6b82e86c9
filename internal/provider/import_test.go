package provider

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// identify reads what an apply made as if its state came from a Terraform, or a version of this provider, that knows
// no identities: reading gives it one.
func (r *rpc) identify(resource string, m made) tftypes.Value {
	r.t.Helper()
	read, err := r.server.ReadResource(r.t.Context(), &tfprotov6.ReadResourceRequest{
		TypeName: resource, CurrentState: r.dynamic(m.state), Private: m.private,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	noErrors(r.t, read.Diagnostics)
	if read.NewIdentity == nil || read.NewIdentity.IdentityData == nil {
		r.t.Fatalf("%s has no identity after it was read", resource)
	}
	return r.undynamic(r.identityType(resource), read.NewIdentity.IdentityData)
}

// importsAs imports a resource by its identity, and by other IDs, and wants the plan for a configuration to be empty.
func (r *rpc) importsAs(resource string, identity tftypes.Value, config map[string]any, ids ...string) {
	r.t.Helper()
	requests := []*tfprotov6.ImportResourceStateRequest{{
		Identity: &tfprotov6.ResourceIdentityData{IdentityData: r.dynamic(identity)},
	}}
	for _, id := range ids {
		requests = append(requests, &tfprotov6.ImportResourceStateRequest{ID: id})
	}
	written := r.value(r.schema.ResourceSchemas[resource].ValueType(), config)
	for _, req := range requests {
		state, private := r.imported(resource, req)
		if got := r.identify(resource, made{state: state, private: private}); !got.Equal(identity) {
			r.t.Errorf("%q is imported as %s, want %s", req.ID, got, identity)
		}
		r.plansEmpty(resource, state, written, private)
	}
}

// refusesIdentity returns the error that an import by an identity gives.
func (r *rpc) refusesIdentity(resource string, identity map[string]any) string {
	r.t.Helper()
	resp, err := r.server.ImportResourceState(r.t.Context(), &tfprotov6.ImportResourceStateRequest{
		TypeName: resource,
		Identity: &tfprotov6.ResourceIdentityData{IdentityData: r.dynamic(r.value(r.identityType(resource), identity))},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return show(resp.Diagnostics, tfprotov6.DiagnosticSeverityError)
}

// TestImportRestore takes up restores whose state was lost.
func TestImportRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "app01"})
	r := w.rpc()
	text := func(m made, name string) string { return m.attributes(t).text(t, name) }
	do := func(resource string, config map[string]any) made {
		t.Helper()
		m := r.apply(t.Context(), resource, config)
		noErrors(t, m.diagnostics)
		return m
	}
	backup := text(do("vm_backup", map[string]any{"vm": "web01"}), "id")
	taken := do("vm_snapshot", map[string]any{"vm": "web01", "name": "before upgrade"})
	second := do("vm_snapshot", map[string]any{"vm": "app01", "name": "before upgrade"})
	web01, app01 := w.vm("web01"), w.vm("app01")

	copied := map[string]any{"backup_id": backup, "new_vm": map[string]any{"name": "copy", "identity": "copy"}, "power_on": false}
	m := do("vm_restore", copied)
	delete(copied, "power_on") // nothing tells
	r.importsAs("vm_restore", r.identify("vm_restore", m), copied, backup+":copy", backup+":"+w.path("copy"))

	r.adopts(t, "vm_restore", backup+":copy", map[string]any{
		"backup_id": backup, "power_on": false, "verify": true, "triggers": map[string]any{"a": "1"}, "on_destroy": "keep",
		"new_vm": map[string]any{"identity": "copy", "connect_networks": false, "folder": "/DC0/vm"}, "only_disks": []any{"scsi0:0"},
	}, "new_vm", "only_disks", "power_on", "triggers", "verify")
	deletes := map[string]any{"backup_id": backup, "new_vm": map[string]any{"identity": "copy", "name": "copy"}, "on_destroy": "delete"}
	r.adopts(t, "vm_restore", backup+":copy", deletes, "on_destroy")
	state, private := r.imported("vm_restore", &tfprotov6.ImportResourceStateRequest{ID: backup + ":copy"})
	other := r.planOn("vm_restore", state, r.value(state.Type(), map[string]any{
		"backup_id": backup, "new_vm": map[string]any{"name": "another", "identity": "copy"}}), private)
	if len(other.RequiresReplace) == 0 {
		t.Error("a VM of another name is taken for the one that was imported")
	}

	// A word is not enough to delete a VM: the configuration must say so as well, and nobody may be using it.
	got := r.destroy(t.Context(), "vm_restore", made{state: state, private: private})
	if noErrors(t, got); w.vm("copy").Name == "" {
		t.Error("an imported VM is deleted without anybody having said so")
	}
	since := map[string]any{"backup_id": backup, "new_vm": map[string]any{"identity": "copy", "name": "copy"}, "verify": true}
	state, private = r.adopts(t, "vm_restore", backup+":copy", since, "verify")
	noErrors(t, r.destroy(t.Context(), "vm_restore", made{state: state, private: private}))
	if w.vm("copy").Name == "" {
		t.Error("an imported VM is deleted after a change of something else")
	}
	if err := w.client().PowerOn(t.Context(), hypervisor.VMID(w.vm("copy").ID)); err != nil {
		t.Fatal(err)
	}
	state, private = r.adopts(t, "vm_restore", backup+":copy", deletes, "on_destroy")
	got = r.destroy(t.Context(), "vm_restore", made{state: state, private: private})
	if !strings.Contains(show(got, tfprotov6.DiagnosticSeverityError), "and it runs") || w.vm("copy").Name == "" {
		t.Errorf("an imported restore of a VM that runs is destroyed: %v", show(got, tfprotov6.DiagnosticSeverityError))
	}
	if err := w.client().PowerOff(t.Context(), hypervisor.VMID(w.vm("copy").ID)); err != nil {
		t.Fatal(err)
	}
	noErrors(t, r.destroy(t.Context(), "vm_restore", made{state: state, private: private}))
	for _, vm := range w.lab.Status().VMs {
		if vm.Name == "copy" {
			t.Error("the configuration says delete, but the VM is kept")
		}
	}

	reverted := map[string]any{"snapshot_id": text(taken, "id")}
	m = do("vm_restore", reverted)
	r.importsAs("vm_restore", r.identify("vm_restore", m), reverted, text(taken, "id"), "web01:before upgrade")

	several := map[string]any{"snapshot_ids": []any{text(second, "id"), text(taken, "id")}}
	m = do("vm_restore", several)
	r.importsAs("vm_restore", r.identify("vm_restore", m), several, text(second, "id")+","+text(taken, "id"))

	another := map[string]any{"id": "elsewhere", "snapshot_ids": several["snapshot_ids"]}
	if text := r.refusesIdentity("vm_restore", another); !strings.Contains(text, `The id of the identity is "elsewhere"; the snapshots are of `) {
		t.Errorf("of another virtual machine: %s", text)
	}

	noErrors(t, r.destroy(t.Context(), "vm_snapshot", taken))
	inPlace := map[string]any{"backup_id": backup, "in_place": map[string]any{"hardware": "restore"}}
	m = do("vm_restore", inPlace)
	r.importsAs("vm_restore", r.identify("vm_restore", m), inPlace, "in_place:"+backup+":web01")

	r.adopts(t, "vm_restore", "in_place:"+backup+":web01", map[string]any{
		"backup_id": backup, "in_place": map[string]any{"hardware": "keep", "vm": "web01", "power_off": true}}, "in_place")
	elsewhere := map[string]any{"backup_id": backup, "in_place": map[string]any{
		"hardware": "restore", "vm": app01.BIOSUUID, "allow_other_vm": true}}
	noErrors(t, r.destroy(t.Context(), "vm_snapshot", second))
	m = do("vm_restore", elsewhere)
	r.importsAs("vm_restore", r.identify("vm_restore", m), elsewhere, "in_place:"+backup+":"+app01.BIOSUUID)

	w.destroyVM("web01")
	original := map[string]any{"backup_id": backup}
	m = do("vm_restore", original)
	r.importsAs("vm_restore", r.identify("vm_restore", m), original, backup+":"+web01.BIOSUUID)
}

// TestImportSet takes up a set whose state was lost: by its ID, and by any of its snapshots.
func TestImportSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	r := w.rpc()
	members := []any{map[string]any{"vm": "db01"}, map[string]any{"vm": "app01"}, map[string]any{"vm": "web01"}}
	set := map[string]any{"name": "before upgrade", "members": members}
	m := r.apply(t.Context(), "vm_snapshot_set", set)
	noErrors(t, m.diagnostics)
	id := m.attributes(t).text(t, "id")
	r.importsAs("vm_snapshot_set", r.identify("vm_snapshot_set", m), set, id, "web01:before upgrade",
		w.vm("app01").InstanceUUID+"/"+string(w.current("app01")))
	r.adopts(t, "vm_snapshot_set", id, map[string]any{
		"name": "before upgrade", "members": []any{map[string]any{"vm": "db01", "quiesce": map[string]any{"mode": "off"}},
			map[string]any{"vm": "app01", "order": 1}, map[string]any{"vm": "web01", "order": 1}},
		"max_skew_seconds": 60, "triggers": map[string]any{"a": "1"}, "on_destroy": map[string]any{"action": "keep"},
	}, "max_skew_seconds", "members", "on_destroy", "triggers")
	for _, form := range []string{"5f0c3a1b9d2e4786", "web01"} {
		resp, err := r.server.ImportResourceState(t.Context(), &tfprotov6.ImportResourceStateRequest{TypeName: "vm_snapshot_set", ID: form})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, resp.Diagnostics, tfprotov6.DiagnosticSeverityError, fmt.Sprintf("There is no complete set %q.", form))
	}
}

// TestImportRestoreRefused goes through what names no restore.
func TestImportRestoreRefused(t *testing.T) {
	t.Parallel()
	disk := func(mib int64) string { return labtest.RawDisk(t, mib<<20, 1) }
	w := newWorld(t, lab.VMSpec{Name: "larger", Disks: []string{disk(9)}}, lab.VMSpec{Name: "more", Disks: []string{disk(8), disk(8)}})
	r := w.rpc()
	m := r.apply(t.Context(), "vm_backup", map[string]any{"vm": "web01"})
	noErrors(t, m.diagnostics)
	backup := m.attributes(t).text(t, "id")
	for id, want := range map[string]string{
		"0123456789abcdef0123456789abcdef:web01": "Unable to Import Restore: ",
		backup + ":nobody":                       `No virtual machine "nobody"`,
		backup + ":larger":                       `can't have been built from backup`,
		backup + ":more":                         `can't have been built from backup`,
		backup:                                   restoreImportForms,
		"web01":                                  restoreImportForms,
		"web01:none":                             `There is no snapshot "web01:none".`,
		web01Instance + "/snapshot-1":            "Find virtual machine by instance UUID " + web01Instance,
		web01Instance + "/snapshot-1,web01":      `"web01" is not the ID of a snapshot.`,
	} {
		resp, err := r.server.ImportResourceState(t.Context(), &tfprotov6.ImportResourceStateRequest{TypeName: "vm_restore", ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if got := show(resp.Diagnostics, tfprotov6.DiagnosticSeverityError); !strings.Contains(got, want) || !strings.HasPrefix(got, "Unable to Import Restore: ") {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

// adopts imports a resource and applies a configuration that says more than an import can know. That changes some
// attributes in the state, and replaces nothing; afterwards the plan is empty.
func (r *rpc) adopts(
	t *testing.T, resource, id string, config map[string]any, change ...string,
) (state tftypes.Value, private []byte) {
	t.Helper()
	state, private = r.imported(resource, &tfprotov6.ImportResourceStateRequest{ID: id})
	written := r.value(state.Type(), config)
	planned := r.planOn(resource, state, written, private)
	noErrors(t, planned.Diagnostics)
	if len(planned.RequiresReplace) > 0 {
		t.Fatalf("%s %s is replaced because of %v", resource, id, planned.RequiresReplace)
	}
	next := r.undynamic(state.Type(), planned.PlannedState)
	if got := changed(t, state, next); !slices.Equal(got, change) {
		t.Errorf("%s %s changes %q, want %q", resource, id, got, change)
	}
	if len(change) == 0 {
		return state, private
	}
	done, err := r.server.ApplyResourceChange(t.Context(), &tfprotov6.ApplyResourceChangeRequest{
		TypeName: resource, PriorState: r.dynamic(state), Config: r.dynamic(written),
		PlannedState: planned.PlannedState, PlannedPrivate: planned.PlannedPrivate,
	})
	if err != nil {
		t.Fatal(err)
	}
	noErrors(t, done.Diagnostics)
	if !strings.Contains(string(done.Private), `"imported":"ZmFsc2U="`) { // as the framework encodes private state: base64 of false
		t.Errorf("%s %s counts as imported although all of it was written since: %s", resource, id, done.Private)
	}
	state = r.undynamic(state.Type(), done.NewState)
	r.plansEmpty(resource, state, written, done.Private)
	return state, done.Private
}

// changed are the attributes that a plan changes and that are known to be other than before.
func changed(t *testing.T, before, after tftypes.Value) (names []string) {
	t.Helper()
	var was, is map[string]tftypes.Value
	if err := cmp.Or(before.As(&was), after.As(&is)); err != nil {
		t.Fatal(err)
	}
	for name := range is {
		if is[name].IsKnown() && !is[name].Equal(was[name]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestImportArguments imports snapshots and backups that were taken with each of the optional arguments.
func TestImportArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "two", Disks: []string{labtest.RawDisk(t, 1<<20, 7), labtest.RawDisk(t, 1<<20, 8)}})
	quiesced := map[string]any{"mode": "required", "timeout": "5m"}
	for _, c := range []struct {
		resource string
		more     map[string]any
		change   []string
	}{
		{"vm_snapshot", nil, nil},
		{"vm_snapshot", map[string]any{"description": ""}, []string{"description"}},
		{"vm_snapshot", map[string]any{"description": "two\nlines ${x}"}, nil},
		{"vm_snapshot", map[string]any{"memory": true}, nil},
		{"vm_snapshot", map[string]any{"shutdown": true}, []string{"shutdown"}},
		{"vm_snapshot", map[string]any{"quiesce": quiesced}, []string{"quiesce"}},
		{"vm_snapshot", map[string]any{"quiesce": map[string]any{"mode": "off"}}, []string{"quiesce"}},
		{"vm_snapshot", map[string]any{"on_destroy": map[string]any{"action": "keep"}}, []string{"on_destroy"}},
		{"vm_snapshot", map[string]any{"max_age": "72h", "triggers": map[string]any{"a": "1"}}, []string{"max_age", "triggers"}},
		{"vm_snapshot", map[string]any{"timeouts": map[string]any{"create": "1h"}}, []string{"timeouts"}},
		{"vm_backup", nil, nil},
		{"vm_backup", map[string]any{"description": "nightly", "tags": map[string]any{"a": "1", "terraform.b": "${c}"}}, nil},
		{"vm_backup", map[string]any{"description": ""}, []string{"description"}},
		{"vm_backup", map[string]any{"tags": map[string]any{}}, []string{"tags"}},
		{"vm_snapshot", map[string]any{"description": `{"b": 1, "a": "<"}`}, nil},
		{"vm_backup", map[string]any{"description": `{"b": 1, "a": "<"}`}, nil},
		{"vm_backup", map[string]any{"quiesce": quiesced}, []string{"quiesce"}},
		{"vm_backup", map[string]any{"vm": "two", "exclude_disks": []any{"Hard disk 2"}}, []string{"exclude_disks"}},
		{"vm_backup", map[string]any{"on_destroy": "delete", "triggers": map[string]any{"a": "1"}}, []string{"on_destroy", "triggers"}},
		{"vm_backup", map[string]any{"mode": "full", "full_every": 0, "change_tracking": "ignore", "verify": "sample"},
			[]string{"change_tracking", "full_every", "mode", "verify"}},
		{"vm_backup", map[string]any{"retention": map[string]any{"keep_last": 99}}, []string{"retention"}},
		{"vm_backup", map[string]any{"timeouts": map[string]any{"create": "1h"}}, []string{"timeouts"}},
	} {
		name := strings.Join(slices.Sorted(maps.Keys(c.more)), ",")
		t.Run(c.resource+"/"+name, func(t *testing.T) {
			r := w.rpc()
			config := map[string]any{"vm": "web01"}
			if c.resource == "vm_snapshot" {
				config["name"] = "s"
			}
			maps.Copy(config, c.more)
			m := r.apply(t.Context(), c.resource, config)
			noErrors(t, m.diagnostics)
			if config["description"] == `{"b": 1, "a": "<"}` {
				config["description"] = `{"a":"\u003c","b":1}` // as jsonencode writes it
			}
			r.adopts(t, c.resource, m.attributes(t).text(t, "id"), config, c.change...)
			if c.resource == "vm_snapshot" {
				noErrors(t, r.destroy(t.Context(), c.resource, m))
			}
		})
	}
}
