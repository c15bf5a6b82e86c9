package provider

import (
	"context"
	"encoding/json"
	"math/big"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// asked is the framework, and how many questions it was asked.
type asked struct {
	protocol
	n atomic.Int64
}

func (a *asked) ValidateResourceConfig(
	ctx context.Context, req *tfprotov6.ValidateResourceConfigRequest,
) (*tfprotov6.ValidateResourceConfigResponse, error) {
	a.n.Add(1)
	return a.protocol.ValidateResourceConfig(ctx, req)
}

func (a *asked) UpgradeResourceState(
	ctx context.Context, req *tfprotov6.UpgradeResourceStateRequest,
) (*tfprotov6.UpgradeResourceStateResponse, error) {
	a.n.Add(1)
	return a.protocol.UpgradeResourceState(ctx, req)
}

func (a *asked) ReadResource(
	ctx context.Context, req *tfprotov6.ReadResourceRequest,
) (*tfprotov6.ReadResourceResponse, error) {
	a.n.Add(1)
	return a.protocol.ReadResource(ctx, req)
}

func (a *asked) PlanResourceChange(
	ctx context.Context, req *tfprotov6.PlanResourceChangeRequest,
) (*tfprotov6.PlanResourceChangeResponse, error) {
	a.n.Add(1)
	return a.protocol.PlanResourceChange(ctx, req)
}

// A steadyWorld is a provider with one snapshot, and the framework's server within it.
type steadyWorld struct {
	*rpc
	framework protocol
	asked     *asked
	typ       tftypes.Type
	state     map[string]any // of the snapshot
}

const steadyType = "vm_snapshot"

func newSteadyWorld(t *testing.T) *steadyWorld {
	t.Helper()
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs(), snapshots: []hypervisor.Snapshot{{
		ID: "snapshot-1", Name: "before", CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		PowerState: hypervisor.PoweredOn, Path: "before", Depth: 1, Current: true, SizeBytes: 4096,
	}}}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	server, ok := r.server.(*steadyServer)
	if !ok {
		t.Fatalf("the server is a %T", r.server)
	}
	w := &steadyWorld{rpc: r, framework: server.protocol, asked: &asked{protocol: server.protocol}}
	server.protocol = w.asked
	w.typ = r.schema.ResourceSchemas[steadyType].ValueType()
	w.state = map[string]any{
		"id": web01Instance + "/snapshot-1", "vm": "web01", "name": "before", "memory": false, "shutdown": false,
		"consistency": "crash", "created_at": "2026-01-02T03:04:05Z", "power_state": "powered_on", "path": "before",
		"is_current": true, "chain_depth": 1, "size_bytes": 4096, "vm_uuid": web01UUID, "vm_instance_uuid": web01Instance,
		"server": "server-1",
	}
	return w
}

// with is the state with one attribute set to something else.
func (w *steadyWorld) with(name string, v any) map[string]any {
	state := map[string]any{}
	for k, old := range w.state {
		state[k] = old
	}
	state[name] = v
	return state
}

// identity is that of the snapshot.
func (w *steadyWorld) identity(snapshot string) *tfprotov6.ResourceIdentityData {
	text := func(s string) tftypes.Value { return tftypes.NewValue(tftypes.String, s) }
	typ := tftypes.Object{AttributeTypes: map[string]tftypes.Type{
		"vm_instance_uuid": tftypes.String, "snapshot_id": tftypes.String,
	}}
	return &tfprotov6.ResourceIdentityData{IdentityData: w.dynamic(tftypes.NewValue(typ, map[string]tftypes.Value{
		"vm_instance_uuid": text(web01Instance), "snapshot_id": text(snapshot),
	}))}
}

// same compares what the steady server and the framework answered.
func (w *steadyWorld) same(what string, got, want any) {
	w.t.Helper()
	if !reflect.DeepEqual(got, want) {
		w.t.Errorf("%s: the answer isn't the framework's", what)
	}
}

// both asks the steady server and the framework, and reports whether the former knew the answer.
func both[Req, Resp any](
	w *steadyWorld, req Req, of func(tfprotov6.ResourceServer, context.Context, Req) (Resp, error),
) (got, want Resp, known bool) {
	w.t.Helper()
	before := w.asked.n.Load()
	got, err := of(w.server, w.t.Context(), req)
	known = w.asked.n.Load() == before
	want, wantErr := of(w.framework, w.t.Context(), req)
	if err != nil || wantErr != nil {
		w.t.Fatal(err, wantErr)
	}
	return got, want, known
}

func (w *steadyWorld) validate(what string, config map[string]any) bool {
	w.t.Helper()
	got, want, known := both(w, &tfprotov6.ValidateResourceConfigRequest{
		TypeName: steadyType, Config: w.dynamic(w.value(w.typ, config)),
	}, tfprotov6.ResourceServer.ValidateResourceConfig)
	w.same("validate "+what, got, want)
	return known
}

func (w *steadyWorld) read(what string, req *tfprotov6.ReadResourceRequest) bool {
	w.t.Helper()
	got, want, known := both(w, req, tfprotov6.ResourceServer.ReadResource)
	w.same("read "+what, got, want)
	return known
}

