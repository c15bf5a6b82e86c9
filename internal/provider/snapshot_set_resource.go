package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/resource"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var (
	_ resource.ResourceWithConfigure      = (*snapshotSetResource)(nil)
	_ resource.ResourceWithImportState    = (*snapshotSetResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*snapshotSetResource)(nil)
	_ resource.ResourceWithValidateConfig = (*snapshotSetResource)(nil)
)

// snapshotSetResource manages snapshots of several VMs that were taken as one thing.
type snapshotSetResource struct{ session *session }

func (r *snapshotSetResource) Metadata(
	_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_snapshot_set"
}

func (r *snapshotSetResource) Configure(
	_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse,
) {
	r.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (r *snapshotSetResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan snapshotSetModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Create, setCreateTimeout, &resp.Diagnostics)
	defer cancel()
	request := plan.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}

	op := setOperation("Take", "create").leaving("No snapshot was left behind, unless the error says otherwise.")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	set, err := m.TakeSet(ctx, request)
	if set != nil {
		warnings(&resp.Diagnostics, "Snapshot Set Taken With Reservations", set.Warnings)
		plan.fill(set)
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		op = op.leaving("What could not be removed again is in the state, tainted: the next apply removes it and takes a new set.")
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

func (r *snapshotSetResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state snapshotSetModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Read, setReadTimeout, &resp.Diagnostics)
	defer cancel()
	ids := state.ids(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	op := setOperation("Read", "read")
	m, err := r.session.snapshotsOf(ctx, state.Server)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	set, _, err := m.ReadSet(ctx, ids)
	switch {
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
		return
	case len(set.Members) == 0:
		resp.State.RemoveResource(ctx)
		return
	}
	state.refresh(ctx, set, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// Update sees changes of the name, the description, and of arguments that concern Terraform alone; every other
// change replaces.
func (r *snapshotSetResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state snapshotSetModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Update, setUpdateTimeout, &resp.Diagnostics)
	defer cancel()
	ids := state.ids(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}

	op := setOperation("Rename", "update").leaving("Some of the snapshots may be renamed; the next apply renames the others.")
	m, err := r.session.snapshotsOf(ctx, state.Server)
	if err == nil && (!plan.Name.Equal(state.Name) || plan.Description.ValueString() != state.Description.ValueString()) {
		err = m.RenameSet(ctx, ids, plan.Name.ValueString(), plan.Description.ValueString())
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("false"))...)
}

func (r *snapshotSetResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state snapshotSetModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Delete, setDeleteTimeout, &resp.Diagnostics)
	defer cancel()
	keep, options := state.onDestroy(ctx, &resp.Diagnostics)
	ids := state.ids(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() || keep {
		return
	}

	op := setOperation("Remove", "delete").leaving("The set is still in the state; the next apply removes what is left of it.")
	m, err := r.session.snapshotsOf(ctx, state.Server)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if err := m.RemoveSet(ctx, ids, options); err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

const setImportForms = "<vm>/<snapshot ID> or <vm>:<path of the snapshot> of any of its snapshots, for example " +
	"\"web01/snapshot-12\" or \"web01:before upgrade\"; <vm> is whatever the vm argument takes"

// ImportState finds a set by any of its snapshots, which hold the names of all members.
func (r *snapshotSetResource) ImportState(
	ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	ctx, cancel := context.WithTimeout(ctx, setReadTimeout)
	defer cancel()
	op := setOperation("Import", "read")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	found, err := findSnapshots(ctx, m, req.ID)
	switch {
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
		return
	case len(found) == 0:
		resp.Diagnostics.AddError("Unable to Import Snapshot Set", "There is no snapshot \""+req.ID+"\".\n\nThe ID is of the form "+
			setImportForms+".")
		return
	case len(found) > 1:
		lines := make([]string, len(found))
		for i, f := range found {
			lines[i] = describeSnapshots(f.vm, []hypervisor.Snapshot{f.snapshot})
		}
		resp.Diagnostics.AddError("Unable to Import Snapshot Set", "\""+req.ID+"\" matches several snapshots:\n  "+
			strings.Join(lines, "\n  ")+"\n\nUse one of these IDs.")
		return
	}
	ids, lost, err := m.FindSet(ctx, found[0].snapshot.ID)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if len(lost) > 0 {
		resp.Diagnostics.AddWarning("Snapshot Set Is Incomplete", fmt.Sprintf("It was taken of %d virtual machines. Of these, by the IDs "+
			"that they had, there is no snapshot of the set, or they are gone: %s. Only the others are imported.\n\nA virtual machine "+
			"that was registered anew has another ID: if its snapshot still exists, nothing manages it after this.",
			len(ids)+len(lost), joinIDs(lost)))
	}
	set, missing, err := m.ReadSet(ctx, ids)
	if err == nil && len(missing) > 0 {
		err = missing[0].Reason
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	r.importSet(ctx, set, resp)
}

// joinIDs lists VMs by their handles.
func joinIDs(vms []hypervisor.VMID) string {
	texts := make([]string, len(vms))
	for i, id := range vms {
		texts[i] = string(id)
	}
	return strings.Join(texts, ", ")
}
