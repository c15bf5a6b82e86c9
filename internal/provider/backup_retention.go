package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// backupRetention is what became of backups because of a retention.
type backupRetention struct {
	PrunedIDs  types.List `tfsdk:"pruned_ids"`
	Superseded types.Bool `tfsdk:"superseded"`
}

// retentionRules are the rules of a retention, as people write them.
type retentionRules struct {
	Last    types.Int64 `tfsdk:"keep_last"`
	Hourly  types.Int64 `tfsdk:"keep_hourly"`
	Daily   types.Int64 `tfsdk:"keep_daily"`
	Weekly  types.Int64 `tfsdk:"keep_weekly"`
	Monthly types.Int64 `tfsdk:"keep_monthly"`
	Yearly  types.Int64 `tfsdk:"keep_yearly"`
}

// retentionDescriptions describe the rules, for every place where they can be written.
var retentionDescriptions = map[string]string{
	"keep_last":    "Keep the newest so many.",
	"keep_hourly":  "Keep the newest of each of the newest so many hours in which there is one.",
	"keep_daily":   "Keep the newest of each of the newest so many days in which there is one.",
	"keep_weekly":  "Keep the newest of each of the newest so many weeks (from Monday) in which there is one.",
	"keep_monthly": "Keep the newest of each of the newest so many months in which there is one.",
	"keep_yearly":  "Keep the newest of each of the newest so many years in which there is one.",
}

const maxKeep = 100_000

// keepsSomething refuses a retention without a rule.
type keepsSomething struct{}

var _ validator.Object = keepsSomething{}

func (keepsSomething) Description(context.Context) string {
	return "at least one of keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly and keep_yearly"
}

func (v keepsSomething) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v keepsSomething) ValidateObject(
	ctx context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse,
) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	for _, rule := range req.ConfigValue.Attributes() {
		if !rule.IsNull() {
			return
		}
	}
	resp.Diagnostics.AddAttributeError(req.Path, "Retention Without a Rule",
		fmt.Sprintf("Set %s.", v.Description(ctx)))
}

func backupRetentionAttributes() map[string]schema.Attribute {
	rules := map[string]schema.Attribute{}
	for name, description := range retentionDescriptions {
		rules[name] = schema.Int64Attribute{
			MarkdownDescription: description,
			Optional:            true,
			Validators:          []validator.Int64{int64validator.Between(1, maxKeep)},
		}
	}
	return map[string]schema.Attribute{
		"retention": schema.SingleNestedAttribute{
			MarkdownDescription: "Which backups of the virtual machine are kept. What one rule keeps is kept; hours, days, " +
				"weeks, months and years are those of UTC. When this backup was taken, all other backups in the repository " +
				"are removed that were taken with `retention`, of the same virtual machine (instance UUID and server) and " +
				"without the same disks, that no rule keeps. The newest always stays. Backups that were taken without " +
				"`retention` are pinned: they are never removed, and not counted. Replace this resource, with `triggers`, to " +
				"take the next backup. Whether a backup is pinned is decided when it is taken." + nextBackup,
			Optional:   true,
			Attributes: rules,
			Validators: []validator.Object{keepsSomething{}},
		},
		"pruned_ids": schema.ListAttribute{
			MarkdownDescription: "IDs of the backups that `retention` removed after this backup was taken.",
			Computed:            true,
			ElementType:         types.StringType,
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
		},
		"superseded": schema.BoolAttribute{
			MarkdownDescription: "Whether this backup is gone because there is a newer one: the `retention` of another " +
				"resource or configuration for the same virtual machine removed it. No new backup is planned then.",
			Computed:      true,
			PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
		},
	}
}

// known gives what is known of a backup that was not taken by this very run.
func (r *backupRetention) known() {
	if r.PrunedIDs.IsNull() || r.PrunedIDs.IsUnknown() {
		r.PrunedIDs = types.ListValueMust(types.StringType, nil)
	}
	if r.Superseded.IsNull() || r.Superseded.IsUnknown() {
		r.Superseded = types.BoolValue(false)
	}
}

// pruned notes what was removed.
func (r *backupRetention) pruned(ids []repository.ID) {
	list := make([]attr.Value, len(ids))
	for i, id := range ids {
		list[i] = types.StringValue(string(id))
	}
	r.PrunedIDs = types.ListValueMust(types.StringType, list)
}

func (r retentionRules) retention() backup.Retention {
	return backup.Retention{
		Last: int(r.Last.ValueInt64()), Hourly: int(r.Hourly.ValueInt64()), Daily: int(r.Daily.ValueInt64()),
		Weekly: int(r.Weekly.ValueInt64()), Monthly: int(r.Monthly.ValueInt64()), Yearly: int(r.Yearly.ValueInt64()),
	}
}

// seriesKey is, in the private state of a backup, which other backups may take its place.
const seriesKey = "series"

// backupSeries is the value of seriesKey.
type backupSeries struct {
	Server    string    `json:"server"`
	Instance  string    `json:"instance"`
	Excluded  string    `json:"excluded"`
	CreatedAt time.Time `json:"created_at"`
}

func setSeries(ctx context.Context, private privateWriter, m *repository.Manifest) diag.Diagnostics {
	value, err := json.Marshal(backupSeries{
		Server: m.VM.Server, Instance: m.VM.InstanceUUID, Excluded: m.ExcludedKeys(), CreatedAt: m.CreatedAt.UTC(),
	})
	if err != nil { // a year of five digits
		return nil
	}
	return private.SetKey(ctx, seriesKey, value)
}

// readSeries is what setSeries wrote; false where nothing did.
func readSeries(ctx context.Context, private privateState) (s backupSeries, ok bool) {
	value, _ := private.GetKey(ctx, seriesKey)
	err := json.Unmarshal(value, &s)
	return s, err == nil && s.Instance != ""
}

// superseded reports whether a backup that is gone can have been removed by retention: there is a newer one
// that retention governs, of the same VM and without the same disks. Retention never removes the newest. One
// that can't have been is gone for another reason, and has to be taken again.
func superseded(
	ctx context.Context, repo *repository.Repository, retention types.Object, private privateState,
) (bool, error) {
	gone, ok := readSeries(ctx, private)
	if retention.IsNull() || !ok {
		return false, nil
	}
	points, err := repo.List(ctx, repository.Filter{VM: gone.Instance, After: gone.CreatedAt})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(points, func(p repository.RestorePoint) bool {
		return p.Governed && p.Server == gone.Server && strings.EqualFold(p.InstanceUUID, gone.Instance) &&
			p.Excluded == gone.Excluded
	}), nil
}
