package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// How long operations on restores may take unless the timeouts block says otherwise.
const (
	restoreCreateTimeout = 24 * time.Hour
	restoreReadTimeout   = 10 * time.Minute
	restoreUpdateTimeout = 30 * time.Minute
	restoreDeleteTimeout = 30 * time.Minute
)

func (r *restoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := restoreComputed()
	for name, a := range restoreArguments() {
		attributes[name] = a
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A past state that is put back: from a backup into a new virtual machine or into one that exists, " +
			"or by reverting virtual machines to snapshots.\n\nA virtual machine that is built from a backup can be started " +
			"only when all of its disks are written and verified; a restore that fails leaves nothing. One that is restored " +
			"in place runs on while its disks are written, and keeps the disks it has until the new ones are complete. If " +
			"the virtual machine is destroyed later, the next plan restores it again.\n\nWhat is not in a backup or snapshot " +
			"is lost by a restore in place or a revert: everything that was written since.",
		Attributes: attributes,
		Blocks: map[string]schema.Block{"timeouts": timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Update: true, Delete: true,
			CreateDescription: "Default: `24h`. When it is over, the transfer stops and what was created is removed.",
			ReadDescription:   "Default: `10m`.",
			UpdateDescription: "Default: `30m`.",
			DeleteDescription: "Default: `30m`.",
		})},
	}
}

func restoreArguments() map[string]schema.Attribute {
	attributes := restoreSources()
	for name, a := range map[string]schema.Attribute{
		"new_vm": schema.SingleNestedAttribute{
			MarkdownDescription: "Where the virtual machine is built from the backup, and who it is. Whatever isn't written is " +
				"as in the backup; without this argument and without `in_place` the virtual machine comes back as what it " +
				"was, where it was. A change restores anew.",
			Optional:      true,
			PlanModifiers: []planmodifier.Object{replaceObject(sameNewVM)},
			Attributes:    newVMAttributes(),
		},
		"in_place": inPlaceAttribute(),
		"only_disks": schema.SetAttribute{
			MarkdownDescription: "The disks to restore, by label (`Hard disk 2`), address (`scsi0:1`) or UUID. A new virtual " +
				"machine gets no others; one that is restored in place keeps its others. Default: all that are in the " +
				"backup. A change restores anew.",
			Optional: true, ElementType: types.StringType,
			Validators: []validator.Set{
				setvalidator.SizeAtLeast(1), setvalidator.ValueStringsAre(stringvalidator.LengthAtLeast(1))},
			PlanModifiers: []planmodifier.Set{replaceSet()},
		},
		"verify": schema.BoolAttribute{
			MarkdownDescription: "Whether the restored disks are read back, in another way than they were written, and their " +
				"digests compared with the backup's before the virtual machine is started. It costs a second pass over the " +
				"disks. Default: `false`. A change matters to the next restore.",
			Optional: true,
		},
		"power_on": schema.BoolAttribute{
			MarkdownDescription: "Whether the virtual machine runs afterwards. Default: a new one is started if it was running " +
				"when the backup was taken; one that is restored in place if it was running before; one that is reverted " +
				"runs if the snapshot holds its memory. With `false`, memory that a snapshot holds is dropped. A later change to " +
				"`true` starts it; a later change to `false` doesn't stop it.",
			Optional: true,
		},
		"wait_for_guest": waitForGuestAttribute(),
		"triggers": schema.MapAttribute{
			MarkdownDescription: "Any values. A change of one restores anew, as does `terraform apply -replace`. After `terraform " +
				"taint` of a new virtual machine the plan is refused: the provider isn't told that the virtual machine in the " +
				"way is its own. With `create_before_destroy` both virtual machines exist for a while: it needs `identity = " +
				"\"copy\"` and a `new_vm.name` that changes along.",
			Optional:      true,
			ElementType:   types.StringType,
			PlanModifiers: []planmodifier.Map{replaceMap()},
		},
		"on_destroy": schema.StringAttribute{
			MarkdownDescription: "What becomes of a new virtual machine when this resource is destroyed: `keep` or `delete`. " +
				"Default: `keep` for one with its original identity, which another resource may manage, and for one that was " +
				"imported, and `delete` for a copy. It is changed in place. Unless `keep` is written here, a new virtual machine that could not be " +
				"started makes way for the next attempt, as long as it is powered off. A virtual machine that was there " +
				"before is never deleted, nor is one that has got other disks since.",
			Optional: true, Computed: true,
			Validators: []validator.String{stringvalidator.OneOf(actionKeep, actionDelete)},
		},
	} {
		attributes[name] = a
	}
	return attributes
}

