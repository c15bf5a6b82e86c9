package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// ValidateResourceConfig implements tfprotov6.ResourceServer. Terraform asks it of every instance before each plan.
func (s *steadyServer) ValidateResourceConfig(
	ctx context.Context, req *tfprotov6.ValidateResourceConfigRequest,
) (*tfprotov6.ValidateResourceConfigResponse, error) {
	if kind, ok := s.kinds()[req.TypeName]; ok && kind.isValid(ctx, req.Config) {
		return new(tfprotov6.ValidateResourceConfigResponse), nil
	}
	return s.protocol.ValidateResourceConfig(ctx, req)
}

// isValid reports whether there is certainly nothing to say of a configuration: what is written in it is simple, and
// neither validators nor the model object.
func (k steadyKind) isValid(ctx context.Context, config *tfprotov6.DynamicValue) bool {
	if config == nil {
		return false
	}
	raw, err := config.Unmarshal(k.wire)
	if err != nil {
		return false
	}
	var values map[string]tftypes.Value
	if raw.As(&values) != nil || len(values) != len(k.simple) {
		return false
	}
	for name, value := range values {
		switch a := k.attributes[name]; {
		case value.IsNull():
			if a != nil && a.IsRequired() {
				return false
			}
		case !k.simple[name] || !a.IsRequired() && !a.IsOptional() || !accepts(ctx, a, path.Root(name), value):
			return false
		}
	}
	model := k.model()
	if !k.fill(ctx, raw, model) {
		return false
	}
	var diags diag.Diagnostics
	model.validate(ctx, &diags)
	return len(diags) == 0
}

// accepts reports whether a simple attribute takes a value. Those with validators of other kinds than for text
// are left to the framework.
func accepts(ctx context.Context, a schema.Attribute, at path.Path, value tftypes.Value) bool {
	switch a := a.(type) {
	case schema.StringAttribute:
		var text string
		if value.As(&text) != nil {
			return false
		}
		for _, v := range a.Validators {
			var resp validator.StringResponse
			v.ValidateString(ctx, validator.StringRequest{Path: at, PathExpression: at.Expression(), ConfigValue: types.StringValue(text)}, &resp)
			if len(resp.Diagnostics) > 0 {
				return false
			}
		}
		return a.CustomType == nil && a.DeprecationMessage == ""
	case schema.BoolAttribute:
		return len(a.Validators) == 0 && a.CustomType == nil && a.DeprecationMessage == ""
	}
	return false
}
