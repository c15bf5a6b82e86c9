package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

type snapshotSetModel struct {
	Members        types.List     `tfsdk:"members"`
	Name           types.String   `tfsdk:"name"`
	Description    types.String   `tfsdk:"description"`
	Memory         types.Bool     `tfsdk:"memory"`
	Quiesce        types.Object   `tfsdk:"quiesce"`
	MaxSkewSeconds types.Float64  `tfsdk:"max_skew_seconds"`
	OnDestroy      types.Object   `tfsdk:"on_destroy"`
	Triggers       types.Map      `tfsdk:"triggers"`
	Timeouts       timeouts.Value `tfsdk:"timeouts"`

	ID          types.String  `tfsdk:"id"`
	CreatedAt   types.String  `tfsdk:"created_at"`
	SkewSeconds types.Float64 `tfsdk:"skew_seconds"`
	SnapshotIDs types.List    `tfsdk:"snapshot_ids"`
	Snapshots   types.List    `tfsdk:"snapshots"`
	Server      types.String  `tfsdk:"server"`
}

type setMemberModel struct {
	VM      types.String `tfsdk:"vm"`
	Order   types.Int64  `tfsdk:"order"`
	Quiesce types.Object `tfsdk:"quiesce"`
}

type setSnapshotModel struct {
	ID             types.String `tfsdk:"id"`
	VMUUID         types.String `tfsdk:"vm_uuid"`
	VMInstanceUUID types.String `tfsdk:"vm_instance_uuid"`
	VMPath         types.String `tfsdk:"vm_path"`
	CreatedAt      types.String `tfsdk:"created_at"`
	PowerState     types.String `tfsdk:"power_state"`
	Consistency    types.String `tfsdk:"consistency"`
	Exists         types.Bool   `tfsdk:"exists"`
}

// members reads the members argument, which must be known.
func (m *snapshotSetModel) members(ctx context.Context, diags *diag.Diagnostics) []setMemberModel {
	var members []setMemberModel
	if !m.Members.IsNull() && !m.Members.IsUnknown() {
		diags.Append(m.Members.ElementsAs(ctx, &members, false)...)
	}
	return members
}

// snapshots are those that were taken.
func (m *snapshotSetModel) snapshots(ctx context.Context, diags *diag.Diagnostics) []setSnapshotModel {
	var all []setSnapshotModel
	if !m.Snapshots.IsNull() && !m.Snapshots.IsUnknown() {
		diags.Append(m.Snapshots.ElementsAs(ctx, &all, false)...)
	}
	return all
}

// ids are what the set is remembered by.
func (m *snapshotSetModel) ids(ctx context.Context, diags *diag.Diagnostics) []snapshot.MemberID {
	var keys []string
	for _, s := range m.snapshots(ctx, diags) {
		keys = append(keys, s.ID.ValueString())
	}
	return setMembers(keys)
}

func (m *snapshotSetModel) request(ctx context.Context, diags *diag.Diagnostics) snapshot.SetRequest {
	r := snapshot.SetRequest{
		Name: m.Name.ValueString(), Description: m.Description.ValueString(), Memory: m.Memory.ValueBool(),
		MaxSkew: time.Duration(m.MaxSkewSeconds.ValueFloat64() * float64(time.Second)),
	}
	common := quiescePolicy(ctx, m.Quiesce, diags)
	for _, member := range m.members(ctx, diags) {
		one := snapshot.SetMember{
			VM: hypervisor.VMRef(member.VM.ValueString()), Quiesce: common, Order: int(member.Order.ValueInt64()),
		}
		if !member.Quiesce.IsNull() {
			one.Quiesce = quiescePolicy(ctx, member.Quiesce, diags)
		}
		r.Members = append(r.Members, one)
	}
	return r
}

// onDestroy reads the on_destroy argument: whether the snapshots stay, and else how they are removed.
func (m *snapshotSetModel) onDestroy(ctx context.Context, diags *diag.Diagnostics) (bool, hypervisor.RemoveOptions) {
	one := snapshotModel{OnDestroy: m.OnDestroy}
	return one.onDestroy(ctx, diags)
}

