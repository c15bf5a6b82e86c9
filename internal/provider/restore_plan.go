package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// ModifyPlan shows what on_destroy is, and checks what can be checked before anything is touched.
func (r *restoreResource) ModifyPlan(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	if r.session == nil {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	var state, plan, config restoreModel
	if !req.State.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if !req.Plan.Raw.IsNull() {
		resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
		resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if !req.State.Raw.IsNull() && state.builds() {
		r.notePlanned(ctx, state, plan, req, resp)
	}
	if req.Plan.Raw.IsNull() || resp.Diagnostics.HasError() {
		return
	}
	if config.OnDestroy.IsNull() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
		if !req.State.Raw.IsNull() && takenUp(ctx, req.Private) {
			plan.OnDestroy = types.StringValue(actionKeep)
		}
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("on_destroy"), plan.OnDestroy)...)
	}
	switch {
	case !req.State.Raw.IsNull():
		// What could not be started is planned as if it weren't there, until somebody untaints it.
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("start_failed"), false)...)
		planGuest(ctx, state, plan, resp)
		warnOfUnknown(ctx, state, plan, &resp.Diagnostics)
		r.planInPlaceVM(ctx, state, plan, req, resp)
		r.planReplaced(ctx, state, plan, resp)
	case plan.reverts():
		r.planRevert(ctx, plan, &resp.Diagnostics)
	default:
		r.planCreate(ctx, plan, config, req.Private, &resp.Diagnostics)
	}
}

// starts reports whether an update starts VMs, or may.
func (m *restoreModel) starts(state restoreModel) bool {
	return m.PowerOn.IsUnknown() || m.PowerOn.ValueBool() && !state.PowerOn.ValueBool()
}

// planGuest plans what an update leaves as it is. Whatever is made of an attribute that is planned to change, such as a
// snapshot of the VM, is replaced: nothing may be unknown only because an argument is changed that concerns Terraform
// alone.
func planGuest(ctx context.Context, state, plan restoreModel, resp *resource.ModifyPlanResponse) {
	if plan.starts(state) {
		return
	}
	for name, pair := range map[string][2]attr.Value{
		"power_state":        {plan.PowerState, state.PowerState},
		"guest_ip_address":   {plan.GuestIPAddress, state.GuestIPAddress},
		"guest_ip_addresses": {plan.GuestAddresses, state.GuestAddresses},
		"reverted":           {plan.Reverted, state.Reverted},
	} {
		if pair[0].IsUnknown() {
			resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root(name), pair[1])...)
		}
	}
}

// warnOfUnknown says which arguments of a restore in place have it done again because they aren't known yet, also
// if they turn out to be what they were: Terraform decides that now.
func warnOfUnknown(ctx context.Context, state, plan restoreModel, diags *diag.Diagnostics) {
	if state.BackupID.IsNull() || state.InPlace.IsNull() || plan.InPlace.IsNull() {
		return
	}
	for _, argument := range []struct {
		at    path.Path
		value attr.Value
	}{
		{path.Root("backup_id"), plan.BackupID},
		{path.Root("only_disks"), plan.OnlyDisks},
		{path.Root("triggers"), plan.Triggers},
		{path.Root("in_place").AtName("vm"), plan.inPlace(ctx, diags).VM},
	} {
		if fullyKnown(ctx, argument.value) {
			continue
		}
		diags.AddAttributeWarning(argument.at, "Restore Again Because of What Is Not Known Yet", argument.at.String()+" is known only "+
			"during the apply, which therefore restores into "+state.VMPath.ValueString()+" again, even if it turns out to be what "+
			"it was. What was written there since is lost.\n\nTo know it before, apply in two steps with -target. A data source "+
			"is read during the apply if something that it depends on is changed by it: write the value itself, or remove "+
			"depends_on.")
	}
}

// notePlanned notes the VM of a plan that changes a resource. If it is replaced, Terraform plans it once
// more, as if there were no state, with this private state.
func (r *restoreResource) notePlanned(
	ctx context.Context, state, plan restoreModel, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	if state.OnDestroy.ValueString() == actionDelete {
		resp.Diagnostics.Append(noteOwn(ctx, resp.Private, state.VMPath.ValueString())...)
		return
	}
	// A VM with its original identity is kept although it is to be restored anew from a backup that isn't known
	// yet: a known one is checked.
	keeps := plan.defaultOnDestroy(ctx, &resp.Diagnostics).ValueString() == actionKeep
	if !req.Plan.Raw.IsNull() && plan.builds() && plan.BackupID.IsUnknown() && keeps {
		resp.Diagnostics.AddAttributeWarning(path.Root("backup_id"), "Restore May Be Refused", "The backup is not known yet. "+
			"If it is one of the same virtual machine, the restore will be refused: "+state.VMPath.ValueString()+
			" exists, and on_destroy = \"keep\" leaves it where it is.\n\nTo have it replaced, first apply on_destroy = "+
			"\"delete\"; to keep it as it is, leave backup_id as it was.")
	}
}

func (r *restoreResource) planCreate(
	ctx context.Context, plan, config restoreModel, private privateState, diags *diag.Diagnostics,
) {
	if plan.BackupID.IsUnknown() || !fullyKnown(ctx, config.NewVM) || !fullyKnown(ctx, config.InPlace) ||
		!fullyKnown(ctx, config.OnlyDisks) {
		return
	}
	op := plan.operation("Plan", "Restore", "")
	m, err := r.session.restores(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	texts, err := m.Check(ctx, plan.request(ctx, diags))
	warnings(diags, "Restore With Reservations", texts)
	if repo, err := r.session.repository(ctx, false); err == nil {
		diags.Append(r.planDamage(ctx, repo, plan)...)
	}
	if inTheWay := vmInTheWay(err); inTheWay != "" {
		err = r.session.judge(plan, inTheWay, ownPath(ctx, private), err)
	}
	switch {
	case err != nil && r.session.lostAll(plan):
		warnOfLost(ctx, op, diags, err)
	case err != nil:
		op.failPlan(ctx, diags, err)
	}
}

// planDamage warns of a backup that is known to be damaged. That a VM makes way for one that can't be restored is an error:
// it is deleted first, or leaves the state.
func (r *restoreResource) planDamage(ctx context.Context, repo *repository.Repository, plan restoreModel) diag.Diagnostics {
	var found, refused diag.Diagnostics
	r.session.warnOfDamage(ctx, repo, repository.ID(plan.BackupID.ValueString()), path.Root("backup_id"), &found)
	if !replaces(ctx) || !plan.builds() {
		return found
	}
	for _, d := range found {
		refused.AddAttributeError(path.Root("backup_id"), "Backup Known to Be Damaged", d.Detail()+"\n\nNothing is replaced: the "+
			"virtual machine that there is would go first.")
	}
	return refused
}

// operation names what is done about the VM of a restore from a backup.
func (m *restoreModel) operation(verb, noun, timeout string) operation {
	if m.builds() {
		return restoreOperation(verb, noun, timeout)
	}
	return inPlaceOperation(verb, noun, timeout)
}

// fullyKnown reports whether nothing in a value is unknown.
func fullyKnown(ctx context.Context, v attr.Value) bool {
	value, err := v.ToTerraformValue(ctx)
	return err == nil && value.IsFullyKnown()
}
