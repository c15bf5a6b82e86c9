package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var _ datasource.DataSourceWithConfigure = (*machineDataSource)(nil)

// machineDataSource shows a VM as it is, and what would stop a backup of it.
type machineDataSource struct{ session *session }

type machineModel struct {
	VM              types.String `tfsdk:"vm"`
	ID              types.String `tfsdk:"id"`
	Name            types.String `tfsdk:"name"`
	Path            types.String `tfsdk:"path"`
	UUID            types.String `tfsdk:"uuid"`
	InstanceUUID    types.String `tfsdk:"instance_uuid"`
	PowerState      types.String `tfsdk:"power_state"`
	GuestID         types.String `tfsdk:"guest_id"`
	GuestAgent      types.Bool   `tfsdk:"guest_agent"`
	GuestIPAddress  types.String `tfsdk:"guest_ip_address"`
	HardwareVersion types.String `tfsdk:"hardware_version"`
	Template        types.Bool   `tfsdk:"template"`
	ChangeTracking  types.Bool   `tfsdk:"change_tracking"`
	CPUs            types.Int64  `tfsdk:"cpus"`
	MemoryBytes     types.Int64  `tfsdk:"memory_bytes"`
	Disks           types.List   `tfsdk:"disks"`
	Obstacles       types.List   `tfsdk:"obstacles"`
}

var machineTypes = map[string]attr.Type{
	"id": types.StringType, "name": types.StringType, "path": types.StringType, "uuid": types.StringType,
	"instance_uuid": types.StringType, "power_state": types.StringType, "guest_id": types.StringType,
	"guest_agent": types.BoolType, "guest_ip_address": types.StringType, "hardware_version": types.StringType,
	"template": types.BoolType, "change_tracking": types.BoolType, "cpus": types.Int64Type,
	"memory_bytes": types.Int64Type,
}

var machineDescriptions = map[string]string{
	"id":               "The hypervisor's ID (`vm-42`).",
	"name":             "Name.",
	"path":             "Inventory path.",
	"uuid":             "BIOS UUID.",
	"instance_uuid":    "Instance UUID, unique on one server.",
	"power_state":      "`powered_on`, `powered_off` or `suspended`.",
	"guest_id":         "The hypervisor's identifier of the guest operating system.",
	"guest_agent":      "Whether the guest's agent (VMware Tools) runs: without it, a guest can't be quiesced.",
	"guest_ip_address": "IP address that the guest's agent reports.",
	"hardware_version": "Version of the virtual hardware.",
	"template":         "Whether it is a template.",
	"change_tracking":  "Whether changed block tracking is on.",
	"cpus":             "Number of virtual CPUs.",
	"memory_bytes":     "Size of the memory.",
}

var machineDiskTypes = map[string]attr.Type{
	"label": types.StringType, "address": types.StringType, "uuid": types.StringType,
	"capacity_bytes": types.Int64Type, "datastore": types.StringType, "path": types.StringType,
}

var machineDiskDescriptions = map[string]string{
	"label":          "Label, `Hard disk 1`.",
	"address":        "Controller and unit, `scsi0:0`.",
	"uuid":           "UUID of the disk, where it has one.",
	"capacity_bytes": "Capacity.",
	"datastore":      "Datastore that the disk is on.",
	"path":           "Backing file.",
}

var obstacleTypes = map[string]attr.Type{
	"kind": types.StringType, "device": types.StringType, "reason": types.StringType, "remedy": types.StringType,
	"blocks_snapshot": types.BoolType, "can_exclude": types.BoolType,
}

var obstacleDescriptions = map[string]string{
	"kind": "`template`, `physical_rdm`, `shared_bus`, `multi_writer`, `fault_tolerance`, `vtpm`, `encryption`, " +
		"`independent_disk` or `snapshots_locked`.",
	"device":          "Label of the device; null when it is about the virtual machine as a whole.",
	"reason":          "What is the matter.",
	"remedy":          "What to do about it.",
	"blocks_snapshot": "Whether not even a snapshot can be taken.",
	"can_exclude":     "Whether a backup is possible if the device is named in `exclude_disks`.",
}

