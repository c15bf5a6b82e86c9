package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

var (
	_ action.ActionWithConfigure      = (*snapshotCreateAction)(nil)
	_ action.ActionWithModifyPlan     = (*snapshotCreateAction)(nil)
	_ action.ActionWithValidateConfig = (*snapshotCreateAction)(nil)
)

// maxPurpose is how long what a snapshot is for may be in its name: vSphere's names have 80 bytes.
const maxPurpose = 80 - snapshot.UniqueSuffixLen

// snapshotCreateAction takes a snapshot that no state knows.
type snapshotCreateAction struct{ configured }

type snapshotCreateModel struct {
	snapshotRequested
	Timeouts timeouts.Value `tfsdk:"timeouts"`
}

func (a *snapshotCreateAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot_create"
}

func (a *snapshotCreateAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	attributes := actionArguments(snapshotArguments(), "vm", "description", "memory", "quiesce", "shutdown")
	attributes["name"] = schema.StringAttribute{
		MarkdownDescription: "What the name of the snapshot begins with. The time (UTC) and a random suffix follow, so that no two " +
			"snapshots have the same name: `before-update-20260301T120000Z-1f0c93aa`.",
		Required:   true,
		Validators: []validator.String{stringvalidator.LengthBetween(1, maxPurpose)},
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "Takes a snapshot of a virtual machine, for example before each update of it. The snapshot is in no " +
			"state: it stays until somebody removes it. For one that Terraform keeps track of, use the resource `vm_snapshot`. " +
			"If the action fails or is interrupted, no snapshot is left behind.",
		Attributes: attributes,
		Blocks:     actionTimeouts(ctx, "Default: `30m`. When it is over, the server's task is cancelled."),
	}
}

func (a *snapshotCreateAction) ValidateConfig(
	ctx context.Context, req action.ValidateConfigRequest, resp *action.ValidateConfigResponse,
) {
	var config snapshotCreateModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if !resp.Diagnostics.HasError() {
		config.validate(ctx, &resp.Diagnostics)
	}
}

// ModifyPlan checks what can be checked before anything is touched.
func (a *snapshotCreateAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	var config snapshotCreateModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if ok {
		a.session.planSnapshot(ctx, config.snapshotRequested, actionOn(snapshotOperation("Plan", "")), &resp.Diagnostics)
	}
}

func (a *snapshotCreateAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config snapshotCreateModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, snapshotCreateTimeout, resp)
	defer end()
	request := config.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	request.Name = snapshot.UniqueName(request.Name, a.session.now())
	op := actionOn(snapshotOperation("Take", "")).leaving("No snapshot was left behind, unless the error says otherwise.")
	if request.ShutDown {
		op.paths[argGuestAgent] = path.Root("shutdown")
	}
	m, err := a.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	taken, err := m.TakeOrNothing(ctx, request)
	if taken != nil {
		warnings(&resp.Diagnostics, "Snapshot Taken With Reservations", taken.Warnings)
		op = op.leaving("The snapshot %q (%s) of %s exists. Remove it by hand.", taken.Snapshot.Name, taken.Snapshot.ID, taken.VM.Path)
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	progress.Say(ctx, describeTaken(taken))
}

// describeTaken says what was taken: nothing else of it is kept.
func describeTaken(t *snapshot.Taken) string {
	key := snapshotKey(t.VM.InstanceUUID, t.Snapshot.ID)
	return fmt.Sprintf("took the snapshot %q of %s at %s (id %s, consistency %s)", t.Snapshot.Name, t.VM.Path,
		t.Snapshot.CreatedAt.UTC().Format(time.RFC3339), key, t.Consistency)
}
