package provider

import (
	"context"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// ValidateConfig refuses arguments that contradict each other.
func (r *snapshotSetResource) ValidateConfig(
	ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse,
) {
	var config snapshotSetModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if resp.Diagnostics.HasError() {
		return
	}
	conflict := func(at path.Path) {
		resp.Diagnostics.AddAttributeError(at, "Conflicting Arguments", memoryAndQuiesce)
	}
	if config.Memory.ValueBool() && quiesceWanted(ctx, config.Quiesce, &resp.Diagnostics) {
		conflict(path.Root("quiesce"))
	}
	for i, member := range config.members(ctx, &resp.Diagnostics) {
		if config.Memory.ValueBool() && quiesceWanted(ctx, member.Quiesce, &resp.Diagnostics) {
			conflict(path.Root("members").AtListIndex(i).AtName("quiesce"))
		}
	}
	(&snapshotResource{}).validateOnDestroy(ctx, snapshotModel{OnDestroy: config.OnDestroy}, &resp.Diagnostics)
}

// ModifyPlan checks what can be checked before anything is touched, replaces a set that lost snapshots, and
// judges a change of the members by what they refer to.
func (r *snapshotSetResource) ModifyPlan(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	plan, state, ok := toPlan[snapshotSetModel](ctx, r.session, req, &resp.Diagnostics)
	if !ok {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	if state == nil {
		r.planCreate(ctx, plan, &resp.Diagnostics)
		return
	}
	r.planMembers(ctx, *state, plan, req, resp)
	r.planLost(ctx, *state, resp)
}

func (r *snapshotSetResource) planCreate(ctx context.Context, plan snapshotSetModel, diags *diag.Diagnostics) {
	if !fullyKnown(ctx, plan.Members) || !fullyKnown(ctx, plan.Quiesce) || plan.Memory.IsUnknown() {
		return
	}
	op := setOperation("Plan", "")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	plan.Name = knownName(plan.Name)
	_, texts, err := m.CheckSet(ctx, plan.request(ctx, diags))
	warnings(diags, "Snapshot Set With Reservations", texts)
	if err != nil {
		op.failPlan(ctx, diags, err)
	}
}

// planLost replaces a set of which snapshots are gone: it isn't the moment of all members any more.
func (r *snapshotSetResource) planLost(
	ctx context.Context, state snapshotSetModel, resp *resource.ModifyPlanResponse,
) {
	var lost []string
	for _, s := range state.snapshots(ctx, &resp.Diagnostics) {
		if !s.Exists.ValueBool() {
			lost = append(lost, s.VMPath.ValueString())
		}
	}
	if len(lost) == 0 {
		return
	}
	resp.Diagnostics.AddWarning("Snapshot Set Is Incomplete", "The snapshots of these virtual machines are gone:\n  "+
		strings.Join(lost, "\n  ")+"\n\nThe set is all or nothing: what is left of it is removed, and a new one taken. To keep "+
		"what is left, remove the resource from the state with \"terraform state rm\".")
	for name, value := range map[string]attr.Value{
		"id": types.StringUnknown(), "created_at": types.StringUnknown(), "skew_seconds": types.Float64Unknown(),
		"snapshot_ids": types.ListUnknown(types.StringType),
		"snapshots":    types.ListUnknown(types.ObjectType{AttrTypes: setSnapshotTypes}),
	} {
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root(name), value)...)
	}
	resp.RequiresReplace.Append(path.Root("snapshots"))
}

// planMembers judges a change of the members: another way to write the same VMs keeps the value in the state,
// so that nothing is planned because of it; everything else takes a new set. Of an imported one it isn't known
// how it was taken.
func (r *snapshotSetResource) planMembers(
	ctx context.Context, state, plan snapshotSetModel, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	at := path.Root("members")
	if plan.Members.Equal(state.Members) {
		return
	}
	if !fullyKnown(ctx, plan.Members) {
		resp.RequiresReplace.Append(at)
		return
	}
	was, is := state.members(ctx, &resp.Diagnostics), plan.members(ctx, &resp.Diagnostics)
	taken := state.snapshots(ctx, &resp.Diagnostics)
	if len(was) != len(is) || len(was) != len(taken) {
		resp.RequiresReplace.Append(at)
		return
	}
	unsure := imported(ctx, req.Private)
	for i := range is {
		// What isn't known of an imported one was unknown only while it was null.
		how := (is[i].Order.ValueInt64() == was[i].Order.ValueInt64() || unsure && was[i].Order.IsNull()) &&
			(is[i].Quiesce.Equal(was[i].Quiesce) || unsure && was[i].Quiesce.IsNull())
		same, err := r.session.sameVM(ctx, is[i].VM.ValueString(), vmRecord{
			Written: was[i].VM.ValueString(), InstanceUUID: taken[i].VMInstanceUUID.ValueString(),
			BIOSUUID: taken[i].VMUUID.ValueString(), Path: taken[i].VMPath.ValueString(),
		})
		switch {
		case err != nil:
			op := setOperation("Plan", "")
			op.paths[argVM] = at.AtListIndex(i).AtName("vm")
			op.fail(ctx, &resp.Diagnostics, err)
			return
		case !same || !how:
			resp.RequiresReplace.Append(at)
			return
		}
		is[i].VM = was[i].VM
	}
	members, diags := setMembersValue(ctx, is)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, at, members)...)
	if sameArguments(resp.Plan, req.State) {
		resp.Plan.Raw = req.State.Raw
	}
}
