package provider

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

// inPlaceState is the state of a restore of a backup into web01.
func inPlaceState(inPlace, more map[string]any) map[string]any {
	state := map[string]any{
		"backup_id": "a", "on_destroy": "keep", "start_failed": false, "id": web01Instance, "vm_id": "vm-1", "vm_name": "web01",
		"vm_uuid": web01UUID, "vm_instance_uuid": web01Instance, "vm_path": "/DC0/vm/web01", "completed_at": "2026-01-01T00:00:00Z",
		"verified": false, "restored_bytes": 1, "power_state": "powered_on", "guest_ip_addresses": []any{},
		"replaced_disks": []any{}, "reverted": []any{}, "disks": []any{}, "server": "server-1",
	}
	for name, v := range more {
		state[name] = v
	}
	written := map[string]any{"hardware": "restore"}
	for name, v := range inPlace {
		written[name] = v
	}
	state["in_place"] = written
	return state
}

// TestPlanInPlace judges changes of in_place: another VM restores anew, how it is done doesn't.
func TestPlanInPlace(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	const vm, hardware = `AttributeName("in_place").AttributeName("vm")`, `AttributeName("in_place").AttributeName("hardware")`
	for name, c := range map[string]struct {
		was, is     map[string]any
		wantReplace []string
		wantChange  bool
		wantErr     string
	}{
		"nothing":             {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": "web01"}},
		"another spelling":    {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": web01UUID}},
		"spelled now":         {is: map[string]any{"vm": "web01"}, wantChange: true},
		"no longer spelled":   {was: map[string]any{"vm": "web01"}, wantChange: true},
		"another VM":          {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": "db01", "allow_other_vm": true}, wantReplace: []string{vm}, wantChange: true},
		"another VM, spelled": {is: map[string]any{"vm": "db01", "allow_other_vm": true}, wantReplace: []string{vm}, wantChange: true},
		"the original again":  {was: map[string]any{"vm": "db01", "allow_other_vm": true}, wantReplace: []string{vm}, wantChange: true},
		"unknown":             {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": unknown{}}, wantReplace: []string{vm}, wantChange: true},
		"ambiguous":           {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": "twin"}, wantErr: "matches 2 virtual machines"},
		"nobody":              {was: map[string]any{"vm": "web01"}, is: map[string]any{"vm": nobodysUUID}, wantErr: `[` + vm + `] Unable to Plan Restore`},
		"hardware":            {is: map[string]any{"hardware": "keep"}, wantReplace: []string{hardware}, wantChange: true},
		"how":                 {is: map[string]any{"power_off": true, "remove_snapshots": true, "shutdown_timeout": "9m", "keep_replaced_disks": "1h"}, wantChange: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.is == nil {
				c.is = map[string]any{}
			}
			p := r.plan("vm_restore", inPlaceState(c.was, nil), map[string]any{"backup_id": "a", "in_place": c.is}, "")
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, c.wantErr)
			if c.wantErr == "" && !slices.Equal(p.replace, c.wantReplace) {
				t.Errorf("replaces because of %v, want %v", p.replace, c.wantReplace)
			}
			if c.wantErr == "" && p.unchanged == c.wantChange {
				t.Errorf("unchanged is %v", p.unchanged)
			}
		})
	}
	// To restore elsewhere restores anew.
	p := r.plan("vm_restore", inPlaceState(nil, nil), map[string]any{"backup_id": "a"}, "")
	if want := []string{`AttributeName("in_place")`}; !slices.Equal(p.replace, want) {
		t.Errorf("replaces because of %v, want %v", p.replace, want)
	}
}

// TestPlanReplacedDisks plans the deletion of disks that are due, and no other.
func TestPlanReplacedDisks(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	hour := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	replaced := map[string]any{
		"completed_at":   hour,
		"replaced_disks": []any{map[string]any{"label": "Hard disk 1", "path": "[a] b.vmdk", "replaced_by": "[a] c.vmdk"}},
	}
	for keep, due := range map[string]bool{"72h": false, "59m": true} {
		inPlace := map[string]any{"keep_replaced_disks": keep}
		state := inPlaceState(inPlace, replaced)
		duration, err := time.ParseDuration(keep)
		if err != nil {
			t.Fatal(err)
		}
		completed, err := time.Parse(time.RFC3339, hour)
		if err != nil {
			t.Fatal(err)
		}
		state["replaced_disks_until"] = completed.Add(duration).Format(time.RFC3339)
		p := r.plan("vm_restore", state, map[string]any{"backup_id": "a", "in_place": inPlace}, "")
		noErrors(t, p.diagnostics)
		want := ""
		if due {
			want = "Replaced Disks Are Due: The restore of /DC0/vm/web01 took these disks out of it."
		}
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, want)
		if p.unchanged == due || len(p.replace) > 0 {
			t.Errorf("kept for %s: unchanged is %v, replaces because of %v", keep, p.unchanged, p.replace)
		}
	}
}

// TestPlanReplacedDisksAnew says nothing of a deletion, because there is none, where the restore is done anew.
func TestPlanReplacedDisksAnew(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	hour := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	inPlace := map[string]any{"keep_replaced_disks": "1m"}
	state := inPlaceState(inPlace, map[string]any{
		"completed_at": hour, "replaced_disks_until": hour,
		"replaced_disks": []any{map[string]any{"label": "Hard disk 1", "path": "[a] b.vmdk", "replaced_by": "[a] c.vmdk"}},
	})
	for name, config := range map[string]map[string]any{
		"backup":     {"backup_id": "b", "in_place": inPlace},
		"disks":      {"backup_id": "a", "in_place": inPlace, "only_disks": []any{"Hard disk 1"}},
		"trigger":    {"backup_id": "a", "in_place": inPlace, "triggers": map[string]any{"x": "1"}},
		"hardware":   {"backup_id": "a", "in_place": map[string]any{"keep_replaced_disks": "1m", "hardware": "keep"}},
		"another VM": {"backup_id": "a", "in_place": map[string]any{"keep_replaced_disks": "1m", "vm": "db01"}},
	} {
		p := r.plan("vm_restore", state, config, "")
		if len(p.replace) == 0 {
			t.Errorf("%s: nothing is replaced", name)
		}
		for _, d := range p.diagnostics {
			if strings.Contains(d.Summary, "Due") {
				t.Errorf("%s: %s", name, d.Summary)
			}
		}
	}
}

// TestPlanReplacedDisksOfAnother plans no deletion of disks that are kept for longer than what is written says,
// until something else is written.
func TestPlanReplacedDisksOfAnother(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	completed := time.Now().Add(-time.Hour).UTC()
	state := inPlaceState(map[string]any{}, map[string]any{
		"completed_at":         completed.Format(time.RFC3339),
		"replaced_disks":       []any{map[string]any{"label": "Hard disk 1", "path": "[a] b.vmdk", "replaced_by": "[a] c.vmdk"}},
		"replaced_disks_until": completed.Add(24 * time.Hour).Format(time.RFC3339),
	})
	p := r.plan("vm_restore", state, map[string]any{"backup_id": "a", "in_place": map[string]any{}}, "")
	noErrors(t, p.diagnostics)
	expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, "")
	if !p.unchanged {
		t.Error("disks that are not due are planned to be deleted")
	}
	p = r.plan("vm_restore", state, map[string]any{"backup_id": "a", "in_place": map[string]any{"keep_replaced_disks": "1m"}}, "")
	expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, "Replaced Disks Are Due: ")
}