// restoreSources are the arguments of which exactly one is written.
func restoreSources() map[string]schema.Attribute {
	replace := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	return map[string]schema.Attribute{
		"backup_id": schema.StringAttribute{
			MarkdownDescription: "`id` of the backup to restore. A change restores anew. Exactly one of `backup_id`, " +
				"`snapshot_id` and `snapshot_ids` is written.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)}, PlanModifiers: replace,
		},
		"snapshot_id": schema.StringAttribute{
			MarkdownDescription: "`id` of the snapshot to which its virtual machine is reverted, once: as what it is now is lost, " +
				"nothing that happens to the snapshot later reverts again. A change reverts anew, as does one of `triggers`.",
			Optional:   true,
			Validators: []validator.String{snapshotIDValidator{}}, PlanModifiers: replace,
		},
		"snapshot_ids": schema.ListAttribute{
			MarkdownDescription: "`snapshot_ids` of a `vm_snapshot_set`, or any snapshots of different virtual machines, which are " +
				"reverted as one thing: all are stopped, then all are reverted, and only then those that are to run are started, " +
				"one after the other in this order. A change reverts anew.",
			Optional: true, ElementType: types.StringType,
			Validators: []validator.List{
				listvalidator.SizeBetween(1, snapshot.MaxSetMembers), listvalidator.UniqueValues(),
				listvalidator.ValueStringsAre(snapshotIDValidator{})},
			PlanModifiers: []planmodifier.List{listplanmodifier.RequiresReplace()},
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
		"id":               constant("Instance UUID of the restored virtual machine; of several, one after the other with commas."),
		"vm_id":            constant("The hypervisor's ID of the restored virtual machine (`vm-42`). All `vm_…` are null where several are reverted."),
		"vm_name":          constant("Name of the restored virtual machine."),
		"vm_uuid":          constant("BIOS UUID of the restored virtual machine: what `vsphere_virtual_machine.x.id` is."),
		"vm_instance_uuid": constant("Instance UUID of the restored virtual machine."),
		"vm_path":          constant("Inventory path of the restored virtual machine."),
		"power_state":      volatile("Power state: `powered_on`, `powered_off` or `suspended`."),
		"guest_ip_address": volatile("IP address that the guest's agent reports, once there is one."),
		"guest_ip_addresses": schema.ListAttribute{
			MarkdownDescription: "All addresses that the guest's agent reports and that others can reach.",
			Computed:            true, ElementType: types.StringType,
		},
		"completed_at": constant("When the restore was complete (RFC 3339)."),
		"server":       serverAttribute(),
		"start_failed": schema.BoolAttribute{
			MarkdownDescription: "Whether the virtual machine is complete but could not be started, or its guest did not come up " +
				"in time, which made the apply fail. The next apply restores again. It deletes a new virtual machine for " +
				"that, unless that isn't powered off any more or `on_destroy` says `keep`. `terraform untaint` keeps it as " +
				"it is.",
			Computed:      true,
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
		},
		"restored_bytes": schema.Int64Attribute{
			MarkdownDescription: "Bytes of data that were written.", Computed: true,
			PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
		},
		"verified": schema.BoolAttribute{
			MarkdownDescription: "Whether the disks were read back and compared with the backup.", Computed: true,
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
		},
		"replaced_disks": schema.ListNestedAttribute{
			MarkdownDescription: "Disks that a restore in place took out of the virtual machine and whose files are still there.",
			Computed:            true,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			NestedObject: schema.NestedAttributeObject{
				Attributes: computedAttributes(replacedDiskTypes, replacedDiskDescriptions)},
		},
		"replaced_disks_until": constant("When the files of `replaced_disks` are due to be deleted, by the next apply after " +
			"that (RFC 3339)."),
		"reverted": schema.ListNestedAttribute{
			MarkdownDescription: "The virtual machines that were reverted, in the order of the snapshots.",
			Computed:            true,
			NestedObject:        schema.NestedAttributeObject{Attributes: revertedAttributes()},
		},
		"disks": schema.ListNestedAttribute{
			MarkdownDescription: "The disks as they were restored from the backup.",
			Computed:            true,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			NestedObject:        schema.NestedAttributeObject{Attributes: computedAttributes(restoreDiskTypes, restoreDiskDescriptions)},
		},
	}
}