// fill sets what was taken.
func (m *snapshotSetModel) fill(set *snapshot.Set) {
	m.ID = types.StringValue(set.ID)
	m.SkewSeconds = types.Float64Value(set.Skew.Seconds())
	all := make([]setSnapshotModel, len(set.Members))
	for i := range set.Members {
		all[i].fill(&set.Members[i])
		m.Server = types.StringValue(set.Members[i].VM.Server)
	}
	m.setSnapshots(all)
}

// setSnapshots sets the list of snapshots and what follows from it.
func (m *snapshotSetModel) setSnapshots(all []setSnapshotModel) {
	ids, values := make([]string, len(all)), make([]attr.Value, len(all))
	var last time.Time
	for i, s := range all {
		ids[i] = s.ID.ValueString()
		values[i] = types.ObjectValueMust(setSnapshotTypes, map[string]attr.Value{
			"id": s.ID, "vm_uuid": s.VMUUID, "vm_instance_uuid": s.VMInstanceUUID, "vm_path": s.VMPath, "created_at": s.CreatedAt,
			"power_state": s.PowerState, "consistency": s.Consistency, "exists": s.Exists,
		})
		if at := timeOf(s.CreatedAt); at.After(last) {
			last = at
		}
	}
	m.CreatedAt = timeValue(last)
	m.SnapshotIDs = texts(ids)
	m.Snapshots = types.ListValueMust(types.ObjectType{AttrTypes: setSnapshotTypes}, values)
}

// fill sets what the hypervisor knows of a snapshot. A consistency that the state has is better than what can
// be read back, and the path is history.
func (s *setSnapshotModel) fill(t *snapshot.Taken) {
	s.ID = types.StringValue(snapshotKey(t.VM.InstanceUUID, t.Snapshot.ID))
	s.VMUUID = types.StringValue(t.VM.BIOSUUID)
	s.VMInstanceUUID = types.StringValue(t.VM.InstanceUUID)
	if s.VMPath.ValueString() == "" {
		s.VMPath = types.StringValue(t.VM.Path)
	}
	s.CreatedAt = timeValue(t.Snapshot.CreatedAt)
	s.PowerState = types.StringValue(string(t.Snapshot.PowerState))
	if s.Consistency.ValueString() == "" {
		s.Consistency = types.StringValue(string(t.Consistency))
	}
	s.Exists = types.BoolValue(true)
}

// refresh sets what the set is now. A name or description that is another on any of the snapshots is shown, so
// that the next plan sets them all.
func (m *snapshotSetModel) refresh(ctx context.Context, set *snapshot.Set, diags *diag.Diagnostics) {
	all := m.snapshots(ctx, diags)
	memory := false
	for i := range all {
		all[i].Exists = types.BoolValue(false)
		for k := range set.Members {
			t := &set.Members[k]
			if snapshotKey(t.VM.InstanceUUID, t.Snapshot.ID) != all[i].ID.ValueString() {
				continue
			}
			all[i].fill(t)
			memory = memory || t.Snapshot.Memory
			if t.Snapshot.Name != m.Name.ValueString() {
				m.Name = types.StringValue(t.Snapshot.Name)
			}
			if t.Snapshot.Description != m.Description.ValueString() {
				m.Description = optional(t.Snapshot.Description, m.Description)
			}
		}
	}
	m.setSnapshots(all)
	if m.Memory.IsNull() { // imported
		m.SkewSeconds, m.Memory = types.Float64Value(set.Skew.Seconds()), types.BoolValue(memory)
	}
}

// setMembersValue makes the value of the members argument.
func setMembersValue(ctx context.Context, members []setMemberModel) (types.List, diag.Diagnostics) {
	quiesced, ok := setMemberAttributes()["quiesce"].GetType().(basetypes.ObjectType)
	if !ok {
		panic("the quiesce argument is no object")
	}
	kind := types.ObjectType{AttrTypes: map[string]attr.Type{
		"vm": types.StringType, "order": types.Int64Type, "quiesce": quiesced,
	}}
	return types.ListValueFrom(ctx, kind, members)
}
