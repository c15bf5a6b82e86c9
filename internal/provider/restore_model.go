package provider

import (
	"context"
	"reflect"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

type restoreModel struct {
	BackupID    types.String `tfsdk:"backup_id"`
	SnapshotID  types.String `tfsdk:"snapshot_id"`
	SnapshotIDs types.List   `tfsdk:"snapshot_ids"`
	NewVM       types.Object `tfsdk:"new_vm"`
	InPlace     types.Object `tfsdk:"in_place"`
	OnlyDisks   types.Set    `tfsdk:"only_disks"`
	Verify      types.Bool   `tfsdk:"verify"`
	runsAfter
	Triggers  types.Map      `tfsdk:"triggers"`
	OnDestroy types.String   `tfsdk:"on_destroy"`
	Timeouts  timeouts.Value `tfsdk:"timeouts"`

	ID             types.String `tfsdk:"id"`
	VMID           types.String `tfsdk:"vm_id"`
	VMName         types.String `tfsdk:"vm_name"`
	VMUUID         types.String `tfsdk:"vm_uuid"`
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
	VMPath         types.String `tfsdk:"vm_path"`
	Disks          types.List   `tfsdk:"disks"`
	RestoredBytes  types.Int64  `tfsdk:"restored_bytes"`
	Verified       types.Bool   `tfsdk:"verified"`
	PowerState     types.String `tfsdk:"power_state"`
	GuestIPAddress types.String `tfsdk:"guest_ip_address"`
	GuestAddresses types.List   `tfsdk:"guest_ip_addresses"`
	CompletedAt    types.String `tfsdk:"completed_at"`
	Server         types.String `tfsdk:"server"`
	StartFailed    types.Bool   `tfsdk:"start_failed"`
	Replaced       types.List   `tfsdk:"replaced_disks"`
	ReplacedUntil  types.String `tfsdk:"replaced_disks_until"`
	Reverted       types.List   `tfsdk:"reverted"`
}

// runsAfter says whether a VM is to run afterwards, and what of its guest is waited for then.
type runsAfter struct {
	PowerOn      types.Bool   `tfsdk:"power_on"`
	WaitForGuest types.Object `tfsdk:"wait_for_guest"`
}

type newVMModel struct {
	Name            types.String `tfsdk:"name"`
	Identity        types.String `tfsdk:"identity"`
	Folder          types.String `tfsdk:"folder"`
	ResourcePool    types.String `tfsdk:"resource_pool"`
	Host            types.String `tfsdk:"host"`
	Datastore       types.String `tfsdk:"datastore"`
	DiskDatastores  types.Map    `tfsdk:"disk_datastores"`
	NetworkMap      types.Map    `tfsdk:"network_map"`
	ConnectNetworks types.Bool   `tfsdk:"connect_networks"`
}

type inPlaceModel struct {
	VM                types.String `tfsdk:"vm"`
	AllowOtherVM      types.Bool   `tfsdk:"allow_other_vm"`
	Hardware          types.String `tfsdk:"hardware"`
	RemoveSnapshots   types.Bool   `tfsdk:"remove_snapshots"`
	PowerOff          types.Bool   `tfsdk:"power_off"`
	ShutdownTimeout   types.String `tfsdk:"shutdown_timeout"`
	KeepReplacedDisks types.String `tfsdk:"keep_replaced_disks"`
}

type waitForGuestModel struct {
	Agent   types.Bool   `tfsdk:"agent"`
	Address types.Bool   `tfsdk:"address"`
	Timeout types.String `tfsdk:"timeout"`
}

// restoreDiskTypes are the attributes of a disk that was restored.
var restoreDiskTypes = map[string]attr.Type{
	"label":          types.StringType,
	"address":        types.StringType,
	"uuid":           types.StringType,
	"capacity_bytes": types.Int64Type,
	"datastore":      types.StringType,
	"path":           types.StringType,
	"restored_bytes": types.Int64Type,
	"digest":         types.StringType,
}

// reverts reports whether VMs are reverted to snapshots, and nothing comes from a backup.
func (m *restoreModel) reverts() bool { return !m.SnapshotID.IsNull() || !m.SnapshotIDs.IsNull() }

// builds reports whether a VM is made.
func (m *restoreModel) builds() bool { return !m.reverts() && m.InPlace.IsNull() }

func (m *restoreModel) request(ctx context.Context, diags *diag.Diagnostics) restore.Request {
	r := restore.Request{
		BackupID: repository.ID(m.BackupID.ValueString()), Power: restore.PowerAsCaptured, Verify: m.Verify.ValueBool(),
		WaitForGuest: m.guestWait(ctx, diags), InPlace: m.requestInPlace(ctx, diags), NewVM: m.requestNewVM(ctx, diags),
	}
	if r.InPlace != nil {
		r.Power = restore.PowerAsBefore
	}
	if !m.PowerOn.IsNull() && !m.PowerOn.IsUnknown() {
		r.Power = restore.PowerOff
		if m.PowerOn.ValueBool() {
			r.Power = restore.PowerOn
		}
	}
	if !m.OnlyDisks.IsNull() && !m.OnlyDisks.IsUnknown() {
		diags.Append(m.OnlyDisks.ElementsAs(ctx, &r.Disks, false)...)
	}
	return r
}

func (m *restoreModel) requestNewVM(ctx context.Context, diags *diag.Diagnostics) *restore.NewVM {
	if m.NewVM.IsNull() || m.NewVM.IsUnknown() {
		return nil
	}
	n := m.newVM(ctx, diags)
	request := &restore.NewVM{
		Name:           n.Name.ValueString(),
		Identity:       hypervisor.Identity(or(n.Identity, string(hypervisor.IdentityOriginal))),
		Folder:         n.Folder.ValueString(),
		ResourcePool:   n.ResourcePool.ValueString(),
		Host:           n.Host.ValueString(),
		Datastore:      n.Datastore.ValueString(),
		DiskDatastores: textMap(ctx, n.DiskDatastores, diags),
		NetworkMap:     textMap(ctx, n.NetworkMap, diags),
	}
	if !n.ConnectNetworks.IsNull() && !n.ConnectNetworks.IsUnknown() {
		connect := n.ConnectNetworks.ValueBool()
		request.ConnectNetworks = &connect
	}
	return request
}

// sameNewVM reports whether two ways to write new_vm ask for the same: what is left out is as good as its default.
func sameNewVM(ctx context.Context, plan, state types.Object) bool {
	var diags diag.Diagnostics
	asked := func(object types.Object) restore.NewVM {
		n := (&restoreModel{NewVM: object}).requestNewVM(ctx, &diags)
		if n == nil {
			n = &restore.NewVM{Identity: hypervisor.IdentityOriginal}
		}
		if len(n.DiskDatastores) == 0 {
			n.DiskDatastores = nil
		}
		if len(n.NetworkMap) == 0 {
			n.NetworkMap = nil
		}
		if n.ConnectNetworks == nil && n.Identity == hypervisor.IdentityCopy {
			n.ConnectNetworks = new(bool)
		}
		return *n
	}
	return reflect.DeepEqual(asked(plan), asked(state)) && !diags.HasError()
}

func (m *restoreModel) requestInPlace(ctx context.Context, diags *diag.Diagnostics) *restore.InPlace {
	if m.InPlace.IsNull() || m.InPlace.IsUnknown() {
		return nil
	}
	p := m.inPlace(ctx, diags)
	return &restore.InPlace{
		VM:                hypervisor.VMRef(p.VM.ValueString()),
		OtherVM:           p.AllowOtherVM.ValueBool(),
		RemoveSnapshots:   p.RemoveSnapshots.ValueBool(),
		PowerOff:          p.PowerOff.ValueBool(),
		ShutdownTimeout:   duration(p.ShutdownTimeout),
		KeepHardware:      p.Hardware.ValueString() == hardwareKeep,
		KeepReplacedDisks: duration(p.KeepReplacedDisks),
	}
}

// guestWait is what of a guest is waited for; nil: it isn't.
func (m *runsAfter) guestWait(ctx context.Context, diags *diag.Diagnostics) *restore.WaitForGuest {
	if m.WaitForGuest.IsNull() || m.WaitForGuest.IsUnknown() {
		return nil
	}
	var w waitForGuestModel
	diags.Append(m.WaitForGuest.As(ctx, &w, basetypes.ObjectAsOptions{})...)
	return &restore.WaitForGuest{
		Agent: w.Agent.ValueBool(), Address: w.Address.ValueBool(), Timeout: duration(w.Timeout),
	}
}

// newVM reads the new_vm argument; all is null where it isn't written.
func (m *restoreModel) newVM(ctx context.Context, diags *diag.Diagnostics) newVMModel {
	var n newVMModel
	if !m.NewVM.IsNull() && !m.NewVM.IsUnknown() {
		diags.Append(m.NewVM.As(ctx, &n, basetypes.ObjectAsOptions{})...)
	}
	return n
}

// inPlace reads the in_place argument; all is null where it isn't written.
func (m *restoreModel) inPlace(ctx context.Context, diags *diag.Diagnostics) inPlaceModel {
	var p inPlaceModel
	if !m.InPlace.IsNull() && !m.InPlace.IsUnknown() {
		diags.Append(m.InPlace.As(ctx, &p, basetypes.ObjectAsOptions{})...)
	}
	return p
}

// defaultOnDestroy is what on_destroy is where it isn't written. A VM with its original identity may
// be managed by another resource, to which it came back; a copy is nobody else's; one that was there before
// is never deleted. Unknown: the identity is.
func (m *restoreModel) defaultOnDestroy(ctx context.Context, diags *diag.Diagnostics) types.String {
	if !m.builds() {
		return types.StringValue(actionKeep)
	}
	if m.NewVM.IsUnknown() {
		return types.StringUnknown()
	}
	n := m.newVM(ctx, diags)
	switch {
	case n.Identity.IsUnknown():
		return types.StringUnknown()
	case n.Identity.ValueString() == string(hypervisor.IdentityCopy):
		return types.StringValue(actionDelete)
	default:
		return types.StringValue(actionKeep)
	}
}

// fill sets what a restore made.
func (m *restoreModel) fill(r *restore.Result) diag.Diagnostics {
	m.fillVM(r.VM)
	m.ID = types.StringValue(r.VM.InstanceUUID)
	m.RestoredBytes = types.Int64Value(r.RestoredBytes)
	m.Verified = types.BoolValue(r.Verified)
	m.CompletedAt = timeValue(r.CompletedAt)
	m.Reverted = types.ListValueMust(types.ObjectType{AttrTypes: revertedTypes}, nil)
	m.setReplaced(r.Replaced, r.ReplacedUntil)
	disks := make([]attr.Value, len(r.Disks))
	for i, d := range r.Disks {
		disks[i] = types.ObjectValueMust(restoreDiskTypes, map[string]attr.Value{
			"label":          types.StringValue(d.Label),
			"address":        types.StringValue(d.Address),
			"uuid":           types.StringValue(d.UUID),
			"capacity_bytes": types.Int64Value(d.Capacity),
			"datastore":      types.StringValue(d.Datastore),
			"path":           types.StringValue(d.Path),
			"restored_bytes": types.Int64Value(d.RestoredBytes),
			"digest":         types.StringValue(d.Digest),
		})
	}
	var diags diag.Diagnostics
	m.Disks, diags = types.ListValue(types.ObjectType{AttrTypes: restoreDiskTypes}, disks)
	return diags
}

// fillVM sets what the VM is now. What was restored is history and stays.
func (m *restoreModel) fillVM(vm *hypervisor.VM) {
	m.VMID = types.StringValue(string(vm.ID))
	m.VMName = types.StringValue(vm.Name)
	m.VMUUID = types.StringValue(vm.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(vm.InstanceUUID)
	m.VMPath = types.StringValue(vm.Path)
	m.Server = types.StringValue(vm.Server)
	m.PowerState = types.StringValue(string(vm.PowerState))
	m.GuestIPAddress = textOrNull(vm.GuestIPAddress)
	m.GuestAddresses = texts(vm.GuestAddresses)
}

// asPlanned gives what was planned of a VM that is updated: what has become another since is for the next refresh to tell.
func (m *restoreModel) asPlanned(planned restoreModel) {
	for _, text := range [][2]*types.String{
		{&m.VMID, &planned.VMID}, {&m.VMName, &planned.VMName}, {&m.VMUUID, &planned.VMUUID},
		{&m.VMInstanceUUID, &planned.VMInstanceUUID}, {&m.VMPath, &planned.VMPath}, {&m.Server, &planned.Server},
		{&m.PowerState, &planned.PowerState}, {&m.GuestIPAddress, &planned.GuestIPAddress},
	} {
		if !text[1].IsUnknown() {
			*text[0] = *text[1]
		}
	}
	for _, list := range [][2]*types.List{{&m.GuestAddresses, &planned.GuestAddresses}, {&m.Reverted, &planned.Reverted}} {
		if !list[1].IsUnknown() {
			*list[0] = *list[1]
		}
	}
}

// texts is a list of texts, empty rather than null.
func texts(list []string) types.List {
	values := make([]attr.Value, len(list))
	for i, text := range list {
		values[i] = types.StringValue(text)
	}
	return types.ListValueMust(types.StringType, values)
}

// textOrNull is a text, null where it is empty.
func textOrNull(text string) types.String {
	if text == "" {
		return types.StringNull()
	}
	return types.StringValue(text)
}
