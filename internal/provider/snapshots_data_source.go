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

// A shownSnapshot is a snapshot as data sources show it.
type shownSnapshot struct {
	ID          types.String `tfsdk:"id"`
	Name        types.String `tfsdk:"name"`
	Path        types.String `tfsdk:"path"`
	Description types.String `tfsdk:"description"`
	CreatedAt   types.String `tfsdk:"created_at"`
	PowerState  types.String `tfsdk:"power_state"`
	Memory      types.Bool   `tfsdk:"memory"`
	Consistency types.String `tfsdk:"consistency"`
	ParentID    types.String `tfsdk:"parent_id"`
	ChainDepth  types.Int64  `tfsdk:"chain_depth"`
	IsCurrent   types.Bool   `tfsdk:"is_current"`
	SizeBytes   types.Int64  `tfsdk:"size_bytes"`
}

func showSnapshot(vm *hypervisor.VM, s hypervisor.Snapshot) shownSnapshot {
	l := shownSnapshot{
		ID: types.StringValue(snapshotKey(vm.InstanceUUID, s.ID)), Name: types.StringValue(s.Name), Path: types.StringValue(s.Path),
		Description: types.StringValue(s.Description), CreatedAt: timeValue(s.CreatedAt),
		PowerState: types.StringValue(string(s.PowerState)), Memory: types.BoolValue(s.Memory),
		Consistency: types.StringValue(string(quiesce.Of(s, false))), ChainDepth: types.Int64Value(int64(s.Depth)),
		IsCurrent: types.BoolValue(s.Current), SizeBytes: sizeValue(s.SizeBytes),
	}
	if s.Parent != "" {
		l.ParentID = types.StringValue(snapshotKey(vm.InstanceUUID, s.Parent))
	}
	return l
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
		Attributes: ofOneVM(map[string]schema.Attribute{
			"snapshots": schema.ListNestedAttribute{
				MarkdownDescription: "The snapshots, parents before their children.",
				Computed:            true,
				NestedObject: schema.NestedAttributeObject{
					Attributes: computedDataAttributes(listedSnapshotTypes, listedSnapshotDescriptions)},
			},
		}),
	}
}

// ofOneVM adds to the attributes of a data source those by which its VM is named.
func ofOneVM(attributes map[string]schema.Attribute) map[string]schema.Attribute {
	attributes["vm"] = schema.StringAttribute{
		MarkdownDescription: vmDescription, Required: true, Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
	}
	attributes["vm_uuid"] = schema.StringAttribute{MarkdownDescription: "BIOS UUID of the virtual machine.", Computed: true}
	attributes["vm_instance_uuid"] = schema.StringAttribute{
		MarkdownDescription: "Instance UUID of the virtual machine.", Computed: true,
	}
	return attributes
}

func (d *snapshotsDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model snapshotsModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	vm, all, ok := d.session.listSnapshots(ctx, model.VM, operation{verb: "List", noun: "Snapshots"}, &resp.Diagnostics)
	if !ok {
		return
	}
	model.VMUUID, model.VMInstanceUUID = types.StringValue(vm.BIOSUUID), types.StringValue(vm.InstanceUUID)
	list := make([]shownSnapshot, len(all))
	for i, s := range all {
		list[i] = showSnapshot(vm, s)
	}
	var diags diag.Diagnostics
	model.Snapshots, diags = types.ListValueFrom(ctx, types.ObjectType{AttrTypes: listedSnapshotTypes}, list)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// listSnapshots finds a VM and its snapshots. If it can't, it says so.
func (s *session) listSnapshots(
	ctx context.Context, ref types.String, op operation, diags *diag.Diagnostics,
) (vm *hypervisor.VM, all []hypervisor.Snapshot, ok bool) {
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op.paths = map[argument]path.Path{argVM: path.Root("vm")}
	m, err := s.snapshots(ctx)
	if err == nil {
		vm, all, err = m.List(ctx, hypervisor.VMRef(ref.ValueString()))
	}
	if err != nil {
		op.fail(ctx, diags, err)
	}
	return vm, all, err == nil
}
