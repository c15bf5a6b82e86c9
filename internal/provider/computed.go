package provider

import (
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"

	datasource "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	resource "github.com/hashicorp/terraform-plugin-framework/resource/schema"
)

// computedAttributes makes schema attributes of plain types, for the objects in computed lists of
// resources. Every attribute needs a description.
func computedAttributes(kinds map[string]attr.Type, descriptions map[string]string) map[string]resource.Attribute {
	attributes := make(map[string]resource.Attribute, len(kinds))
	for name, kind := range kinds {
		d := describe(name, descriptions)
		switch kind {
		case types.StringType:
			attributes[name] = resource.StringAttribute{MarkdownDescription: d, Computed: true}
		case types.Int64Type:
			attributes[name] = resource.Int64Attribute{MarkdownDescription: d, Computed: true}
		case types.BoolType:
			attributes[name] = resource.BoolAttribute{MarkdownDescription: d, Computed: true}
		default:
			panic(fmt.Sprintf("attribute %s has a type that is not plain: %s", name, kind))
		}
	}
	return attributes
}

// computedDataAttributes is computedAttributes for data sources. Maps of strings are plain enough.
func computedDataAttributes(kinds map[string]attr.Type, descriptions map[string]string) map[string]datasource.Attribute {
	attributes := make(map[string]datasource.Attribute, len(kinds))
	for name, kind := range kinds {
		d := describe(name, descriptions)
		switch {
		case kind == types.StringType:
			attributes[name] = datasource.StringAttribute{MarkdownDescription: d, Computed: true}
		case kind == types.Int64Type:
			attributes[name] = datasource.Int64Attribute{MarkdownDescription: d, Computed: true}
		case kind == types.BoolType:
			attributes[name] = datasource.BoolAttribute{MarkdownDescription: d, Computed: true}
		case kind == types.Float64Type:
			attributes[name] = datasource.Float64Attribute{MarkdownDescription: d, Computed: true}
		case kind.Equal(types.MapType{ElemType: types.StringType}):
			attributes[name] = datasource.MapAttribute{MarkdownDescription: d, Computed: true, ElementType: types.StringType}
		default:
			panic(fmt.Sprintf("attribute %s has a type that is not plain: %s", name, kind))
		}
	}
	return attributes
}

func describe(name string, descriptions map[string]string) string {
	d, ok := descriptions[name]
	if !ok {
		panic(fmt.Sprintf("attribute %s has no description", name))
	}
	return d
}
