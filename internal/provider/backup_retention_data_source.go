package provider

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ datasource.DataSourceWithConfigure = (*backupRetentionDataSource)(nil)

// backupRetentionDataSource says what a retention would remove, and removes nothing.
type backupRetentionDataSource struct{ session *session }

type backupRetentionModel struct {
	VM              types.String   `tfsdk:"vm"`
	Retention       retentionRules `tfsdk:"retention"`
	MeasureSpace    types.Bool     `tfsdk:"measure_space"`
	RepositoryID    types.String   `tfsdk:"repository_id"`
	Backups         types.List     `tfsdk:"backups"`
	PruneIDs        types.List     `tfsdk:"prune_ids"`
	FreedBytes      types.Int64    `tfsdk:"freed_bytes"`
	FreedAfterHours types.Int64    `tfsdk:"freed_after_hours"`
}

var judgedBackupTypes = map[string]attr.Type{
	"id": types.StringType, "created_at": types.StringType, "vm_name": types.StringType, "vm_path": types.StringType,
	"vm_instance_uuid": types.StringType, "keep": types.BoolType, "reasons": types.StringType,
}

var judgedBackupDescriptions = map[string]string{
	"id":               backupDescriptions["id"],
	"created_at":       backupDescriptions["created_at"],
	"vm_name":          backupDescriptions["vm_name"],
	"vm_path":          backupDescriptions["vm_path"],
	"vm_instance_uuid": "Instance UUID of the virtual machine.",
	"keep":             "Whether it is kept.",
	"reasons": "Why it is kept, with commas: `pinned` (it was taken without `retention`), `future` (a clock was wrong " +
		"when it was taken), `damaged` (a verification found that it can't be restored), `newest`, or the rules: `last`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`.",
}

func (d *backupRetentionDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_backup_retention"
}

func (d *backupRetentionDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupRetentionDataSource) Schema(
	_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse,
) {
	rules := map[string]schema.Attribute{}
	for name, description := range retentionDescriptions {
		rules[name] = schema.Int64Attribute{
			MarkdownDescription: description,
			Optional:            true,
			Validators:          []validator.Int64{int64validator.Between(1, maxKeep)},
		}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "What `retention` of a `vm_backup` would remove, and how much space that frees. Nothing is " +
			"removed. No hypervisor is needed.",
		Attributes: map[string]schema.Attribute{
			"vm": schema.StringAttribute{
				MarkdownDescription: backupFilterAttributes()["vm"].GetMarkdownDescription() + " Where it means several virtual " +
					"machines, the rules apply to each of them.",
				Required:   true,
				Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
			},
			"retention": schema.SingleNestedAttribute{
				MarkdownDescription: "The rules, as `retention` of `vm_backup` has them.",
				Required:            true,
				Attributes:          rules,
				Validators:          []validator.Object{keepsSomething{}},
			},
			"measure_space": schema.BoolAttribute{
				MarkdownDescription: "Whether to measure the space that would come back. The tables of contents of all backups " +
					"in the repository are read for it, which takes minutes for a large one. Default: `false`.",
				Optional: true,
			},
			"repository_id": schema.StringAttribute{MarkdownDescription: "ID of the repository.", Computed: true},
			"backups": schema.ListNestedAttribute{
				MarkdownDescription: "All backups of the virtual machine, newest first, and what becomes of them.",
				Computed:            true,
				NestedObject: schema.NestedAttributeObject{
					Attributes: computedDataAttributes(judgedBackupTypes, judgedBackupDescriptions)},
			},
			"prune_ids": schema.ListAttribute{
				MarkdownDescription: "IDs of the backups that would be removed.", Computed: true, ElementType: types.StringType,
			},
			"freed_bytes": schema.Int64Attribute{
				MarkdownDescription: "Bytes of the repository that nothing but these backups uses, after deduplication and " +
					"compression. Null unless `measure_space` is set.",
				Computed: true,
			},
			"freed_after_hours": schema.Int64Attribute{
				MarkdownDescription: "How many hours it takes at least until the space of removed backups is free, if there is " +
					"a backup every day; it may take two days more. The repository is maintained after backups, once a day, and " +
					"lets data go in steps, so that no backup that is under way anywhere can lose what it uses.",
				Computed: true,
			},
		},
	}
}

func (d *backupRetentionDataSource) Read(
	ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse,
) {
	var model backupRetentionModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	op := operation{verb: "Judge", noun: "Backups", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	listing, cancel := limitPlan(ctx)
	defer cancel()
	repo, points, err := d.session.listBackups(listing, repository.Filter{VM: model.VM.ValueString()})
	request := backup.PruneRequest{Retention: model.Retention.retention(), Now: d.session.now()}
	if err == nil {
		request.Known, err = repo.Verifications(listing)
	}
	if err != nil {
		op.fail(listing, &resp.Diagnostics, err)
		return
	}
	going, diags := model.fill(request.Judge(points))
	resp.Diagnostics.Append(diags...)
	if model.MeasureSpace.ValueBool() {
		measuring, cancel := logged(ctx, measureTimeout)
		defer cancel()
		n, err := measureSpace(measuring, repo, going)
		if err != nil {
			op.fail(measuring, &resp.Diagnostics, err)
			return
		}
		model.FreedBytes = types.Int64Value(n)
	}
	model.RepositoryID = types.StringValue(repo.ID())
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// measureTimeout is how long it may take to read all tables of contents of a repository.
const measureTimeout = 2 * time.Hour

// measureSpace is how many bytes restore points take that nothing else uses.
func measureSpace(ctx context.Context, repo *repository.Repository, going []repository.ID) (int64, error) {
	ctx, phase := progress.Enter(ctx, "measuring the space that comes back", "backups", len(going))
	defer phase.Leave()
	return repo.SpaceOf(ctx, going)
}

// fill sets the verdicts, and returns which backups go.
func (m *backupRetentionModel) fill(verdicts []backup.Verdict) (going []repository.ID, diags diag.Diagnostics) {
	list, ids := make([]attr.Value, len(verdicts)), []attr.Value{}
	for i, v := range verdicts {
		list[i] = types.ObjectValueMust(judgedBackupTypes, map[string]attr.Value{
			"id":               types.StringValue(string(v.Point.ID)),
			"created_at":       timeValue(v.Point.CreatedAt),
			"vm_name":          types.StringValue(v.Point.VMName),
			"vm_path":          types.StringValue(v.Point.VMPath),
			"vm_instance_uuid": types.StringValue(v.Point.InstanceUUID),
			"keep":             types.BoolValue(v.Keep),
			"reasons":          types.StringValue(strings.Join(v.Reasons, ",")),
		})
		if !v.Keep {
			going = append(going, v.Point.ID)
			ids = append(ids, types.StringValue(string(v.Point.ID)))
		}
	}
	m.FreedAfterHours = types.Int64Value(int64(repository.ReclaimDelay.Hours()))
	m.PruneIDs = types.ListValueMust(types.StringType, ids)
	m.Backups, diags = types.ListValue(types.ObjectType{AttrTypes: judgedBackupTypes}, list)
	return going, diags
}
