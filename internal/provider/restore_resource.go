package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var (
	_ resource.ResourceWithConfigure  = (*restoreResource)(nil)
	_ resource.ResourceWithModifyPlan = (*restoreResource)(nil)
)

// restoreResource manages one VM that was built from a backup.
type restoreResource struct{ session *session }

func (r *restoreResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_restore"
}

func (r *restoreResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

// ModifyPlan shows what on_destroy is, and checks what can be checked before anything is created.
func (r *restoreResource) ModifyPlan(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	if r.session == nil {
		return
	}
	if !req.State.Raw.IsNull() {
		r.notePlanned(ctx, req, resp)
	}
	if req.Plan.Raw.IsNull() || resp.Diagnostics.HasError() {
		return
	}
	var plan, config restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if config.OnDestroy.IsNull() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("on_destroy"), plan.OnDestroy)...)
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	if req.State.Raw.IsNull() {
		r.planCreate(ctx, plan, config, &resp.Diagnostics)
	}
}

// notePlanned notes a VM that may make way for another in this run: a plan that replaces it must not
// be refused because it is still there.
func (r *restoreResource) notePlanned(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if state.OnDestroy.ValueString() == actionDelete {
		r.session.own(state.VMPath.ValueString())
		return
	}
	r.warnOfRefusal(ctx, state, req, resp)
}

// warnOfRefusal warns where a VM with its original identity is kept although it is to be restored anew
// from a backup that isn't known yet: a known one is checked.
func (r *restoreResource) warnOfRefusal(
	ctx context.Context, state restoreModel, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	if req.Plan.Raw.IsNull() {
		return
	}
	var plan restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	keeps := plan.defaultOnDestroy(ctx, &resp.Diagnostics).ValueString() == actionKeep
	if plan.BackupID.IsUnknown() && keeps {
		resp.Diagnostics.AddAttributeWarning(path.Root("backup_id"), "Restore May Be Refused", "The backup is not known yet. "+
			"If it is one of the same virtual machine, the restore will be refused: "+state.VMPath.ValueString()+
			" exists, and on_destroy = \"keep\" leaves it where it is.\n\nTo have it replaced, first apply on_destroy = "+
			"\"delete\"; to keep it as it is, leave backup_id as it was.")
	}
}

func (r *restoreResource) planCreate(ctx context.Context, plan, config restoreModel, diags *diag.Diagnostics) {
	if plan.BackupID.IsUnknown() || !fullyKnown(ctx, config.NewVM) {
		return
	}
	op := restoreOperation("Plan", "Restore", "")
	m, err := r.session.restores(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	texts, err := m.Check(ctx, plan.request(ctx, diags))
	warnings(diags, "Restore With Reservations", texts)
	if err != nil && !r.makesWay(err) {
		op.failPlan(ctx, diags, err)
	}
}

// makesWay reports whether an error is about a VM that this run may delete first.
func (r *restoreResource) makesWay(err error) bool {
	var identity *hypervisor.IdentityInUseError
	var name *hypervisor.NameInUseError
	switch {
	case errors.As(err, &identity):
		return r.session.owns(identity.VM)
	case errors.As(err, &name):
		return r.session.owns(name.Folder + "/" + name.Name)
	default:
		return false
	}
}

// fullyKnown reports whether nothing in an object is unknown.
func fullyKnown(ctx context.Context, object types.Object) bool {
	value, err := object.ToTerraformValue(ctx)
	return err == nil && value.IsFullyKnown()
}

func (r *restoreResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	timeout, diags := plan.Timeouts.Create(ctx, restoreCreateTimeout)
	resp.Diagnostics.Append(diags...)
	request := plan.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	if plan.OnDestroy.IsUnknown() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	op := restoreOperation("Restore", "Virtual Machine", "create").
		leaving("There is no new virtual machine, and nothing was left behind unless the error names it.")
	m, err := r.session.restores(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	result, err := m.Restore(ctx, request)
	if result != nil {
		if err != nil {
			// Terraform replaces what ended with an error. With the original identity that can only
			// succeed if the leftover makes way, whatever on_destroy says of a VM that was finished.
			plan.OnDestroy = types.StringValue(actionDelete)
		}
		warnings(&resp.Diagnostics, "Restored With Reservations", result.Warnings)
		resp.Diagnostics.Append(plan.fill(result)...)
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		resp.Diagnostics.Append(recordServer(ctx, resp.Private, result.VM.Server)...)
		op = op.leaving("The virtual machine %s is complete, and in the state, tainted: the next apply deletes it and "+
			"restores again. To keep it, start it and run \"terraform untaint\".", result.VM.Path)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

func (r *restoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	timeout, diags := state.Timeouts.Read(ctx, restoreReadTimeout)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	op := restoreOperation("Read", "Virtual Machine", "read")
	hv, err := r.session.hypervisor(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	vm, err := hv.VMByInstanceUUID(ctx, state.VMInstanceUUID.ValueString())
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		if err := r.session.checkServer(ctx, req.Private); err != nil {
			op.fail(ctx, &resp.Diagnostics, err)
			return
		}
		resp.State.RemoveResource(ctx)
		return
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	state.fillVM(vm)
	if state.OnDestroy.ValueString() == actionDelete {
		r.session.own(vm.Path)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// Update starts the VM if that is asked for now; the other changes that don't replace concern
// Terraform alone.
func (r *restoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	timeout, diags := plan.Timeouts.Update(ctx, restoreUpdateTimeout)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	op := restoreOperation("Start", "Virtual Machine", "update").leaving("The virtual machine is as it was.")
	hv, err := r.session.hypervisor(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	vm, err := hv.VMByInstanceUUID(ctx, state.VMInstanceUUID.ValueString())
	if err == nil && plan.PowerOn.ValueBool() && !state.PowerOn.ValueBool() {
		if err = hv.PowerOn(ctx, vm.ID); err == nil {
			vm, err = hv.VMByInstanceUUID(ctx, state.VMInstanceUUID.ValueString())
		}
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	plan.fillVM(vm)
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
}

func (r *restoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	timeout, diags := state.Timeouts.Delete(ctx, restoreDeleteTimeout)
	resp.Diagnostics.Append(diags...)
	if resp.Diagnostics.HasError() || state.OnDestroy.ValueString() != actionDelete {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	op := restoreOperation("Delete", "Virtual Machine", "delete").leaving("The virtual machine is still in the state.")
	m, err := r.session.removals(ctx)
	if err == nil {
		err = m.Destroy(ctx, state.VMInstanceUUID.ValueString())
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}
