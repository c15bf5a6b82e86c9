package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// backupReading are the arguments about how much of the disks is read. A backup is complete whatever they
// say, so that a change of them takes no new one: the next that is taken for another reason heeds it.
type backupReading struct {
	Mode           types.String `tfsdk:"mode"`
	FullEvery      types.Int64  `tfsdk:"full_every"`
	ChangeTracking types.String `tfsdk:"change_tracking"`
	Verify         types.String `tfsdk:"verify"`
}

// verifyNone is how people write that nothing is verified.
const verifyNone = "none"

const nextBackup = " It is changed in place, and heeded by the next backup."

func backupReadingArguments() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"mode": schema.StringAttribute{
			MarkdownDescription: "`auto`: only what changed since the last backup is read, where the hypervisor can tell; the " +
				"rest is taken over from that backup. `full`: everything is read. Every backup is complete either way. " +
				"Default: `auto`." + nextBackup,
			Optional: true, Computed: true,
			Default:    stringdefault.StaticString(string(backup.ModeAuto)),
			Validators: []validator.String{stringvalidator.OneOf(string(backup.ModeAuto), string(backup.ModeFull))},
		},
		"full_every": schema.Int64Attribute{
			MarkdownDescription: "After how many backups in a row of which only changes were read everything is read again, " +
				"which stores next to nothing anew but ends the effect of changes that the hypervisor may have missed. `0`: " +
				"never. Default: `30`." + nextBackup,
			Optional: true, Computed: true,
			Default:    int64default.StaticInt64(backup.DefaultFullEvery),
			Validators: []validator.Int64{int64validator.Between(0, 10000)},
		},
		"change_tracking": schema.StringAttribute{
			MarkdownDescription: "What is done about the hypervisor's tracking of changes, on vSphere changed block tracking " +
				"(CBT). `use`: it is used where it is on. `enable`: it is switched on where it is off and the virtual machine " +
				"has no snapshots; other tools see that setting of the virtual machine change. `ignore`: everything is " +
				"read. Default: `use`." + nextBackup,
			Optional: true, Computed: true,
			Default: stringdefault.StaticString(string(hypervisor.TrackingUse)),
			Validators: []validator.String{stringvalidator.OneOf(string(hypervisor.TrackingUse),
				string(hypervisor.TrackingEnable), string(hypervisor.TrackingIgnore))},
		},
		"verify": schema.StringAttribute{
			MarkdownDescription: "`sample`: one in a hundred of the parts that did not change by the hypervisor's word, 16 MiB of " +
				"each disk at least, is read nevertheless and compared; the backup fails if one did. `none`: the hypervisor is " +
				"trusted. Default: `none`." + nextBackup,
			Optional: true, Computed: true,
			Default:    stringdefault.StaticString(verifyNone),
			Validators: []validator.String{stringvalidator.OneOf(verifyNone, string(backup.RecheckSample))},
		},
	}
}

// imported gives arguments that a backup doesn't tell their defaults.
func (r *backupReading) imported() {
	if r.Mode.IsNull() {
		r.Mode = types.StringValue(string(backup.ModeAuto))
	}
	if r.FullEvery.IsNull() {
		r.FullEvery = types.Int64Value(backup.DefaultFullEvery)
	}
	if r.ChangeTracking.IsNull() {
		r.ChangeTracking = types.StringValue(string(hypervisor.TrackingUse))
	}
	if r.Verify.IsNull() {
		r.Verify = types.StringValue(verifyNone)
	}
}

// fillRequest says in a request what is written.
func (r *backupReading) fillRequest(request *backup.Request) {
	request.Mode = backup.Mode(r.Mode.ValueString())
	request.ChangeTracking = hypervisor.ChangeTracking(r.ChangeTracking.ValueString())
	if verify := r.Verify.ValueString(); verify != verifyNone {
		request.Recheck = backup.Recheck(verify)
	}
	switch every := r.FullEvery.ValueInt64(); {
	case r.FullEvery.IsNull(), r.FullEvery.IsUnknown():
	case every == 0:
		request.FullEvery = -1
	default:
		request.FullEvery = int(every)
	}
}
