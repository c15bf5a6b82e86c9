package provider

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// snapshotState is the state of a snapshot of web01.
func snapshotState(change map[string]any) map[string]any {
	state := map[string]any{
		"vm": "web01", "name": "before", "memory": false, "shutdown": false,
		"id": web01Instance + "/snapshot-7", "created_at": "2026-01-01T00:00:00Z", "power_state": "powered_off",
		"consistency": "crash", "path": "before", "is_current": true, "chain_depth": 1, "vm_uuid": web01UUID,
		"vm_instance_uuid": web01Instance,
	}
	for name, v := range change {
		state[name] = v
	}
	return state
}

func TestPlanSnapshotVM(t *testing.T) {
	t.Parallel()
	refused := errors.New("dial vcenter.example.com: no route")
	for name, c := range map[string]struct {
		vm       any
		connect  error
		provider map[string]any
		wantErr  string
		wantWarn string
	}{
		"by name":                  {vm: "web01"},
		"unknown":                  {vm: unknown{}, connect: refused},
		"no such name":             {vm: "web99", wantWarn: `[AttributeName("vm")] Virtual Machine Not Found Yet: Take snapshot "before": no virtual machine "web99"`},
		"no such UUID":             {vm: nobodysUUID, wantErr: `[AttributeName("vm")] Unable to Plan Snapshot: `},
		"ambiguous":                {vm: "twin", wantErr: "/DC0/vm/a/twin (i3)"},
		"unreachable":              {vm: "web01", connect: refused, wantErr: "no route"},
		"no hypervisor":            {vm: "web01", provider: map[string]any{}, wantErr: "Add vsphere = { … } to the provider block"},
		"provider unknown":         {vm: "web01", provider: map[string]any{"vsphere": unknown{}}, connect: refused},
		"provider's value unknown": {vm: "web01", provider: map[string]any{"vsphere": map[string]any{"server": unknown{}}}, connect: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, c.connect)
			if c.provider == nil {
				c.provider = vsphereBlock()
			}
			noErrors(t, r.configure(c.provider))
			p := r.plan("vm_snapshot", nil, map[string]any{"vm": c.vm, "name": "before"}, "")
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, c.wantErr)
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, c.wantWarn)
		})
	}
}

// expect fails the test unless the diagnostics of a severity hold a text; none at all if it is empty.
func expect(t *testing.T, diagnostics []*tfprotov6.Diagnostic, severity tfprotov6.DiagnosticSeverity, want string) {
	t.Helper()
	got := show(diagnostics, severity)
	if want == "" && got != "" || !strings.Contains(got, want) {
		t.Errorf("diagnostics of severity %s:\n%s\nwant: %q", severity, got, want)
	}
}

func TestPlanAnotherSpellingOfVM(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for name, c := range map[string]struct {
		config      map[string]any
		wantReplace []string
		wantChange  bool
		wantErr     string
	}{
		"nothing":             {config: map[string]any{"vm": "web1", "name": "before"}, wantErr: `[AttributeName("vm")] Unable to Plan Snapshot`},
		"the same text":       {config: map[string]any{"vm": "web01", "name": "before"}},
		"BIOS UUID":           {config: map[string]any{"vm": web01UUID, "name": "before"}},
		"instance UUID":       {config: map[string]any{"vm": web01Instance, "name": "before"}},
		"path":                {config: map[string]any{"vm": "/DC0/vm/web01", "name": "before"}},
		"managed object ID":   {config: map[string]any{"vm": "vm-1", "name": "before"}},
		"path and a new name": {config: map[string]any{"vm": "/DC0/vm/web01", "name": "after"}, wantChange: true},
		"another VM": {
			config:      map[string]any{"vm": "db01", "name": "before"},
			wantReplace: []string{`AttributeName("vm")`}, wantChange: true,
		},
		"unknown": {
			config:      map[string]any{"vm": unknown{}, "name": "before"},
			wantReplace: []string{`AttributeName("vm")`}, wantChange: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.plan("vm_snapshot", snapshotState(nil), c.config, "")
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, c.wantErr)
			if c.wantErr == "" && !slices.Equal(p.replace, c.wantReplace) {
				t.Errorf("replaces because of %v, want %v", p.replace, c.wantReplace)
			}
			if c.wantErr == "" && p.unchanged == c.wantChange {
				t.Errorf("unchanged is %v", p.unchanged)
			}
		})
	}
}

