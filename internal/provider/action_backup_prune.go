package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	resource "github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var (
	_ action.ActionWithConfigure  = (*backupPruneAction)(nil)
	_ action.ActionWithModifyPlan = (*backupPruneAction)(nil)
)

// backupPruneTimeout is how long pruning may take, with the maintenance that follows.
const backupPruneTimeout = 2 * time.Hour

// backupPruneAction removes backups that a retention doesn't keep.
type backupPruneAction struct{ configured }

type backupPruneModel struct {
	VM        types.String    `tfsdk:"vm"`
	Retention *retentionRules `tfsdk:"retention"`
	DryRun    types.Bool      `tfsdk:"dry_run"`
	Timeouts  timeouts.Value  `tfsdk:"timeouts"`
}

func (a *backupPruneAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup_prune"
}

func (a *backupPruneAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	rules, _ := backupRetentionAttributes()["retention"].(resource.SingleNestedAttribute)
	resp.Schema = schema.Schema{
		MarkdownDescription: "Removes backups that `retention` doesn't keep, and says how much space comes back and when. No " +
			"hypervisor is needed. Backups that were taken without `retention` are pinned: they are never removed. Any number of " +
			"processes may prune and back up at once.",
		Attributes: map[string]schema.Attribute{
			"vm": schema.StringAttribute{
				MarkdownDescription: backupFilterAttributes()["vm"].GetMarkdownDescription() + " Where it means several virtual " +
					"machines, the rules apply to each of them.",
				Required:   true,
				Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
			},
			"retention": schema.SingleNestedAttribute{
				MarkdownDescription: "Which backups are kept, as `retention` of `vm_backup` says it. What one rule keeps is kept, and " +
					"the newest always is.",
				Required:   true,
				Attributes: actionArguments(rules.Attributes),
				Validators: rules.Validators,
			},
			"dry_run": schema.BoolAttribute{
				MarkdownDescription: "Whether only to say what would be removed. Default: `false`.",
				Optional:            true,
			},
		},
		Blocks: actionTimeouts(ctx, "Default: `2h`. What is removed when it is over stays removed."),
	}
}

// ModifyPlan looks whether there is a repository.
func (a *backupPruneAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if !ok {
		return
	}
	if _, err := a.session.repository(ctx, false); err != nil && !errors.Is(err, repository.ErrNotMade) { // by then it may be
		pruneOperation("Plan").failPlan(ctx, &resp.Diagnostics, err)
	}
}

// pruneOperation names what is done about old backups.
func pruneOperation(verb string) operation {
	return actionOn(operation{verb: verb, noun: "Pruning", paths: map[argument]path.Path{argVM: path.Root("vm")}})
}

func (a *backupPruneAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config backupPruneModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, backupPruneTimeout, resp)
	defer end()
	if resp.Diagnostics.HasError() {
		return
	}
	op := pruneOperation("Complete").leaving("No backup was removed.")
	listing, phase := progress.Enter(ctx, "judging the backups")
	repo, filter, points, err := a.session.findBackups(listing, repository.Filter{VM: config.VM.ValueString()})
	phase.Leave()
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	if len(points) == 0 {
		resp.Diagnostics.AddAttributeWarning(path.Root("vm"), "No Backups to Prune",
			fmt.Sprintf("The repository has no backup of %q.", config.VM.ValueString()))
		return
	}
	request := backup.PruneRequest{VM: filter.VM, Retention: config.Retention.retention(), DryRun: true}
	keeper := a.session.keeper(repo)
	judged, err := keeper.Prune(ctx, request)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	space := a.session.spaceOf(ctx, repo, judged.Going())
	if config.DryRun.ValueBool() {
		for _, line := range describePruned("would be removed", judged.Going(), judged, space) {
			progress.Say(ctx, line)
		}
		return
	}
	request.DryRun = false
	pruning, phase := progress.Enter(ctx, "removing backups")
	pruned, err := keeper.Prune(pruning, request)
	phase.Leave()
	for _, line := range describePruned("removed", pruned.Removed, pruned, space) {
		progress.Say(ctx, line)
	}
	if err != nil {
		op.leaving("%d of %d backups were removed. Invoke the action again for the rest.", len(pruned.Removed), len(judged.Going())).
			fail(ctx, &resp.Diagnostics, err)
		return
	}
	warnings(&resp.Diagnostics, "Repository Not Maintained", keeper.Maintain(ctx))
}

// spaceOf says how much space backups take that nothing else uses.
func (s *session) spaceOf(ctx context.Context, repo *repository.Repository, going []repository.RestorePoint) string {
	if len(going) == 0 {
		return ""
	}
	ids := make([]repository.ID, len(going))
	for i, p := range going {
		ids[i] = p.ID
	}
	n, err := measureSpace(ctx, repo, ids)
	if err != nil { // no reason not to remove them
		s.log.WarnContext(ctx, "measure the space of backups", "error", err)
		return "space of an unknown size"
	}
	return progress.Size(n)
}

// describePruned says what was removed, or would be, a line each.
func describePruned(done string, list []repository.RestorePoint, r *backup.PruneResult, space string) []string {
	const most = 100 // the rest is for the data source
	name := func(p repository.RestorePoint) string {
		return fmt.Sprintf("%s of %s, taken at %s", p.ID, p.VMPath, p.CreatedAt.UTC().Format(time.RFC3339))
	}
	var lines []string
	for _, p := range list[:min(len(list), most)] {
		lines = append(lines, done+": "+name(p))
	}
	if more := len(list) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d more", done, more))
	}
	for _, p := range r.InUse {
		lines = append(lines, "stays until the next time, as a restore reads from it: "+name(p))
	}
	if len(list) == 0 {
		return append(lines, fmt.Sprintf("nothing to remove: all %d backups are kept", len(r.Verdicts)-len(r.InUse)))
	}
	return append(lines, fmt.Sprintf("%s: %d of %d backups; %s comes back to the repository in %d hours at least, with the "+
		"maintenance after daily backups", done, len(list), len(r.Verdicts), space, int(repository.ReclaimDelay.Hours())))
}
