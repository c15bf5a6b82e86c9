package provider

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var (
	_ resource.ResourceWithConfigure      = (*snapshotResource)(nil)
	_ resource.ResourceWithIdentity       = (*snapshotResource)(nil)
	_ resource.ResourceWithImportState    = (*snapshotResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*snapshotResource)(nil)
	_ resource.ResourceWithValidateConfig = (*snapshotResource)(nil)
)

// How long operations on snapshots may take unless the timeouts block says otherwise. To remove a
// snapshot means to merge all that was written since, which takes hours for a busy VM.
const (
	snapshotCreateTimeout = 30 * time.Minute
	snapshotReadTimeout   = 10 * time.Minute
	snapshotUpdateTimeout = 10 * time.Minute
	snapshotDeleteTimeout = 6 * time.Hour
)

// What becomes of a thing when its resource is destroyed.
const (
	actionDelete = "delete"
	actionKeep   = "keep"
	actionRetain = "retain"
)

// snapshotResource manages one snapshot of one VM.
type snapshotResource struct{ session *session }

func (r *snapshotResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot"
}

func (r *snapshotResource) Configure(
	_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse,
) {
	r.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (r *snapshotResource) IdentitySchema(
	_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse,
) {
	resp.IdentitySchema = identityschema.Schema{Attributes: map[string]identityschema.Attribute{
		"vm_instance_uuid": identityschema.StringAttribute{
			RequiredForImport: true, Description: "Instance UUID of the virtual machine.",
		},
		"snapshot_id": identityschema.StringAttribute{
			RequiredForImport: true, Description: "The hypervisor's ID of the snapshot (snapshot-12).",
		},
	}}
}

func (r *snapshotResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := snapshotComputed()
	for name, a := range snapshotArguments() {
		attributes[name] = a
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A snapshot of a virtual machine: a state that it can return to, kept beside its disks. " +
			"Every write from now on goes to a delta disk, so a snapshot is for hours or days, and no backup.",
		Attributes: attributes,
		Blocks: map[string]schema.Block{"timeouts": timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Update: true, Delete: true,
			CreateDescription: "Default: `30m`. When it is over, the server's task is cancelled.",
			ReadDescription:   "Default: `10m`.",
			UpdateDescription: "Default: `10m`.",
			DeleteDescription: "Default: `6h`: removing merges what was written since the snapshot.",
		})},
	}
}

func snapshotArguments() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"vm": vmAttribute(),
		"name": schema.StringAttribute{
			MarkdownDescription: "Name of the snapshot. It is changed in place. It needn't be unique.",
			Required:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"description": schema.StringAttribute{
			MarkdownDescription: "Description of the snapshot. It is changed in place.",
			Optional:            true,
			PlanModifiers:       []planmodifier.String{sameJSON{}},
		},
		"memory": schema.BoolAttribute{
			MarkdownDescription: "Whether the memory of the running virtual machine is saved too, so that it runs on " +
				"from this very point after a revert. A change takes a new snapshot. Default: `false`.",
			Optional: true, Computed: true,
			Default:       booldefault.StaticBool(false),
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.RequiresReplace()},
		},
		"quiesce": quiesceAttribute(),
		"shutdown": schema.BoolAttribute{
			MarkdownDescription: "Whether the guest is shut down cleanly before the snapshot and started again " +
				"afterwards. A change takes a new snapshot. Default: `false`.",
			Optional: true, Computed: true,
			Default:       booldefault.StaticBool(false),
			PlanModifiers: []planmodifier.Bool{replaceBool()},
		},
		"on_destroy": schema.SingleNestedAttribute{
			MarkdownDescription: "What becomes of the snapshot when this resource is destroyed. It is changed in place.",
			Optional:            true,
			Attributes: map[string]schema.Attribute{
				"action": schema.StringAttribute{
					MarkdownDescription: "`delete` or `keep`. Default: `delete`.",
					Optional:            true,
					Validators:          []validator.String{stringvalidator.OneOf(actionDelete, actionKeep)},
				},
				"remove_children": schema.BoolAttribute{
					MarkdownDescription: "Whether the snapshots that were taken after this one, on top of it, are removed " +
						"too. Default: `false`.",
					Optional: true,
				},
				"consolidate": schema.BoolAttribute{
					MarkdownDescription: "Whether delta disks are merged at once. `false` leaves them to a later " +
						"consolidation. Default: `true`.",
					Optional: true,
				},
			},
		},
		"max_age": schema.StringAttribute{
			MarkdownDescription: "An age, such as `72h`, above which every plan warns. Nothing is ever deleted because " +
				"of it. It is changed in place.",
			Optional:   true,
			Validators: []validator.String{positiveDuration{}},
		},
		"triggers": triggersAttribute("snapshot"),
	}
}

