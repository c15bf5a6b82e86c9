package provider

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ datasource.DataSourceWithConfigure = (*backupHealthDataSource)(nil)

// backupHealthDataSource says whether a virtual machine's newest verified backup is as new as it has to be.
type backupHealthDataSource struct{ session *session }

type backupHealthModel struct {
	VM                 types.String `tfsdk:"vm"`
	MaxAge             types.String `tfsdk:"max_age"`
	MinVerification    types.String `tfsdk:"min_verification"`
	MaxVerificationAge types.String `tfsdk:"max_verification_age"`
	MinConsistency     types.String `tfsdk:"min_consistency"`
	AllowExcludedDisks types.Bool   `tfsdk:"allow_excluded_disks"`

	OK                types.Bool    `tfsdk:"ok"`
	Reason            types.String  `tfsdk:"reason"`
	BackupID          types.String  `tfsdk:"backup_id"`
	CreatedAt         types.String  `tfsdk:"created_at"`
	AgeHours          types.Float64 `tfsdk:"age_hours"`
	Verification      types.String  `tfsdk:"verification"`
	VerifiedAt        types.String  `tfsdk:"verified_at"`
	NewestID          types.String  `tfsdk:"newest_id"`
	NewestCreatedAt   types.String  `tfsdk:"newest_created_at"`
	FailedIDs         types.List    `tfsdk:"failed_ids"`
	FailedDescription types.String  `tfsdk:"failed_description"`
	RepositoryID      types.String  `tfsdk:"repository_id"`
}

var backupHealthTypes = map[string]attr.Type{
	"ok": types.BoolType, "reason": types.StringType, "backup_id": types.StringType, "created_at": types.StringType,
	"age_hours": types.Float64Type, "verification": types.StringType, "verified_at": types.StringType,
	"newest_id": types.StringType, "newest_created_at": types.StringType, "failed_description": types.StringType,
	"repository_id": types.StringType,
}

var backupHealthDescriptions = map[string]string{
	"ok": "Whether there is a backup as it is wanted.",
	"reason": "A sentence that says why there is none, or why it is too old; empty if `ok`. It is made for the " +
		"`error_message` of an assertion.",
	"backup_id":          "ID of the newest backup that is verified as wanted, whatever its age. Null: there is none.",
	"created_at":         "When it was taken (RFC 3339).",
	"age_hours":          "How many hours ago that was, when this was read.",
	"verification":       "How it was verified last, if it was: `index`, `data` or `restore`.",
	"verified_at":        "When that was (RFC 3339).",
	"newest_id":          "ID of the newest backup, verified or not. Null: there is none.",
	"newest_created_at":  "When it was taken (RFC 3339).",
	"failed_description": "What is wrong with the newest of them. Null: none is damaged.",
	"repository_id":      "ID of the repository.",
}

func (d *backupHealthDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_backup_health"
}

