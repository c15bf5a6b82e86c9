package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

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
				"the BIOS or instance UUID exists, and warned of one with a MAC address. `copy`: all of them are new. " +
				"Default: `original`.",
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

// What becomes of the configuration of a VM that is restored in place.
const (
	hardwareRestore = "restore"
	hardwareKeep    = "keep"
)

// inPlaceAttribute is the in_place argument. Most of it says how the disks are replaced and not what the VM
// is afterwards, so that a change of it replaces nothing.
func inPlaceAttribute() schema.SingleNestedAttribute {
	flag := func(description string) schema.BoolAttribute {
		return schema.BoolAttribute{MarkdownDescription: description + " Default: `false`.", Optional: true}
	}
	return schema.SingleNestedAttribute{
		MarkdownDescription: "Restores the disks into a virtual machine that exists. It runs on while they are written and " +
			"verified beside its own; then its guest is shut down, the disks are exchanged in one step, and it is started " +
			"again. Until then it has its own disks, whatever happens; a restore that was killed is finished or undone by " +
			"the next one. `in_place = {}` restores into the virtual machine that was backed up. Arguments without a word " +
			"on it are changed in place.",
		Optional: true,
		PlanModifiers: []planmodifier.Object{objectplanmodifier.RequiresReplaceIf(func(
			_ context.Context, req planmodifier.ObjectRequest, resp *objectplanmodifier.RequiresReplaceIfFuncResponse,
		) {
			resp.RequiresReplace = req.StateValue.IsNull() != req.PlanValue.IsNull()
		}, "To restore into another place restores anew.", "To restore into another place restores anew.")},
		Attributes: map[string]schema.Attribute{
			"vm": schema.StringAttribute{
				MarkdownDescription: vmDescription + " Default: the one that was backed up. Another way to write the same virtual " +
					"machine is no change; another virtual machine restores anew.",
				Optional:   true,
				Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
			},
			"allow_other_vm": flag("Whether the virtual machine may be another than the one that was backed up."),
			"hardware": schema.StringAttribute{
				MarkdownDescription: "`restore`: the configuration of the virtual machine is brought back to what it was when the " +
					"backup was taken, and what can't be is named in a warning. `keep`: it stays as it is, apart from the " +
					"disks. Default: `restore`. A change restores anew.",
				Optional: true, Computed: true,
				Default:       stringdefault.StaticString(hardwareRestore),
				Validators:    []validator.String{stringvalidator.OneOf(hardwareRestore, hardwareKeep)},
				PlanModifiers: []planmodifier.String{replaceUnlessImported()},
			},
			"remove_snapshots": flag("Whether all snapshots of the virtual machine may be removed, without which its disks can't " +
				"be exchanged. Otherwise a virtual machine with snapshots is refused."),
			"power_off": flag("Whether the virtual machine may be stopped hard if its guest can't be asked to shut down, or " +
				"doesn't in time, and the memory of a suspended one discarded. Otherwise it is left as it is, with an error."),
			"shutdown_timeout": schema.StringAttribute{
				MarkdownDescription: "How long the guest may take to shut down. Default: `5m`.",
				Optional:            true,
				Validators:          []validator.String{positiveDuration{}},
			},
			"keep_replaced_disks": schema.StringAttribute{
				MarkdownDescription: "For how long the disks that were replaced are kept, such as `72h`. Afterwards the next plan " +
					"shows, and its apply does, their deletion; destroying this resource before leaves them where they are, " +
					"with a warning that names them. Default: they are deleted as soon as the restore has succeeded and the " +
					"virtual machine runs or the restored disks were read back (`verify`); otherwise they are kept for 24 hours.",
				Optional:   true,
				Validators: []validator.String{positiveDuration{}},
			},
		},
	}
}

