package provider

import (
	"context"
	"fmt"

	datasource "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/list"
	listschema "github.com/hashicorp/terraform-plugin-framework/list/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// listAttributes are arguments of a data source as those of a list resource.
func listAttributes(arguments map[string]datasource.Attribute) map[string]listschema.Attribute {
	attributes := make(map[string]listschema.Attribute, len(arguments))
	for name, one := range arguments {
		switch a := one.(type) {
		case datasource.StringAttribute:
			attributes[name] = listschema.StringAttribute{
				MarkdownDescription: a.MarkdownDescription, Required: a.Required, Optional: a.Optional, Validators: a.Validators,
			}
		case datasource.MapAttribute:
			attributes[name] = listschema.MapAttribute{
				MarkdownDescription: a.MarkdownDescription, Required: a.Required, Optional: a.Optional, Validators: a.Validators,
				ElementType: a.ElementType,
			}
		default:
			panic(fmt.Sprintf("argument %s is of a kind that list resources don't have: %T", name, one))
		}
	}
	return attributes
}

// nullAttributes is an object of a type of which every attribute is null. A model that is read from it has nulls of the
// right types, which those that Go makes are not.
func nullAttributes(typ tftypes.Type, diags *diag.Diagnostics) tftypes.Value {
	object, ok := typ.(tftypes.Object)
	if !ok {
		diags.AddError("Unexpected Resource Type", fmt.Sprintf("A resource is a %s. This is a bug in the provider.", typ))
		return tftypes.NewValue(typ, nil)
	}
	attributes := make(map[string]tftypes.Value, len(object.AttributeTypes))
	for name, typ := range object.AttributeTypes {
		attributes[name] = tftypes.NewValue(typ, nil)
	}
	return tftypes.NewValue(object, attributes)
}

// emptyResource reads into a model of a resource, which target points to, that all of it is null.
func emptyResource(ctx context.Context, r *tfsdk.Resource, target any) (diags diag.Diagnostics) {
	r.Raw = nullAttributes(r.Raw.Type(), &diags)
	diags.Append(r.Get(ctx, target)...)
	return diags
}

// failed is a result that says why there is no other.
func failed(diags diag.Diagnostics) list.ListResult { return list.ListResult{Diagnostics: diags} }