// triggersAttribute is the triggers argument of everything that can be taken anew.
func triggersAttribute(noun string) schema.MapAttribute {
	return schema.MapAttribute{
		MarkdownDescription: "Any values. A change of one replaces the " + noun + ". With `lifecycle { create_before_destroy " +
			"= true }` the new one is there before the old one goes.",
		Optional:      true,
		ElementType:   types.StringType,
		PlanModifiers: []planmodifier.Map{replaceMap()},
	}
}

func snapshotComputed() map[string]schema.Attribute {
	constant := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	return map[string]schema.Attribute{
		"id": schema.StringAttribute{
			MarkdownDescription: "`<instance UUID>/<snapshot ID>`, with the hypervisor's ID of the snapshot.",
			Computed:            true, PlanModifiers: constant,
		},
		"created_at": schema.StringAttribute{
			MarkdownDescription: "When the snapshot was taken, by the server's clock (RFC 3339).",
			Computed:            true, PlanModifiers: constant,
		},
		"power_state": schema.StringAttribute{
			MarkdownDescription: "Power state that a revert leads to: `powered_on`, `powered_off` or `suspended`.",
			Computed:            true, PlanModifiers: constant,
		},
		"consistency": schema.StringAttribute{
			MarkdownDescription: "What the guest finds after a revert, from what really happened: `memory`, " +
				"`application`, `filesystem` or `crash`.",
			Computed: true, PlanModifiers: constant,
		},
		"parent_id": schema.StringAttribute{
			MarkdownDescription: "`id` of the snapshot that this one is built on.",
			Computed:            true, PlanModifiers: constant,
		},
		"path": schema.StringAttribute{
			MarkdownDescription: "Names of the snapshots from the root to this one, `a/b/c`.", Computed: true,
		},
		"is_current": schema.BoolAttribute{
			MarkdownDescription: "Whether the virtual machine's running state descends from this snapshot directly.",
			Computed:            true, PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
		},
		"chain_depth": schema.Int64Attribute{
			MarkdownDescription: "Level in the chain: 1 for the first. More than 3 slow the virtual machine down, " +
				"32 are the end.",
			Computed: true, PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
		},
		"size_bytes": schema.Int64Attribute{
			MarkdownDescription: "Space that the snapshot takes on the datastore, where that is known.", Computed: true,
		},
		"vm_uuid": schema.StringAttribute{
			MarkdownDescription: "BIOS UUID of the virtual machine.", Computed: true, PlanModifiers: constant,
		},
		"vm_instance_uuid": schema.StringAttribute{
			MarkdownDescription: "Instance UUID of the virtual machine: what it is found by from now on.",
			Computed:            true, PlanModifiers: constant,
		},
		"server": serverAttribute(),
	}
}

// snapshotOperation names what is done to a snapshot, and the arguments that can be at fault.
func snapshotOperation(verb, timeout string) operation {
	return operation{verb: verb, noun: "Snapshot", paths: map[argument]path.Path{
		argVM:         path.Root("vm"),
		argQuiesce:    path.Root("quiesce"),
		argGuestAgent: path.Root("quiesce"),
		argTimeout:    path.Root("timeouts").AtName(timeout),
	}}
}

func (r *snapshotResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan snapshotModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Create, snapshotCreateTimeout, &resp.Diagnostics)
	defer cancel()
	request := plan.request(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}

	op := snapshotOperation("Take", "create")
	if request.ShutDown {
		op.paths[argGuestAgent] = path.Root("shutdown")
	}
	m, err := r.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	taken, err := m.Take(ctx, request)
	if taken != nil {
		// Record the snapshot whatever happened next: Terraform then removes it instead of leaking
		// a delta disk.
		warnings(&resp.Diagnostics, "Snapshot Taken With Reservations", taken.Warnings)
		plan.fillAs(taken)
		resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
		resp.Diagnostics.Append(resp.Identity.Set(ctx, plan.identity())...)
		op = op.leaving("The snapshot %s of %s exists and is in the state, tainted: the next apply replaces it.",
			taken.Snapshot.ID, taken.VM.Path)
	} else {
		op = op.leaving("No snapshot was left behind, unless the error says otherwise.")
	}
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
	}
}