func waitForGuestAttribute() schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{
		MarkdownDescription: "Waits, whenever this resource starts the virtual machine, until its guest is up. If it isn't in " +
			"time, the apply fails. `wait_for_guest = {}` waits for both the agent and an address. A change matters to the " +
			"next start.",
		Optional: true,
		Attributes: map[string]schema.Attribute{
			"agent": schema.BoolAttribute{
				MarkdownDescription: "Whether to wait until the guest's agent (VMware Tools) runs and gives signs of life.",
				Optional:            true,
			},
			"address": schema.BoolAttribute{
				MarkdownDescription: "Whether to wait until the agent reports an address that others can reach.",
				Optional:            true,
			},
			"timeout": schema.StringAttribute{
				MarkdownDescription: "How long to wait. Default: `10m`.",
				Optional:            true,
				Validators:          []validator.String{positiveDuration{}},
			},
		},
	}
}

// replacedDiskTypes are the attributes of a disk that was replaced.
var replacedDiskTypes = map[string]attr.Type{
	"label": types.StringType, "path": types.StringType, "replaced_by": types.StringType,
}

var replacedDiskDescriptions = map[string]string{
	"label":       "Label, `Hard disk 1`.",
	"path":        "Backing file.",
	"replaced_by": "Backing file of the disk that took its place.",
}

// revertedTypes are the attributes of a VM that was reverted.
var revertedTypes = map[string]attr.Type{
	"snapshot_id": types.StringType, "vm_id": types.StringType, "vm_name": types.StringType, "vm_uuid": types.StringType,
	"vm_instance_uuid": types.StringType, "vm_path": types.StringType, "power_state": types.StringType,
	"guest_ip_address": types.StringType, "changes": types.ListType{ElemType: types.StringType},
}

var revertedDescriptions = map[string]string{
	"snapshot_id":      "`id` of the snapshot.",
	"vm_id":            "The hypervisor's ID of the virtual machine (`vm-42`).",
	"vm_name":          "Name of the virtual machine.",
	"vm_uuid":          "BIOS UUID of the virtual machine.",
	"vm_instance_uuid": "Instance UUID of the virtual machine.",
	"vm_path":          "Inventory path of the virtual machine.",
	"power_state":      "Power state: `powered_on`, `powered_off` or `suspended`.",
	"guest_ip_address": "IP address that the guest's agent reports, once there is one.",
}

func revertedAttributes() map[string]schema.Attribute {
	plain := make(map[string]attr.Type, len(revertedTypes))
	for name := range revertedDescriptions {
		plain[name] = revertedTypes[name]
	}
	attributes := computedAttributes(plain, revertedDescriptions)
	attributes["changes"] = schema.ListAttribute{
		MarkdownDescription: "What the revert changed in the configuration of the virtual machine, a sentence each.",
		Computed:            true, ElementType: types.StringType,
	}
	return attributes
}

// snapshotIDValidator accepts IDs of snapshots as this provider writes them.
type snapshotIDValidator struct{}

var _ validator.String = snapshotIDValidator{}

func (snapshotIDValidator) Description(context.Context) string {
	return "the id of a snapshot, \"<instance UUID>/<snapshot ID>\""
}

func (v snapshotIDValidator) MarkdownDescription(ctx context.Context) string {
	return v.Description(ctx)
}

func (v snapshotIDValidator) ValidateString(
	ctx context.Context, req validator.StringRequest, resp *validator.StringResponse,
) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if !isSnapshotKey(req.ConfigValue.ValueString()) {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Snapshot ID", req.ConfigValue.String()+" is not "+v.Description(ctx)+
			": take it from a vm_snapshot or vm_snapshot_set, or look it up with the data source vm_snapshot.")
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
		argDisks:     path.Root("only_disks"),
		argGuest:     path.Root("wait_for_guest"),
	}}
}

// inPlaceOperation is restoreOperation for a VM that exists.
func inPlaceOperation(verb, noun, timeout string) operation {
	inPlace := path.Root("in_place")
	return operation{verb: verb, noun: noun, paths: map[argument]path.Path{
		argBackup:     path.Root("backup_id"),
		argVM:         inPlace.AtName("vm"),
		argOtherVM:    inPlace.AtName("allow_other_vm"),
		argSnapshots:  inPlace.AtName("remove_snapshots"),
		argGuestAgent: inPlace.AtName("power_off"),
		argShutdown:   inPlace.AtName("shutdown_timeout"),
		argTimeout:    path.Root("timeouts").AtName(timeout),
		argDisks:      path.Root("only_disks"),
		argGuest:      path.Root("wait_for_guest"),
	}}
}
