package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// fakeHypervisor answers what plans ask. Whatever else is called panics: a plan must not do it.
type fakeHypervisor struct {
	hypervisor.Hypervisor
	vms       []hypervisor.VM
	snapshots []hypervisor.Snapshot
}

func (f *fakeHypervisor) FindVM(_ context.Context, ref hypervisor.VMRef) (*hypervisor.VM, error) {
	var found []hypervisor.VM
	for _, vm := range f.vms {
		if slices.Contains([]string{string(vm.ID), vm.Name, vm.Path, vm.BIOSUUID, vm.InstanceUUID}, string(ref)) {
			found = append(found, vm)
		}
	}
	switch len(found) {
	case 0:
		return nil, &hypervisor.VMNotFoundError{Ref: string(ref), Where: "vcenter.example.com"}
	case 1:
		return &found[0], nil
	default:
		lines := make([]string, len(found))
		for i, vm := range found {
			lines[i] = vm.Path + " (" + vm.InstanceUUID + ")"
		}
		return nil, &hypervisor.AmbiguousVMError{Ref: ref, Matches: lines}
	}
}

func (f *fakeHypervisor) VMByInstanceUUID(ctx context.Context, uuid string) (*hypervisor.VM, error) {
	return f.FindVM(ctx, hypervisor.VMRef(uuid))
}

func (f *fakeHypervisor) Snapshots(context.Context, hypervisor.VMID) ([]hypervisor.Snapshot, error) {
	return f.snapshots, nil
}

func (f *fakeHypervisor) Server(context.Context) (string, error) { return "server-1", nil }
func (f *fakeHypervisor) Close(context.Context) error            { return nil }

const (
	web01UUID     = "4205a8a0-0000-4000-8000-000000000001"
	web01Instance = "5005a8a0-0000-4000-8000-000000000001"
	db01Instance  = "5005a8a0-0000-4000-8000-000000000002"
	nobodysUUID   = "4205a8a0-ffff-4fff-8fff-ffffffffffff"
)

func fakeVMs() []hypervisor.VM {
	return []hypervisor.VM{
		{ID: "vm-1", Name: "web01", Path: "/DC0/vm/web01", BIOSUUID: web01UUID, InstanceUUID: web01Instance, Server: "server-1"},
		{ID: "vm-2", Name: "db01", Path: "/DC0/vm/db01", BIOSUUID: "u2", InstanceUUID: db01Instance, Server: "server-1"},
		{ID: "vm-3", Name: "twin", Path: "/DC0/vm/a/twin", BIOSUUID: "u3", InstanceUUID: "i3", Server: "server-1"},
		{ID: "vm-4", Name: "twin", Path: "/DC0/vm/b/twin", BIOSUUID: "u4", InstanceUUID: "i4", Server: "server-1"},
	}
}

// unknown is a value that isn't known yet, for rpc.value.
type unknown struct{}

// rpc speaks Terraform's protocol with the provider, without Terraform.
type rpc struct {
	t      *testing.T
	server tfprotov6.ProviderServer
	schema *tfprotov6.GetProviderSchemaResponse
	dials  *atomic.Int32
}

