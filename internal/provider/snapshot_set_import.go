package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

const setImportForms = "<vm>/<snapshot ID> or <vm>:<path of the snapshot> of any of its snapshots, for example " +
	"\"web01/snapshot-12\" or \"web01:before upgrade\", where <vm> is whatever the vm argument takes; or it is the id of the set, " +
	"which is in the descriptions of its snapshots"

// snapshotSetIdentity needs no server: IDs are random.
type snapshotSetIdentity struct {
	ID types.String `tfsdk:"id"`
}

func (m *snapshotSetModel) identity() snapshotSetIdentity { return snapshotSetIdentity{ID: m.ID} }

func (r *snapshotSetResource) IdentitySchema(
	_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse,
) {
	resp.IdentitySchema = identityschema.Schema{Attributes: map[string]identityschema.Attribute{
		"id": identityschema.StringAttribute{
			RequiredForImport: true, Description: "ID of the set. It is in the descriptions of its snapshots.",
		},
	}}
}

// ImportState finds a set by its ID, or by any of its snapshots, which hold the names of all members.
func (r *snapshotSetResource) ImportState(
	ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	ctx, cancel := context.WithTimeout(ctx, setReadTimeout)
	defer cancel()
	id := req.ID
	if id == "" {
		var identity snapshotSetIdentity
		resp.Diagnostics.Append(req.Identity.Get(ctx, &identity)...)
		if resp.Diagnostics.HasError() {
			return
		}
		id = identity.ID.ValueString()
	}
	op := setOperation("Import", "read")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	ids, lost, err := findSet(ctx, m, id)
	var form *importFormError
	switch {
	case errors.As(err, &form):
		resp.Diagnostics.AddError("Unable to Import Snapshot Set", form.Error())
		return
	case err != nil:
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
	importSet(ctx, set, resp)
}

// An importFormError says that what was written names nothing, or several things.
type importFormError struct{ text string }

func (e *importFormError) Error() string { return e.text }

// findSet finds a set by what an import names. Errors: *importFormError, and those of the manager.
func findSet(
	ctx context.Context, m *snapshot.Manager, id string,
) ([]snapshot.MemberID, []hypervisor.VMID, error) {
	if !strings.ContainsAny(id, "/:") {
		ids, lost, err := m.FindSetByID(ctx, id)
		if errors.Is(err, snapshot.ErrRequest) {
			err = &importFormError{fmt.Sprintf("There is no complete set %q.\n\nThe ID is of the form %s.", id, setImportForms)}
		}
		return ids, lost, err
	}
	found, err := findSnapshots(ctx, m, id)
	switch {
	case err != nil:
		return nil, nil, err
	case len(found) == 0:
		return nil, nil, &importFormError{fmt.Sprintf("There is no snapshot %q.\n\nThe ID is of the form %s.", id, setImportForms)}
	case len(found) > 1:
		return nil, nil, &importFormError{severalSnapshots(id, found)}
	}
	return m.FindSet(ctx, found[0].snapshot.ID)
}

// importSet puts a set that was found into the state.
func importSet(ctx context.Context, set *snapshot.Set, resp *resource.ImportStateResponse) {
	var model snapshotSetModel
	model.fill(set)
	quiesced := quiesceAttribute().GetType()
	members := make([]setMemberModel, len(set.Members))
	for i, t := range set.Members {
		object, ok := quiesced.(types.ObjectType)
		if !ok {
			panic("the quiesce argument is no object")
		}
		members[i] = setMemberModel{VM: types.StringValue(t.VM.Path), Quiesce: types.ObjectNull(object.AttrTypes)}
	}
	value, diags := setMembersValue(ctx, members)
	resp.Diagnostics.Append(diags...)
	for name, v := range map[string]attr.Value{
		"id": model.ID, "members": value, "snapshots": model.Snapshots, "snapshot_ids": model.SnapshotIDs, "server": model.Server,
	} {
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(name), v)...)
	}
	resp.Diagnostics.Append(resp.Identity.Set(ctx, model.identity())...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("true"))...)
}

// joinIDs lists VMs by their handles, or backups.
func joinIDs[ID ~string](ids []ID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	return strings.Join(texts, ", ")
}