func (w *steadyWorld) plan(what string, req *tfprotov6.PlanResourceChangeRequest) bool {
	w.t.Helper()
	got, want, known := both(w, req, tfprotov6.ResourceServer.PlanResourceChange)
	w.same("plan "+what, got, want)
	return known
}

func (w *steadyWorld) upgrade(what string, version int64, state any) bool {
	w.t.Helper()
	raw, err := json.Marshal(state)
	if err != nil {
		w.t.Fatal(err)
	}
	got, want, known := both(w, &tfprotov6.UpgradeResourceStateRequest{
		TypeName: steadyType, Version: version, RawState: &tfprotov6.RawState{JSON: raw},
	}, tfprotov6.ResourceServer.UpgradeResourceState)
	w.same("diagnostics of upgrade "+what, got.Diagnostics, want.Diagnostics)
	if want.UpgradedState != nil {
		w.same("upgrade "+what, w.undynamic(w.typ, got.UpgradedState).Equal(w.undynamic(w.typ, want.UpgradedState)), true)
	}
	return known
}

// config is what a configuration must say for a state to be proposed as it is: its arguments, or those without
// what has a default.
func (w *steadyWorld) config(state map[string]any, defaults bool) map[string]any {
	config := map[string]any{"timeouts": state["timeouts"]}
	for _, a := range w.schema.ResourceSchemas[steadyType].Block.Attributes {
		if a.Required || a.Optional && (!a.Computed || !defaults) {
			config[a.Name] = state[a.Name]
		}
	}
	return config
}

// TestSteady_framework asks of a snapshot, and of states in which one attribute is another, what a
// refresh asks: the answers are the framework's. What is as it was, it isn't asked.
func TestSteady_framework(t *testing.T) {
	t.Parallel()
	w := newSteadyWorld(t)
	others := map[string][]any{
		"memory": {true, nil}, "shutdown": {true, nil}, "is_current": {false, nil}, "chain_depth": {2, nil},
		"size_bytes": {big.NewFloat(1), nil}, "max_age": {"1h", "900000h"}, "triggers": {map[string]any{"a": "b"}},
		"quiesce":    {map[string]any{"mode": "require"}},
		"on_destroy": {map[string]any{"action": "keep"}},
		"timeouts":   {map[string]any{"read": "1m"}, map[string]any{"read": "nonsense"}},
		"id":         {web01Instance + "/snapshot-2", db01Instance + "/snapshot-1", nobodysUUID + "/snapshot-1", "", nil},
	}
	for _, a := range w.schema.ResourceSchemas[steadyType].Block.Attributes {
		if _, ok := others[a.Name]; !ok {
			others[a.Name] = []any{"something else", "", nil}
		}
	}
	check := func(what string, state map[string]any) (read, planned, upgraded bool) {
		encoded := w.dynamic(w.value(w.typ, state))
		read = w.read(what, &tfprotov6.ReadResourceRequest{TypeName: steadyType, CurrentState: encoded})
		known := w.read(what+", with its identity", &tfprotov6.ReadResourceRequest{
			TypeName: steadyType, CurrentState: encoded, CurrentIdentity: w.identity("snapshot-1"),
		})
		planned = w.plan(what, &tfprotov6.PlanResourceChangeRequest{
			TypeName: steadyType, PriorState: encoded, ProposedNewState: encoded, PriorIdentity: w.identity("snapshot-1"),
			Config: w.dynamic(w.value(w.typ, w.config(state, false))),
		})
		byDefault := w.plan(what+", by default", &tfprotov6.PlanResourceChangeRequest{
			TypeName: steadyType, PriorState: encoded, ProposedNewState: encoded,
			Config: w.dynamic(w.value(w.typ, w.config(state, true))),
		})
		full := map[string]any{}
		for name := range w.schema.ResourceSchemas[steadyType].ValueType().(tftypes.Object).AttributeTypes { //nolint:forcetypeassert // resources are objects
			full[name] = state[name]
		}
		return read && known, planned && byDefault, w.upgrade(what, 0, full)
	}
	if read, planned, upgraded := check("as it was", w.state); !read || !planned || !upgraded {
		t.Errorf("the framework was asked: read %t, planned %t, upgraded %t", !read, !planned, !upgraded)
	}
	for name, values := range others {
		for _, v := range values {
			check(name, w.with(name, v))
		}
	}
}

