package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

var (
	_ action.ActionWithConfigure  = (*consolidateAction)(nil)
	_ action.ActionWithModifyPlan = (*consolidateAction)(nil)
)

// consolidateTimeout is that of a removal, which is the same work.
const consolidateTimeout = snapshotDeleteTimeout

// consolidateAction merges delta disks that belong to no snapshot.
type consolidateAction struct{ configured }

type consolidateModel struct {
	VM       types.String   `tfsdk:"vm"`
	Timeouts timeouts.Value `tfsdk:"timeouts"`
}

func (a *consolidateAction) Metadata(_ context.Context, req action.MetadataRequest, resp *action.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_consolidate"
}

func (a *consolidateAction) Schema(ctx context.Context, _ action.SchemaRequest, resp *action.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Merges delta disks of a virtual machine that belong to no snapshot. They stay behind where a backup, a " +
			"clone or a full datastore kept the server from merging them when their snapshot was removed; they grow, slow the " +
			"virtual machine down, and no list of snapshots shows them. Where there are none, nothing is done. The virtual " +
			"machine may run.",
		Attributes: actionArguments(snapshotArguments(), "vm"),
		Blocks: actionTimeouts(ctx, "Default: `6h`: everything that was written to the delta disks is merged. What is merged "+
			"when it is over stays merged."),
	}
}

// ModifyPlan looks whether there is such a virtual machine.
func (a *consolidateAction) ModifyPlan(
	ctx context.Context, req action.ModifyPlanRequest, resp *action.ModifyPlanResponse,
) {
	var config consolidateModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, cancel, ok := a.planning(ctx, resp.Diagnostics)
	defer cancel()
	if !ok || config.VM.IsUnknown() {
		return
	}
	hv, err := a.session.hypervisor(ctx)
	if err == nil {
		_, err = hv.FindVM(ctx, hypervisor.VMRef(config.VM.ValueString()))
	}
	if err != nil {
		consolidateOperation("Plan").failPlan(ctx, &resp.Diagnostics, err)
	}
}

// consolidateOperation names what is done about delta disks.
func consolidateOperation(verb string) operation {
	return actionOn(operation{verb: verb, noun: "Consolidation", paths: map[argument]path.Path{argVM: path.Root("vm")}})
}

func (a *consolidateAction) Invoke(ctx context.Context, req action.InvokeRequest, resp *action.InvokeResponse) {
	var config consolidateModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	ctx, end := a.invoking(ctx, config.Timeouts, consolidateTimeout, resp)
	defer end()
	if resp.Diagnostics.HasError() {
		return
	}
	op := consolidateOperation("Complete").leaving("No snapshot was touched. Invoke the action again: it takes up what is left.")
	m, err := a.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	start := a.session.now()
	done, err := m.Consolidate(ctx, hypervisor.VMRef(config.VM.ValueString()))
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	for _, line := range describeConsolidated(done, a.session.now().Sub(start)) {
		progress.Say(ctx, line)
	}
}

// describeConsolidated says what was done, a line each.
func describeConsolidated(c *snapshot.Consolidated, took time.Duration) []string {
	if !c.Needed {
		return []string{fmt.Sprintf("nothing to do: no delta disk of %s is without a snapshot", c.VM.Path)}
	}
	lines := []string{fmt.Sprintf("consolidated the disks of %s in %s", c.VM.Path, took.Round(time.Second))}
	for _, d := range c.Disks {
		lines = append(lines, fmt.Sprintf("%s is on %s now, not on %s", d.Label, d.To, d.From))
	}
	return lines
}