func (d *machineDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_machine"
}

func (d *machineDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *machineDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := computedDataAttributes(machineTypes, machineDescriptions)
	attributes["vm"] = schema.StringAttribute{
		MarkdownDescription: vmDescription, Required: true,
		Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
	}
	attributes["disks"] = schema.ListNestedAttribute{
		MarkdownDescription: "The disks, in the order of controllers and units.",
		Computed:            true,
		NestedObject: schema.NestedAttributeObject{
			Attributes: computedDataAttributes(machineDiskTypes, machineDiskDescriptions)},
	}
	attributes["obstacles"] = schema.ListNestedAttribute{
		MarkdownDescription: "What stands in the way of a snapshot or a backup; empty: nothing.",
		Computed:            true,
		NestedObject:        schema.NestedAttributeObject{Attributes: computedDataAttributes(obstacleTypes, obstacleDescriptions)},
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A virtual machine as it is now, and what would stop a backup of it.",
		Attributes:          attributes,
	}
}

func (d *machineDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model machineModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "Read", noun: "Virtual Machine", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	hv, err := d.session.hypervisor(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	vm, err := hv.FindVM(ctx, hypervisor.VMRef(model.VM.ValueString()))
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(model.fill(vm)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

func (m *machineModel) fill(vm *hypervisor.VM) diag.Diagnostics {
	m.ID = types.StringValue(string(vm.ID))
	m.Name = types.StringValue(vm.Name)
	m.Path = types.StringValue(vm.Path)
	m.UUID = types.StringValue(vm.BIOSUUID)
	m.InstanceUUID = types.StringValue(vm.InstanceUUID)
	m.PowerState = types.StringValue(string(vm.PowerState))
	m.GuestID = types.StringValue(vm.GuestID)
	m.GuestAgent = types.BoolValue(vm.GuestAgent)
	m.GuestIPAddress = nonEmpty(vm.GuestIPAddress)
	m.HardwareVersion = types.StringValue(vm.HardwareVersion)
	m.Template = types.BoolValue(vm.Template)
	m.ChangeTracking = types.BoolValue(vm.ChangeTracking)
	m.CPUs = types.Int64Value(int64(vm.CPUs))
	m.MemoryBytes = types.Int64Value(vm.MemoryBytes)

	disks := make([]attr.Value, len(vm.Disks))
	for i, d := range vm.Disks {
		disks[i] = types.ObjectValueMust(machineDiskTypes, map[string]attr.Value{
			"label": types.StringValue(d.Label), "address": types.StringValue(d.Address), "uuid": nonEmpty(d.UUID),
			"capacity_bytes": types.Int64Value(d.Capacity), "datastore": types.StringValue(d.Datastore),
			"path": types.StringValue(d.Path),
		})
	}
	obstacles := make([]attr.Value, len(vm.Obstacles))
	for i, o := range vm.Obstacles {
		obstacles[i] = types.ObjectValueMust(obstacleTypes, map[string]attr.Value{
			"kind": types.StringValue(string(o.Kind)), "device": nonEmpty(o.Device),
			"reason": types.StringValue(o.Reason), "remedy": types.StringValue(o.Remedy),
			"blocks_snapshot": types.BoolValue(o.BlocksSnapshot),
			"can_exclude":     types.BoolValue(o.Disk != "" && !o.BlocksSnapshot),
		})
	}
	var diags, more diag.Diagnostics
	m.Disks, diags = types.ListValue(types.ObjectType{AttrTypes: machineDiskTypes}, disks)
	m.Obstacles, more = types.ListValue(types.ObjectType{AttrTypes: obstacleTypes}, obstacles)
	diags.Append(more...)
	return diags
}

// nonEmpty is text, or null where there is none.
func nonEmpty(text string) types.String {
	if text == "" {
		return types.StringNull()
	}
	return types.StringValue(text)
}