// TestSteady_declines leaves to the framework what a state alone doesn't tell.
func TestSteady_declines(t *testing.T) {
	t.Parallel()
	w := newSteadyWorld(t)
	state := w.dynamic(w.value(w.typ, w.state))
	none := w.dynamic(tftypes.NewValue(w.typ, nil))
	config := w.dynamic(w.value(w.typ, w.config(w.state, true)))
	private := []byte(`{"` + importedKey + `":"dHJ1ZQ=="}`)
	for what, req := range map[string]*tfprotov6.ReadResourceRequest{
		"imported":             {CurrentState: state, Private: private},
		"with other identity":  {CurrentState: state, CurrentIdentity: w.identity("snapshot-2")},
		"of another resource":  {CurrentState: w.dynamic(w.value(w.typ, w.with("id", nil)))},
		"with unknown in path": {CurrentState: w.dynamic(w.value(w.typ, w.with("path", unknown{})))},
	} {
		req.TypeName = steadyType
		if w.read(what, req) {
			t.Errorf("read %s: the framework wasn't asked", what)
		}
	}
	other := w.dynamic(w.value(w.typ, w.with("name", "another")))
	for what, req := range map[string]*tfprotov6.PlanResourceChangeRequest{
		"imported":  {PriorState: state, ProposedNewState: state, Config: config, PriorPrivate: private},
		"to change": {PriorState: state, ProposedNewState: other, Config: config},
		"to create": {PriorState: none, ProposedNewState: other, Config: other},
		"to delete": {PriorState: state, ProposedNewState: none, Config: none},
		"of none":   {PriorState: none, ProposedNewState: none, Config: none},
	} {
		req.TypeName = steadyType
		if w.plan(what, req) {
			t.Errorf("plan %s: the framework wasn't asked", what)
		}
	}
	full := func(name string, v any) map[string]any {
		state := map[string]any{name: v}
		for attribute := range w.typ.(tftypes.Object).AttributeTypes { //nolint:forcetypeassert // resources are objects
			if attribute != name {
				state[attribute] = w.state[attribute]
			}
		}
		return state
	}
	for what, state := range map[string]map[string]any{
		"with an attribute too many":        full("gone", "removed from the schema"),
		"with an attribute inside too many": full("on_destroy", map[string]any{"action": "keep", "gone": true}),
		"with attributes missing":           w.state,
	} {
		if w.upgrade(what, 0, state) {
			t.Errorf("upgrade %s: the framework wasn't asked", what)
		}
	}
	if w.upgrade("of another version", 1, full("name", "before")) {
		t.Error("upgrade of another version: the framework wasn't asked")
	}
}

// TestSteady_validate validates what can be written: the answers are the framework's. What is simple, it isn't asked.
func TestSteady_validate(t *testing.T) {
	t.Parallel()
	w := newSteadyWorld(t)
	values := map[string][]any{
		"memory": {true}, "shutdown": {true}, "is_current": {true}, "chain_depth": {1}, "size_bytes": {1},
		"max_age": {"1h", "-1h", "nonsense"}, "triggers": {map[string]any{"a": "b"}},
		"quiesce":    {map[string]any{"mode": "require"}, map[string]any{"mode": "nonsense"}},
		"on_destroy": {map[string]any{"action": "keep", "remove_children": true}},
		"timeouts":   {map[string]any{"read": "1m"}},
	}
	names := []string{"timeouts"}
	for _, a := range w.schema.ResourceSchemas[steadyType].Block.Attributes {
		names = append(names, a.Name)
	}
	with := func(name string, v any) map[string]any {
		config := map[string]any{"vm": "web01", "name": "before", "description": "before the upgrade"}
		config[name] = v
		return config
	}
	for what, config := range map[string]map[string]any{
		"simply": with("memory", true), "with an age": with("max_age", "1h"), "without description": with("description", nil),
	} {
		if !w.validate(what, config) {
			t.Errorf("validate %s: the framework was asked", what)
		}
	}
	for _, name := range names {
		for _, v := range append(values[name], nil, unknown{}) {
			w.validate(name, with(name, v))
		}
		if _, ok := values[name]; !ok {
			w.validate(name, with(name, "something"))
			w.validate(name, with(name, ""))
		}
	}
	contradicting := with("memory", true)
	contradicting["shutdown"] = true
	if w.validate("contradicting", contradicting) {
		t.Error("validate contradicting: the framework wasn't asked")
	}
}

// TestSteady_terraform plans a snapshot to which nothing has happened with a real Terraform: the framework isn't asked.
func TestSteady_terraform(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var frameworks []*asked
	factories := w.factories()
	serve := factories["vm"]
	factories["vm"] = func() (tfprotov6.ProviderServer, error) {
		server, err := serve()
		if steady, ok := server.(*steadyServer); ok {
			frameworks = append(frameworks, &asked{protocol: steady.protocol})
			steady.protocol = frameworks[len(frameworks)-1]
		}
		return server, err
	}
	config, first := w.provider()+snapshotConfig, 0
	resource.UnitTest(t, resource.TestCase{ProtoV6ProviderFactories: factories, Steps: []resource.TestStep{
		{Config: config},
		{Config: config, PlanOnly: true, PreConfig: func() { first = len(frameworks) }},
		{Config: config, PreConfig: func() {
			if first == 0 || len(frameworks) == first {
				t.Fatalf("%d providers in all, %d before the plan", len(frameworks), first)
			}
			for _, framework := range frameworks[first:] {
				if n := framework.n.Load(); n > 0 {
					t.Errorf("the framework was asked %d times", n)
				}
			}
		}},
	}})
}
