package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/float64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/float64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// How long operations on sets may take unless the timeouts block says otherwise.
const (
	setCreateTimeout = time.Hour
	setReadTimeout   = 10 * time.Minute
	setUpdateTimeout = 10 * time.Minute
	setDeleteTimeout = 6 * time.Hour
)

func (r *snapshotSetResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := snapshotSetComputed()
	for name, a := range snapshotSetArguments() {
		attributes[name] = a
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "Snapshots of virtual machines that belong together, such as the tiers of one application, taken as " +
			"one thing: all or none. How far apart they lie is measured, and bounded if asked. `vm_restore` with " +
			"`snapshot_ids` reverts them as one thing; destroying this resource removes them as one thing.",
		Attributes: attributes,
		Blocks: map[string]schema.Block{"timeouts": timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Update: true, Delete: true,
			CreateDescription: "Default: `1h`. When it is over, the snapshots that were taken are removed.",
			ReadDescription:   "Default: `10m`.",
			UpdateDescription: "Default: `10m`.",
			DeleteDescription: "Default: `6h`: removing merges what was written since the snapshots.",
		})},
	}
}

func snapshotSetArguments() map[string]schema.Attribute {
	common := quiesceAttribute()
	common.MarkdownDescription += " It is for the members that don't say otherwise."
	return map[string]schema.Attribute{
		"members": schema.ListNestedAttribute{
			MarkdownDescription: "The virtual machines, up to 32. A change takes a new set.",
			Required:            true,
			Validators:          []validator.List{listvalidator.SizeBetween(1, snapshot.MaxSetMembers)},
			NestedObject:        schema.NestedAttributeObject{Attributes: setMemberAttributes()},
		},
		"name": schema.StringAttribute{
			MarkdownDescription: "Name of all snapshots. It is changed in place.",
			Required:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"description": schema.StringAttribute{
			MarkdownDescription: "Description of all snapshots. It is changed in place. On the hypervisor, a line that names the " +
				"set follows it.",
			Optional: true,
		},
		"memory": schema.BoolAttribute{
			MarkdownDescription: "Whether the memory of running virtual machines is saved too. A change takes a new set. Default: " +
				"`false`.",
			Optional: true, Computed: true,
			Default:       booldefault.StaticBool(false),
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.RequiresReplace()},
		},
		"quiesce": common,
		"max_skew_seconds": schema.Float64Attribute{
			MarkdownDescription: "How far apart the snapshots may lie. A set that lies further apart is removed again, with an " +
				"error. A change matters to the next set. Default: any skew is only reported.",
			Optional:   true,
			Validators: []validator.Float64{float64validator.AtLeast(0.001)},
		},
		"on_destroy": setOnDestroyAttribute(),
		"triggers":   triggersAttribute("set"),
	}
}

func setMemberAttributes() map[string]schema.Attribute {
	quiesced := quiesceAttribute()
	quiesced.PlanModifiers = nil // judged with the members as a whole
	quiesced.MarkdownDescription = "As `quiesce` of the set, for this virtual machine alone."
	return map[string]schema.Attribute{
		"vm": vmAttribute(),
		"order": schema.Int64Attribute{
			MarkdownDescription: "Snapshots of a lower order are taken before those of a higher one; those of the same order at " +
				"the same time. Default: 0, all at the same time, for the smallest skew.",
			Optional:   true,
			Validators: []validator.Int64{int64validator.Between(0, snapshot.MaxSetMembers)},
		},
		"quiesce": quiesced,
	}
}

func setOnDestroyAttribute() schema.SingleNestedAttribute {
	a, ok := snapshotArguments()["on_destroy"].(schema.SingleNestedAttribute)
	if !ok {
		panic("the on_destroy argument of snapshots is no object")
	}
	a.MarkdownDescription = "What becomes of the snapshots when this resource is destroyed. It is changed in place."
	return a
}

// setSnapshotTypes are the attributes of a snapshot of a set.
var setSnapshotTypes = map[string]attr.Type{
	"id": types.StringType, "vm_uuid": types.StringType, "vm_instance_uuid": types.StringType, "vm_path": types.StringType,
	"created_at": types.StringType, "power_state": types.StringType, "consistency": types.StringType, "exists": types.BoolType,
}

var setSnapshotDescriptions = map[string]string{
	"id":               "`<instance UUID>/<snapshot ID>`, as `id` of a `vm_snapshot`.",
	"vm_uuid":          "BIOS UUID of the virtual machine.",
	"vm_instance_uuid": "Instance UUID of the virtual machine.",
	"vm_path":          "Inventory path of the virtual machine when the snapshot was taken.",
	"created_at":       "When the snapshot was taken, by the server's clock (RFC 3339).",
	"power_state":      "Power state that a revert leads to: `powered_on`, `powered_off` or `suspended`.",
	"consistency": "What the guest finds after a revert, from what really happened: `memory`, `application`, `filesystem` " +
		"or `crash`.",
	"exists": "Whether the snapshot is still there. The next plan replaces a set that lacks one.",
}

func snapshotSetComputed() map[string]schema.Attribute {
	constant := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	return map[string]schema.Attribute{
		"id": schema.StringAttribute{
			MarkdownDescription: "ID of the set, which the descriptions of its snapshots hold.", Computed: true, PlanModifiers: constant,
		},
		"created_at": schema.StringAttribute{
			MarkdownDescription: "When the last of the snapshots was taken, by the server's clock (RFC 3339).",
			Computed:            true, PlanModifiers: constant,
		},
		"skew_seconds": schema.Float64Attribute{
			MarkdownDescription: "How far the snapshots lie apart.",
			Computed:            true, PlanModifiers: []planmodifier.Float64{float64planmodifier.UseStateForUnknown()},
		},
		"snapshot_ids": schema.ListAttribute{
			MarkdownDescription: "`id` of all snapshots, in the order of the members: what `vm_restore` takes.",
			Computed:            true, ElementType: types.StringType,
			PlanModifiers: []planmodifier.List{listplanmodifier.UseStateForUnknown()},
		},
		"snapshots": schema.ListNestedAttribute{
			MarkdownDescription: "The snapshots, in the order of the members.",
			Computed:            true,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			NestedObject: schema.NestedAttributeObject{
				Attributes: computedAttributes(setSnapshotTypes, setSnapshotDescriptions)},
		},
		"server": serverAttribute(),
	}
}

// setOperation names what is done to a set, and the arguments that can be at fault.
func setOperation(verb, timeout string) operation {
	return operation{verb: verb, noun: "Snapshot Set", paths: map[argument]path.Path{
		argVM:         path.Root("members"),
		argQuiesce:    path.Root("quiesce"),
		argGuestAgent: path.Root("quiesce"),
		argSkew:       path.Root("max_skew_seconds"),
		argTimeout:    path.Root("timeouts").AtName(timeout),
	}}
}
