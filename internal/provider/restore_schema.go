package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// How long operations on restores may take unless the timeouts block says otherwise.
const (
	restoreCreateTimeout = 24 * time.Hour
	restoreReadTimeout   = 10 * time.Minute
	restoreUpdateTimeout = 10 * time.Minute
	restoreDeleteTimeout = 30 * time.Minute
)

func (r *restoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := restoreComputed()
	for name, a := range restoreArguments() {
		attributes[name] = a
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A virtual machine that is built from a backup. It can be started only when all of its disks " +
			"are written and verified; a restore that fails leaves nothing. If the virtual machine is destroyed later, " +
			"the next plan restores it again.",
		Attributes: attributes,
		Blocks: map[string]schema.Block{"timeouts": timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Update: true, Delete: true,
			CreateDescription: "Default: `24h`. When it is over, the transfer stops and what was created is removed.",
			ReadDescription:   "Default: `10m`.",
			UpdateDescription: "Default: `10m`.",
			DeleteDescription: "Default: `30m`.",
		})},
	}
}

func restoreArguments() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"backup_id": schema.StringAttribute{
			MarkdownDescription: "`id` of the backup. A change restores anew.",
			Required:            true,
			Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
			PlanModifiers:       []planmodifier.String{stringplanmodifier.RequiresReplace()},
		},
		"new_vm": schema.SingleNestedAttribute{
			MarkdownDescription: "Where the virtual machine is built, and who it is. Whatever isn't written is as in the " +
				"backup; without this argument the virtual machine comes back as what it was, where it was. A change " +
				"restores anew.",
			Optional:      true,
			PlanModifiers: []planmodifier.Object{objectplanmodifier.RequiresReplace()},
			Attributes:    newVMAttributes(),
		},
		"power_on": schema.BoolAttribute{
			MarkdownDescription: "Whether the virtual machine is started when it is complete. Default: it is started if it " +
				"was running when the backup was taken. A change to `true` starts it in place; a change to `false` doesn't " +
				"stop it.",
			Optional: true,
		},
		"triggers": schema.MapAttribute{
			MarkdownDescription: "Any values. A change of one restores anew, as does `terraform apply -replace`. After `terraform " +
				"taint` the plan is refused: the provider isn't told that the virtual machine in the way is its own.",
			Optional:      true,
			ElementType:   types.StringType,
			PlanModifiers: []planmodifier.Map{mapplanmodifier.RequiresReplace()},
		},
		"on_destroy": schema.StringAttribute{
			MarkdownDescription: "What becomes of the virtual machine when this resource is destroyed: `keep` or `delete`. " +
				"Default: `keep` for one with its original identity, which another resource may manage, and `delete` for " +
				"a copy. It is changed in place. Unless `keep` is written here, a virtual machine that could not be started " +
				"makes way for the next attempt, as long as it is powered off.",
			Optional: true, Computed: true,
			Validators: []validator.String{stringvalidator.OneOf(actionKeep, actionDelete)},
		},
	}
}

func newVMAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{
			MarkdownDescription: description, Optional: true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		}
	}
	return map[string]schema.Attribute{
		"name": text("Name."),
		"identity": schema.StringAttribute{
			MarkdownDescription: "`original`: BIOS and instance UUID, MAC addresses and UUIDs of disks come back, so that " +
				"other resources which manage the virtual machine find it unchanged; refused while a virtual machine with " +
				"one of them exists. `copy`: all of them are new. Default: `original`.",
			Optional: true, Computed: true,
			Default: stringdefault.StaticString(string(hypervisor.IdentityOriginal)),
			Validators: []validator.String{
				stringvalidator.OneOf(string(hypervisor.IdentityOriginal), string(hypervisor.IdentityCopy))},
		},
		"folder":        text("Inventory path of the folder."),
		"resource_pool": text("Inventory path or name of the resource pool, `Cluster/Resources`."),
		"host":          text("Name of the host. Default: the cluster chooses."),
		"datastore":     text("Name of the datastore for the virtual machine and all disks without one of their own."),
		"disk_datastores": schema.MapAttribute{
			MarkdownDescription: "Datastores of single disks, by the disk's label (`Hard disk 2`), address (`scsi0:1`) or UUID.",
			Optional:            true, ElementType: types.StringType,
		},
		"network_map": schema.MapAttribute{
			MarkdownDescription: "Networks to connect to, by the name of the network in the backup.",
			Optional:            true, ElementType: types.StringType,
		},
		"connect_networks": schema.BoolAttribute{
			MarkdownDescription: "Whether network adapters are connected when the virtual machine starts. Default: as in " +
				"the backup for the original identity; `false` for a copy, whose guest has the original's addresses.",
			Optional: true,
		},
	}
}

