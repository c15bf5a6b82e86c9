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
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

var _ datasource.DataSourceWithConfigure = (*snapshotsDataSource)(nil)

// snapshotsDataSource lists the snapshots of a VM, whoever took them.
type snapshotsDataSource struct{ session *session }

type snapshotsModel struct {
	VM             types.String `tfsdk:"vm"`
	VMUUID         types.String `tfsdk:"vm_uuid"`
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
	Snapshots      types.List   `tfsdk:"snapshots"`
}

var listedSnapshotTypes = map[string]attr.Type{
	"id": types.StringType, "name": types.StringType, "description": types.StringType, "path": types.StringType,
	"created_at": types.StringType, "power_state": types.StringType, "memory": types.BoolType,
	"consistency": types.StringType, "parent_id": types.StringType, "chain_depth": types.Int64Type,
	"is_current": types.BoolType, "size_bytes": types.Int64Type,
}

var listedSnapshotDescriptions = map[string]string{
	"id":          "`<instance UUID>/<snapshot ID>`: what `terraform import` takes.",
	"name":        "Name. It needn't be unique.",
	"description": "Description.",
	"path":        "Names of the snapshots from the root to this one, `a/b/c`.",
	"created_at":  "When the snapshot was taken (RFC 3339).",
	"power_state": "Power state that a revert leads to.",
	"memory":      "Whether the snapshot holds the memory of the running virtual machine.",
	"consistency": "What the guest finds after a revert: `memory`, `application`, `filesystem` or `crash`.",
	"parent_id":   "`id` of the snapshot that this one is built on; null for a root.",
	"chain_depth": "Level in the chain: 1 for a root.",
	"is_current":  "Whether the virtual machine's running state descends from this snapshot directly.",
	"size_bytes":  "Space that the snapshot takes on the datastore, where that is known.",
}

func (d *snapshotsDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_snapshots"
}

func (d *snapshotsDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *snapshotsDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "The snapshots of a virtual machine, whoever took them.",
		Attributes: map[string]schema.Attribute{
			"vm": schema.StringAttribute{
				MarkdownDescription: vmDescription, Required: true,
				Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
			},
			"vm_uuid": schema.StringAttribute{MarkdownDescription: "BIOS UUID of the virtual machine.", Computed: true},
			"vm_instance_uuid": schema.StringAttribute{
				MarkdownDescription: "Instance UUID of the virtual machine.", Computed: true,
			},
			"snapshots": schema.ListNestedAttribute{
				MarkdownDescription: "The snapshots, parents before their children.",
				Computed:            true,
				NestedObject: schema.NestedAttributeObject{
					Attributes: computedDataAttributes(listedSnapshotTypes, listedSnapshotDescriptions)},
			},
		},
	}
}

func (d *snapshotsDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model snapshotsModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "List", noun: "Snapshots", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	m, err := d.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	vm, all, err := m.List(ctx, hypervisor.VMRef(model.VM.ValueString()))
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(model.fill(vm, all)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

func (m *snapshotsModel) fill(vm *hypervisor.VM, all []hypervisor.Snapshot) diag.Diagnostics {
	m.VMUUID = types.StringValue(vm.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(vm.InstanceUUID)
	list := make([]attr.Value, len(all))
	for i, s := range all {
		parent := types.StringNull()
		if s.Parent != "" {
			parent = types.StringValue(snapshotKey(vm.InstanceUUID, s.Parent))
		}
		list[i] = types.ObjectValueMust(listedSnapshotTypes, map[string]attr.Value{
			"id":          types.StringValue(snapshotKey(vm.InstanceUUID, s.ID)),
			"name":        types.StringValue(s.Name),
			"description": types.StringValue(s.Description),
			"path":        types.StringValue(s.Path),
			"created_at":  timeValue(s.CreatedAt),
			"power_state": types.StringValue(string(s.PowerState)),
			"memory":      types.BoolValue(s.Memory),
			"consistency": types.StringValue(string(quiesce.Of(s, false))),
			"parent_id":   parent,
			"chain_depth": types.Int64Value(int64(s.Depth)),
			"is_current":  types.BoolValue(s.Current),
			"size_bytes":  sizeValue(s.SizeBytes),
		})
	}
	var diags diag.Diagnostics
	m.Snapshots, diags = types.ListValue(types.ObjectType{AttrTypes: listedSnapshotTypes}, list)
	return diags
}
