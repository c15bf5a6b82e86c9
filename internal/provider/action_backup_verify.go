package provider

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ action.ActionWithConfigure = (*backupVerifyAction)(nil)

const (
	backupVerifyTimeout = 24 * time.Hour

	// Which backups of a virtual machine are verified.
	verifyNewest = "newest"
	verifyAll    = "all"
)

// backupVerifyAction verifies backups. No hypervisor is needed.
type backupVerifyAction struct{ configured }

type backupVerifyModel struct {
	chosenBackups
	Backups  types.String   `tfsdk:"backups"`
	Level    types.String   `tfsdk:"level"`
	Timeouts timeouts.Value `tfsdk:"timeouts"`
}

func (a *backupVerifyAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup_verify"
}

func (a *backupVerifyAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	attributes := map[string]schema.Attribute{
		"backups": schema.StringAttribute{
			MarkdownDescription: "With `vm`: `newest` verifies its newest backup, `all` all of them. Default: `newest`.",
			Optional:            true,
			Validators: []validator.String{
				stringvalidator.OneOf(verifyNewest, verifyAll), stringvalidator.AlsoRequires(path.MatchRoot("vm")),
			},
		},
		"level": schema.StringAttribute{
			MarkdownDescription: "`index`: everything that the backup consists of is in the repository's index, and the files that " +
				"hold it are there and long enough; that takes seconds. `data`: every byte of its disks, its configuration and its " +
				"firmware variables is read, decrypted and compared with the digests that were taken with the backup. Default: `data`.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.OneOf(string(repository.VerifyIndex), string(repository.VerifyData))},
		},
	}
	maps.Copy(attributes, chosenBackupArguments("Backups"))
	resp.Schema = schema.Schema{
		MarkdownDescription: "Verifies backups. What is damaged is named: the backup, the disk, and which bytes of it. The action " +
			"fails then, after all backups were verified. The outcome is kept in the repository, where the data source " +
			"`vm_backup_health` finds it. No hypervisor is needed.",
		Attributes: attributes,
		Blocks:     actionTimeouts(ctx, "Default: `24h`. What was verified until then is kept."),
	}
}

func (a *backupVerifyAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config backupVerifyModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, backupVerifyTimeout, resp)
	defer end()
	if resp.Diagnostics.HasError() {
		return
	}
	op := actionOn(backupOperation("Verify", ""))
	repo, points, err := config.find(ctx, a.session)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if or(config.Backups, verifyNewest) == verifyNewest {
		points = newestOfEach(points)
	}
	results, err := a.session.keeper(repo).Verify(ctx, backup.VerifyRequest{
		Points: points, Level: repository.VerifyLevel(or(config.Level, string(repository.VerifyData))),
	})
	for _, r := range results {
		warnings(&resp.Diagnostics, "Backup Verified With Reservations", r.Warnings)
		progress.Say(ctx, describeVerified(r))
	}
	if err != nil {
		op = op.leaving("%d of %d backups were verified. Nothing was changed in any of them.", len(results), len(points))
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

// describeVerified says what came of the verification of one backup.
func describeVerified(r backup.VerifyResult) string {
	what := fmt.Sprintf("backup %s of %s, taken at %s", r.Point.ID, r.Point.VMPath, r.Point.CreatedAt.UTC().Format(time.RFC3339))
	took := r.Duration.Round(time.Second / 10)
	switch {
	case r.Damage != nil:
		return what + ": damaged"
	case r.Level == repository.VerifyIndex:
		return fmt.Sprintf("%s: complete by the index (%s)", what, took)
	}
	return fmt.Sprintf("%s: as it was backed up (%s read in %s)", what, progress.Size(r.ReadBytes), took)
}
