package provider

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, nil)
	off := map[string]any{"mode": "off"}
	on := map[string]any{"mode": "preferred"}
	for name, c := range map[string]struct {
		resource string
		config   map[string]any
		want     string
	}{
		"memory and quiesce":    {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "memory": true, "quiesce": on}, `[AttributeName("quiesce")] Conflicting Arguments`},
		"memory, quiesce off":   {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "memory": true, "quiesce": off}, ""},
		"shutdown and memory":   {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "memory": true, "shutdown": true}, `[AttributeName("memory")] Conflicting Arguments`},
		"shutdown and quiesce":  {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "quiesce": on, "shutdown": true}, `[AttributeName("quiesce")] Conflicting Arguments`},
		"unknown quiesce":       {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "memory": true, "quiesce": unknown{}}, ""},
		"keep and its children": {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "on_destroy": map[string]any{"action": "keep", "remove_children": true}}, "A snapshot that is kept keeps its children"},
		"quiesce mode":          {"vm_backup", map[string]any{"vm": "a", "quiesce": map[string]any{"mode": "always"}}, `value must be one of`},
		"quiesce timeout":       {"vm_backup", map[string]any{"vm": "a", "quiesce": map[string]any{"mode": "required", "timeout": "soon"}}, `"soon" is not a duration above zero`},
		"max_age":               {"vm_snapshot", map[string]any{"vm": "a", "name": "b", "max_age": "-1h"}, `[AttributeName("max_age")] Invalid Duration`},
		"on_destroy of backup":  {"vm_backup", map[string]any{"vm": "a", "on_destroy": "keep"}, `value must be one of`},
		"on_destroy of restore": {"vm_restore", map[string]any{"backup_id": "a", "on_destroy": "retain"}, `value must be one of`},
		"identity":              {"vm_restore", map[string]any{"backup_id": "a", "new_vm": map[string]any{"identity": "clone"}}, `value must be one of`},
		"empty vm":              {"vm_backup", map[string]any{"vm": ""}, `[AttributeName("vm")]`},
		"no disks excluded":     {"vm_backup", map[string]any{"vm": "a", "exclude_disks": []any{}}, `[AttributeName("exclude_disks")]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, r.validate(c.resource, c.config), tfprotov6.DiagnosticSeverityError, c.want)
		})
	}
}

func TestPlanRestoreOnDestroy(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	for name, c := range map[string]struct {
		config map[string]any
		want   string
	}{
		"where it was":         {nil, "keep"},
		"original identity":    {map[string]any{"new_vm": map[string]any{"name": "x"}}, "keep"},
		"copy":                 {map[string]any{"new_vm": map[string]any{"name": "x", "identity": "copy"}}, "delete"},
		"copy, said otherwise": {map[string]any{"new_vm": map[string]any{"identity": "copy"}, "on_destroy": "keep"}, "keep"},
	} {
		config := map[string]any{"backup_id": unknown{}}
		for k, v := range c.config {
			config[k] = v
		}
		p := r.plan("vm_restore", nil, config, "")
		noErrors(t, p.diagnostics)
		if got := p.text(t, "on_destroy"); got != c.want {
			t.Errorf("%s: on_destroy is planned as %q, want %q", name, got, c.want)
		}
	}
}

func TestProviderConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config map[string]any
		want   []string
	}{
		"nothing": {config: map[string]any{}},
		"all values missing": {
			config: map[string]any{"vsphere": map[string]any{}, "repository": map[string]any{}},
			want: []string{
				`[AttributeName("vsphere").AttributeName("server")] Missing Provider Argument: Set vsphere.server in the ` +
					`provider block, or the environment variable VSPHERE_SERVER.`,
				"VSPHERE_USER", "VSPHERE_PASSWORD", "VM_REPOSITORY_PATH", "VM_REPOSITORY_PASSWORD",
			},
		},
		"conflict": {
			config: map[string]any{"vsphere": map[string]any{
				"server": "s", "user": "u", "password": "p", "thumbprint": strings.Repeat("ab", 32), "allow_unverified_ssl": true}},
			want: []string{"Invalid Attribute Combination"},
		},
		"thumbprint": {
			config: map[string]any{"vsphere": map[string]any{"server": "s", "user": "u", "password": "p", "thumbprint": "ab:cd"}},
			want:   []string{"Invalid Thumbprint"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := show(newRPC(t, nil, nil).configure(c.config), tfprotov6.DiagnosticSeverityError)
			if len(c.want) == 0 && got != "" {
				t.Errorf("unexpected errors:\n%s", got)
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("errors:\n%s\nwant: %s", got, want)
				}
			}
		})
	}
}

func TestOneLoginPerProvider(t *testing.T) {
	t.Parallel()
	for name, connectError := range map[string]error{"success": nil, "wrong password": hypervisor.ErrLogin} {
		r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, connectError)
		noErrors(t, r.configure(vsphereBlock()))
		done := make(chan struct{})
		for range 20 {
			go func() {
				defer func() { done <- struct{}{} }()
				r.plan("vm_snapshot", nil, map[string]any{"vm": "web01", "name": "before"}, "")
			}()
		}
		for range 20 {
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("plans don't end")
			}
		}
		if n := r.dials.Load(); n != 1 {
			t.Errorf("%s: %d logins for 20 resources, want 1", name, n)
		}
	}
}
