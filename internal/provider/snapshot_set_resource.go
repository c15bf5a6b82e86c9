package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/resource"
)

var (
	_ resource.ResourceWithConfigure      = (*snapshotSetResource)(nil)
	_ resource.ResourceWithIdentity       = (*snapshotSetResource)(nil)
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
		resp.Diagnostics.Append(resp.Identity.Set(ctx, plan.identity())...)
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
	// The identity comes first: a state of an older Terraform has none, and without one a resource
	// can't even be dropped from the state.
	resp.Diagnostics.Append(resp.Identity.Set(ctx, state.identity())...)

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
	resp.Diagnostics.Append(resp.Identity.Set(ctx, state.identity())...)

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
