package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// ValidateConfig checks the arguments as they are written.
func (r *snapshotResource) ValidateConfig(
	ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse,
) {
	var config snapshotModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	if resp.Diagnostics.HasError() {
		return
	}
	config.validate(ctx, &resp.Diagnostics)
	r.validateOnDestroy(ctx, config, &resp.Diagnostics)
}

// memoryAndQuiesce is why a snapshot with memory can't be quiesced.
const memoryAndQuiesce = "A snapshot with memory resumes the guest where it was, caches and all: quiescing adds nothing and can " +
	"fail. Leave out quiesce or memory."

// validate refuses arguments that contradict each other.
func (m *snapshotRequested) validate(ctx context.Context, diags *diag.Diagnostics) {
	conflict := func(at path.Path, detail string) {
		diags.AddAttributeError(at, "Conflicting Arguments", detail)
	}
	quiesced := quiesceWanted(ctx, m.Quiesce, diags)
	if m.Memory.ValueBool() && quiesced {
		conflict(path.Root("quiesce"), memoryAndQuiesce)
	}
	if m.Shutdown.ValueBool() && m.Memory.ValueBool() {
		conflict(path.Root("memory"), "A virtual machine that was shut down has no memory to save. Leave out shutdown or memory.")
	}
	if m.Shutdown.ValueBool() && quiesced {
		conflict(path.Root("quiesce"), "A guest that was shut down can't be asked to quiesce, and needn't be. Leave out shutdown "+
			"or quiesce.")
	}
}

func (r *snapshotResource) validateOnDestroy(ctx context.Context, config snapshotModel, diags *diag.Diagnostics) {
	if config.OnDestroy.IsNull() || config.OnDestroy.IsUnknown() {
		return
	}
	var d onDestroyModel
	diags.Append(config.OnDestroy.As(ctx, &d, basetypes.ObjectAsOptions{})...)
	if d.Action.ValueString() == actionKeep && d.RemoveChildren.ValueBool() {
		diags.AddAttributeError(path.Root("on_destroy").AtName("remove_children"), "Conflicting Arguments",
			"A snapshot that is kept keeps its children. Leave out remove_children, or set action to \"delete\".")
	}
}

// quiesceWanted reports whether it is certain that the guest is to be asked.
func quiesceWanted(ctx context.Context, object types.Object, diags *diag.Diagnostics) bool {
	if object.IsNull() || object.IsUnknown() {
		return false
	}
	var m quiesceModel
	diags.Append(object.As(ctx, &m, basetypes.ObjectAsOptions{})...)
	return quiesce.Policy{Mode: quiesce.Mode(m.Mode.ValueString())}.Wanted()
}

// ModifyPlan checks what can be checked before anything is touched, and judges a change of vm by what
// it refers to.
func (r *snapshotResource) ModifyPlan(
	ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	plan, state, ok := toPlan[snapshotModel](ctx, r.session, req, &resp.Diagnostics)
	if !ok {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	if state == nil {
		r.session.planSnapshot(ctx, plan.snapshotRequested, snapshotOperation("Plan", ""), &resp.Diagnostics)
		return
	}
	if text := maxAgeWarning(*state, plan.MaxAge, r.session.now()); text != "" {
		resp.Diagnostics.AddAttributeWarning(path.Root("max_age"), "Snapshot Is Too Old", text)
	}
	r.session.planVM(ctx, plan.VM, state.record(), snapshotOperation("Plan", ""), req, resp)
}

// planSnapshot checks what can be checked before a snapshot is taken.
func (s *session) planSnapshot(
	ctx context.Context, requested snapshotRequested, op operation, diags *diag.Diagnostics,
) {
	if requested.VM.IsUnknown() {
		return
	}
	m, err := s.snapshots(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	requested = requested.planned(ctx)
	request := requested.request(ctx, diags)
	if request.ShutDown {
		op.paths[argGuestAgent] = path.Root("shutdown")
	}
	_, texts, err := m.Check(ctx, request)
	warnings(diags, "Snapshot With Reservations", texts)
	if err != nil {
		op.failPlan(ctx, diags, err)
	}
}

// nameNotKnown stands for the name of a snapshot in the checks of a plan that doesn't know it yet.
const nameNotKnown = "(known after apply)"

// planned is what is requested without what isn't known yet, of which a plan can say nothing.
func (m snapshotRequested) planned(ctx context.Context) snapshotRequested {
	m.Name = knownName(m.Name)
	m.Quiesce = knownObject(ctx, m.Quiesce)
	return m
}

func knownName(name types.String) types.String {
	if name.IsUnknown() {
		return types.StringValue(nameNotKnown)
	}
	return name
}

// knownObject is an object of which everything is known, or none.
func knownObject(ctx context.Context, object types.Object) types.Object {
	if fullyKnown(ctx, object) {
		return object
	}
	return types.ObjectNull(object.AttributeTypes(ctx))
}

// maxAgeWarning says that a snapshot is older than it should be; empty: it isn't.
func maxAgeWarning(state snapshotModel, maxAge types.String, now time.Time) string {
	created, err := time.Parse(time.RFC3339, state.CreatedAt.ValueString())
	limit := duration(maxAge)
	if err != nil || limit == 0 || now.Sub(created) <= limit {
		return ""
	}
	return "The snapshot " + state.Path.ValueString() + " was taken at " + state.CreatedAt.ValueString() +
		", more than max_age = " + maxAge.ValueString() + " ago. It grows with every write to the virtual machine. " +
		"Remove it, or take a new one, when it is no longer needed."
}