func (r *snapshotResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state snapshotModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Read, snapshotReadTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}
	// The identity comes first: a state of an older Terraform has none, and without one a resource
	// can't even be dropped from the state.
	resp.Diagnostics.Append(resp.Identity.Set(ctx, state.identity())...)

	switch err := state.read(ctx, r.session); {
	case snapshotGone(err):
		resp.State.RemoveResource(ctx)
	case err != nil:
		op := snapshotOperation("Read", "read")
		op.fail(ctx, &resp.Diagnostics, err)
	default:
		resp.Diagnostics.Append(resp.State.Set(ctx, state)...)
	}
}

// read reads the snapshot that the state describes. Errors: as snapshot.Manager.Read.
func (m *snapshotModel) read(ctx context.Context, s *session) error {
	manager, err := s.snapshotsOf(ctx, m.Server)
	if err != nil {
		return err
	}
	instanceUUID, id := splitSnapshotKey(m.ID.ValueString())
	taken, err := readSnapshot(ctx, manager, instanceUUID, id)
	if err != nil {
		return err
	}
	m.fill(taken)
	return nil
}

// refresh implements steadyModel.
func (m *snapshotModel) refresh(ctx context.Context, s *session) error {
	var diags diag.Diagnostics
	ctx, cancel := limit(ctx, m.Timeouts, timeouts.Value.Read, snapshotReadTimeout, &diags)
	defer cancel()
	if diags.HasError() {
		return errors.New("the timeout can't be read")
	}
	return m.read(ctx, s)
}

// settled implements steadyModel: the defaults are false, and ModifyPlan warns of a great age.
func (m *snapshotModel) settled() bool {
	no := types.BoolValue(false)
	return m.Memory.Equal(no) && m.Shutdown.Equal(no) && m.MaxAge.IsNull()
}

// who implements steadyModel.
func (m *snapshotModel) who() any { return m.identity() }

// snapshotGone reports whether there is no such snapshot any more, or no such VM. The manager says so only
// when it is certain.
func snapshotGone(err error) bool {
	var noVM *hypervisor.VMNotFoundError
	return errors.As(err, &noVM) || errors.Is(err, hypervisor.ErrSnapshotNotFound)
}

// Update sees changes of the name, the description, and of arguments that concern Terraform alone;
// every other change replaces.
func (r *snapshotResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state snapshotModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, plan.Timeouts, timeouts.Value.Update, snapshotUpdateTimeout, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}
	resp.Diagnostics.Append(resp.Identity.Set(ctx, state.identity())...)

	op := snapshotOperation("Rename", "update")
	m, err := r.session.snapshotsOf(ctx, state.Server)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	instanceUUID, id := splitSnapshotKey(state.ID.ValueString())
	if !plan.Name.Equal(state.Name) || plan.Description.ValueString() != state.Description.ValueString() {
		err := m.Rename(ctx, instanceUUID, id, plan.Name.ValueString(), plan.Description.ValueString())
		if err != nil {
			op.leaving("The snapshot is as it was.").fail(ctx, &resp.Diagnostics, err)
			return
		}
	}
	taken, err := m.Read(ctx, instanceUUID, id)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	plan.fillAs(taken)
	resp.Diagnostics.Append(resp.State.Set(ctx, plan)...)
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, importedKey, []byte("false"))...)
}

func (r *snapshotResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state snapshotModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	ctx, cancel := limit(ctx, state.Timeouts, timeouts.Value.Delete, snapshotDeleteTimeout, &resp.Diagnostics)
	defer cancel()
	keep, options := state.onDestroy(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() || keep {
		return
	}

	op := snapshotOperation("Remove", "delete").leaving("The snapshot is still in the state.")
	m, err := r.session.snapshotsOf(ctx, state.Server)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	instanceUUID, id := splitSnapshotKey(state.ID.ValueString())
	err = m.Remove(ctx, instanceUUID, id, options)
	switch {
	case errors.Is(err, hypervisor.ErrConsolidationNeeded):
		op.leaving("The snapshot is gone; delta disks that belong to no snapshot are left on the datastore.").
			warn(ctx, &resp.Diagnostics, "Disks Need Consolidation", err)
	case err != nil:
		op.fail(ctx, &resp.Diagnostics, err)
	}
}
