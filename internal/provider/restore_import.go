package provider

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// An import takes up a restore whose state was lost, so that the same configuration doesn't restore again. What was
// restored, and from what, nothing on the server tells: the import says it.

const restoreImportForms = "<backup ID>:<vm> for a virtual machine that was built from a backup, in_place:<backup ID>:<vm> for one " +
	"that the backup was restored into, <vm>/<snapshot ID> or <vm>:<path of the snapshot> for one that was reverted, and the " +
	"snapshot_ids with commas for several; <vm> is a managed object ID, a UUID, an inventory path or a name"

// A restoreAddress is what an import names.
type restoreAddress struct {
	backup  repository.ID
	vm      hypervisor.VMRef // of a restore from a backup
	inPlace bool

	snapshot string   // in words, or an ID
	several  []string // IDs of snapshots
	reverted string   // with one of them: the ID that is said to come of it. Empty: nothing is said
}

var backupAddress = regexp.MustCompile(`^(in_place:)?([0-9a-f]{32}):(.+)$`)

// parseRestore reads what people write.
func parseRestore(id string) restoreAddress {
	if parts := backupAddress.FindStringSubmatch(id); parts != nil {
		return restoreAddress{backup: repository.ID(parts[2]), vm: hypervisor.VMRef(parts[3]), inPlace: parts[1] != ""}
	}
	if keys := strings.Split(id, ","); len(keys) > 1 && !strings.Contains(id, ":") {
		return restoreAddress{several: keys}
	}
	return restoreAddress{snapshot: id}
}

// address is what an identity names.
func (i restoreIdentity) address(ctx context.Context, diags *diag.Diagnostics) restoreAddress {
	a := restoreAddress{
		backup: repository.ID(i.BackupID.ValueString()), inPlace: i.InPlace.ValueBool(), snapshot: i.SnapshotID.ValueString(),
	}
	if a.backup != "" {
		a.vm = hypervisor.VMRef(i.ID.ValueString())
	} else {
		a.reverted = i.ID.ValueString()
	}
	if !i.SnapshotIDs.IsNull() {
		diags.Append(i.SnapshotIDs.ElementsAs(ctx, &a.several, false)...)
	}
	return a
}

// ImportState takes up a restore.
func (r *restoreResource) ImportState(
	ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse,
) {
	ctx, cancel := context.WithTimeout(ctx, restoreReadTimeout)
	defer cancel()
	diags := &resp.Diagnostics
	address := parseRestore(req.ID)
	if req.ID == "" {
		var identity restoreIdentity
		diags.Append(req.Identity.Get(ctx, &identity)...)
		address = identity.address(ctx, diags)
	}
	var model restoreModel
	resp.State.Raw = nullAttributes(resp.State.Raw.Type(), diags)
	if diags.HasError() {
		return
	}
	diags.Append(resp.State.Get(ctx, &model)...)
	var err error
	switch {
	case diags.HasError():
		return
	case address.backup != "":
		err = r.importBackup(ctx, address, &model, diags)
	default:
		err = r.importRevert(ctx, address, &model)
	}
	var form *importFormError
	switch {
	case errors.As(err, &form):
		diags.AddError("Unable to Import Restore", form.Error())
	case err != nil:
		operation{verb: "Import", noun: "Restore"}.fail(ctx, diags, err)
	}
	if diags.HasError() {
		return
	}
	model.StartFailed = types.BoolValue(false)
	model.OnDestroy = types.StringValue(actionKeep) // until the configuration says otherwise
	diags.Append(resp.State.Set(ctx, model)...)
	diags.Append(resp.Identity.Set(ctx, model.identity())...)
	for _, key := range []string{importedKey, takenUpKey} {
		diags.Append(resp.Private.SetKey(ctx, key, []byte("true"))...)
	}
}

