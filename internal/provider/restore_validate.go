package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-validators/resourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"
)

// ConfigValidators see to it that there is one source and at most one target.
func (r *restoreResource) ConfigValidators(context.Context) []resource.ConfigValidator {
	return []resource.ConfigValidator{
		resourcevalidator.ExactlyOneOf(
			path.MatchRoot("backup_id"), path.MatchRoot("snapshot_id"), path.MatchRoot("snapshot_ids")),
		resourcevalidator.Conflicting(path.MatchRoot("new_vm"), path.MatchRoot("in_place")),
	}
}

// ValidateConfig refuses arguments that contradict each other. What isn't known yet contradicts nothing.
func (r *restoreResource) ValidateConfig(
	ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse,
) {
	var config restoreModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if resp.Diagnostics.HasError() {
		return
	}
	diags := &resp.Diagnostics
	conflict := func(at path.Path, detail string) { diags.AddAttributeError(at, "Conflicting Arguments", detail) }
	if config.reverts() {
		for name, value := range map[string]attr.Value{
			"new_vm": config.NewVM, "in_place": config.InPlace, "only_disks": config.OnlyDisks, "verify": config.Verify,
		} {
			if !value.IsNull() {
				conflict(path.Root(name), "A revert brings all of a virtual machine back to its snapshot, where it is. "+name+
					" is for restores from a backup_id.")
			}
		}
	}
	if config.OnDestroy.ValueString() == actionDelete && !config.builds() {
		conflict(path.Root("on_destroy"), "A virtual machine that was there before is never deleted. on_destroy = \"delete\" is "+
			"for one that is built from a backup.")
	}
	config.validate(ctx, diags)
	validateInPlace(ctx, config, diags)
}

// validate refuses to wait for nothing.
func (m *runsAfter) validate(ctx context.Context, diags *diag.Diagnostics) {
	at := path.Root("wait_for_guest")
	if !m.WaitForGuest.IsNull() && !m.PowerOn.IsNull() && !m.PowerOn.IsUnknown() && !m.PowerOn.ValueBool() {
		diags.AddAttributeError(at, "Conflicting Arguments", "A virtual machine that isn't started has no guest to wait for. "+
			"Leave out wait_for_guest or power_on = false.")
	}
	if m.WaitForGuest.IsNull() || m.WaitForGuest.IsUnknown() {
		return
	}
	var w waitForGuestModel
	diags.Append(m.WaitForGuest.As(ctx, &w, basetypes.ObjectAsOptions{})...)
	no := func(v basetypes.BoolValue) bool { return !v.IsUnknown() && !v.ValueBool() }
	// Without either, both are waited for.
	if no(w.Agent) && no(w.Address) && (!w.Agent.IsNull() || !w.Address.IsNull()) {
		diags.AddAttributeError(at, "Conflicting Arguments", "There is nothing to wait for: set agent "+
			"or address to true, leave both out to wait for both, or leave out wait_for_guest.")
	}
}

func validateInPlace(ctx context.Context, config restoreModel, diags *diag.Diagnostics) {
	p := config.inPlace(ctx, diags)
	if p.AllowOtherVM.ValueBool() && p.VM.IsNull() {
		diags.AddAttributeError(path.Root("in_place").AtName("allow_other_vm"), "Conflicting Arguments", "Without vm, the disks "+
			"are restored into the virtual machine that was backed up. Name the other one with vm, or leave out allow_other_vm.")
	}
}
