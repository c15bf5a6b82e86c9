package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

type quiesceModel struct {
	Mode    types.String `tfsdk:"mode"`
	Timeout types.String `tfsdk:"timeout"`
	VSS     types.Object `tfsdk:"vss"`
}

type vssModel struct {
	Context             types.String `tfsdk:"context"`
	BackupType          types.String `tfsdk:"backup_type"`
	BootableSystemState types.Bool   `tfsdk:"bootable_system_state"`
	PartialFileSupport  types.Bool   `tfsdk:"partial_file_support"`
}

// quiesceAttribute is the quiesce argument of everything that captures a running VM.
func quiesceAttribute() schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{
		MarkdownDescription: "Asks the guest to bring its file systems, and where it can its applications, to rest. " +
			"What really happened is in `consistency`. Without this argument the guest is not asked.",
		Optional:      true,
		PlanModifiers: []planmodifier.Object{replaceObject(bothUnasked)},
		Attributes: map[string]schema.Attribute{
			"mode": schema.StringAttribute{
				MarkdownDescription: "`required`: fail if the guest can't be quiesced; `preferred`: warn and go on without; " +
					"`off`: don't ask.",
				Required: true,
				Validators: []validator.String{stringvalidator.OneOf(
					string(quiesce.Required), string(quiesce.Preferred), string(quiesce.Off))},
			},
			"timeout": schema.StringAttribute{
				MarkdownDescription: "How long the guest may take, such as `10m`. vSphere takes whole minutes from 5 to 240. " +
					"Default: the hypervisor's.",
				Optional:   true,
				Validators: []validator.String{positiveDuration{}},
			},
			"vss": schema.SingleNestedAttribute{
				MarkdownDescription: "Parameters for the Volume Shadow Copy Service of Windows guests; others ignore them.",
				Optional:            true,
				Attributes: map[string]schema.Attribute{
					"context": schema.StringAttribute{
						MarkdownDescription: "`auto`, `backup` or `file_share`. Default: `auto`.",
						Optional:            true,
						Validators:          []validator.String{stringvalidator.OneOf("auto", "backup", "file_share")},
					},
					"backup_type": schema.StringAttribute{
						MarkdownDescription: "`full`, `incremental`, `differential`, `log` or `copy`. Default: `copy`, which " +
							"leaves the logs of applications alone.",
						Optional: true,
						Validators: []validator.String{
							stringvalidator.OneOf("full", "incremental", "differential", "log", "copy")},
					},
					"bootable_system_state": schema.BoolAttribute{
						MarkdownDescription: "Whether the system state is captured such that it boots. Default: `false`.",
						Optional:            true,
					},
					"partial_file_support": schema.BoolAttribute{
						MarkdownDescription: "Whether writers may offer parts of files. Default: `false`.",
						Optional:            true,
					},
				},
			},
		},
	}
}

// bothUnasked reports whether the guest is asked by neither of two policies: without one it isn't, either.
func bothUnasked(ctx context.Context, plan, state types.Object) bool {
	var diags diag.Diagnostics
	asked := quiescePolicy(ctx, plan, &diags).Wanted() || quiescePolicy(ctx, state, &diags).Wanted()
	return !asked && !diags.HasError()
}

// quiescePolicy reads the quiesce argument; null means that the guest is not asked.
func quiescePolicy(ctx context.Context, object types.Object, diags *diag.Diagnostics) quiesce.Policy {
	if object.IsNull() || object.IsUnknown() {
		return quiesce.Policy{Mode: quiesce.Off}
	}
	var m quiesceModel
	diags.Append(object.As(ctx, &m, basetypes.ObjectAsOptions{})...)
	p := quiesce.Policy{Mode: quiesce.Mode(m.Mode.ValueString()), Timeout: duration(m.Timeout)}
	if !m.VSS.IsNull() && !m.VSS.IsUnknown() {
		var v vssModel
		diags.Append(m.VSS.As(ctx, &v, basetypes.ObjectAsOptions{})...)
		p.VSS = &hypervisor.VSS{
			Context:             or(v.Context, "auto"),
			BackupType:          or(v.BackupType, "copy"),
			BootableSystemState: v.BootableSystemState.ValueBool(),
			PartialFileSupport:  v.PartialFileSupport.ValueBool(),
		}
	}
	return p
}

// duration reads a validated duration; null and unknown are zero.
func duration(value types.String) time.Duration {
	d, err := time.ParseDuration(value.ValueString())
	if err != nil {
		return 0
	}
	return d
}

// or is the value, or something else where there is none.
func or(value types.String, otherwise string) string {
	if value.IsNull() || value.IsUnknown() {
		return otherwise
	}
	return value.ValueString()
}
