package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var (
	_ resource.ResourceWithConfigure        = (*restoreResource)(nil)
	_ resource.ResourceWithConfigValidators = (*restoreResource)(nil)
	_ resource.ResourceWithIdentity         = (*restoreResource)(nil)
	_ resource.ResourceWithImportState      = (*restoreResource)(nil)
	_ resource.ResourceWithModifyPlan       = (*restoreResource)(nil)
	_ resource.ResourceWithValidateConfig   = (*restoreResource)(nil)
)

// restoreResource manages one VM that was restored from a backup, or VMs that were reverted.
type restoreResource struct{ session *session }

func (r *restoreResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_restore"
}

func (r *restoreResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (r *restoreResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan, config restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Create, restoreCreateTimeout, &resp.Diagnostics)
	defer cancel()
	defer identifyRestore(ctx, &resp.State, resp.Identity, &resp.Diagnostics)
	if plan.OnDestroy.IsUnknown() {
		plan.OnDestroy = plan.defaultOnDestroy(ctx, &resp.Diagnostics)
	}
	// It may come in the place of one that was imported.
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, takenUpKey, []byte("false"))...)
	switch {
	case resp.Diagnostics.HasError():
	case plan.reverts():
		r.revert(ctx, plan, resp)
	default:
		r.restore(ctx, plan, config, resp)
	}
}

