package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"sync"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// protocol is what the framework's server understands of Terraform's protocol.
type protocol interface {
	tfprotov6.ProviderServer
	tfprotov6.ListResourceServer
	tfprotov6.ActionServer
}

// A steadyServer answers by itself what a refresh asks of a resource that is as its state says: that nothing is
// wrong with it, nothing has happened to it, and nothing is planned. The framework takes each question apart into
// attributes and puts it together again, which is most of what a refresh of a thousand resources costs. Whatever
// is different in any way, and whatever fails, is left to the framework, which begins anew.
type steadyServer struct {
	protocol
	sessions *sessions
	kinds    func() map[string]steadyKind // by type of resource

	replacements replacements
}

// server makes what Terraform talks to.
func (p *Provider) server() tfprotov6.ProviderServer {
	framework := providerserver.NewProtocol6(p)()
	full, ok := framework.(protocol)
	if !ok {
		return framework
	}
	return &steadyServer{protocol: full, sessions: &p.sessions, kinds: sync.OnceValue(func() map[string]steadyKind {
		return map[string]steadyKind{"vm_snapshot": steadyAs[snapshotModel](new(snapshotResource))}
	})}
}

// UpgradeResourceState implements tfprotov6.ResourceServer: a state of this version needs no upgrade.
func (s *steadyServer) UpgradeResourceState(
	ctx context.Context, req *tfprotov6.UpgradeResourceStateRequest,
) (*tfprotov6.UpgradeResourceStateResponse, error) {
	if kind, ok := s.kinds()[req.TypeName]; ok && kind.isCurrent(req) {
		return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &tfprotov6.DynamicValue{JSON: req.RawState.JSON}}, nil
	}
	return s.protocol.UpgradeResourceState(ctx, req)
}

// ReadResource implements tfprotov6.ResourceServer.
func (s *steadyServer) ReadResource(
	ctx context.Context, req *tfprotov6.ReadResourceRequest,
) (*tfprotov6.ReadResourceResponse, error) {
	kind, ok := s.kinds()[req.TypeName]
	if session := s.sessions.newest(); ok && session != nil && len(req.Private) == 0 {
		if identity := kind.unchanged(ctx, session, req); identity != nil {
			return &tfprotov6.ReadResourceResponse{
				NewState: req.CurrentState, NewIdentity: &tfprotov6.ResourceIdentityData{IdentityData: identity},
			}, nil
		}
	}
	return s.protocol.ReadResource(ctx, req)
}

// msgpackNil is null in MessagePack.
const msgpackNil = 0xc0

// PlanResourceChange implements tfprotov6.ResourceServer. What Terraform proposes is the state with the
// configuration put over it; if that is the state, there is nothing to plan unless the resource has more to say.
func (s *steadyServer) PlanResourceChange(
	ctx context.Context, req *tfprotov6.PlanResourceChangeRequest,
) (*tfprotov6.PlanResourceChangeResponse, error) {
	ctx = s.replacements.context(ctx, req)
	kind, ok := s.kinds()[req.TypeName]
	if ok && s.sessions.newest() != nil && len(req.PriorPrivate) == 0 && kind.settled(ctx, req) {
		identity := req.PriorIdentity
		if identity == nil {
			identity = &tfprotov6.ResourceIdentityData{IdentityData: &tfprotov6.DynamicValue{MsgPack: []byte{msgpackNil}}}
		}
		return &tfprotov6.PlanResourceChangeResponse{PlannedState: req.ProposedNewState, PlannedIdentity: identity}, nil
	}
	resp, err := s.protocol.PlanResourceChange(ctx, req)
	if err == nil {
		s.warnOfReplacement(ctx, req, resp)
	}
	return resp, err
}

// A steadyModel is the model of a resource of which a steadyServer can tell that nothing has happened to it.
type steadyModel interface {
	// refresh reads what the state describes into the model, as Read does.
	refresh(ctx context.Context, s *session) error

	// settled reports whether a plan that proposes the state as it is comes out so: no default is another
	// value, and ModifyPlan has nothing to say.
	settled() bool

	// validate checks arguments against each other, as ValidateConfig does where none has anything inside.
	validate(ctx context.Context, diags *diag.Diagnostics)

	// who is the identity, a struct as for tfsdk.ResourceIdentity.Set.
	who() any
}

// A steadyKind is a type of resources that a steadyServer knows.
type steadyKind struct {
	version int64
	object  attr.Type
	wire    tftypes.Type
	model   func() steadyModel

	attributes map[string]schema.Attribute
	simple     map[string]bool // the attributes and blocks: whether there is nothing inside
}