// importBackup fills in a VM that has disks of a backup. How it was restored shows in who it is.
func (r *restoreResource) importBackup(
	ctx context.Context, address restoreAddress, model *restoreModel, diags *diag.Diagnostics,
) error {
	repo, err := r.session.repository(ctx, false)
	if err != nil {
		return err
	}
	manifest, err := repo.Get(ctx, address.backup)
	if err != nil {
		return err
	}
	hv, err := r.session.hypervisor(ctx)
	if err != nil {
		return err
	}
	vm, err := hv.FindVM(ctx, address.vm)
	if err != nil {
		return err
	}
	if !address.inPlace && !fits(vm, manifest) {
		return &importFormError{fmt.Sprintf("%s can't have been built from backup %s: it has disks of %s, the backup those of %s.\n\nA "+
			"virtual machine that got disks, or larger ones, since it was restored can't be imported: manage it without vm_restore.",
			vm.Path, address.backup, sizes(vm.Disks), sizes(portDisks(manifest)))}
	}
	model.BackupID = types.StringValue(string(address.backup))
	original := strings.EqualFold(vm.InstanceUUID, manifest.VM.InstanceUUID)
	switch {
	case address.inPlace:
		p := inPlaceModel{Hardware: types.StringValue(hardwareRestore)}
		if !original {
			p.VM, p.AllowOtherVM = types.StringValue(string(address.vm)), types.BoolValue(true)
		}
		model.InPlace = objectOf(ctx, model.InPlace, p, diags)
	case !original:
		model.NewVM = objectOf(ctx, model.NewVM, newVMModel{
			Name: types.StringValue(vm.Name), Identity: types.StringValue(string(hypervisor.IdentityCopy)),
			DiskDatastores: types.MapNull(types.StringType), NetworkMap: types.MapNull(types.StringType),
		}, diags)
	}
	model.fillVM(vm)
	model.ID = types.StringValue(vm.InstanceUUID)
	model.Reverted = types.ListValueMust(types.ObjectType{AttrTypes: revertedTypes}, nil)
	model.setReplaced(nil, timeOf(types.StringNull()))
	return nil
}

// fits tells whether a VM may have been built from a backup: it has disks as large as those of the backup, or some of
// them.
func fits(vm *hypervisor.VM, manifest *repository.Manifest) bool {
	left := portDisks(manifest)
	for _, d := range vm.Disks {
		i := slices.IndexFunc(left, func(o hypervisor.Disk) bool { return o.Capacity == d.Capacity })
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return len(vm.Disks) > 0 || len(manifest.Disks) == 0
}

// portDisks are the disks of a backup, as far as it matters here.
func portDisks(manifest *repository.Manifest) []hypervisor.Disk {
	disks := make([]hypervisor.Disk, len(manifest.Disks))
	for i, d := range manifest.Disks {
		disks[i].Capacity = d.Capacity
	}
	return disks
}

// sizes lists how large disks are.
func sizes(disks []hypervisor.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	list := make([]string, len(disks))
	for i, d := range disks {
		list[i] = fmt.Sprintf("%d bytes", d.Capacity)
	}
	return strings.Join(list, ", ")
}

// objectOf is a struct as an object of the same type as a null one.
func objectOf(ctx context.Context, null types.Object, of any, diags *diag.Diagnostics) types.Object {
	object, problems := types.ObjectValueFrom(ctx, null.AttributeTypes(ctx), of)
	diags.Append(problems...)
	return object
}

// importRevert fills in VMs that were reverted. The snapshots may be gone since.
func (r *restoreResource) importRevert(ctx context.Context, address restoreAddress, model *restoreModel) error {
	keys := address.several
	if keys == nil {
		key, err := r.snapshotKeyOf(ctx, address.snapshot)
		if err != nil {
			return err
		}
		keys = []string{key}
		model.SnapshotID = types.StringValue(key)
	} else {
		model.SnapshotIDs = texts(keys)
	}
	for _, key := range keys {
		if !isSnapshotKey(key) {
			return noRestore("%q is not the ID of a snapshot.", key)
		}
	}
	hv, err := r.session.hypervisor(ctx)
	if err != nil {
		return err
	}
	reverted := make([]snapshot.Reverted, len(keys))
	for i, id := range setMembers(keys) {
		vm, err := hv.VMByInstanceUUID(ctx, id.VM)
		if err != nil {
			return err
		}
		reverted[i].VM, reverted[i].Snapshot.ID = *vm, id.Snapshot
	}
	model.fillReverted(reverted, types.StringNull())
	if is := model.ID.ValueString(); address.reverted != "" && !strings.EqualFold(address.reverted, is) {
		return noRestore("The id of the identity is %q; the snapshots are of "+is+".", address.reverted)
	}
	return nil
}

// noRestore says what is wrong with an ID, and how it is written.
func noRestore(format, what string) error {
	return &importFormError{fmt.Sprintf(format+"\n\nThe ID of a restore is of the form %s.", what, restoreImportForms)}
}

// snapshotKeyOf is the ID of a snapshot that is named by it, or in words.
func (r *restoreResource) snapshotKeyOf(ctx context.Context, text string) (string, error) {
	if isSnapshotKey(text) {
		return text, nil
	}
	m, err := r.session.snapshots(ctx)
	if err != nil {
		return "", err
	}
	found, err := findSnapshots(ctx, m, text)
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", noRestore("There is no snapshot %q.", text)
	case len(found) > 1:
		return "", &importFormError{severalSnapshots(text, found)}
	}
	return snapshotKey(found[0].vm.InstanceUUID, found[0].snapshot.ID), nil
}

// isSnapshotKey reports whether a text is an ID of a snapshot as the state has it.
func isSnapshotKey(text string) bool {
	vm, id := splitSnapshotKey(text)
	return isUUID(vm) && id != ""
}
