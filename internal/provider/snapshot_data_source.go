package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

var _ datasource.DataSourceWithConfigure = (*snapshotDataSource)(nil)

// snapshotDataSource finds one snapshot of a VM, whoever took it.
type snapshotDataSource struct{ session *session }

type snapshotDataModel struct {
	VM     types.String `tfsdk:"vm"`
	Newest types.Bool   `tfsdk:"newest"`

	ID             types.String `tfsdk:"id"`
	Name           types.String `tfsdk:"name"`
	Path           types.String `tfsdk:"path"`
	Description    types.String `tfsdk:"description"`
	CreatedAt      types.String `tfsdk:"created_at"`
	PowerState     types.String `tfsdk:"power_state"`
	Memory         types.Bool   `tfsdk:"memory"`
	Consistency    types.String `tfsdk:"consistency"`
	ParentID       types.String `tfsdk:"parent_id"`
	ChainDepth     types.Int64  `tfsdk:"chain_depth"`
	IsCurrent      types.Bool   `tfsdk:"is_current"`
	SizeBytes      types.Int64  `tfsdk:"size_bytes"`
	VMUUID         types.String `tfsdk:"vm_uuid"`
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
}

func (d *snapshotDataSource) Metadata(
	_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_snapshot"
}

func (d *snapshotDataSource) Configure(
	_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse,
) {
	d.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (d *snapshotDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{
			MarkdownDescription: description, Optional: true, Computed: true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		}
	}
	attributes := computedDataAttributes(listedSnapshotTypes, listedSnapshotDescriptions)
	for name, a := range map[string]schema.Attribute{
		"vm": schema.StringAttribute{
			MarkdownDescription: vmDescription, Required: true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"id": text("The snapshot with this ID: `<instance UUID>/<snapshot ID>`, or the hypervisor's ID alone " +
			"(`snapshot-12`). Read back, it is the former: what `snapshot_id` of a `vm_restore` takes."),
		"name": text("Snapshots of this name, which needn't be unique."),
		"path": text("Snapshots at this path, the names from the root to it: `base/before upgrade`."),
		"newest": schema.BoolAttribute{
			MarkdownDescription: "Whether the newest is taken where several match. Default: `false`, several are an error.",
			Optional:            true,
		},
		"vm_uuid":          schema.StringAttribute{MarkdownDescription: "BIOS UUID of the virtual machine.", Computed: true},
		"vm_instance_uuid": schema.StringAttribute{MarkdownDescription: "Instance UUID of the virtual machine.", Computed: true},
	} {
		attributes[name] = a
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "One snapshot of a virtual machine, whoever took it: the one that has the `id`, `name` and `path` " +
			"that are given. None, or several without `newest`, is an error that lists those that there are.",
		Attributes: attributes,
	}
}

func (d *snapshotDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model snapshotDataModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := limitPlan(ctx)
	defer cancel()
	op := operation{verb: "Find", noun: "Snapshot", paths: map[argument]path.Path{argVM: path.Root("vm")}}
	m, err := d.session.snapshots(ctx)
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	vm, all, err := m.List(ctx, hypervisor.VMRef(model.VM.ValueString()))
	if err != nil {
		op.fail(ctx, &resp.Diagnostics, err)
		return
	}
	found := slices.DeleteFunc(slices.Clone(all), func(s hypervisor.Snapshot) bool { return !model.matches(vm, s) })
	switch {
	case len(found) == 0:
		resp.Diagnostics.AddError("Unable to Find Snapshot", noSnapshot(vm, all))
		return
	case len(found) > 1 && !model.Newest.ValueBool():
		resp.Diagnostics.AddError("Unable to Find Snapshot", fmt.Sprintf(
			"%d snapshots of %s match:\n  %s\n\nUse one of these IDs, or newest = true.",
			len(found), vm.Path, describeSnapshots(vm, found)))
		return
	}
	// Of two of the same second, the one that was taken on top of the other comes later in the list.
	newest := found[0]
	for _, s := range found[1:] {
		if !s.CreatedAt.Before(newest.CreatedAt) {
			newest = s
		}
	}
	model.fill(vm, newest)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// matches reports whether a snapshot is what is asked for.
func (m *snapshotDataModel) matches(vm *hypervisor.VM, s hypervisor.Snapshot) bool {
	is := func(asked types.String, values ...string) bool {
		return asked.IsNull() || slices.Contains(values, asked.ValueString())
	}
	return is(m.ID, snapshotKey(vm.InstanceUUID, s.ID), string(s.ID)) && is(m.Name, s.Name) && is(m.Path, s.Path)
}

func (m *snapshotDataModel) fill(vm *hypervisor.VM, s hypervisor.Snapshot) {
	m.ID = types.StringValue(snapshotKey(vm.InstanceUUID, s.ID))
	m.Name = types.StringValue(s.Name)
	m.Path = types.StringValue(s.Path)
	m.Description = types.StringValue(s.Description)
	m.CreatedAt = timeValue(s.CreatedAt)
	m.PowerState = types.StringValue(string(s.PowerState))
	m.Memory = types.BoolValue(s.Memory)
	m.Consistency = types.StringValue(string(quiesce.Of(s, false)))
	m.ParentID = types.StringNull()
	if s.Parent != "" {
		m.ParentID = types.StringValue(snapshotKey(vm.InstanceUUID, s.Parent))
	}
	m.ChainDepth = types.Int64Value(int64(s.Depth))
	m.IsCurrent = types.BoolValue(s.Current)
	m.SizeBytes = sizeValue(s.SizeBytes)
	m.VMUUID = types.StringValue(vm.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(vm.InstanceUUID)
}

// noSnapshot says that none matches, and which there are.
func noSnapshot(vm *hypervisor.VM, all []hypervisor.Snapshot) string {
	if len(all) == 0 {
		return vm.Path + " has no snapshots at all."
	}
	return fmt.Sprintf("No snapshot of %s matches. There is:\n  %s", vm.Path, describeSnapshots(vm, all))
}

// describeSnapshots lists snapshots for people to choose from, a line each.
func describeSnapshots(vm *hypervisor.VM, list []hypervisor.Snapshot) string {
	lines := make([]string, len(list))
	for i, s := range list {
		lines[i] = fmt.Sprintf("%s (%s, taken at %s)", snapshotKey(vm.InstanceUUID, s.ID), s.Path, stamp(s.CreatedAt))
	}
	return strings.Join(lines, "\n  ")
}