// restore restores from a backup.
func (r *restoreResource) restore(ctx context.Context, plan, config restoreModel, resp *resource.CreateResponse) {
	request := plan.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	op := plan.operation("Restore", "Virtual Machine", "create").
		leaving("There is no new virtual machine, and nothing was left behind, unless the error says otherwise.")
	if request.InPlace != nil {
		op = op.leaving("The virtual machine is as it was, and nothing was left behind, unless the error says otherwise.")
	}
	m, err := r.session.restores(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	result, err := m.Restore(ctx, request)
	if result != nil {
		plan.StartFailed = types.BoolValue(err != nil)
		if err != nil && config.OnDestroy.IsNull() && plan.builds() {
			// Terraform replaces what ended with an error. With the original identity that can only
			// succeed if the leftover makes way.
			plan.OnDestroy = types.StringValue(actionDelete)
		}
		warnings(&resp.Diagnostics, "Restored With Reservations", result.Warnings)
		resp.Diagnostics.Append(plan.fill(result)...)
		if err != nil { // what the VM was before is not given up for something that doesn't work
			plan.setReplaced(result.Replaced, time.Time{})
		}
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		op = op.leaving("%s", plan.afterFailure(result.VM.Path))
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

// afterFailure says what there is after a restore that was complete and ended with an error.
func (m *restoreModel) afterFailure(vmPath string) string {
	runs := m.PowerState.ValueString() == string(hypervisor.PoweredOn)
	keep := "To keep it, start it and run \"terraform untaint\"."
	if runs {
		keep = "To keep it as it is, run \"terraform untaint\"."
	}
	next := "the next apply deletes it, unless it isn't powered off any more, and restores again"
	switch {
	case !m.builds():
		return "The virtual machine " + vmPath + " has the restored disks, and is in the state, tainted: the next apply " +
			"restores into it once more. " + keep
	case m.OnDestroy.ValueString() == actionKeep:
		next = "as on_destroy says, no apply deletes it, but none can restore again beside it either"
	case runs:
		next = "the next apply deletes it and restores again if it is powered off before"
	}
	return "The virtual machine " + vmPath + " is complete, and in the state, tainted: " + next + ". " + keep
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
	vm, err := findRecorded(ctx, hv, hypervisor.VMID(state.VMID.ValueString()), state.VMInstanceUUID.ValueString())
	return hv, vm, err
}

// findRecorded finds a VM by what the state knows of it. Errors: as find.
func findRecorded(
	ctx context.Context, hv hypervisor.Hypervisor, recorded hypervisor.VMID, instanceUUID string,
) (*hypervisor.VM, error) {
	vm, err := hv.VMByInstanceUUID(ctx, instanceUUID)
	var notFound *hypervisor.VMNotFoundError
	if err == nil && vm.ID == recorded || err != nil && !errors.As(err, &notFound) {
		return vm, err
	}
	exists, existsErr := hv.VMExists(ctx, recorded)
	switch {
	case existsErr != nil:
		return nil, fmt.Errorf("whether %s is gone can't be told: %w", recorded, existsErr)
	case exists:
		return nil, fmt.Errorf("%s exists, but not with the instance UUID %s: %w", recorded, instanceUUID,
			hypervisor.ErrOutOfReach)
	case err == nil:
		return vm, fmt.Errorf("%s is gone, and %s, which is %s, has its identity: %w", recorded, vm.Path, vm.ID, errAnotherVM)
	default:
		return nil, err
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
	// The identity comes first: a state of an older Terraform has none, and without one a resource
	// can't even be dropped from the state.
	identifyRestore(ctx, &req.State, resp.Identity, &resp.Diagnostics)
	if state.reverts() {
		r.readReverted(ctx, state, resp)
		return
	}

	op := state.operation("Read", "Virtual Machine", "read")
	deletes := state.OnDestroy.ValueString() == actionDelete
	hv, vm, err := r.find(ctx, state)
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		leaveReplaced(state, "The virtual machine is gone.", &resp.Diagnostics)
		if !state.builds() {
			r.session.lose(state)
		}
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
	if err != nil { // the paths of its disks may be those of others by now
		leaveReplaced(state, "The virtual machine was registered anew.", &resp.Diagnostics)
		state.setReplaced(nil, time.Time{})
	}
	r.remembered(ctx, hv, vm, state.replaced())
	state.fillVM(vm)
	if deletes && state.StartFailed.ValueBool() {
		r.session.own(state)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// Update starts the VM if that is asked for now, and deletes the replaced disks that are due; the other
// changes that don't replace concern Terraform alone.
func (r *restoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Update, restoreUpdateTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}
	identifyRestore(ctx, &req.State, resp.Identity, &resp.Diagnostics)
	defer adopted(ctx, resp)
	if plan.reverts() {
		r.updateReverted(ctx, plan, state, resp)
		return
	}

	op := state.operation("Start", "Virtual Machine", "update").
		leaving("The virtual machine was not started by this, unless the error says otherwise.")
	hv, vm, err := r.find(ctx, state)
	if err == nil && plan.starts(state) {
		if err = hv.PowerOn(ctx, vm.ID); err == nil {
			op = op.leaving("The virtual machine was started.")
			vm, err = r.started(ctx, hv, plan, vm, &resp.Diagnostics)
		}
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	planned := plan
	plan.fillVM(vm)
	plan.Reverted = state.Reverted
	plan.asPlanned(planned)
	if disks := state.replaced(); len(disks) > 0 && len(plan.replaced()) == 0 {
		if err := r.deleteReplaced(ctx, hv, vm, disks); err != nil {
			plan.setReplaced(disks, time.Time{}) // due by what is written, which is why they were to be deleted
			plan.operation("Delete", "Replaced Disks", "update").leaving("They are still in the state.").fail(ctx, &resp.Diagnostics, err)
		}
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
}

// started is a VM as it is after it was started, and after its guest was waited for where that is asked for.
func (r *restoreResource) started(
	ctx context.Context, hv hypervisor.Hypervisor, plan restoreModel, vm *hypervisor.VM, diags *diag.Diagnostics,
) (*hypervisor.VM, error) {
	if wait := plan.guestWait(ctx, diags); wait != nil {
		return r.session.awaitGuest(ctx, vm, *wait)
	}
	return hv.VMByInstanceUUID(ctx, vm.InstanceUUID)
}

// Delete deletes the VM that was built, and no other that has its identity by now, and not with disks that aren't its
// own. One that could not be started is deleted without anybody having asked for it: only while nobody can be using
// it. A VM that was there before stays.
func (r *restoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Delete, restoreDeleteTimeout, &resp.Diagnostics)
	defer cancel()
	switch {
	case resp.Diagnostics.HasError() || state.reverts():
		return
	case !state.builds():
		leaveReplaced(state, "Destroying the restore deletes nothing.", &resp.Diagnostics)
		return
	case state.OnDestroy.ValueString() != actionDelete:
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
	case err == nil && takenUp(ctx, req.Private) && vm.PowerState != hypervisor.PoweredOff:
		err = fmt.Errorf("delete %s: %w", vm.Path, errImportedRuns)
	case err == nil:
		err = state.destroyVM(ctx, hv, vm)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

// destroyVM deletes a VM that was built and has nothing but what it was built with.
func (m *restoreModel) destroyVM(ctx context.Context, hv hypervisor.Hypervisor, vm *hypervisor.VM) error {
	if err := m.checkDisks(vm); err != nil {
		return fmt.Errorf("delete %s: %w", vm.Path, err)
	}
	operations := []hypervisor.Operation{hypervisor.ToDestroy}
	if vm.PowerState != hypervisor.PoweredOff {
		operations = append(operations, hypervisor.ToPowerOff)
	}
	if err := hv.CheckPrivileges(ctx, []hypervisor.VMID{vm.ID}, operations...); err != nil {
		return err
	}
	return hv.DestroyVM(ctx, vm.ID)
}