// steadyAs makes the kind of a resource with the model M.
func steadyAs[M any, P interface {
	*M
	steadyModel
}](r resource.Resource) steadyKind {
	ctx := context.Background() // of a schema that is put together: there is nothing to wait for
	var made resource.SchemaResponse
	r.Schema(ctx, resource.SchemaRequest{}, &made)
	kind := steadyKind{
		version: made.Schema.Version, object: made.Schema.Type(), model: func() steadyModel { return P(new(M)) },
		attributes: made.Schema.Attributes, simple: map[string]bool{},
	}
	kind.wire = kind.object.TerraformType(ctx)
	if object, ok := kind.wire.(tftypes.Object); ok {
		for name, typ := range object.AttributeTypes {
			kind.simple[name] = typ.Is(tftypes.String) || typ.Is(tftypes.Bool) || typ.Is(tftypes.Number)
		}
	}
	return kind
}

// isCurrent reports whether a state is of this version, with exactly the attributes that there are.
func (k steadyKind) isCurrent(req *tfprotov6.UpgradeResourceStateRequest) bool {
	if req.Version != k.version || req.RawState == nil {
		return false
	}
	var attributes map[string]json.RawMessage
	if json.Unmarshal(req.RawState.JSON, &attributes) != nil || len(attributes) != len(k.simple) {
		return false
	}
	for name, value := range attributes {
		if simple, known := k.simple[name]; !known || !simple && string(value) != "null" {
			return false
		}
	}
	return true
}

// unchanged returns the identity of what a state describes, if that is as the state says; nil: it isn't, or
// can't be told.
func (k steadyKind) unchanged(ctx context.Context, s *session, req *tfprotov6.ReadResourceRequest) *tfprotov6.DynamicValue {
	before, after := k.model(), k.model()
	if !k.decode(ctx, req.CurrentState, before) || !k.decode(ctx, req.CurrentState, after) ||
		after.refresh(ctx, s) != nil || !reflect.DeepEqual(before, after) {
		return nil
	}
	identity, err := wireValue(ctx, after.who())
	if err != nil {
		return nil
	}
	if current := req.CurrentIdentity; current != nil && current.IdentityData != nil {
		if known, err := current.IdentityData.Unmarshal(identity.Type()); err != nil || !known.Equal(identity) {
			return nil
		}
	}
	encoded, err := tfprotov6.NewDynamicValue(identity.Type(), identity)
	if err != nil {
		return nil
	}
	return &encoded
}

// settled reports whether a state is what is planned.
func (k steadyKind) settled(ctx context.Context, req *tfprotov6.PlanResourceChangeRequest) bool {
	if req.PriorState == nil || req.ProposedNewState == nil || len(req.PriorState.MsgPack) == 0 ||
		!bytes.Equal(req.PriorState.MsgPack, req.ProposedNewState.MsgPack) {
		return false
	}
	model := k.model()
	return k.decode(ctx, req.PriorState, model) && model.settled()
}

// decode fills a model with a state, and reports whether it could: null has no attributes.
func (k steadyKind) decode(ctx context.Context, state *tfprotov6.DynamicValue, model steadyModel) bool {
	if state == nil {
		return false
	}
	raw, err := state.Unmarshal(k.wire)
	return err == nil && k.fill(ctx, raw, model)
}

// fill is decode for a value.
func (k steadyKind) fill(ctx context.Context, raw tftypes.Value, model steadyModel) bool {
	value, err := k.object.ValueFromTerraform(ctx, raw)
	if err != nil {
		return false
	}
	object, ok := value.(types.Object)
	if !ok {
		return false
	}
	attributes, into := object.Attributes(), reflect.ValueOf(model).Elem()
	for name, index := range fieldsOf(into.Type()) {
		field, value := into.FieldByIndex(index), reflect.ValueOf(attributes[name])
		if !value.IsValid() || !value.Type().AssignableTo(field.Type()) {
			return false
		}
		field.Set(value)
	}
	return true
}

// wireValue is a struct of attributes, such as an identity, as it goes over the wire.
func wireValue(ctx context.Context, model any) (tftypes.Value, error) {
	from := reflect.ValueOf(model)
	attributeTypes, attributes := map[string]tftypes.Type{}, map[string]tftypes.Value{}
	for name, index := range fieldsOf(from.Type()) {
		field, ok := from.FieldByIndex(index).Interface().(attr.Value)
		if !ok {
			continue
		}
		value, err := field.ToTerraformValue(ctx)
		if err != nil {
			return tftypes.Value{}, err
		}
		attributeTypes[name], attributes[name] = value.Type(), value
	}
	return tftypes.NewValue(tftypes.Object{AttributeTypes: attributeTypes}, attributes), nil
}

// modelFields are the fields of models by the names of their attributes, by type: map[string][]int.
var modelFields sync.Map

// fieldsOf returns where the fields of a model are, by the names of their attributes.
func fieldsOf(model reflect.Type) map[string][]int {
	if known, ok := modelFields.Load(model); ok {
		if fields, ok := known.(map[string][]int); ok {
			return fields
		}
	}
	fields := map[string][]int{}
	for _, field := range reflect.VisibleFields(model) {
		if name, ok := field.Tag.Lookup("tfsdk"); ok {
			fields[name] = field.Index
		}
	}
	modelFields.Store(model, fields)
	return fields
}
