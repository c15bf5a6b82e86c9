package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
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
	if !req.State.Raw.IsNull() {
		// What could not be started is planned as if it weren't there, until somebody untaints it.
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("start_failed"), false)...)
	}
	if config.OnDestroy.IsNull() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("on_destroy"), plan.OnDestroy)...)
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	if req.State.Raw.IsNull() {
		r.planCreate(ctx, plan, config, req.Private, &resp.Diagnostics)
	}
}

// notePlanned notes the VM of a plan that changes a resource. If it is replaced, Terraform plans it once
// more, as if there were no state, with this private state.
func (r *restoreResource) notePlanned(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if state.OnDestroy.ValueString() == actionDelete {
		resp.Diagnostics.Append(noteOwn(ctx, resp.Private, state.VMPath.ValueString())...)
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

func (r *restoreResource) planCreate(
	ctx context.Context, plan, config restoreModel, private privateState, diags *diag.Diagnostics,
) {
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
	if inTheWay := vmInTheWay(err); inTheWay != "" {
		err = r.session.judge(plan, inTheWay, ownPath(ctx, private), err)
	}
	if err != nil {
		op.failPlan(ctx, diags, err)
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
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Create, restoreCreateTimeout, &resp.Diagnostics)
	defer cancel()
	request := plan.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	if plan.OnDestroy.IsUnknown() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
	}

	op := restoreOperation("Restore", "Virtual Machine", "create").
		leaving("There is no new virtual machine, and nothing was left behind unless the error names it.")
	m, err := r.session.restores(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	result, err := m.Restore(ctx, request)
	if result != nil {
		var config restoreModel
		resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
		plan.StartFailed = types.BoolValue(err != nil)
		next := "the next apply deletes it, unless it isn't powered off any more, and restores again"
		switch {
		case err != nil && config.OnDestroy.IsNull():
			// Terraform replaces what ended with an error. With the original identity that can only
			// succeed if the leftover makes way.
			plan.OnDestroy = types.StringValue(actionDelete)
		case plan.OnDestroy.ValueString() == actionKeep:
			next = "as on_destroy says, no apply deletes it, but none can restore again beside it either"
		}
		warnings(&resp.Diagnostics, "Restored With Reservations", result.Warnings)
		resp.Diagnostics.Append(plan.fill(result)...)
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		op = op.leaving("The virtual machine %s is complete, and in the state, tainted: %s. To keep it, start it and run "+
			"\"terraform untaint\".", result.VM.Path, next)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

// find finds the VM that was restored, on the server on which it was. Errors: errOtherServer; errAnotherVM and
// a *hypervisor.VMNotFoundError, both only if it is gone for certain; hypervisor.ErrOutOfReach. With
// errAnotherVM there is the other VM.
func (r *restoreResource) find(
	ctx context.Context, state restoreModel,
) (hypervisor.Hypervisor, *hypervisor.VM, error) {
	hv, err := r.session.hypervisorOf(ctx, state.Server)
	if err != nil {
		return nil, nil, err
	}
	restored := hypervisor.VMID(state.VMID.ValueString())
	vm, err := hv.VMByInstanceUUID(ctx, state.VMInstanceUUID.ValueString())
	var notFound *hypervisor.VMNotFoundError
	if err == nil && vm.ID == restored || err != nil && !errors.As(err, &notFound) {
		return hv, vm, err
	}
	exists, existsErr := hv.VMExists(ctx, restored)
	switch {
	case existsErr != nil:
		return hv, nil, fmt.Errorf("whether %s is gone can't be told: %w", restored, existsErr)
	case exists:
		return hv, nil, fmt.Errorf("%s exists, but not with the instance UUID %s: %w", restored,
			state.VMInstanceUUID.ValueString(), hypervisor.ErrOutOfReach)
	case err == nil:
		return hv, vm, fmt.Errorf("%s is gone, and %s, which is %s, has its identity: %w", restored, vm.Path, vm.ID, errAnotherVM)
	default:
		return hv, nil, err
	}
}

// errAnotherVM: what has the identity of the VM that was restored is another VM. Somebody else restored
// the same backup, or has registered the VM anew.
var errAnotherVM = errors.New("it is not the virtual machine that was restored")

// warnOfAnother says that a VM which has the identity of the restored one is left to whoever made it.
func warnOfAnother(ctx context.Context, op operation, diags *diag.Diagnostics, err error) {
	op.leaving("It is left as it is; the resource is no longer in the state.").
		warn(ctx, diags, "Another Virtual Machine Has Its Identity", err)
}

func (r *restoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Read, restoreReadTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}

	op := restoreOperation("Read", "Virtual Machine", "read")
	deletes := state.OnDestroy.ValueString() == actionDelete
	_, vm, err := r.find(ctx, state)
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		resp.State.RemoveResource(ctx)
		return
	case errors.Is(err, errAnotherVM) && deletes:
		warnOfAnother(ctx, op, &resp.Diagnostics, err)
		resp.State.RemoveResource(ctx)
		return
	case err != nil && !errors.Is(err, errAnotherVM): // one that is never deleted may have been registered anew
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	state.fillVM(vm)
	if deletes && state.StartFailed.ValueBool() {
		r.session.own(state)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// Update starts the VM if that is asked for now; the other changes that don't replace concern
// Terraform alone.
func (r *restoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Update, restoreUpdateTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}

	op := restoreOperation("Start", "Virtual Machine", "update").
		leaving("The virtual machine was not started by this, unless the error says otherwise.")
	hv, vm, err := r.find(ctx, state)
	if err == nil && plan.PowerOn.ValueBool() && !state.PowerOn.ValueBool() {
		if err = hv.PowerOn(ctx, vm.ID); err == nil {
			op = op.leaving("The virtual machine was started.")
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

// Delete deletes the VM that was restored, and no other that has its identity by now. One that could not be
// started is deleted without anybody having asked for it: only while nobody can be using it.
func (r *restoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Delete, restoreDeleteTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() || state.OnDestroy.ValueString() != actionDelete {
		return
	}

	op := restoreOperation("Delete", "Virtual Machine", "delete").leaving("The virtual machine is still in the state.")
	hv, vm, err := r.find(ctx, state)
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		return
	case errors.Is(err, errAnotherVM):
		warnOfAnother(ctx, op, &resp.Diagnostics, err)
		return
	case err == nil && inUse(state, vm.PowerState):
		err = fmt.Errorf("delete %s: %w", vm.Path, errInUse)
	case err == nil:
		err = hv.DestroyVM(ctx, vm.ID)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}
