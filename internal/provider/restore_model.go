package provider

import (
	"context"

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
	BackupID  types.String   `tfsdk:"backup_id"`
	NewVM     types.Object   `tfsdk:"new_vm"`
	PowerOn   types.Bool     `tfsdk:"power_on"`
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
	PowerState     types.String `tfsdk:"power_state"`
	GuestIPAddress types.String `tfsdk:"guest_ip_address"`
	CompletedAt    types.String `tfsdk:"completed_at"`
	Server         types.String `tfsdk:"server"`
	StartFailed    types.Bool   `tfsdk:"start_failed"`
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

func (m *restoreModel) request(ctx context.Context, diags *diag.Diagnostics) restore.Request {
	r := restore.Request{BackupID: repository.ID(m.BackupID.ValueString()), Power: restore.PowerAsCaptured}
	if !m.PowerOn.IsNull() && !m.PowerOn.IsUnknown() {
		r.Power = restore.PowerOff
		if m.PowerOn.ValueBool() {
			r.Power = restore.PowerOn
		}
	}
	if m.NewVM.IsNull() || m.NewVM.IsUnknown() {
		return r
	}
	n := m.newVM(ctx, diags)
	r.NewVM = &restore.NewVM{
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
		r.NewVM.ConnectNetworks = &connect
	}
	return r
}

// newVM reads the new_vm argument; all is null where it isn't written.
func (m *restoreModel) newVM(ctx context.Context, diags *diag.Diagnostics) newVMModel {
	var n newVMModel
	if !m.NewVM.IsNull() && !m.NewVM.IsUnknown() {
		diags.Append(m.NewVM.As(ctx, &n, basetypes.ObjectAsOptions{})...)
	}
	return n
}

// defaultOnDestroy is what on_destroy is where it isn't written. A VM with its original identity may
// be managed by another resource, to which it came back; a copy is nobody else's. Unknown: the
// identity is.
func (m *restoreModel) defaultOnDestroy(ctx context.Context, diags *diag.Diagnostics) types.String {
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
	m.RestoredBytes = types.Int64Value(r.RestoredBytes)
	m.CompletedAt = timeValue(r.CompletedAt)
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
	m.ID = types.StringValue(vm.InstanceUUID)
	m.VMID = types.StringValue(string(vm.ID))
	m.VMName = types.StringValue(vm.Name)
	m.VMUUID = types.StringValue(vm.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(vm.InstanceUUID)
	m.VMPath = types.StringValue(vm.Path)
	m.Server = types.StringValue(vm.Server)
	m.PowerState = types.StringValue(string(vm.PowerState))
	m.GuestIPAddress = types.StringNull()
	if vm.GuestIPAddress != "" {
		m.GuestIPAddress = types.StringValue(vm.GuestIPAddress)
	}
}