func TestPlanSnapshotReplacement(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	const isImported = `{"imported":"dHJ1ZQ=="}` // as the framework encodes private state: base64 of true
	base := func(change map[string]any) map[string]any {
		c := map[string]any{"vm": "web01", "name": "before"}
		for k, v := range change {
			c[k] = v
		}
		return c
	}
	quiesced := map[string]any{"quiesce": map[string]any{"mode": "required"}}
	for name, c := range map[string]struct {
		state, change map[string]any
		private       string
		want          []string
	}{
		"name":                    {change: map[string]any{"name": "after"}},
		"description":             {change: map[string]any{"description": "why"}},
		"on_destroy":              {change: map[string]any{"on_destroy": map[string]any{"action": "keep"}}},
		"max_age":                 {change: map[string]any{"max_age": "87600h"}},
		"timeouts":                {change: map[string]any{"timeouts": map[string]any{"create": "1m"}}},
		"memory":                  {change: map[string]any{"memory": true}, want: []string{`AttributeName("memory")`}},
		"shutdown":                {change: map[string]any{"shutdown": true}, want: []string{`AttributeName("shutdown")`}},
		"triggers":                {change: map[string]any{"triggers": map[string]any{"a": "1"}}, want: []string{`AttributeName("triggers")`}},
		"quiesce":                 {change: quiesced, want: []string{`AttributeName("quiesce")`}},
		"no triggers":             {change: map[string]any{"triggers": map[string]any{}}},
		"no triggers any more":    {state: map[string]any{"triggers": map[string]any{}}},
		"unknown triggers":        {change: map[string]any{"triggers": unknown{}}, want: []string{`AttributeName("triggers")`}},
		"not quiesced":            {change: map[string]any{"quiesce": map[string]any{"mode": "off"}}},
		"not quiesced, as before": {state: map[string]any{"quiesce": map[string]any{"mode": "off"}}},
		"no longer quiesced":      {state: quiesced, want: []string{`AttributeName("quiesce")`}},
		"quiesced or not":         {change: map[string]any{"quiesce": map[string]any{"mode": unknown{}}}, want: []string{`AttributeName("quiesce")`}},
		"quiesce, imported":       {change: quiesced, private: isImported},
		"shutdown, imported":      {change: map[string]any{"shutdown": true}, private: isImported},
		"triggers, imported":      {change: map[string]any{"triggers": map[string]any{"a": "1"}}, private: isImported},
		"other triggers imported": {state: map[string]any{"triggers": map[string]any{"a": "1"}}, change: map[string]any{"triggers": map[string]any{"a": "2"}}, private: isImported, want: []string{`AttributeName("triggers")`}},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.plan("vm_snapshot", snapshotState(c.state), base(c.change), c.private)
			noErrors(t, p.diagnostics)
			if !slices.Equal(p.replace, c.want) {
				t.Errorf("replaces because of %v, want %v", p.replace, c.want)
			}
			if p.unchanged {
				t.Error("no change is planned")
			}
		})
	}
}

func TestPlanWarnsOfAge(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for age, want := range map[string]string{
		"1h":      `[AttributeName("max_age")] Snapshot Is Too Old: The snapshot before was taken at 2026-01-01T00:00:00Z`,
		"876000h": "",
	} {
		p := r.plan("vm_snapshot", snapshotState(map[string]any{"max_age": age}),
			map[string]any{"vm": "web01", "name": "before", "max_age": age}, "")
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, want)
		if !p.unchanged {
			t.Errorf("max_age = %s plans a change", age)
		}
	}
}

// TestPlanRestoreOfUnknownBackup warns where the VM that is kept would be in the way.
func TestPlanRestoreOfUnknownBackup(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for onDestroy, want := range map[string]string{"keep": `[AttributeName("backup_id")] Restore May Be Refused`, "delete": ""} {
		state := map[string]any{
			"backup_id": "a", "on_destroy": onDestroy, "id": web01Instance, "vm_instance_uuid": web01Instance, "vm_path": "/DC0/vm/web01",
		}
		p := r.plan("vm_restore", state, map[string]any{"backup_id": unknown{}, "on_destroy": onDestroy}, "")
		noErrors(t, p.diagnostics)
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, want)
		if !slices.Equal(p.replace, []string{`AttributeName("backup_id")`}) {
			t.Errorf("replaces because of %v", p.replace)
		}
	}
}

