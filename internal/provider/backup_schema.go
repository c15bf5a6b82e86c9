package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/float64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// How long operations on backups may take unless the timeouts block says otherwise. A terabyte over
// a management network takes hours.
const (
	backupCreateTimeout = 24 * time.Hour
	backupReadTimeout   = 10 * time.Minute
	backupDeleteTimeout = 30 * time.Minute
)

func (r *backupResource) IdentitySchema(
	_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse,
) {
	resp.IdentitySchema = identityschema.Schema{Attributes: map[string]identityschema.Attribute{
		"id": identityschema.StringAttribute{RequiredForImport: true, Description: "ID of the backup."},
	}}
}

func (r *backupResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := backupComputed()
	for _, arguments := range []map[string]schema.Attribute{
		backupArguments(), backupReadingArguments(), backupRetentionAttributes(),
	} {
		for name, a := range arguments {
			attributes[name] = a
		}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A backup of a virtual machine: its disks, its virtual hardware, firmware settings and " +
			"placement at one point in time, kept in the provider's repository. It outlives the virtual machine, the " +
			"host and the Terraform state. The virtual machine may run; a temporary snapshot is taken and removed again.",
		Attributes: attributes,
		Blocks: map[string]schema.Block{"timeouts": timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Delete: true,
			CreateDescription: "Default: `24h`. When it is over, the transfer stops and the temporary snapshot is removed.",
			ReadDescription:   "Default: `10m`.",
			DeleteDescription: "Default: `30m`.",
		})},
	}
}

func backupArguments() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"vm": vmAttribute(),
		"description": schema.StringAttribute{
			MarkdownDescription: "Description of the backup. It is part of the backup: a change takes a new one.",
			Optional:            true,
			PlanModifiers:       []planmodifier.String{sameJSON{}, replaceOtherText()},
		},
		"quiesce": quiesceAttribute(),
		"exclude_disks": schema.SetAttribute{
			MarkdownDescription: "Disks to leave out, each by its label (`Hard disk 2`), its address (`scsi0:1`) or its " +
				"UUID. Independent disks can't be in a backup and must be left out. A restored virtual machine doesn't " +
				"have these disks. A change takes a new backup.",
			Optional:    true,
			ElementType: types.StringType,
			Validators: []validator.Set{
				setvalidator.SizeAtLeast(1), setvalidator.ValueStringsAre(stringvalidator.LengthAtLeast(1)),
			},
			PlanModifiers: []planmodifier.Set{replaceSet()},
		},
		"tags": schema.MapAttribute{
			MarkdownDescription: "Tags to find the backup by. They are part of the backup: a change takes a new one.",
			Optional:            true,
			ElementType:         types.StringType,
			PlanModifiers:       []planmodifier.Map{replaceOtherMap()},
		},
		"triggers": triggersAttribute("backup"),
		"on_destroy": schema.StringAttribute{
			MarkdownDescription: "What becomes of the backup when this resource is destroyed or replaced: `retain` or " +
				"`delete`. It is changed in place. With `delete`, let `lifecycle { create_before_destroy = true }` see to it " +
				"that the old backup goes only when there is a new one. Default: `retain`.",
			Optional: true, Computed: true,
			Default:    stringdefault.StaticString(actionRetain),
			Validators: []validator.String{stringvalidator.OneOf(actionRetain, actionDelete)},
		},
	}
}

// backupDescriptions describe backupFacts, for the resource and the data source.
var backupDescriptions = map[string]string{
	"id":         "ID of the backup: 32 hexadecimal digits, the ID of its Kopia snapshot.",
	"created_at": "The point in time of the disks (RFC 3339).",
	"vm_name":    "Name of the virtual machine.",
	"vm_path":    "Inventory path of the virtual machine.",
	"vm_uuid":    "BIOS UUID of the virtual machine.",
	"vm_instance_uuid": "Instance UUID of the virtual machine. The virtual machine may be gone: nothing but taking the " +
		"backup needs it.",
	"guest_id":    "The hypervisor's identifier of the guest operating system.",
	"power_state": "Power state of the virtual machine at that time.",
	"consistency": "What the guest finds after a restore, from what really happened: `application`, `filesystem` or " +
		"`crash`.",
	"incremental":      "Whether unchanged data of an earlier backup was used without reading it again.",
	"parent_id":        "ID of the backup that an incremental one is built on.",
	"transport":        "How the disks were read: `datastore`, `export`, or both with a comma.",
	"size_bytes":       "Sum of the capacities of the disks.",
	"read_bytes":       "Bytes that were read from the hypervisor.",
	"stored_bytes":     "Bytes that were added to the repository, after deduplication and compression.",
	"duration_seconds": "How long the backup took.",
}

// backupDiskDescriptions describe a disk of a backup.
var backupDiskDescriptions = map[string]string{
	"label":          "Label, `Hard disk 1`.",
	"address":        "Controller and unit, `scsi0:0`.",
	"uuid":           "UUID of the disk, where it has one.",
	"capacity_bytes": "Capacity.",
	"datastore":      "Datastore that the disk was on.",
	"digest":         "Digest of the disk's content, which a restore verifies.",

	"transport":        "How the disk was read: `datastore` or `export`.",
	"transport_reason": "Why it was not read in a way that is preferred; empty where it was.",
	"incremental":      "Whether only what changed was read.",
	"changed_bytes":    "Bytes in the parts that changed since the last backup, by the hypervisor's word, in whole chunks.",
	"read_bytes":       "Bytes that were read from the hypervisor.",
}

func backupComputed() map[string]schema.Attribute {
	attributes := map[string]schema.Attribute{
		"repository_id": schema.StringAttribute{
			MarkdownDescription: "ID of the repository that the backup is in.",
			Computed:            true,
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"disks": schema.ListNestedAttribute{
			MarkdownDescription: "The disks in the backup.",
			Computed:            true,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			NestedObject:        schema.NestedAttributeObject{Attributes: computedAttributes(backupDiskTypes, backupDiskDescriptions)},
		},
	}
	// A backup never changes: whatever is known of it stays known.
	for name, description := range backupDescriptions {
		switch name {
		case "incremental":
			attributes[name] = schema.BoolAttribute{
				MarkdownDescription: description, Computed: true,
				PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
			}
		case "duration_seconds":
			attributes[name] = schema.Float64Attribute{
				MarkdownDescription: description, Computed: true,
				PlanModifiers: []planmodifier.Float64{float64planmodifier.UseStateForUnknown()},
			}
		case "size_bytes", "read_bytes", "stored_bytes":
			attributes[name] = schema.Int64Attribute{
				MarkdownDescription: description, Computed: true,
				PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
			}
		default:
			attributes[name] = schema.StringAttribute{
				MarkdownDescription: description, Computed: true,
				PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			}
		}
	}
	return attributes
}

// backupOperation names what is done to a backup, and the arguments that can be at fault.
func backupOperation(verb, timeout string) operation {
	return operation{verb: verb, noun: "Backup", paths: map[argument]path.Path{
		argVM:         path.Root("vm"),
		argQuiesce:    path.Root("quiesce"),
		argGuestAgent: path.Root("quiesce"),
		argExclude:    path.Root("exclude_disks"),
		argTimeout:    path.Root("timeouts").AtName(timeout),
	}}
}
