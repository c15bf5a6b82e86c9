package provider

import (
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	resource "github.com/hashicorp/terraform-plugin-framework/resource/schema"
)

// ofResources are sentences in the descriptions of a resource's arguments that make no sense of an action's, which
// has no state.
var ofResources = []string{
	nextBackup,
	" It is changed in place.",
	" A change takes a new snapshot.",
	" A change takes a new backup.",
	" It is part of the backup: a change takes a new one.",
	" They are part of the backup: a change takes a new one.",
	" Replace this resource, with `triggers`, to take the next backup.",
	" What really happened is in `consistency`.",
	" Another way to write the same virtual machine is no change.",
}

// actionArguments makes arguments of a resource arguments of an action: those that are named, or all where none is.
func actionArguments(of map[string]resource.Attribute, names ...string) map[string]schema.Attribute {
	arguments := map[string]schema.Attribute{}
	if len(names) == 0 {
		for name := range of {
			names = append(names, name)
		}
	}
	for _, name := range names {
		arguments[name] = actionArgument(name, of[name])
	}
	return arguments
}

// actionArgument makes an argument of a resource one of an action. What has a default in the resource, which is filled
// in while a plan is made, is null in the action where it isn't written.
func actionArgument(name string, of resource.Attribute) schema.Attribute {
	if of == nil {
		panic(fmt.Sprintf("the resource has no argument %s", name))
	}
	text := of.GetMarkdownDescription()
	for _, sentence := range ofResources {
		text = strings.ReplaceAll(text, sentence, "")
	}
	switch a := of.(type) {
	case resource.StringAttribute:
		return schema.StringAttribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
		}
	case resource.BoolAttribute:
		return schema.BoolAttribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
		}
	case resource.Int64Attribute:
		return schema.Int64Attribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
		}
	case resource.SetAttribute:
		return schema.SetAttribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
			ElementType: a.ElementType,
		}
	case resource.MapAttribute:
		return schema.MapAttribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
			ElementType: a.ElementType,
		}
	case resource.SingleNestedAttribute:
		return schema.SingleNestedAttribute{
			MarkdownDescription: text, Required: a.Required, Optional: !a.Required, Validators: a.Validators,
			Attributes: actionArguments(a.Attributes),
		}
	default:
		panic(fmt.Sprintf("an argument such as %s (%T) is not known of actions", name, of))
	}
}
