package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var (
	_ action.ActionWithConfigure  = (*backupRunAction)(nil)
	_ action.ActionWithModifyPlan = (*backupRunAction)(nil)
)

// backupRunAction takes a backup that no state knows.
type backupRunAction struct{ configured }

type backupRunModel struct {
	backupRequested
	Timeouts timeouts.Value `tfsdk:"timeouts"`
}

func (a *backupRunAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup_run"
}

func (a *backupRunAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	attributes := actionArguments(backupArguments(), "vm", "description", "quiesce", "exclude_disks", "tags")
	for name, argument := range actionArguments(backupReadingArguments()) {
		attributes[name] = argument
	}
	attributes["retention"] = actionArgument("retention", backupRetentionAttributes()["retention"])
	resp.Schema = schema.Schema{
		MarkdownDescription: "Takes a backup of a virtual machine, as the resource `vm_backup` does. The backup is in no state: the " +
			"data source `vm_backups` finds it, `retention` removes it some day, and `tags` tell it from others. If the action " +
			"fails or is interrupted, there is no backup, and the temporary snapshot is removed.",
		Attributes: attributes,
		Blocks: actionTimeouts(ctx, "Default: `24h`. When it is over, the transfer stops and the temporary snapshot is "+
			"removed."),
	}
}

// ModifyPlan checks what can be checked before anything is touched.
func (a *backupRunAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	var config backupRunModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if ok {
		a.session.planBackup(ctx, config.backupRequested, actionOn(backupOperation("Plan", "")), &resp.Diagnostics)
	}
}

func (a *backupRunAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config backupRunModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, backupCreateTimeout, resp)
	defer end()
	result, _ := a.session.takeBackup(ctx, config.backupRequested, actionOn(backupOperation("Take", "")), &resp.Diagnostics)
	if result != nil {
		progress.Say(ctx, describeBackup(result))
	}
}

// describeBackup says what was taken: nothing else tells its ID.
func describeBackup(r *backup.Result) string {
	m := r.Manifest
	text := fmt.Sprintf("took the backup %s of %s at %s: %s, consistency %s; %s read, %s stored, in %s", r.ID, m.VM.Path,
		m.CreatedAt.UTC().Format(time.RFC3339), progress.Size(m.SizeBytes()), m.Consistency, progress.Size(m.ReadBytes),
		progress.Size(m.StoredBytes), r.Duration.Round(time.Second))
	if n := len(r.Pruned); n > 0 {
		text += fmt.Sprintf("; removed by retention: %s, whose space comes back in %d hours at least, with the maintenance after "+
			"daily backups", joinIDs(r.Pruned), int(repository.ReclaimDelay.Hours()))
	}
	return text
}