// TestImportByIdentity imports as Terraform 1.12 does with an identity in an import block.
func TestImportByIdentity(t *testing.T) {
	t.Parallel()
	hv := &fakeHypervisor{vms: fakeVMs(), snapshots: []hypervisor.Snapshot{{ID: "snapshot-7", Name: "before", Path: "before"}}}
	r := newRPC(t, hv, nil)
	noErrors(t, r.configure(vsphereBlock()))
	ids, err := r.server.GetResourceIdentitySchemas(t.Context(), &tfprotov6.GetResourceIdentitySchemasRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for resource, c := range map[string]struct {
		identity map[string]any
		want     string
	}{
		"vm_snapshot": {
			map[string]any{"vm_instance_uuid": web01Instance, "snapshot_id": "snapshot-7"}, web01Instance + "/snapshot-7",
		},
		"vm_backup": {map[string]any{"id": "0123456789abcdef0123456789abcdef"}, "0123456789abcdef0123456789abcdef"},
	} {
		typ := ids.IdentitySchemas[resource].ValueType()
		resp, err := r.server.ImportResourceState(t.Context(), &tfprotov6.ImportResourceStateRequest{
			TypeName: resource, Identity: &tfprotov6.ResourceIdentityData{IdentityData: r.dynamic(r.value(typ, c.identity))},
		})
		if err != nil {
			t.Fatal(err)
		}
		noErrors(t, resp.Diagnostics)
		state := r.undynamic(r.schema.ResourceSchemas[resource].ValueType(), resp.ImportedResources[0].State)
		var got planned
		if err := state.As(&got.attributes); err != nil {
			t.Fatal(err)
		}
		if id := got.text(t, "id"); id != c.want {
			t.Errorf("%s: imported %q, want %q", resource, id, c.want)
		}
	}
}

// TestPlanBackupObstacles refuses what can't be backed up, and says which device it is about.
func TestPlanBackupObstacles(t *testing.T) {
	t.Parallel()
	vms := fakeVMs()
	vms[0].Disks = []hypervisor.Disk{{Key: "2000", Label: "Hard disk 1", Address: "scsi0:0"}, {Key: "2001", Label: "Hard disk 2", Address: "scsi0:1"}}
	vms[0].Obstacles = []hypervisor.Obstacle{{
		Kind: hypervisor.ObstacleIndependent, Device: "Hard disk 2", Disk: "2001",
		Reason: "Hard disk 2 is independent.", Remedy: "Name it in exclude_disks.",
	}}
	r := newRPC(t, &fakeHypervisor{vms: vms}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	p := r.plan("vm_backup", nil, map[string]any{"vm": "web01"}, "")
	expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, "Hard disk 2: Hard disk 2 is independent. Name it in exclude_disks.")
	p = r.plan("vm_backup", nil, map[string]any{"vm": "web01", "exclude_disks": []any{"scsi0:1"}}, "")
	noErrors(t, p.diagnostics)
	expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, "Backup With Reservations: Hard disk 2")
}

// TestPlanBackupQuiesce refuses, before anything is touched, a backup that can't be as consistent as it must be.
func TestPlanBackupQuiesce(t *testing.T) {
	t.Parallel()
	vms := fakeVMs()
	vms[0].PowerState = hypervisor.PoweredOn // without a guest agent
	r := newRPC(t, &fakeHypervisor{vms: vms}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for mode, want := range map[string]struct{ err, warn string }{
		"required":  {err: `[AttributeName("quiesce")] Unable to Plan Backup: `},
		"preferred": {warn: "crash-consistent"},
		"off":       {},
	} {
		p := r.plan("vm_backup", nil, map[string]any{"vm": "web01", "quiesce": map[string]any{"mode": mode}}, "")
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, want.err)
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, want.warn)
	}
}

// TestPlanOfWhatIsPartlyUnknown plans arguments of which parts come from what the same apply makes, such as a name with
// timestamp(): what is known is checked, and what isn't is no error.
func TestPlanOfWhatIsPartlyUnknown(t *testing.T) {
	t.Parallel()
	quiesced := map[string]any{"mode": unknown{}, "timeout": unknown{}}
	set := func(members ...any) map[string]any { return map[string]any{"name": unknown{}, "members": members} }
	member := func(vm string) map[string]any { return map[string]any{"vm": vm} }
	for name, c := range map[string]struct {
		resource string
		config   map[string]any
		wantErr  string
	}{
		"snapshot's name":        {"vm_snapshot", map[string]any{"vm": "web01", "name": unknown{}}, ""},
		"snapshot's description": {"vm_snapshot", map[string]any{"vm": "web01", "name": "n", "description": unknown{}}, ""},
		"snapshot's quiesce":     {"vm_snapshot", map[string]any{"vm": "web01", "name": "n", "quiesce": quiesced}, ""},
		"snapshot of twins":      {"vm_snapshot", map[string]any{"vm": "twin", "name": unknown{}}, "/DC0/vm/a/twin (i3)"},
		"set's name":             {"vm_snapshot_set", set(member("web01")), ""},
		"set of twins":           {"vm_snapshot_set", set(member("web01"), member("twin")), "/DC0/vm/a/twin (i3)"},
		"backup's tag":           {"vm_backup", map[string]any{"vm": "web01", "tags": map[string]any{"a": "b", "build": unknown{}}}, ""},
		"backup's tags":          {"vm_backup", map[string]any{"vm": "web01", "tags": unknown{}}, ""},
		"backup's disk":          {"vm_backup", map[string]any{"vm": "web01", "exclude_disks": []any{"scsi0:1", unknown{}}}, ""},
		"backup's retention":     {"vm_backup", map[string]any{"vm": "web01", "retention": map[string]any{"keep_last": unknown{}}}, ""},
		"backup's quiesce":       {"vm_backup", map[string]any{"vm": "web01", "quiesce": quiesced}, ""},
		"backup's reading": {"vm_backup", map[string]any{
			"vm": "web01", "mode": unknown{}, "full_every": unknown{}, "change_tracking": unknown{}, "verify": unknown{},
			"description": unknown{}, "on_destroy": unknown{}, "triggers": map[string]any{"a": unknown{}},
		}, ""},
		"backup of twins": {"vm_backup", map[string]any{"vm": "twin", "tags": map[string]any{"build": unknown{}}}, "/DC0/vm/a/twin (i3)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
			noErrors(t, r.configure(vsphereBlock()))
			p := r.plan(c.resource, nil, c.config, "")
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, c.wantErr)
		})
	}
}
