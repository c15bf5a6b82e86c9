package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

type backupModel struct {
	backupRequested
	Triggers  types.Map      `tfsdk:"triggers"`
	OnDestroy types.String   `tfsdk:"on_destroy"`
	Timeouts  timeouts.Value `tfsdk:"timeouts"`
	backupRetention

	RepositoryID types.String `tfsdk:"repository_id"`
	backupFacts
}

// backupRequested is how a backup is to be taken, whoever takes it: the resource, or the action.
type backupRequested struct {
	VM           types.String `tfsdk:"vm"`
	Description  types.String `tfsdk:"description"`
	Quiesce      types.Object `tfsdk:"quiesce"`
	ExcludeDisks types.Set    `tfsdk:"exclude_disks"`
	Tags         types.Map    `tfsdk:"tags"`
	Retention    types.Object `tfsdk:"retention"`
	backupReading
}

// backupFacts are what is known of a backup, whoever asks: the resource and the data source.
type backupFacts struct {
	ID              types.String  `tfsdk:"id"`
	CreatedAt       types.String  `tfsdk:"created_at"`
	VMName          types.String  `tfsdk:"vm_name"`
	VMPath          types.String  `tfsdk:"vm_path"`
	VMUUID          types.String  `tfsdk:"vm_uuid"`
	VMInstanceUUID  types.String  `tfsdk:"vm_instance_uuid"`
	GuestID         types.String  `tfsdk:"guest_id"`
	PowerState      types.String  `tfsdk:"power_state"`
	Consistency     types.String  `tfsdk:"consistency"`
	Incremental     types.Bool    `tfsdk:"incremental"`
	ParentID        types.String  `tfsdk:"parent_id"`
	Transport       types.String  `tfsdk:"transport"`
	Disks           types.List    `tfsdk:"disks"`
	SizeBytes       types.Int64   `tfsdk:"size_bytes"`
	ReadBytes       types.Int64   `tfsdk:"read_bytes"`
	StoredBytes     types.Int64   `tfsdk:"stored_bytes"`
	DurationSeconds types.Float64 `tfsdk:"duration_seconds"`
}

// backupIdentity needs no repository: IDs are random, no two backups of this world have the same.
type backupIdentity struct {
	ID types.String `tfsdk:"id"`
}

// backupDiskTypes are the attributes of a disk of a backup.
var backupDiskTypes = map[string]attr.Type{
	"label":          types.StringType,
	"address":        types.StringType,
	"uuid":           types.StringType,
	"capacity_bytes": types.Int64Type,
	"datastore":      types.StringType,
	"digest":         types.StringType,

	"transport":        types.StringType,
	"transport_reason": types.StringType,
	"incremental":      types.BoolType,
	"changed_bytes":    types.Int64Type,
	"read_bytes":       types.Int64Type,
}

func (m *backupModel) identity() backupIdentity {
	return backupIdentity{ID: m.ID}
}

func (m *backupModel) record() vmRecord {
	return vmRecord{
		Written:      m.VM.ValueString(),
		InstanceUUID: m.VMInstanceUUID.ValueString(),
		BIOSUUID:     m.VMUUID.ValueString(),
		Name:         m.VMName.ValueString(),
		Path:         m.VMPath.ValueString(),
	}
}

func (m *backupRequested) request(ctx context.Context, diags *diag.Diagnostics) backup.Request {
	r := backup.Request{
		VM:           hypervisor.VMRef(m.VM.ValueString()),
		Description:  m.Description.ValueString(),
		Tags:         textMap(ctx, m.Tags, diags),
		Quiesce:      quiescePolicy(ctx, m.Quiesce, diags),
		ExcludeDisks: textSet(ctx, m.ExcludeDisks, diags),
	}
	m.fillRequest(&r)
	if !m.Retention.IsNull() && !m.Retention.IsUnknown() {
		var rules retentionRules
		diags.Append(m.Retention.As(ctx, &rules, basetypes.ObjectAsOptions{})...)
		retention := rules.retention()
		r.Retention = &retention
	}
	return r
}

