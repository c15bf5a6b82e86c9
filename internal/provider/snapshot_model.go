package provider

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

type snapshotModel struct {
	snapshotRequested
	OnDestroy types.Object   `tfsdk:"on_destroy"`
	MaxAge    types.String   `tfsdk:"max_age"`
	Triggers  types.Map      `tfsdk:"triggers"`
	Timeouts  timeouts.Value `tfsdk:"timeouts"`

	ID             types.String `tfsdk:"id"`
	CreatedAt      types.String `tfsdk:"created_at"`
	PowerState     types.String `tfsdk:"power_state"`
	Consistency    types.String `tfsdk:"consistency"`
	ParentID       types.String `tfsdk:"parent_id"`
	Path           types.String `tfsdk:"path"`
	IsCurrent      types.Bool   `tfsdk:"is_current"`
	ChainDepth     types.Int64  `tfsdk:"chain_depth"`
	SizeBytes      types.Int64  `tfsdk:"size_bytes"`
	VMUUID         types.String `tfsdk:"vm_uuid"`
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
	Server         types.String `tfsdk:"server"`
}

// snapshotRequested is how a snapshot is to be taken, whoever takes it: the resource, or the action.
type snapshotRequested struct {
	VM          types.String `tfsdk:"vm"`
	Name        types.String `tfsdk:"name"`
	Description types.String `tfsdk:"description"`
	Memory      types.Bool   `tfsdk:"memory"`
	Quiesce     types.Object `tfsdk:"quiesce"`
	Shutdown    types.Bool   `tfsdk:"shutdown"`
}

type snapshotIdentity struct {
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
	SnapshotID     types.String `tfsdk:"snapshot_id"`
}

type onDestroyModel struct {
	Action         types.String `tfsdk:"action"`
	RemoveChildren types.Bool   `tfsdk:"remove_children"`
	Consolidate    types.Bool   `tfsdk:"consolidate"`
}

// snapshotKey joins what identifies a snapshot: a hypervisor's own ID means nothing without the VM.
func snapshotKey(instanceUUID string, id hypervisor.SnapshotID) string {
	return instanceUUID + "/" + string(id)
}

// splitSnapshotKey is the inverse of snapshotKey.
func splitSnapshotKey(key string) (instanceUUID string, id hypervisor.SnapshotID) {
	instanceUUID, rest, _ := strings.Cut(key, "/")
	return instanceUUID, hypervisor.SnapshotID(rest)
}

func (m *snapshotModel) identity() snapshotIdentity {
	instanceUUID, id := splitSnapshotKey(m.ID.ValueString())
	return snapshotIdentity{VMInstanceUUID: types.StringValue(instanceUUID), SnapshotID: types.StringValue(string(id))}
}

func (m *snapshotModel) record() vmRecord {
	return vmRecord{
		Written:      m.VM.ValueString(),
		InstanceUUID: m.VMInstanceUUID.ValueString(),
		BIOSUUID:     m.VMUUID.ValueString(),
	}
}

func (m *snapshotRequested) request(ctx context.Context, diags *diag.Diagnostics) snapshot.Request {
	return snapshot.Request{
		VM:          hypervisor.VMRef(m.VM.ValueString()),
		Name:        m.Name.ValueString(),
		Description: m.Description.ValueString(),
		Memory:      m.Memory.ValueBool(),
		Quiesce:     quiescePolicy(ctx, m.Quiesce, diags),
		ShutDown:    m.Shutdown.ValueBool(),
	}
}

// onDestroy reads the on_destroy argument: whether the snapshot stays, and else how it is removed.
func (m *snapshotModel) onDestroy(ctx context.Context, diags *diag.Diagnostics) (bool, hypervisor.RemoveOptions) {
	if m.OnDestroy.IsNull() {
		return false, hypervisor.RemoveOptions{}
	}
	var d onDestroyModel
	diags.Append(m.OnDestroy.As(ctx, &d, basetypes.ObjectAsOptions{})...)
	return d.Action.ValueString() == actionKeep, hypervisor.RemoveOptions{
		Children: d.RemoveChildren.ValueBool(),
		// Null is not false: only a written false leaves delta disks behind.
		NoConsolidate: !d.Consolidate.IsNull() && !d.Consolidate.ValueBool(),
	}
}

// fill sets everything that the hypervisor knows. What it can't know, or knows less well than the
// state, stays: whether memory was asked for (a VM that is off has none to save), and a consistency
// that comes from a clean shutdown.
func (m *snapshotModel) fill(t *snapshot.Taken) {
	s := t.Snapshot
	m.ID = types.StringValue(snapshotKey(t.VM.InstanceUUID, s.ID))
	m.Name = types.StringValue(s.Name)
	m.Description = optional(s.Description, m.Description)
	if m.Memory.IsNull() || m.Memory.IsUnknown() {
		m.Memory = types.BoolValue(s.Memory)
	}
	if m.Shutdown.IsNull() || m.Shutdown.IsUnknown() {
		m.Shutdown = types.BoolValue(false)
	}
	if m.Consistency.IsNull() || m.Consistency.IsUnknown() {
		m.Consistency = types.StringValue(string(t.Consistency))
	}
	m.CreatedAt = timeValue(s.CreatedAt)
	m.PowerState = types.StringValue(string(s.PowerState))
	m.ParentID = types.StringNull()
	if s.Parent != "" {
		m.ParentID = types.StringValue(snapshotKey(t.VM.InstanceUUID, s.Parent))
	}
	m.Path = types.StringValue(s.Path)
	m.IsCurrent = types.BoolValue(s.Current)
	m.ChainDepth = types.Int64Value(int64(s.Depth))
	m.SizeBytes = sizeValue(s.SizeBytes)
	m.VMUUID = types.StringValue(t.VM.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(t.VM.InstanceUUID)
	m.Server = types.StringValue(t.VM.Server)
}

// fillAs is fill, with what was planned: what has become another since is for the next refresh to tell.
func (m *snapshotModel) fillAs(t *snapshot.Taken) {
	planned := *m
	m.fill(t)
	m.Name, m.Description = planned.Name, planned.Description
	if !planned.ID.IsUnknown() { // it is there, and stays what it was apart from its name
		m.ParentID, m.IsCurrent, m.ChainDepth = planned.ParentID, planned.IsCurrent, planned.ChainDepth
		m.PowerState, m.VMUUID = planned.PowerState, planned.VMUUID
	}
}

// optional is text as an optional argument has it: no text is null, unless "" was written.
func optional(text string, before types.String) types.String {
	if text == "" && before.ValueString() == "" && !before.IsUnknown() {
		return before
	}
	return types.StringValue(text)
}

func timeValue(t time.Time) types.String { return types.StringValue(t.UTC().Format(time.RFC3339)) }

// sizeValue is a size in bytes; below zero means unknown.
func sizeValue(n int64) types.Int64 {
	if n < 0 {
		return types.Int64Null()
	}
	return types.Int64Value(n)
}