func (d *backupHealthDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *backupHealthDataSource) Schema(
	_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse,
) {
	attributes := computedDataAttributes(backupHealthTypes, backupHealthDescriptions)
	attributes["failed_ids"] = schema.ListAttribute{
		MarkdownDescription: "IDs of the backups that were found damaged, newest first. They don't count.",
		Computed:            true,
		ElementType:         types.StringType,
	}
	maps.Copy(attributes, map[string]schema.Attribute{
		"vm": schema.StringAttribute{
			MarkdownDescription: backupFilterAttributes()["vm"].GetMarkdownDescription(),
			Required:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"max_age": schema.StringAttribute{
			MarkdownDescription: "How old the newest backup that is verified as wanted may be: `26h`.",
			Required:            true,
			Validators:          []validator.String{positiveDuration{}},
		},
		"min_verification": schema.StringAttribute{
			MarkdownDescription: "How a backup has to be verified to count. `index`: it is complete by the repository's index. " +
				"`data`: every byte was read and compared. `restore`: it was restored to a copy, whose guest came up. Each " +
				"covers those before it. `none`: it needs no verification, but must not have been found damaged. Default: `data`.",
			Optional: true,
			Validators: []validator.String{stringvalidator.OneOf(verifyNone, string(repository.VerifyIndex),
				string(repository.VerifyData), string(repository.VerifyRestore))},
		},
		"max_verification_age": schema.StringAttribute{
			MarkdownDescription: "How long ago its verification may be: `168h`. Default: any time since it was taken.",
			Optional:            true,
			Validators:          []validator.String{positiveDuration{}},
		},
		"allow_excluded_disks": schema.BoolAttribute{
			MarkdownDescription: "Whether a backup counts that leaves out disks (`exclude_disks`). Default: false.",
			Optional:            true,
		},
		"min_consistency": schema.StringAttribute{
			MarkdownDescription: backupFilterAttributes()["min_consistency"].GetMarkdownDescription(),
			Optional:            true,
			Validators: []validator.String{stringvalidator.OneOf(
				string(quiesce.Crash), string(quiesce.FileSystem), string(quiesce.Application))},
		},
	})
	resp.Schema = schema.Schema{
		MarkdownDescription: "Whether a virtual machine's newest verified backup is as new as it has to be, for a `check` block that " +
			"warns when it isn't. Backups are verified by the actions `vm_backup_verify` and `vm_restore_test`, which keep the " +
			"outcome in the repository. Only lists are read, no data of backups. No hypervisor is needed, and the virtual " +
			"machine may be gone.",
		Attributes: attributes,
	}
}

func (d *backupHealthDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model backupHealthModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "Judge", noun: "Backups", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	repo, points, err := d.session.listBackups(ctx, repository.Filter{
		VM: model.VM.ValueString(), MinConsistency: model.MinConsistency.ValueString(),
	})
	var verifications map[repository.ID][]repository.Verification
	if err == nil {
		verifications, err = repo.Verifications(ctx)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	rule := backup.HealthRule{
		MaxAge: duration(model.MaxAge), MaxVerificationAge: duration(model.MaxVerificationAge),
		AllowExcluded: model.AllowExcludedDisks.ValueBool(),
	}
	if level := or(model.MinVerification, string(repository.VerifyData)); level != verifyNone {
		rule.Level = repository.VerifyLevel(level)
	}
	model.RepositoryID = types.StringValue(repo.ID())
	if err := ofOne(model.VM.ValueString(), points); err != nil { // else a backup of any of them would count for all
		model.fill(&backup.Health{Reason: sentence(err.Error()) + " Write the instance UUID or the path that only the one has that is " +
			"meant."}, nil)
	} else {
		model.fill(rule.Judge(model.called(), points, verifications, d.session.now()), verifications)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// called is what the virtual machine is called where there is no backup that would tell.
func (m *backupHealthModel) called() string {
	name := fmt.Sprintf("%q", m.VM.ValueString())
	if !m.MinConsistency.IsNull() {
		name += fmt.Sprintf(" that is %s-consistent at least", m.MinConsistency.ValueString())
	}
	return name
}

// fill sets what is computed.
func (m *backupHealthModel) fill(h *backup.Health, verifications map[repository.ID][]repository.Verification) {
	m.OK, m.Reason = types.BoolValue(h.OK), types.StringValue(h.Reason)
	if p := h.Verified; p != nil {
		m.BackupID, m.CreatedAt = types.StringValue(string(p.ID)), timeValue(p.CreatedAt)
		m.AgeHours = types.Float64Value(h.Age.Round(time.Minute).Hours())
	}
	if h.By.Level != "" {
		m.Verification, m.VerifiedAt = types.StringValue(string(h.By.Level)), timeValue(h.By.At)
	}
	if p := h.Newest; p != nil {
		m.NewestID, m.NewestCreatedAt = types.StringValue(string(p.ID)), timeValue(p.CreatedAt)
	}
	ids := make([]attr.Value, len(h.Failed))
	for i, p := range h.Failed {
		ids[i] = types.StringValue(string(p.ID))
		if m.FailedDescription.IsNull() {
			m.FailedDescription = failedDescription(verifications[p.ID])
		}
	}
	m.FailedIDs = types.ListValueMust(types.StringType, ids)
}

// failedDescription says what the newest verification found that failed.
func failedDescription(all []repository.Verification) types.String {
	for _, v := range all {
		if !v.OK && len(v.Problems) > 0 {
			return types.StringValue(v.Problems[0])
		}
	}
	return types.StringNull()
}