// TestPlanRestoreInPlaceOfUnknown says that what isn't known yet has the restore done again.
func TestPlanRestoreInPlaceOfUnknown(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	const summary = "] Restore Again Because of What Is Not Known Yet: "
	for name, c := range map[string]struct {
		config map[string]any
		want   string
	}{
		"backup":   {map[string]any{"backup_id": unknown{}, "in_place": map[string]any{}}, `[AttributeName("backup_id")` + summary},
		"disks":    {map[string]any{"backup_id": "a", "in_place": map[string]any{}, "only_disks": []any{unknown{}}}, `[AttributeName("only_disks")` + summary},
		"triggers": {map[string]any{"backup_id": "a", "in_place": map[string]any{}, "triggers": map[string]any{"x": unknown{}}}, `[AttributeName("triggers")` + summary},
		"VM":       {map[string]any{"backup_id": "a", "in_place": map[string]any{"vm": unknown{}}}, `[AttributeName("in_place").AttributeName("vm")` + summary},
		"nothing":  {map[string]any{"backup_id": "a", "in_place": map[string]any{}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := r.plan("vm_restore", inPlaceState(map[string]any{}, nil), c.config, "")
			noErrors(t, p.diagnostics)
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, c.want)
			if (len(p.replace) > 0) != (c.want != "") {
				t.Errorf("replaces because of %v", p.replace)
			}
		})
	}
	// The first restore is done in any case.
	p := r.plan("vm_restore", nil, map[string]any{"backup_id": unknown{}, "in_place": map[string]any{}}, "")
	expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, "")
}

