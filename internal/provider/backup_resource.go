package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var (
	_ resource.ResourceWithConfigure   = (*backupResource)(nil)
	_ resource.ResourceWithIdentity    = (*backupResource)(nil)
	_ resource.ResourceWithImportState = (*backupResource)(nil)
	_ resource.ResourceWithModifyPlan  = (*backupResource)(nil)
)

// backupResource manages one restore point in the repository.
type backupResource struct{ session *session }

func (r *backupResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup"
}

func (r *backupResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

// ModifyPlan checks what can be checked before anything is touched. Once the backup exists, its VM is
// looked at only when another reference to it is written.
func (r *backupResource) ModifyPlan(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	plan, state, ok := toPlan[backupModel](ctx, r.session, req, &resp.Diagnostics)
	if !ok {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	if state == nil {
		r.session.planBackup(ctx, plan.backupRequested, backupOperation("Plan", ""), &resp.Diagnostics)
		return
	}
	if state.Superseded.ValueBool() && plan.Retention.IsNull() {
		// What is gone has nothing that it is superseded by any more.
		resp.RequiresReplace = append(resp.RequiresReplace, path.Root("retention"))
	}
	r.session.planVM(ctx, plan.VM, state.record(), backupOperation("Plan", ""), req, resp)
}

func (r *backupResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan backupModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Create, backupCreateTimeout, &resp.Diagnostics)
	defer cancel()
	result, repo := r.session.takeBackup(ctx, plan.backupRequested, backupOperation("Take", "create"), &resp.Diagnostics)
	if result == nil {
		return
	}
	plan.pruned(result.Pruned)
	resp.Diagnostics.Append(plan.fill(result.ID, repo.ID(), result.Manifest)...)
	resp.Diagnostics.Append(setSeries(ctx, resp.Private, result.Manifest)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
	resp.Diagnostics.Append(resp.Identity.Set(ctx, plan.identity())...)
}

func (r *backupResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state backupModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Read, backupReadTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}
	// The identity comes first: a state of an older Terraform has none, and without one a resource
	// can't even be dropped from the state.
	resp.Diagnostics.Append(resp.Identity.Set(ctx, state.identity())...)

	op := backupOperation("Read", "read").leaving("The backup is still in the state.")
	repo, err := r.session.repository(ctx, false)
	if err == nil {
		err = checkRepository(repo, state.RepositoryID.ValueString())
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	id := repository.ID(state.ID.ValueString())
	manifest, err := repo.Get(ctx, id)
	switch {
	case errors.Is(err, repository.ErrNotFound):
		r.gone(ctx, op, repo, state, req, resp)
		return
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	state.Superseded = types.BoolValue(false) // also where a copy of the repository was put back that has it
	resp.Diagnostics.Append(state.fill(id, repo.ID(), manifest)...)
	resp.Diagnostics.Append(setSeries(ctx, resp.Private, manifest)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
}

// gone ends a Read of a backup that isn't there: it is taken again, unless retention removed it.
func (r *backupResource) gone(
	ctx context.Context, op operation, repo *repository.Repository, state backupModel,
	req resource.ReadRequest, resp *resource.ReadResponse,
) {
	newer, err := superseded(ctx, repo, state.Retention, req.Private)
	switch {
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
	case newer:
		state.Superseded = types.BoolValue(true)
		resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
	default:
		resp.State.RemoveResource(ctx)
	}
}

// Update sees changes of arguments that concern Terraform alone; every other change replaces.
func (r *backupResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan backupModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	plan.known() // of a state that an older version wrote
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
	resp.Diagnostics.Append(resp.Identity.Set(ctx, plan.identity())...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("false"))...)
}

func (r *backupResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state backupModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Delete, backupDeleteTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() || state.OnDestroy.ValueString() != actionDelete {
		return
	}

	op := backupOperation("Delete", "delete").leaving("The backup is still in the state.")
	repo, err := r.session.repository(ctx, false)
	if err == nil {
		err = checkRepository(repo, state.RepositoryID.ValueString())
	}
	if err == nil {
		err = repo.DeleteUnused(ctx, repository.ID(state.ID.ValueString()))
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	warnings(&resp.Diagnostics, "Repository Not Maintained", r.session.keeper(repo).Maintain(ctx))
}

// ImportState takes the ID of a backup.
func (r *backupResource) ImportState(
	ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	identity := backupIdentity{ID: types.StringValue(req.ID)}
	if req.ID == "" {
		resp.Diagnostics.Append(req.Identity.Get(ctx, &identity)...)
		if resp.Diagnostics.HasError() {
			return
		}
	}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("id"), identity.ID)...)
	resp.Diagnostics.Append(resp.Identity.Set(ctx, identity)...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("true"))...)
}
