package provider

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// Disks that a restore in place took out of a VM are what the VM was before. They are deleted when they are
// due, by an apply that updates the resource and whose plan names them, and never behind anybody's back: a
// destruction, also one for a replacement, leaves them.

// setReplaced sets the disks that were replaced and are still there, and when they are due. The zero time:
// never, unless a later plan says otherwise.
func (m *restoreModel) setReplaced(disks []hypervisor.Replaced, until time.Time) {
	values := make([]attr.Value, len(disks))
	for i, d := range disks {
		values[i] = types.ObjectValueMust(replacedDiskTypes, map[string]attr.Value{
			"label": types.StringValue(d.Label), "path": types.StringValue(d.Path), "replaced_by": types.StringValue(d.Now),
		})
	}
	m.Replaced = types.ListValueMust(types.ObjectType{AttrTypes: replacedDiskTypes}, values)
	m.ReplacedUntil = types.StringNull()
	if len(disks) > 0 && !until.IsZero() {
		m.ReplacedUntil = timeValue(until)
	}
}

// replaced are the disks that were replaced and are still there.
func (m *restoreModel) replaced() []hypervisor.Replaced {
	var disks []hypervisor.Replaced
	for _, element := range m.Replaced.Elements() {
		d, ok := element.(types.Object)
		if !ok {
			continue
		}
		text := func(name string) string {
			value, _ := d.Attributes()[name].(types.String)
			return value.ValueString()
		}
		disks = append(disks, hypervisor.Replaced{Label: text("label"), Path: text("path"), Now: text("replaced_by")})
	}
	return disks
}

// due reports whether replaced disks may be deleted.
func (m *restoreModel) due(now time.Time) bool {
	until := timeOf(m.ReplacedUntil)
	return len(m.replaced()) > 0 && !until.IsZero() && !now.Before(until)
}

// differs reports whether another restore is written than the one in the state, apart from in_place.vm, of which
// the server must be asked: the resource is replaced then.
func (m *restoreModel) differs(ctx context.Context, state restoreModel, diags *diag.Diagnostics) bool {
	for _, pair := range [][2]attr.Value{
		{m.BackupID, state.BackupID}, {m.SnapshotID, state.SnapshotID}, {m.SnapshotIDs, state.SnapshotIDs},
		{m.NewVM, state.NewVM}, {m.OnlyDisks, state.OnlyDisks},
		{m.inPlace(ctx, diags).Hardware, state.inPlace(ctx, diags).Hardware},
	} {
		if !pair[0].Equal(pair[1]) {
			return true
		}
	}
	return m.InPlace.IsNull() != state.InPlace.IsNull() ||
		!m.Triggers.Equal(state.Triggers) && !bothEmpty(m.Triggers, state.Triggers)
}

// replacedPaths names replaced disks, for people.
func replacedPaths(disks []hypervisor.Replaced) string {
	lines := make([]string, len(disks))
	for i, d := range disks {
		lines[i] = fmt.Sprintf("%s (was %s)", d.Path, d.Label)
	}
	return strings.Join(lines, "\n  ")
}

// planReplaced plans when the replaced disks of a VM are due by what is written now, and their deletion if
// they are. That an apply failed after the restore keeps them only until somebody says that all is well.
func (r *restoreResource) planReplaced(
	ctx context.Context, state, plan restoreModel, resp *resource.ModifyPlanResponse,
) {
	disks := state.replaced()
	if len(disks) == 0 || plan.InPlace.IsUnknown() || plan.InPlace.IsNull() {
		return
	}
	if len(resp.RequiresReplace) > 0 || plan.differs(ctx, state, &resp.Diagnostics) {
		return // to replace the resource deletes nothing
	}
	written, was := plan.inPlace(ctx, &resp.Diagnostics).KeepReplacedDisks, state.inPlace(ctx, &resp.Diagnostics).KeepReplacedDisks
	next := state
	// Without a change of what is written they are due when they were: that may be later than what is written says.
	if state.ReplacedUntil.IsNull() || !written.Equal(was) {
		next.setReplaced(disks, timeOf(state.CompletedAt).Add(duration(written)))
	}
	if !next.due(r.session.now()) {
		if !next.ReplacedUntil.Equal(plan.ReplacedUntil) {
			resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("replaced_disks_until"), next.ReplacedUntil)...)
		}
		return
	}
	resp.Diagnostics.AddWarning("Replaced Disks Are Due", fmt.Sprintf("The restore of %s took these disks out of it. They are "+
		"due since %s, and this apply deletes them:\n  %s\n\nTo keep them longer, raise in_place.keep_replaced_disks.",
		state.VMPath.ValueString(), next.ReplacedUntil.ValueString(), replacedPaths(disks)))
	next.setReplaced(nil, time.Time{})
	for name, value := range map[string]attr.Value{
		"replaced_disks": next.Replaced, "replaced_disks_until": next.ReplacedUntil,
	} {
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root(name), value)...)
	}
}