// TestPlanRevertToUnknown says that it can't be shown what a revert loses.
func TestPlanRevertToUnknown(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for name, v := range map[string]any{"snapshot_id": unknown{}, "snapshot_ids": []any{unknown{}}} {
		p := r.plan("vm_restore", nil, map[string]any{name: v}, "")
		noErrors(t, p.diagnostics)
		expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityWarning, `[AttributeName("`+name+`")] Revert to What Is Not Known Yet`)
	}
}

// TestPlanSameNewVM writes new_vm in another way: what asks for the same VM doesn't take away the one that there is.
func TestPlanSameNewVM(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	copied := func(name string, value any) map[string]any {
		return map[string]any{"name": "c", "identity": "copy", name: value}
	}
	for name, c := range map[string]struct {
		was, is     any
		wantReplace bool
	}{
		"nothing":           {was: nil, is: map[string]any{}},
		"the default":       {was: nil, is: map[string]any{"identity": "original", "network_map": map[string]any{}}},
		"no longer written": {was: map[string]any{"identity": "original"}, is: nil},
		"no maps":           {was: copied("network_map", nil), is: copied("disk_datastores", map[string]any{})},
		"not connected":     {was: copied("connect_networks", nil), is: copied("connect_networks", false)},
		"connected":         {was: copied("connect_networks", nil), is: copied("connect_networks", true), wantReplace: true},
		"original's networks": {
			was: map[string]any{}, is: map[string]any{"connect_networks": false}, wantReplace: true,
		},
		"a map":           {was: copied("network_map", nil), is: copied("network_map", map[string]any{"a": "b"}), wantReplace: true},
		"another name":    {was: copied("name", "c"), is: copied("name", "d"), wantReplace: true},
		"a name to come":  {was: copied("name", "c"), is: copied("name", unknown{}), wantReplace: true},
		"a map to come":   {was: copied("network_map", nil), is: copied("network_map", unknown{}), wantReplace: true},
		"all of it":       {was: nil, is: unknown{}, wantReplace: true},
		"another's place": {was: nil, is: map[string]any{"folder": "/DC0/vm/x"}, wantReplace: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := inPlaceState(nil, nil)
			state["in_place"], state["new_vm"] = nil, c.was
			p := r.plan("vm_restore", state, map[string]any{"backup_id": "a", "new_vm": c.is}, "")
			noErrors(t, p.diagnostics)
			if got := len(p.replace) > 0; got != c.wantReplace {
				t.Errorf("replaces because of %v, want it to: %v", p.replace, c.wantReplace)
			}
		})
	}
}