// newRPC makes a provider on a hypervisor, or on an error of connecting to one.
func newRPC(t *testing.T, hv hypervisor.Hypervisor, connectError error) *rpc {
	t.Helper()
	p := New("test")
	dials := new(atomic.Int32)
	p.getenv = func(string) string { return "" }
	p.backends = backends{
		hypervisor: func(context.Context, settings, *slog.Logger) (hypervisor.Hypervisor, error) {
			dials.Add(1)
			return hv, connectError
		},
		repository: func(_ context.Context, s repositorySettings, _ bool) (*repository.Repository, error) {
			return nil, fmt.Errorf("open repository %s: %w", s.path, repository.ErrNoRepository)
		},
	}
	t.Cleanup(func() { p.Close(context.Background()) })
	server := providerserver.NewProtocol6(p)()
	schema, err := server.GetProviderSchema(t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	noErrors(t, schema.Diagnostics)
	return &rpc{t: t, server: server, schema: schema, dials: dials}
}

func noErrors(t *testing.T, diagnostics []*tfprotov6.Diagnostic) {
	t.Helper()
	if text := show(diagnostics, tfprotov6.DiagnosticSeverityError); text != "" {
		t.Fatalf("unexpected errors:\n%s", text)
	}
}

// show is the text of the diagnostics of one severity, with their paths.
func show(diagnostics []*tfprotov6.Diagnostic, severity tfprotov6.DiagnosticSeverity) string {
	var b strings.Builder
	for _, d := range diagnostics {
		if d.Severity != severity {
			continue
		}
		if d.Attribute != nil {
			fmt.Fprintf(&b, "[%s] ", d.Attribute)
		}
		fmt.Fprintf(&b, "%s: %s\n", d.Summary, d.Detail)
	}
	return b.String()
}

// value makes a value of a type: a map for an object or a map, a slice for a set, text, a number, a
// truth value, nil for null, unknown{} for unknown. Attributes that an object's map lacks are null.
func (r *rpc) value(typ tftypes.Type, v any) tftypes.Value {
	r.t.Helper()
	switch v.(type) {
	case nil:
		return tftypes.NewValue(typ, nil)
	case unknown:
		return tftypes.NewValue(typ, tftypes.UnknownValue)
	}
	switch typ := typ.(type) {
	case tftypes.Object:
		given, ok := v.(map[string]any)
		if !ok {
			r.t.Fatalf("%T for an object", v)
		}
		out := make(map[string]tftypes.Value, len(typ.AttributeTypes))
		for name, t := range typ.AttributeTypes {
			out[name] = r.value(t, given[name])
		}
		for name := range given {
			if _, ok := typ.AttributeTypes[name]; !ok {
				r.t.Fatalf("no attribute %q", name)
			}
		}
		return tftypes.NewValue(typ, out)
	case tftypes.Map:
		out := map[string]tftypes.Value{}
		for name, one := range v.(map[string]any) { //nolint:forcetypeassert // a test's own literal
			out[name] = r.value(typ.ElementType, one)
		}
		return tftypes.NewValue(typ, out)
	case tftypes.Set:
		var out []tftypes.Value
		for _, one := range v.([]any) { //nolint:forcetypeassert // a test's own literal
			out = append(out, r.value(typ.ElementType, one))
		}
		return tftypes.NewValue(typ, out)
	default:
		return tftypes.NewValue(typ, v)
	}
}

func (r *rpc) dynamic(v tftypes.Value) *tfprotov6.DynamicValue {
	r.t.Helper()
	d, err := tfprotov6.NewDynamicValue(v.Type(), v)
	if err != nil {
		r.t.Fatal(err)
	}
	return &d
}

func (r *rpc) undynamic(typ tftypes.Type, d *tfprotov6.DynamicValue) tftypes.Value {
	r.t.Helper()
	v, err := d.Unmarshal(typ)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// vsphereBlock is a provider block that says everything that is needed.
func vsphereBlock() map[string]any {
	return map[string]any{
		"vsphere":    map[string]any{"server": "vcenter.example.com", "user": "u", "password": "p"},
		"repository": map[string]any{"path": "/srv/backups", "password": "p"},
	}
}

func (r *rpc) configure(config map[string]any) []*tfprotov6.Diagnostic {
	r.t.Helper()
	v := r.value(r.schema.Provider.ValueType(), config)
	checked, err := r.server.ValidateProviderConfig(r.t.Context(), &tfprotov6.ValidateProviderConfigRequest{Config: r.dynamic(v)})
	if err != nil {
		r.t.Fatal(err)
	}
	if show(checked.Diagnostics, tfprotov6.DiagnosticSeverityError) != "" {
		return checked.Diagnostics
	}
	resp, err := r.server.ConfigureProvider(r.t.Context(), &tfprotov6.ConfigureProviderRequest{Config: r.dynamic(v)})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Diagnostics
}

func (r *rpc) validate(resource string, config map[string]any) []*tfprotov6.Diagnostic {
	r.t.Helper()
	v := r.value(r.schema.ResourceSchemas[resource].ValueType(), config)
	resp, err := r.server.ValidateResourceConfig(r.t.Context(), &tfprotov6.ValidateResourceConfigRequest{
		TypeName: resource, Config: r.dynamic(v),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Diagnostics
}

// A planned is what a plan says.
type planned struct {
	diagnostics []*tfprotov6.Diagnostic
	attributes  map[string]tftypes.Value
	replace     []string
	unchanged   bool
}

// plan plans a resource from a prior state (nil: there is none) to a configuration.
func (r *rpc) plan(resource string, prior, config map[string]any, private string) planned {
	r.t.Helper()
	typ := r.schema.ResourceSchemas[resource].ValueType()
	proposed := config
	if prior != nil {
		proposed = map[string]any{}
		for name, v := range config {
			proposed[name] = v
		}
		for _, a := range r.schema.ResourceSchemas[resource].Block.Attributes {
			if _, written := config[a.Name]; !written && a.Computed {
				proposed[a.Name] = prior[a.Name]
			}
		}
	}
	priorValue := tftypes.NewValue(typ, nil)
	if prior != nil {
		priorValue = r.value(typ, prior)
	}
	resp, err := r.server.PlanResourceChange(r.t.Context(), &tfprotov6.PlanResourceChangeRequest{
		TypeName: resource, PriorState: r.dynamic(priorValue), Config: r.dynamic(r.value(typ, config)),
		ProposedNewState: r.dynamic(r.value(typ, proposed)), PriorPrivate: []byte(private),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	out := planned{diagnostics: resp.Diagnostics, attributes: map[string]tftypes.Value{}}
	for _, p := range resp.RequiresReplace {
		out.replace = append(out.replace, p.String())
	}
	if resp.PlannedState != nil {
		v := r.undynamic(typ, resp.PlannedState)
		out.unchanged = v.Equal(priorValue)
		if err := v.As(&out.attributes); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

func (p planned) text(t *testing.T, name string) string {
	t.Helper()
	var s string
	if err := p.attributes[name].As(&s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

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
