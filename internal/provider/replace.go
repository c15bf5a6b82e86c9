package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setplanmodifier"
)

// importedKey marks, in a resource's private state, that it was imported and never changed since. What
// can't be read back from the hypervisor, such as how the guest was asked to quiesce, is null in the
// state then. To write it into the configuration must not replace what was imported: that would
// throw away the very snapshot that was to be kept.
const importedKey = "imported"

// privateState is the part of a resource's private state that belongs to the provider.
type privateState interface {
	GetKey(ctx context.Context, key string) ([]byte, diag.Diagnostics)
}

func imported(ctx context.Context, private privateState) bool {
	value, _ := private.GetKey(ctx, importedKey)
	return string(value) == "true"
}

const replaceDescription = "A change takes a new one, except for what was unknown of an imported one."

func replaceObject() planmodifier.Object {
	return objectplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.ObjectRequest, resp *objectplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !req.StateValue.IsNull() || !imported(ctx, req.Private)
	}, replaceDescription, replaceDescription)
}

func replaceMap() planmodifier.Map {
	return mapplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.MapRequest, resp *mapplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !req.StateValue.IsNull() || !imported(ctx, req.Private)
	}, replaceDescription, replaceDescription)
}

func replaceSet() planmodifier.Set {
	return setplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.SetRequest, resp *setplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !req.StateValue.IsNull() || !imported(ctx, req.Private)
	}, replaceDescription, replaceDescription)
}

// replaceBool is for flags that default to false.
func replaceBool() planmodifier.Bool {
	return boolplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.BoolRequest, resp *boolplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = req.StateValue.ValueBool() || !imported(ctx, req.Private)
	}, replaceDescription, replaceDescription)
}
