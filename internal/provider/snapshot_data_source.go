package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var _ datasource.DataSourceWithConfigure = (*snapshotDataSource)(nil)

// snapshotDataSource finds one snapshot of a VM, whoever took it.
type snapshotDataSource struct{ session *session }

type snapshotDataModel struct {
	VM     types.String `tfsdk:"vm"`
	Newest types.Bool   `tfsdk:"newest"`

	shownSnapshot
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
	attributes := ofOneVM(computedDataAttributes(listedSnapshotTypes, listedSnapshotDescriptions))
	for name, a := range map[string]schema.Attribute{
		"id": text("The snapshot with this ID: `<instance UUID>/<snapshot ID>`, or the hypervisor's ID alone " +
			"(`snapshot-12`). Read back, it is the former: what `snapshot_id` of a `vm_restore` takes."),
		"name": text("Snapshots of this name, which needn't be unique."),
		"path": text("Snapshots at this path, the names from the root to it: `base/before upgrade`."),
		"newest": schema.BoolAttribute{
			MarkdownDescription: "Whether the newest is taken where several match. Default: `false`, several are an error.",
			Optional:            true,
		},
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
	vm, all, ok := d.session.listSnapshots(ctx, model.VM, operation{verb: "Find", noun: "Snapshot"}, &resp.Diagnostics)
	if !ok {
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
			len(found), vm.Path, describeSnapshots(vm.InstanceUUID, found)))
		return
	}
	// Of two of the same second, the one that was taken on top of the other comes later in the list.
	newest := found[0]
	for _, s := range found[1:] {
		if !s.CreatedAt.Before(newest.CreatedAt) {
			newest = s
		}
	}
	model.shownSnapshot = showSnapshot(vm, newest)
	model.VMUUID, model.VMInstanceUUID = types.StringValue(vm.BIOSUUID), types.StringValue(vm.InstanceUUID)
	resp.Diagnostics.Append(resp.State.Set(ctx, model)...)
}

// matches reports whether a snapshot is what is asked for.
func (m *snapshotDataModel) matches(vm *hypervisor.VM, s hypervisor.Snapshot) bool {
	is := func(asked types.String, values ...string) bool {
		return asked.IsNull() || slices.Contains(values, asked.ValueString())
	}
	return is(m.ID, snapshotKey(vm.InstanceUUID, s.ID), string(s.ID)) && is(m.Name, s.Name) && is(m.Path, s.Path)
}

// noSnapshot says that none matches, and which there are.
func noSnapshot(vm *hypervisor.VM, all []hypervisor.Snapshot) string {
	if len(all) == 0 {
		return vm.Path + " has no snapshots at all."
	}
	return fmt.Sprintf("No snapshot of %s matches. There is:\n  %s", vm.Path, describeSnapshots(vm.InstanceUUID, all))
}

// describeSnapshots lists snapshots for people to choose from, a line each.
func describeSnapshots(instanceUUID string, list []hypervisor.Snapshot) string {
	lines := make([]string, len(list))
	for i, s := range list {
		lines[i] = fmt.Sprintf("%s (%s, taken at %s)", snapshotKey(instanceUUID, s.ID), s.Path, stamp(s.CreatedAt))
	}
	return strings.Join(lines, "\n  ")
}
