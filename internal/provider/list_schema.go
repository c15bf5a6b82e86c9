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

// emptyResource reads into a model of a resource, which target points to, that all of it is null: nulls that Go
// makes are not of the right types.
func emptyResource(ctx context.Context, r *tfsdk.Resource, target any) diag.Diagnostics {
	object, ok := r.Raw.Type().(tftypes.Object)
	if !ok {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Unexpected Resource Type", fmt.Sprintf("A resource is a %s. This is a bug in "+
			"the provider.", r.Raw.Type()))}
	}
	attributes := make(map[string]tftypes.Value, len(object.AttributeTypes))
	for name, typ := range object.AttributeTypes {
		attributes[name] = tftypes.NewValue(typ, nil)
	}
	r.Raw = tftypes.NewValue(object, attributes)
	return r.Get(ctx, target)
}

// failed is a result that says why there is no other.
func failed(diags diag.Diagnostics) list.ListResult { return list.ListResult{Diagnostics: diags} }
