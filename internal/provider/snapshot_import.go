package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

const snapshotImportForms = "<vm>/<snapshot ID>, for example \"web01/snapshot-12\", or <vm>:<path of the snapshot>, for " +
	"example \"web01:before upgrade\" or \"/DC0/vm/web01:base/before upgrade\"; <vm> is whatever the vm argument takes"

// ImportState finds a snapshot by its identity, by the ID that is in the state, or in words.
func (r *snapshotResource) ImportState(
	ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	ctx, cancel := context.WithTimeout(ctx, snapshotReadTimeout)
	defer cancel()
	op := snapshotOperation("Import", "read")
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if req.ID == "" {
		r.importIdentity(ctx, m, op, req, resp)
		return
	}
	found, err := findSnapshots(ctx, m, req.ID)
	switch {
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
		return
	case len(found) != 1:
		importError(&resp.Diagnostics, req.ID, found)
		return
	}
	importFound(ctx, found[0], resp)
}

// importIdentity imports what an identity names. Of many that are imported at the same time, none needs a call to
// the server of its own. The VM is written as its path, as in the configuration that a query generates.
func (r *snapshotResource) importIdentity(
	ctx context.Context, m *snapshot.Manager, op operation, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	var identity snapshotIdentity
	resp.Diagnostics.Append(req.Identity.Get(ctx, &identity)...)
	if resp.Diagnostics.HasError() {
		return
	}
	instanceUUID, id := identity.VMInstanceUUID.ValueString(), hypervisor.SnapshotID(identity.SnapshotID.ValueString())
	taken, err := readSnapshot(ctx, m, instanceUUID, id)
	switch {
	case snapshotGone(err):
		importError(&resp.Diagnostics, snapshotKey(instanceUUID, id), nil)
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
	default:
		importFound(ctx, foundSnapshot{ref: taken.VM.Path, vm: taken.VM, snapshot: taken.Snapshot}, resp)
	}
}

// readSnapshot reads a snapshot for a refresh or an import, of which there may be many at the same time.
// Errors: as snapshot.Manager.Read.
func readSnapshot(
	ctx context.Context, m *snapshot.Manager, instanceUUID string, id hypervisor.SnapshotID,
) (*snapshot.Taken, error) {
	taken, err := m.Read(hypervisor.Recent(ctx, refreshAge), instanceUUID, id)
	if snapshotGone(err) {
		return m.Read(ctx, instanceUUID, id) // a moment ago it may not have been there yet
	}
	return taken, err
}

// importFound puts a snapshot that was found into the state; reading it does the rest.
func importFound(ctx context.Context, one foundSnapshot, resp *resource.ImportStateResponse) {
	key := snapshotKey(one.vm.InstanceUUID, one.snapshot.ID)
	model := snapshotModel{ID: types.StringValue(key)}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("id"), key)...)
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("vm"), one.ref)...)
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("server"), one.vm.Server)...)
	resp.Diagnostics.Append(resp.Identity.Set(ctx, model.identity())...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("true"))...)
}

// foundSnapshot is one that an import ID may mean.
type foundSnapshot struct {
	ref      string // the VM as it was written
	vm       hypervisor.VMIdentity
	snapshot hypervisor.Snapshot
}

// findSnapshots tries every way in which an import ID can be read: names of VMs and of snapshots may
// hold slashes and colons, so that only what exists can tell.
func findSnapshots(ctx context.Context, m *snapshot.Manager, id string) ([]foundSnapshot, error) {
	var found []foundSnapshot
	try := func(ref, rest string, match func(hypervisor.Snapshot) bool) error {
		if ref == "" || rest == "" {
			return nil
		}
		vm, all, err := m.List(ctx, hypervisor.VMRef(ref))
		var notFound *hypervisor.VMNotFoundError
		if errors.As(err, &notFound) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			if match(s) && !slices.ContainsFunc(found, func(f foundSnapshot) bool {
				return f.snapshot.ID == s.ID && f.vm.ID == vm.ID
			}) {
				found = append(found, foundSnapshot{ref: ref, vm: vm.Identity(), snapshot: s})
			}
		}
		return nil
	}
	if i := strings.LastIndex(id, "/"); i >= 0 {
		rest := id[i+1:]
		err := try(id[:i], rest, func(s hypervisor.Snapshot) bool { return string(s.ID) == rest })
		if err != nil {
			return nil, err
		}
	}
	for i, c := range id {
		if c != ':' {
			continue
		}
		rest := id[i+1:]
		if err := try(id[:i], rest, func(s hypervisor.Snapshot) bool { return s.Path == rest }); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func importError(diags *diag.Diagnostics, id string, found []foundSnapshot) {
	if len(found) == 0 {
		diags.AddError("Unable to Import Snapshot", fmt.Sprintf("There is no snapshot %q.\n\nThe ID is of the form %s.",
			id, snapshotImportForms))
		return
	}
	diags.AddError("Unable to Import Snapshot", severalSnapshots(id, found))
}

// severalSnapshots says that an import ID may mean several snapshots.
func severalSnapshots(id string, found []foundSnapshot) string {
	lines := make([]string, len(found))
	for i, f := range found {
		lines[i] = describeSnapshots(f.vm.InstanceUUID, []hypervisor.Snapshot{f.snapshot})
	}
	return fmt.Sprintf("%q matches %d snapshots:\n  %s\n\nUse one of these IDs.", id, len(found), strings.Join(lines, "\n  "))
}