// restoreDiskDescriptions describe a disk that was restored.
var restoreDiskDescriptions = map[string]string{
	"label":          "Label, `Hard disk 1`.",
	"address":        "Controller and unit, `scsi0:0`.",
	"uuid":           "UUID of the disk, where it has one.",
	"capacity_bytes": "Capacity.",
	"datastore":      "Datastore that the disk was restored to.",
	"path":           "Backing file that the disk was restored to.",
	"restored_bytes": "Bytes of data that were written.",
	"digest":         "Digest of the disk's content, verified against the backup.",
}

func restoreComputed() map[string]schema.Attribute {
	constant := func(description string) schema.StringAttribute {
		return schema.StringAttribute{
			MarkdownDescription: description, Computed: true,
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		}
	}
	volatile := func(description string) schema.StringAttribute {
		return schema.StringAttribute{MarkdownDescription: description, Computed: true}
	}
	return map[string]schema.Attribute{
		"id":               constant("Instance UUID of the restored virtual machine."),
		"vm_id":            volatile("The hypervisor's ID of the restored virtual machine (`vm-42`)."),
		"vm_name":          volatile("Name of the restored virtual machine."),
		"vm_uuid":          constant("BIOS UUID of the restored virtual machine: what `vsphere_virtual_machine.x.id` is."),
		"vm_instance_uuid": constant("Instance UUID of the restored virtual machine."),
		"vm_path":          volatile("Inventory path of the restored virtual machine."),
		"power_state":      volatile("Power state: `powered_on`, `powered_off` or `suspended`."),
		"guest_ip_address": volatile("IP address that the guest's agent reports, once there is one."),
		"completed_at":     constant("When the restore was complete (RFC 3339)."),
		"server":           serverAttribute(),
		"start_failed": schema.BoolAttribute{
			MarkdownDescription: "Whether the virtual machine is complete but could not be started, which made the apply fail. " +
				"The next apply deletes it and restores again, unless it isn't powered off any more or `on_destroy` says " +
				"`keep`. `terraform untaint` keeps it as it is.",
			Computed:      true,
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
		},
		"restored_bytes": schema.Int64Attribute{
			MarkdownDescription: "Bytes of data that were written.", Computed: true,
			PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
		},
		"disks": schema.ListNestedAttribute{
			MarkdownDescription: "The disks as they were restored.",
			Computed:            true,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			NestedObject:        schema.NestedAttributeObject{Attributes: computedAttributes(restoreDiskTypes, restoreDiskDescriptions)},
		},
	}
}

// restoreOperation names what is done about a restored VM, and the arguments that can be at fault.
func restoreOperation(verb, noun, timeout string) operation {
	newVM := path.Root("new_vm")
	return operation{verb: verb, noun: noun, paths: map[argument]path.Path{
		argBackup:    path.Root("backup_id"),
		argNetwork:   newVM.AtName("network_map"),
		argDatastore: newVM.AtName("datastore"),
		argPool:      newVM.AtName("resource_pool"),
		argFolder:    newVM.AtName("folder"),
		argHost:      newVM.AtName("host"),
		argName:      newVM.AtName("name"),
		argIdentity:  newVM.AtName("identity"),
		argTimeout:   path.Root("timeouts").AtName(timeout),
	}}
}
