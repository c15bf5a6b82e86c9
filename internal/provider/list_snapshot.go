package provider

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/list"
	"github.com/hashicorp/terraform-plugin-framework/list/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

var _ list.ListResourceWithConfigure = (*snapshotList)(nil)

// snapshotList lists the snapshots of the inventory, whoever took them.
type snapshotList struct{ session *session }

type snapshotListModel struct {
	VM         types.String `tfsdk:"vm"`
	Folder     types.String `tfsdk:"folder"`
	Name       types.String `tfsdk:"name"`
	NameRegex  types.String `tfsdk:"name_regex"`
	OlderThan  types.String `tfsdk:"older_than"`
	LargerThan types.Int64  `tfsdk:"larger_than_bytes"`
	Temporary  types.Bool   `tfsdk:"temporary"`
}

// listTimeout limits one query. Terraform reads what it yields as fast as it writes it down.
const listTimeout = 30 * time.Minute

func (l *snapshotList) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_snapshot"
}

func (l *snapshotList) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	l.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (l *snapshotList) ListResourceConfigSchema(
	_ context.Context, _ list.ListResourceSchemaRequest, resp *list.ListResourceSchemaResponse,
) {
	text := func(description string, more ...validator.String) schema.StringAttribute {
		return schema.StringAttribute{
			MarkdownDescription: description, Optional: true,
			Validators: append([]validator.String{stringvalidator.LengthAtLeast(1)}, more...),
		}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The snapshots of virtual machines, whoever took them: all that the user may see, or those that " +
			"every argument selects. How long it takes depends little on how many there are: virtual machines are read by the " +
			"hundreds, and those without snapshots not at all.",
		Attributes: map[string]schema.Attribute{
			"vm": text("The snapshots of this virtual machine: whatever the `vm` argument of a `vm_snapshot` takes.",
				stringvalidator.ConflictsWith(path.MatchRoot("folder"))),
			"folder": text("The snapshots of all virtual machines below this place in the inventory, however deep: the path of a " +
				"folder (`/DC0/vm/apps`), a datacenter, a cluster or a resource pool."),
			"name": text("Snapshots of exactly this name.", stringvalidator.ConflictsWith(path.MatchRoot("name_regex"))),
			"name_regex": text("Snapshots with a name that this regular expression (RE2) matches anywhere: `^nightly-` is a prefix.",
				regularExpression{}),
			"older_than": schema.StringAttribute{
				MarkdownDescription: "Snapshots that were taken longer ago than this, such as `72h`.",
				Optional:            true,
				Validators:          []validator.String{positiveDuration{}},
			},
			"larger_than_bytes": schema.Int64Attribute{
				MarkdownDescription: "Snapshots that take more space than this on the datastore, as the server last counted it. Those " +
					"of which that isn't known are not listed.",
				Optional:   true,
				Validators: []validator.Int64{int64validator.AtLeast(1)},
			},
			"temporary": schema.BoolAttribute{
				MarkdownDescription: "`true`: only the temporary snapshots that this provider took for backups and verifications " +
					"and left behind when it was killed; the next backup of the same virtual machine removes them too. Those of " +
					"backups that may still be under way are never listed. Default: `false`, none of them.",
				Optional: true,
			},
		},
	}
}

func (m *snapshotListModel) query() (snapshot.Query, error) {
	q := snapshot.Query{
		VM: hypervisor.VMRef(m.VM.ValueString()), Folder: m.Folder.ValueString(), Name: m.Name.ValueString(),
		OlderThan: duration(m.OlderThan), LargerThan: m.LargerThan.ValueInt64(), Temporary: m.Temporary.ValueBool(),
	}
	var err error
	if !m.NameRegex.IsNull() {
		q.NameMatches, err = regexp.Compile(m.NameRegex.ValueString())
	}
	return q, err
}

// List implements list.ListResource.
func (l *snapshotList) List(ctx context.Context, req list.ListRequest, stream *list.ListResultsStream) {
	var config snapshotListModel
	diags := req.Config.Get(ctx, &config)
	op := operation{verb: "List", noun: "Snapshots", paths: map[argument]path.Path{
		argVM: path.Root("vm"), argFolder: path.Root("folder"),
	}}
	query, err := config.query()
	if err != nil {
		op.fail(ctx, &diags, err)
	}
	if diags.HasError() {
		stream.Results = list.ListResultsStreamDiagnostics(diags)
		return
	}
	stream.Results = func(push func(list.ListResult) bool) {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		if err := l.push(ctx, req, query, push); err != nil {
			var diags diag.Diagnostics
			op.fail(ctx, &diags, err)
			push(failed(diags))
		}
	}
}

// push pushes what a query finds.
func (l *snapshotList) push(
	ctx context.Context, req list.ListRequest, query snapshot.Query, push func(list.ListResult) bool,
) error {
	m, err := l.session.snapshots(ctx)
	if err != nil {
		return err
	}
	var n int64
	for found, err := range m.Search(ctx, query) {
		switch {
		case err != nil:
			return err
		case found.Hidden != nil:
			if !push(unlisted(found)) {
				return nil
			}
			continue
		}
		if !push(listedSnapshot(ctx, req, &found.Taken)) {
			return nil
		}
		if n++; req.Limit > 0 && n >= req.Limit {
			return nil
		}
	}
	return nil
}

// unlisted is a result that warns of a VM whose snapshots can't be listed.
func unlisted(found snapshot.Found) list.ListResult {
	var diags diag.Diagnostics
	diags.AddWarning("Snapshots Not Listed", fmt.Sprintf("The snapshots of %s (%s) can't be listed: %v.",
		found.VM.Path, found.VM.ID, found.Hidden))
	return failed(diags)
}

func listedSnapshot(ctx context.Context, req list.ListRequest, t *snapshot.Taken) list.ListResult {
	r := req.NewListResult(ctx)
	r.DisplayName = fmt.Sprintf("%s: %s (%s)", t.VM.Path, t.Snapshot.Path, stamp(t.Snapshot.CreatedAt))
	model := snapshotModel{ID: types.StringValue(snapshotKey(t.VM.InstanceUUID, t.Snapshot.ID))}
	r.Diagnostics.Append(r.Identity.Set(ctx, model.identity())...)
	if !req.IncludeResource {
		return r
	}
	r.Diagnostics.Append(emptyResource(ctx, r.Resource, &model)...)
	model.VM = types.StringValue(t.VM.Path)
	model.fill(t)
	r.Diagnostics.Append(r.Resource.Set(ctx, model)...)
	return r
}

// stamp is a time for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
