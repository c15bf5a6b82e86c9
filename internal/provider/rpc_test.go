package provider

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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
	all       []hypervisor.VMSnapshots
	exist     error // what asking for a handle gives: nil if it exists, errGone if not
}

var errGone = errors.New("gone")

func (f *fakeHypervisor) exists() (bool, error) {
	if errors.Is(f.exist, errGone) {
		return false, nil
	}
	return f.exist == nil, f.exist
}

func (f *fakeHypervisor) VMExists(context.Context, hypervisor.VMID) (bool, error) { return f.exists() }

func (f *fakeHypervisor) SnapshotExists(context.Context, hypervisor.SnapshotID) (bool, error) {
	return f.exists()
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

func (f *fakeHypervisor) IdentifyVM(ctx context.Context, uuid string) (*hypervisor.VMIdentity, error) {
	vm, err := f.VMByInstanceUUID(ctx, uuid)
	if err != nil {
		return nil, err
	}
	identity := vm.Identity()
	return &identity, nil
}

func (f *fakeHypervisor) Snapshots(context.Context, hypervisor.VMID) ([]hypervisor.Snapshot, error) {
	return f.snapshots, nil
}

func (f *fakeHypervisor) SnapshotsBelow(context.Context, string) iter.Seq2[hypervisor.VMSnapshots, error] {
	return func(yield func(hypervisor.VMSnapshots, error) bool) {
		for _, one := range f.all {
			if !yield(one, nil) {
				return
			}
		}
	}
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
			return nil, fmt.Errorf("open repository %s: %w", s.path, repository.ErrNotMade)
		},
	}
	t.Cleanup(func() { p.Close(context.Background()) })
	server := p.server()
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

// value makes a value of a type: a map for an object or a map, a slice for a list or set, text, a number, a
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
	case tftypes.List:
		out := []tftypes.Value{}
		for _, one := range v.([]any) { //nolint:forcetypeassert // a test's own literal
			out = append(out, r.value(typ.ElementType, one))
		}
		return tftypes.NewValue(typ, out)
	case tftypes.Set:
		out := []tftypes.Value{}
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
