package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// A revert is an event: what becomes of the snapshots and the virtual machines later never reverts again.

// revertOperation names what is done about VMs that are reverted, and the arguments that can be at fault.
func revertOperation(verb, timeout string, m *restoreModel) operation {
	source := path.Root("snapshot_id")
	noun := "Virtual Machine"
	if !m.SnapshotIDs.IsNull() {
		source, noun = path.Root("snapshot_ids"), "Virtual Machines"
	}
	return operation{verb: verb, noun: noun, paths: map[argument]path.Path{
		argVM:       source,
		argSnapshot: source,
		argGuest:    path.Root("wait_for_guest"),
		argTimeout:  path.Root("timeouts").AtName(timeout),
	}}
}

// members are the snapshots to revert to, in the order that is written.
func (m *restoreModel) members(ctx context.Context, diags *diag.Diagnostics) []snapshot.MemberID {
	keys := []string{m.SnapshotID.ValueString()}
	if !m.SnapshotIDs.IsNull() {
		diags.Append(m.SnapshotIDs.ElementsAs(ctx, &keys, false)...)
	}
	return setMembers(keys)
}

// setMembers are the snapshots of IDs as the state has them.
func setMembers(keys []string) []snapshot.MemberID {
	ids := make([]snapshot.MemberID, len(keys))
	for i, key := range keys {
		ids[i].VM, ids[i].Snapshot = splitSnapshotKey(key)
	}
	return ids
}

// power is what is asked for after a revert.
func (m *runsAfter) power() snapshot.Power {
	switch {
	case m.PowerOn.IsNull() || m.PowerOn.IsUnknown():
		return snapshot.AsSnapshot
	case m.PowerOn.ValueBool():
		return snapshot.On
	default:
		return snapshot.Off
	}
}

// setRequest is a revert of all members as one thing, of which those that are to run are started one after the
// other.
func (r *restoreResource) setRequest(
	ctx context.Context, plan restoreModel, members []snapshot.MemberID, diags *diag.Diagnostics,
) snapshot.SetRevertRequest {
	request := snapshot.SetRevertRequest{Power: plan.power()}
	for i, id := range members {
		request.Members = append(request.Members, snapshot.RevertMember{MemberID: id, Order: i})
	}
	if wait := plan.guestWait(ctx, diags); wait != nil {
		request.Started = func(ctx context.Context, vm *hypervisor.VM) (*hypervisor.VM, error) {
			return r.session.awaitGuest(ctx, vm, *wait)
		}
	}
	return request
}

// awaitGuest waits for the guest of a VM that runs.
func (s *session) awaitGuest(
	ctx context.Context, vm *hypervisor.VM, wait restore.WaitForGuest,
) (*hypervisor.VM, error) {
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return nil, err
	}
	return restore.New(hv, nil, s.log, s.now).AwaitGuest(ctx, vm, wait)
}

// planRevert warns of what a revert loses, and checks what can be checked before.
func (r *restoreResource) planRevert(ctx context.Context, plan restoreModel, diags *diag.Diagnostics) {
	op := revertOperation("Plan", "", &plan)
	op.noun = "Revert"
	if !fullyKnown(ctx, plan.SnapshotID) || !fullyKnown(ctx, plan.SnapshotIDs) {
		diags.AddAttributeWarning(op.paths[argSnapshot], "Revert to What Is Not Known Yet", "The snapshot is taken, or found, by "+
			"the same apply, which then reverts to it. What that loses can't be shown now.\n\nTo see it, apply in two steps.")
		return
	}
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	found, err := m.CheckRevertSet(ctx, r.setRequest(ctx, plan, plan.members(ctx, diags), diags))
	switch {
	case err != nil && r.session.lostAll(plan):
		warnOfLost(ctx, op, diags, err)
		return
	case err != nil:
		op.failPlan(ctx, diags, err)
		return
	}
	for _, at := range found {
		op.warnOfLoss(diags, at)
	}
}

// warnOfLoss warns of what a revert loses.
func (o operation) warnOfLoss(diags *diag.Diagnostics, at snapshot.Reverted) {
	diags.AddAttributeWarning(o.paths[argSnapshot], "Revert Loses What Was Done Since", lost(at))
}

// lost says what a revert loses.
func lost(at snapshot.Reverted) string {
	text := fmt.Sprintf("%s goes back to the snapshot %q of %s. Everything that was written to its disks since is lost.",
		at.VM.Path, at.Snapshot.Path, at.Snapshot.CreatedAt.UTC().Format("2006-01-02 15:04:05 MST"))
	if len(at.Undone) > 0 {
		text += "\n\nOf its configuration:\n  " + strings.Join(at.Undone, "\n  ")
	}
	for _, warning := range at.Warnings {
		text += "\n\n" + sentence(warning)
	}
	return text
}