// fill sets everything that the restore point knows. Arguments that it doesn't hold, or that are
// written in another way, stay.
func (m *backupModel) fill(id repository.ID, repositoryID string, manifest *repository.Manifest) diag.Diagnostics {
	m.fillArguments(repositoryID, manifest.Description, manifest.Tags, manifest.VM.Path)
	return m.backupFacts.fill(id, manifest)
}

// fillArguments sets the arguments that a restore point tells, and the defaults of those that it doesn't.
func (m *backupModel) fillArguments(repositoryID, description string, tags map[string]string, vmPath string) {
	m.RepositoryID = types.StringValue(repositoryID)
	m.Description = optional(description, m.Description)
	if m.Tags.IsNull() && len(tags) > 0 {
		m.Tags = textMapValue(tags)
	}
	if m.VM.IsNull() {
		m.VM = types.StringValue(vmPath)
	}
	if m.OnDestroy.IsNull() {
		m.OnDestroy = types.StringValue(actionRetain)
	}
	m.imported()
	m.known()
}

func (f *backupFacts) fill(id repository.ID, m *repository.Manifest) diag.Diagnostics {
	f.ID = types.StringValue(string(id))
	f.CreatedAt = timeValue(m.CreatedAt)
	f.VMName = types.StringValue(m.VM.Name)
	f.VMPath = types.StringValue(m.VM.Path)
	f.VMUUID = types.StringValue(m.VM.BIOSUUID)
	f.VMInstanceUUID = types.StringValue(m.VM.InstanceUUID)
	f.GuestID = types.StringValue(m.VM.GuestID)
	f.PowerState = types.StringValue(m.VM.PowerState)
	f.Consistency = types.StringValue(m.Consistency)
	f.Incremental = types.BoolValue(m.Incremental)
	f.ParentID = types.StringNull()
	if m.Parent != "" {
		f.ParentID = types.StringValue(string(m.Parent))
	}
	f.Transport = types.StringValue(m.Transport)
	f.SizeBytes = types.Int64Value(m.SizeBytes())
	f.ReadBytes = types.Int64Value(m.ReadBytes)
	f.StoredBytes = types.Int64Value(m.StoredBytes)
	f.DurationSeconds = types.Float64Value(m.Duration.Round(time.Millisecond).Seconds())

	disks := make([]attr.Value, len(m.Disks))
	for i, d := range m.Disks {
		disks[i] = types.ObjectValueMust(backupDiskTypes, map[string]attr.Value{
			"label":          types.StringValue(d.Label),
			"address":        types.StringValue(d.Address),
			"uuid":           types.StringValue(d.UUID),
			"capacity_bytes": types.Int64Value(d.Capacity),
			"datastore":      types.StringValue(d.Datastore),
			"digest":         types.StringValue(string(d.Digest)),

			"transport":        types.StringValue(d.Transport),
			"transport_reason": types.StringValue(d.TransportReason),
			"incremental":      types.BoolValue(d.Parent != ""),
			"changed_bytes":    types.Int64Value(d.ChangedBytes),
			"read_bytes":       types.Int64Value(d.ReadBytes),
		})
	}
	var diags diag.Diagnostics
	f.Disks, diags = types.ListValue(types.ObjectType{AttrTypes: backupDiskTypes}, disks)
	return diags
}

// textMap reads a map of strings; null and unknown are empty.
func textMap(ctx context.Context, value types.Map, diags *diag.Diagnostics) map[string]string {
	if value.IsNull() || value.IsUnknown() {
		return nil
	}
	out := map[string]string{}
	diags.Append(value.ElementsAs(ctx, &out, false)...)
	return out
}

func textMapValue(m map[string]string) types.Map {
	elements := make(map[string]attr.Value, len(m))
	for k, v := range m {
		elements[k] = types.StringValue(v)
	}
	return types.MapValueMust(types.StringType, elements)
}

// textSet reads a set of strings; null and unknown are empty.
func textSet(ctx context.Context, value types.Set, diags *diag.Diagnostics) []string {
	if value.IsNull() || value.IsUnknown() {
		return nil
	}
	var out []string
	diags.Append(value.ElementsAs(ctx, &out, false)...)
	return out
}
