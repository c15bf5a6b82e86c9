package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ datasource.DataSourceWithConfigure = (*backupsDataSource)(nil)

// backupsDataSource lists the backups in the repository.
type backupsDataSource struct{ session *session }

type backupsModel struct {
	backupFilter
	RepositoryID types.String `tfsdk:"repository_id"`
	Backups      types.List   `tfsdk:"backups"`
}

var listedBackupTypes = map[string]attr.Type{
	"id": types.StringType, "created_at": types.StringType, "vm_name": types.StringType, "vm_path": types.StringType,
	"vm_uuid": types.StringType, "vm_instance_uuid": types.StringType, "consistency": types.StringType,
	"description": types.StringType, "size_bytes": types.Int64Type, "tags": types.MapType{ElemType: types.StringType},
}

var listedBackupDescriptions = map[string]string{
	"id":               backupDescriptions["id"],
	"created_at":       backupDescriptions["created_at"],
	"vm_name":          backupDescriptions["vm_name"],
	"vm_path":          backupDescriptions["vm_path"],
	"vm_uuid":          backupDescriptions["vm_uuid"],
	"vm_instance_uuid": "Instance UUID of the virtual machine.",
	"consistency":      backupDescriptions["consistency"],
	"description":      "Description.",
	"size_bytes":       backupDescriptions["size_bytes"],
	"tags":             "Tags.",
}

func (d *backupsDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_backups"
}

func (d *backupsDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupsDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := backupFilterAttributes()
	attributes["repository_id"] = schema.StringAttribute{
		MarkdownDescription: "ID of the repository.", Computed: true,
	}
	attributes["backups"] = schema.ListNestedAttribute{
		MarkdownDescription: "The backups that match, newest first. Only complete ones are listed.",
		Computed:            true,
		NestedObject: schema.NestedAttributeObject{
			Attributes: computedDataAttributes(listedBackupTypes, listedBackupDescriptions)},
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The backups in the repository. No hypervisor is needed.",
		Attributes:          attributes,
	}
}

func (d *backupsDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model backupsModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	f := model.filter(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "List", noun: "Backups", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	repo, points, err := d.session.listBackups(ctx, f)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	model.RepositoryID = types.StringValue(repo.ID())
	resp.Diagnostics.Append(model.fill(points)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

func (m *backupsModel) fill(points []repository.RestorePoint) diag.Diagnostics {
	list := make([]attr.Value, len(points))
	for i, p := range points {
		list[i] = types.ObjectValueMust(listedBackupTypes, map[string]attr.Value{
			"id":               types.StringValue(string(p.ID)),
			"created_at":       timeValue(p.CreatedAt),
			"vm_name":          types.StringValue(p.VMName),
			"vm_path":          types.StringValue(p.VMPath),
			"vm_uuid":          types.StringValue(p.BIOSUUID),
			"vm_instance_uuid": types.StringValue(p.InstanceUUID),
			"consistency":      types.StringValue(p.Consistency),
			"description":      types.StringValue(p.Description),
			"size_bytes":       types.Int64Value(p.SizeBytes),
			"tags":             textMapValue(p.Tags),
		})
	}
	var diags diag.Diagnostics
	m.Backups, diags = types.ListValue(types.ObjectType{AttrTypes: listedBackupTypes}, list)
	return diags
}