// revert reverts VMs. What was reverted is recorded, also if something went wrong afterwards.
func (r *restoreResource) revert(ctx context.Context, plan restoreModel, resp *resource.CreateResponse) {
	op := revertOperation("Revert", "create", &plan).leaving("No virtual machine was reverted, unless the error says otherwise.")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	members := plan.members(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	reverted, err := r.revertMembers(ctx, m, plan, members, &resp.Diagnostics)
	if len(reverted) > 0 {
		for _, at := range reverted {
			warnReverted(&resp.Diagnostics, &at)
		}
		plan.fillReverted(reverted, timeValue(r.session.now()))
		plan.StartFailed = types.BoolValue(err != nil)
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		op = op.leaving("What was reverted is in the state, tainted: the next apply reverts again. To keep it as it is, run " +
			"\"terraform untaint\".")
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

// revertMembers reverts one VM, or several as one thing, and waits for the guests of those that run.
func (r *restoreResource) revertMembers(
	ctx context.Context, m *snapshot.Manager, plan restoreModel, members []snapshot.MemberID, diags *diag.Diagnostics,
) ([]snapshot.Reverted, error) {
	if !plan.SnapshotIDs.IsNull() {
		return m.RevertSet(ctx, r.setRequest(ctx, plan, members, diags))
	}
	at, err := r.session.revertOne(ctx, m, snapshot.RevertRequest{
		VM: hypervisor.VMRef(members[0].VM), Snapshot: members[0].Snapshot, Power: plan.power(),
	}, plan.guestWait(ctx, diags))
	if at == nil {
		return nil, err
	}
	return []snapshot.Reverted{*at}, err
}

// revertOne reverts one VM, and waits for its guest if that is asked for and it runs. With an error there is a result if
// the VM is reverted.
func (s *session) revertOne(
	ctx context.Context, m *snapshot.Manager, request snapshot.RevertRequest, wait *restore.WaitForGuest,
) (*snapshot.Reverted, error) {
	at, err := m.Revert(ctx, request)
	if err == nil && wait != nil && at.VM.PowerState == hypervisor.PoweredOn {
		var vm *hypervisor.VM
		if vm, err = s.awaitGuest(ctx, &at.VM, *wait); vm != nil {
			at.VM = *vm
		}
	}
	return at, err
}

// warnReverted says what a revert did beside what was asked for.
func warnReverted(diags *diag.Diagnostics, at *snapshot.Reverted) {
	if len(at.Undone) > 0 {
		diags.AddWarning("Revert Changed Configuration", at.VM.Path+" is reverted. Of its configuration:\n  "+
			strings.Join(at.Undone, "\n  "))
	}
	warnings(diags, "Reverted With Reservations", at.Warnings)
}

// fillReverted sets what a revert did.
func (m *restoreModel) fillReverted(reverted []snapshot.Reverted, completed types.String) {
	none := types.ListValueMust
	m.Disks = none(types.ObjectType{AttrTypes: restoreDiskTypes}, nil)
	m.setReplaced(nil, timeOf(types.StringNull()))
	m.RestoredBytes, m.Verified, m.CompletedAt = types.Int64Value(0), types.BoolValue(false), completed
	vms := make([]*hypervisor.VM, len(reverted))
	elements := make([]attr.Value, len(reverted))
	for i := range reverted {
		at := &reverted[i]
		vms[i] = &at.VM
		elements[i] = revertedValue(snapshotKey(at.VM.InstanceUUID, at.Snapshot.ID), &at.VM, texts(at.Undone))
	}
	m.fillRevertedVMs(vms, elements)
	ids := make([]string, len(vms))
	for i, vm := range vms {
		ids[i] = vm.InstanceUUID
	}
	m.ID = types.StringValue(strings.Join(ids, ","))
}

func revertedValue(key string, vm *hypervisor.VM, changes types.List) types.Object {
	return types.ObjectValueMust(revertedTypes, map[string]attr.Value{
		"snapshot_id":      types.StringValue(key),
		"vm_id":            types.StringValue(string(vm.ID)),
		"vm_name":          types.StringValue(vm.Name),
		"vm_uuid":          types.StringValue(vm.BIOSUUID),
		"vm_instance_uuid": types.StringValue(vm.InstanceUUID),
		"vm_path":          types.StringValue(vm.Path),
		"power_state":      types.StringValue(string(vm.PowerState)),
		"guest_ip_address": textOrNull(vm.GuestIPAddress),
		"changes":          changes,
	})
}

// fillRevertedVMs sets what the VMs are now. Only of a single one there is more than the list.
func (m *restoreModel) fillRevertedVMs(vms []*hypervisor.VM, elements []attr.Value) {
	m.Reverted = types.ListValueMust(types.ObjectType{AttrTypes: revertedTypes}, elements)
	server := vms[0].Server
	if !m.SnapshotID.IsNull() {
		m.fillVM(vms[0])
		return
	}
	m.fillVM(&hypervisor.VM{})
	for _, value := range []*types.String{
		&m.VMID, &m.VMName, &m.VMUUID, &m.VMInstanceUUID, &m.VMPath, &m.PowerState,
	} {
		*value = types.StringNull()
	}
	m.Server = types.StringValue(server)
}

// findReverted finds the VMs that were reverted and still are there, and what the state says of each. One that
// was registered anew counts: nothing is ever deleted because of it.
func (r *restoreResource) findReverted(
	ctx context.Context, state restoreModel,
) (hv hypervisor.Hypervisor, vms []*hypervisor.VM, elements []attr.Value, err error) {
	if hv, err = r.session.hypervisorOf(ctx, state.Server); err != nil {
		return nil, nil, nil, err
	}
	recorded := state.Reverted.Elements()
	found, values := make([]*hypervisor.VM, len(recorded)), make([]attr.Value, len(recorded))
	var group errgroup.Group // reads of the same time go out together
	for i, element := range recorded {
		group.Go(func() error {
			var err error
			found[i], values[i], err = readRevertedVM(ctx, hv, element)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, nil, err
	}
	for i, vm := range found {
		if vm != nil {
			vms, elements = append(vms, vm), append(elements, values[i])
		}
	}
	return hv, vms, elements, nil
}

// readRevertedVM reads one VM that was reverted; nil: it is gone.
func readRevertedVM(
	ctx context.Context, hv hypervisor.Hypervisor, element attr.Value,
) (*hypervisor.VM, attr.Value, error) {
	o, ok := element.(types.Object)
	if !ok {
		return nil, nil, nil
	}
	text := func(name string) string {
		value, _ := o.Attributes()[name].(types.String)
		return value.ValueString()
	}
	vm, err := findRecorded(ctx, hv, hypervisor.VMID(text("vm_id")), text("vm_instance_uuid"))
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		return nil, nil, nil
	case err != nil && !errors.Is(err, errAnotherVM):
		return nil, nil, err
	}
	changes, _ := o.Attributes()["changes"].(types.List)
	return vm, revertedValue(text("snapshot_id"), vm, changes), nil
}

func (r *restoreResource) readReverted(ctx context.Context, state restoreModel, resp *resource.ReadResponse) {
	_, vms, elements, err := r.findReverted(ctx, state)
	switch {
	case err != nil:
		revertOperation("Read", "read", &state).fail(ctx, &resp.Diagnostics, err)
		return
	case len(vms) == 0: // of several, those that are left are no reason to revert them again
		r.session.lose(state)
		resp.State.RemoveResource(ctx)
		return
	}
	state.fillRevertedVMs(vms, elements)
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// updateReverted starts the VMs, one after the other, if that is asked for now.
func (r *restoreResource) updateReverted(
	ctx context.Context, plan, state restoreModel, resp *resource.UpdateResponse,
) {
	op := revertOperation("Start", "update", &plan).leaving("Virtual machines were not started by this, unless the error says otherwise.")
	hv, vms, elements, err := r.findReverted(ctx, state)
	if err == nil && len(vms) == 0 {
		err = &hypervisor.VMNotFoundError{Ref: state.ID.ValueString(), Where: state.Server.ValueString()}
	}
	if err == nil && plan.starts(state) {
		for i, vm := range vms {
			if err = hv.PowerOn(ctx, vm.ID); err == nil {
				vms[i], err = r.started(ctx, hv, plan, vm, &resp.Diagnostics)
			}
			if err != nil {
				break
			}
			o, _ := elements[i].(types.Object)
			key, _ := o.Attributes()["snapshot_id"].(types.String)
			changes, _ := o.Attributes()["changes"].(types.List)
			elements[i] = revertedValue(key.ValueString(), vms[i], changes)
		}
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	planned := plan
	plan.fillRevertedVMs(vms, elements)
	plan.asPlanned(planned)
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
}
