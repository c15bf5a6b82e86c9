package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ datasource.DataSourceWithConfigure = (*backupDataSource)(nil)

// backupDataSource finds one backup: the newest of those that match.
type backupDataSource struct{ session *session }

type backupDataModel struct {
	backupFilter
	Description  types.String `tfsdk:"description"`
	BackupTags   types.Map    `tfsdk:"backup_tags"`
	RepositoryID types.String `tfsdk:"repository_id"`
	backupFacts
}

// backupFactTypes are the types of backupFacts but for the disks.
func backupFactTypes() map[string]attr.Type {
	kinds := make(map[string]attr.Type, len(backupDescriptions))
	for name := range backupDescriptions {
		kinds[name] = types.StringType
	}
	kinds["incremental"] = types.BoolType
	kinds["duration_seconds"] = types.Float64Type
	for _, name := range []string{"size_bytes", "read_bytes", "stored_bytes"} {
		kinds[name] = types.Int64Type
	}
	return kinds
}

func (d *backupDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_backup"
}

func (d *backupDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := computedDataAttributes(backupFactTypes(), backupDescriptions)
	for name, a := range backupFilterAttributes() {
		attributes[name] = a
	}
	attributes["description"] = schema.StringAttribute{MarkdownDescription: "Description of the backup.", Computed: true}
	attributes["backup_tags"] = schema.MapAttribute{
		MarkdownDescription: "All tags of the backup.", Computed: true, ElementType: types.StringType,
	}
	attributes["repository_id"] = schema.StringAttribute{
		MarkdownDescription: "ID of the repository that the backup is in.", Computed: true,
	}
	attributes["disks"] = schema.ListNestedAttribute{
		MarkdownDescription: "The disks in the backup.",
		Computed:            true,
		NestedObject: schema.NestedAttributeObject{
			Attributes: computedDataAttributes(backupDiskTypes, backupDiskDescriptions)},
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The newest backup in the repository that matches. No match is an error. No hypervisor is needed.",
		Attributes:          attributes,
	}
}

func (d *backupDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model backupDataModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	f := model.filter(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "Find", noun: "Backup", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	repo, points, err := d.session.listBackups(ctx, f)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if len(points) == 0 {
		d.noMatch(ctx, repo, f, &resp.Diagnostics)
		return
	}
	manifest, err := repo.Get(ctx, points[0].ID)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	model.RepositoryID = types.StringValue(repo.ID())
	model.Description = types.StringValue(manifest.Description)
	model.BackupTags = textMapValue(manifest.Tags)
	resp.Diagnostics.Append(model.fill(points[0].ID, manifest)...)
	d.session.warnOfDamage(ctx, repo, points[0].ID, path.Root("vm"), &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// noMatch says that no backup matches, and of which VMs there are backups.
func (d *backupDataSource) noMatch(
	ctx context.Context, repo *repository.Repository, f repository.Filter, diags *diag.Diagnostics,
) {
	const shown = 20
	others := "The repository holds no backups at all."
	if all, err := repo.List(ctx, repository.Filter{}); err == nil && len(all) > 0 {
		var lines []string
		for _, p := range all[:min(shown, len(all))] {
			lines = append(lines, fmt.Sprintf("%s of %s, %s, %s", p.ID, p.VMPath, timeValue(p.CreatedAt).ValueString(), p.Consistency))
		}
		others = fmt.Sprintf("The repository holds %d backups, the newest are:\n  %s", len(all), strings.Join(lines, "\n  "))
	}
	detail := "No backup matches.\n\n" + others
	if f.VM != "" {
		diags.AddAttributeError(path.Root("vm"), "Unable to Find Backup", detail)
		return
	}
	diags.AddError("Unable to Find Backup", detail)
}
