package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/actionvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

var (
	_ action.ActionWithConfigure        = (*snapshotRevertAction)(nil)
	_ action.ActionWithModifyPlan       = (*snapshotRevertAction)(nil)
	_ action.ActionWithValidateConfig   = (*snapshotRevertAction)(nil)
	_ action.ActionWithConfigValidators = (*snapshotRevertAction)(nil)
)

// snapshotRevertTimeout is how long a revert may take. The disks are exchanged at once; memory has to be read.
const snapshotRevertTimeout = time.Hour

// snapshotRevertAction brings a VM back to a snapshot.
type snapshotRevertAction struct{ configured }

type snapshotRevertModel struct {
	VM         types.String `tfsdk:"vm"`
	SnapshotID types.String `tfsdk:"snapshot_id"`
	Name       types.String `tfsdk:"name"`
	runsAfter
	Timeouts timeouts.Value `tfsdk:"timeouts"`
}

func (a *snapshotRevertAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot_revert"
}

func (a *snapshotRevertAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	attributes := actionArguments(snapshotArguments(), "vm")
	wait := waitForGuestAttribute()
	wait.MarkdownDescription = "Waits, if the virtual machine runs afterwards, until its guest is up. If it isn't in time, the action " +
		"fails. `wait_for_guest = {}` waits for both the agent and an address."
	attributes["wait_for_guest"] = actionArgument("wait_for_guest", wait)
	attributes["snapshot_id"] = schema.StringAttribute{
		MarkdownDescription: "`id` of the snapshot, as `vm_snapshot` and the data source `vm_snapshots` have it. It must be one of `vm`.",
		Optional:            true,
		Validators:          []validator.String{snapshotIDValidator{}},
	}
	attributes["name"] = schema.StringAttribute{
		MarkdownDescription: "Name of the snapshot; the newest of those that have it. What was given to `vm_snapshot_create` as " +
			"`name` finds the newest snapshot that it took for that. It is looked for when the action runs: the plan names the one " +
			"that would be taken then, and the action says which it took.",
		Optional:   true,
		Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
	}
	attributes["power_on"] = schema.BoolAttribute{
		MarkdownDescription: "Whether the virtual machine runs afterwards. Default: it runs if the snapshot holds its memory. With " +
			"`false`, memory that the snapshot holds is dropped.",
		Optional: true,
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "Brings a virtual machine back to a snapshot: its disks, its virtual hardware and, where the snapshot " +
			"holds it, its memory. What the virtual machine is now is lost, and it is stopped at once if it runs. No snapshot is " +
			"removed. Other resources that manage the virtual machine find it changed.",
		Attributes: attributes,
		Blocks:     actionTimeouts(ctx, "Default: `1h`. When it is over, the server's task is cancelled if that is still possible."),
	}
}

// ConfigValidators implements action.ActionWithConfigValidators.
func (a *snapshotRevertAction) ConfigValidators(context.Context) []action.ConfigValidator {
	return []action.ConfigValidator{actionvalidator.ExactlyOneOf(path.MatchRoot("snapshot_id"), path.MatchRoot("name"))}
}

func (a *snapshotRevertAction) ValidateConfig(
	ctx context.Context, req action.ValidateConfigRequest, resp *action.ValidateConfigResponse,
) {
	var config snapshotRevertModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if !resp.Diagnostics.HasError() {
		config.validate(ctx, &resp.Diagnostics)
	}
}

func (m *snapshotRevertModel) request() snapshot.RevertRequest {
	_, id := splitSnapshotKey(m.SnapshotID.ValueString())
	return snapshot.RevertRequest{
		VM: hypervisor.VMRef(m.VM.ValueString()), Snapshot: id, Name: m.Name.ValueString(), Power: m.power(),
	}
}

// naming names what is done, and the arguments that can be at fault.
func (m *snapshotRevertModel) naming(verb string) operation {
	source := path.Root("snapshot_id")
	if m.SnapshotID.IsNull() {
		source = path.Root("name")
	}
	return actionOn(operation{verb: verb, noun: "Virtual Machine", paths: map[argument]path.Path{
		argVM: path.Root("vm"), argSnapshot: source, argGuest: path.Root("wait_for_guest"),
	}})
}

// ModifyPlan warns of what a revert loses, and checks what can be checked before.
func (a *snapshotRevertAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	var config snapshotRevertModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if !ok || config.VM.IsUnknown() || config.SnapshotID.IsUnknown() || config.Name.IsUnknown() {
		return
	}
	op := config.naming("Plan")
	op.noun = "Revert"
	m, err := a.session.snapshots(ctx)
	if err != nil {
		op.failPlan(ctx, &resp.Diagnostics, err)
		return
	}
	found, err := m.CheckRevert(ctx, config.request())
	if err != nil {
		op.failPlan(ctx, &resp.Diagnostics, err)
		return
	}
	if !config.Name.IsNull() {
		found.Warnings = append(found.Warnings, fmt.Sprintf("that is snapshot %s, the newest now that was taken for %q. When the action "+
			"runs, it takes the one that is the newest then.", snapshotKey(found.VM.InstanceUUID, found.Snapshot.ID), config.Name.ValueString()))
	}
	op.warnOfLoss(&resp.Diagnostics, *found)
}

func (a *snapshotRevertAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config snapshotRevertModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, snapshotRevertTimeout, resp)
	defer end()
	wait := config.guestWait(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	op := config.naming("Revert").leaving("The virtual machine was not reverted, unless the error says otherwise.")
	m, err := a.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	at, err := a.session.revertOne(ctx, m, config.request(), wait)
	if at != nil {
		warnReverted(&resp.Diagnostics, at)
		op = op.leaving("The virtual machine is reverted, but not in the state that it should be in. The action can be invoked again.")
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	progress.Say(ctx, fmt.Sprintf("reverted %s to the snapshot %q of %s (id %s); it is %s", at.VM.Path, at.Snapshot.Name,
		at.Snapshot.CreatedAt.UTC().Format(time.RFC3339), snapshotKey(at.VM.InstanceUUID, at.Snapshot.ID), at.VM.PowerState))
}
