package provider

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// toPlan reads what a ModifyPlan has to judge: what is planned, and what the state says; nil: nothing is there yet. It
// reports whether there is anything to judge: not while the provider isn't configured, nor of what is to be destroyed.
func toPlan[M any](
	ctx context.Context, s *session, req resource.ModifyPlanRequest, diags *diag.Diagnostics,
) (plan M, state *M, ok bool) {
	if s == nil || req.Plan.Raw.IsNull() {
		return plan, nil, false
	}
	diags.Append(req.Plan.Get(ctx, &plan)...)
	if !req.State.Raw.IsNull() {
		state = new(M)
		diags.Append(req.State.Get(ctx, state)...)
	}
	return plan, state, !diags.HasError()
}

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

// adopted notes that an update was successful: from now on all arguments are what was written.
func adopted(ctx context.Context, resp *resource.UpdateResponse) {
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("false"))...)
	}
}

const replaceDescription = "A change takes a new one, except for what was unknown of an imported one."

// replaceObject is for objects that mean what others mean, too: same tells whether two do.
func replaceObject(same func(ctx context.Context, plan, state types.Object) bool) planmodifier.Object {
	return objectplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.ObjectRequest, resp *objectplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		if fullyKnown(ctx, req.PlanValue) && same(ctx, req.PlanValue, req.StateValue) {
			return
		}
		resp.RequiresReplace = !imported(ctx, req.Private) || contradicts(req.PlanValue, req.StateValue)
	}, replaceDescription, replaceDescription)
}

// contradicts reports whether what is planned can't be what an import has found: an attribute that is in both is
// another one.
func contradicts(plan, found types.Object) bool {
	if found.IsNull() {
		return false
	}
	planned := plan.Attributes()
	for name, value := range found.Attributes() {
		if other, ok := planned[name]; !ok || !value.IsNull() && !other.IsNull() && !other.Equal(value) {
			return true
		}
	}
	return false
}

func replaceMap() planmodifier.Map {
	return mapplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.MapRequest, resp *mapplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !bothEmpty(req.PlanValue, req.StateValue) && (!req.StateValue.IsNull() || !imported(ctx, req.Private))
	}, replaceDescription, replaceDescription)
}

// bothEmpty reports whether each of two maps is empty or null, of which one is as good as the other.
func bothEmpty(plan, state types.Map) bool {
	return !plan.IsUnknown() && len(plan.Elements()) == 0 && len(state.Elements()) == 0
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

// replaceUnlessImported is for texts of which an import can only assume what they were.
func replaceUnlessImported() planmodifier.String {
	return stringplanmodifier.RequiresReplaceIf(func(
		ctx context.Context, req planmodifier.StringRequest, resp *stringplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !imported(ctx, req.Private)
	}, replaceDescription, replaceDescription)
}

const replaceOtherDescription = "A change takes a new one, except between nothing and what is empty."

// replaceOtherText is for texts of which an empty one is as good as none.
func replaceOtherText() planmodifier.String {
	return stringplanmodifier.RequiresReplaceIf(func(
		_ context.Context, req planmodifier.StringRequest, resp *stringplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = req.PlanValue.IsUnknown() || req.PlanValue.ValueString() != req.StateValue.ValueString()
	}, replaceOtherDescription, replaceOtherDescription)
}

// replaceOtherMap is for maps of which an empty one is as good as none.
func replaceOtherMap() planmodifier.Map {
	return mapplanmodifier.RequiresReplaceIf(func(
		_ context.Context, req planmodifier.MapRequest, resp *mapplanmodifier.RequiresReplaceIfFuncResponse,
	) {
		resp.RequiresReplace = !bothEmpty(req.PlanValue, req.StateValue)
	}, replaceOtherDescription, replaceOtherDescription)
}

// sameJSON keeps a text in the state while another object or array of the same meaning is written in JSON. In
// configuration that Terraform generates, a text that is one is a call of jsonencode, which sorts keys: descriptions that
// programs wrote would be changed by their import. A number, such as the ID of a build, is a text like any other.
type sameJSON struct{}

var _ planmodifier.String = sameJSON{}

func (sameJSON) Description(context.Context) string {
	return "JSON of the same meaning is no change."
}

func (m sameJSON) MarkdownDescription(ctx context.Context) string { return m.Description(ctx) }

func (sameJSON) PlanModifyString(
	_ context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse,
) {
	was, ok := compoundJSON(req.StateValue.ValueString())
	if is, also := compoundJSON(req.PlanValue.ValueString()); ok && also && reflect.DeepEqual(was, is) {
		resp.PlanValue = req.StateValue
	}
}

// compoundJSON reads a text that is an object or an array in JSON, and nothing else. Numbers stay what is written:
// as they are, two that are far apart can be the same.
func compoundJSON(text string) (value any, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&value) != nil || d.More() {
		return nil, false
	}
	switch value.(type) {
	case map[string]any, []any:
	default:
		return nil, false
	}
	_, err := d.Token()
	return value, errors.Is(err, io.EOF)
}
