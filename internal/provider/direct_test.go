package provider

import (
	"context"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// rpc serves a provider of the world's environment to a test that speaks Terraform's protocol itself: for tables
// in which every row would be several runs of the CLI.
func (w *world) rpc() *rpc {
	w.t.Helper()
	p := New("test")
	p.getenv = w.getenv
	w.t.Cleanup(func() { p.Close(context.Background()) }) // the test's own context has ended
	server := p.server()
	schema, err := server.GetProviderSchema(w.t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	r := &rpc{t: w.t, server: server, schema: schema}
	noErrors(w.t, r.configure(map[string]any{
		"vsphere": map[string]any{"thumbprint": w.lab.Fingerprint()}, "repository": map[string]any{},
	}))
	return r
}

// A made is what an apply gave.
type made struct {
	diagnostics []*tfprotov6.Diagnostic
	state       tftypes.Value // null: nothing is in the state
	private     []byte
}

func (m made) failed() bool { return show(m.diagnostics, tfprotov6.DiagnosticSeverityError) != "" }

func (m made) attributes(t *testing.T) planned {
	t.Helper()
	var p planned
	if err := m.state.As(&p.attributes); err != nil {
		t.Fatal(err)
	}
	return p
}

// apply plans and applies a resource that isn't there yet.
func (r *rpc) apply(ctx context.Context, resource string, config map[string]any) made {
	r.t.Helper()
	typ := r.schema.ResourceSchemas[resource].ValueType()
	none, written := r.dynamic(tftypes.NewValue(typ, nil)), r.dynamic(r.value(typ, config))
	if d := r.validate(resource, config); show(d, tfprotov6.DiagnosticSeverityError) != "" {
		return made{diagnostics: d, state: tftypes.NewValue(typ, nil)}
	}
	plan, err := r.server.PlanResourceChange(ctx, &tfprotov6.PlanResourceChangeRequest{
		TypeName: resource, PriorState: none, Config: written, ProposedNewState: written,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if show(plan.Diagnostics, tfprotov6.DiagnosticSeverityError) != "" {
		return made{diagnostics: plan.Diagnostics, state: tftypes.NewValue(typ, nil)}
	}
	done, err := r.server.ApplyResourceChange(ctx, &tfprotov6.ApplyResourceChangeRequest{
		TypeName: resource, PriorState: none, Config: written, PlannedState: plan.PlannedState, PlannedPrivate: plan.PlannedPrivate,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return made{
		diagnostics: append(plan.Diagnostics, done.Diagnostics...), state: r.undynamic(typ, done.NewState), private: done.Private,
	}
}

// destroy destroys what an apply made.
func (r *rpc) destroy(ctx context.Context, resource string, m made) []*tfprotov6.Diagnostic {
	r.t.Helper()
	typ := r.schema.ResourceSchemas[resource].ValueType()
	none := r.dynamic(tftypes.NewValue(typ, nil))
	done, err := r.server.ApplyResourceChange(ctx, &tfprotov6.ApplyResourceChangeRequest{
		TypeName: resource, PriorState: r.dynamic(m.state), Config: none, PlannedState: none, PlannedPrivate: m.private,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return done.Diagnostics
}
