package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// restoreIdentity is what was restored, and from what: all of it stays for as long as a restore is in the state.
type restoreIdentity struct {
	ID          types.String `tfsdk:"id"`
	BackupID    types.String `tfsdk:"backup_id"`
	InPlace     types.Bool   `tfsdk:"in_place"`
	SnapshotID  types.String `tfsdk:"snapshot_id"`
	SnapshotIDs types.List   `tfsdk:"snapshot_ids"`
}

func (r *restoreResource) IdentitySchema(
	_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse,
) {
	source := " Exactly one of `backup_id`, `snapshot_id` and `snapshot_ids` is written."
	resp.IdentitySchema = identityschema.Schema{Attributes: map[string]identityschema.Attribute{
		"id": identityschema.StringAttribute{
			RequiredForImport: true,
			Description:       "Instance UUID of the restored virtual machine; of several, one after the other with commas.",
		},
		"backup_id": identityschema.StringAttribute{
			OptionalForImport: true, Description: "ID of the backup that was restored." + source,
		},
		"in_place": identityschema.BoolAttribute{
			OptionalForImport: true, Description: "Whether the backup was restored into a virtual machine that existed: with in_place.",
		},
		"snapshot_id": identityschema.StringAttribute{
			OptionalForImport: true, Description: "ID of the snapshot that was reverted to." + source,
		},
		"snapshot_ids": identityschema.ListAttribute{
			OptionalForImport: true, ElementType: types.StringType,
			Description: "IDs of the snapshots that were reverted to." + source,
		},
	}}
}

func (m *restoreModel) identity() restoreIdentity {
	identity := restoreIdentity{ID: m.ID, BackupID: m.BackupID, SnapshotID: m.SnapshotID, SnapshotIDs: m.SnapshotIDs}
	if !m.InPlace.IsNull() {
		identity.InPlace = types.BoolValue(true)
	}
	return identity
}

// identifyRestore sets the identity of what is in a state, whoever wrote that and however the operation ended.
func identifyRestore(
	ctx context.Context, state *tfsdk.State, identity *tfsdk.ResourceIdentity, diags *diag.Diagnostics,
) {
	if state.Raw.IsNull() {
		return
	}
	var model restoreModel
	diags.Append(state.Get(ctx, &model)...)
	diags.Append(identity.Set(ctx, model.identity())...)
}