// deleteReplaced deletes disks that were replaced.
func (r *restoreResource) deleteReplaced(
	ctx context.Context, hv hypervisor.Hypervisor, vm *hypervisor.VM, disks []hypervisor.Replaced,
) error {
	return restore.New(hv, nil, r.session.log, r.session.now).DeleteReplaced(ctx, vm.InstanceUUID, disks)
}

// remembered makes the VM forget the replaced disks that it remembers until a state does: Terraform has written the
// one that it gives. That this can't be done makes the next restore keep them.
func (r *restoreResource) remembered(ctx context.Context, hv hypervisor.Hypervisor, vm *hypervisor.VM, disks []hypervisor.Replaced) {
	if len(disks) == 0 {
		return
	}
	if err := hv.ForgetKept(ctx, vm.ID, disks); err != nil {
		r.session.log.WarnContext(ctx, "the VM still remembers replaced disks", "vm", vm.Path, "error", err)
	}
}

// leaveReplaced says which replaced disks stay although nothing remembers them any more.
func leaveReplaced(state restoreModel, why string, diags *diag.Diagnostics) {
	if disks := state.replaced(); len(disks) > 0 {
		diags.AddWarning("Replaced Disks Stay", fmt.Sprintf("%s These disks, which the restore took out of %s, stay on the "+
			"datastore:\n  %s\n\nDelete their files by hand when they are no longer needed.",
			why, state.VMPath.ValueString(), replacedPaths(disks)))
	}
}

// planInPlaceVM judges a change of in_place.vm: another way to write the same VM keeps the value in the
// state, so that nothing is planned because of it; another VM replaces.
func (r *restoreResource) planInPlaceVM(
	ctx context.Context, state, plan restoreModel, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	if state.InPlace.IsNull() || plan.InPlace.IsNull() || plan.InPlace.IsUnknown() {
		return
	}
	at := path.Root("in_place").AtName("vm")
	was, is := state.inPlace(ctx, &resp.Diagnostics), plan.inPlace(ctx, &resp.Diagnostics)
	switch {
	case is.VM.IsUnknown():
		resp.RequiresReplace.Append(at)
		return
	case is.VM.Equal(was.VM):
		return
	case is.VM.IsNull(): // the one that was backed up, which it was unless it could be another one
		if was.AllowOtherVM.ValueBool() {
			resp.RequiresReplace.Append(at)
		}
		return
	}
	same, err := r.session.sameVM(ctx, is.VM.ValueString(), vmRecord{
		Written: was.VM.ValueString(), InstanceUUID: state.VMInstanceUUID.ValueString(), BIOSUUID: state.VMUUID.ValueString(),
		Name: state.VMName.ValueString(), Path: state.VMPath.ValueString(),
	})
	switch {
	case err != nil:
		inPlaceOperation("Plan", "Restore", "").fail(ctx, &resp.Diagnostics, err)
	case !same:
		resp.RequiresReplace.Append(at)
	case !was.VM.IsNull():
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, at, was.VM)...)
		if sameArguments(resp.Plan, req.State) && len(resp.RequiresReplace) == 0 {
			resp.Plan.Raw = req.State.Raw
		}
	}
}
