package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/list"
	"github.com/hashicorp/terraform-plugin-framework/list/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

var _ list.ListResourceWithConfigure = (*backupList)(nil)

// backupList lists the backups in the repository.
type backupList struct{ session *session }

func (l *backupList) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_backup"
}

func (l *backupList) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	l.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

func (l *backupList) ListResourceConfigSchema(
	_ context.Context, _ list.ListResourceSchemaRequest, resp *list.ListResourceSchemaResponse,
) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "The backups in the repository, newest first: all, or those that every argument selects. Only " +
			"complete ones are listed. No hypervisor is needed, and no backup is opened: with `include_resource`, what only the " +
			"backup itself tells, such as its disks, is null until it is imported.",
		Attributes: listAttributes(backupFilterAttributes()),
	}
}

// List implements list.ListResource.
func (l *backupList) List(ctx context.Context, req list.ListRequest, stream *list.ListResultsStream) {
	var config backupFilter
	diags := req.Config.Get(ctx, &config)
	f := config.filter(ctx, &diags)
	if diags.HasError() {
		stream.Results = list.ListResultsStreamDiagnostics(diags)
		return
	}
	stream.Results = func(push func(list.ListResult) bool) {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		repo, points, err := l.session.listBackups(ctx, f)
		if err != nil {
			var diags diag.Diagnostics
			op := operation{verb: "List", noun: "Backups", paths: map[argument]path.Path{argVM: path.Root("vm")}}
			op.fail(ctx, &diags, err)
			push(failed(diags))
			return
		}
		if req.Limit > 0 && int64(len(points)) > req.Limit {
			points = points[:req.Limit]
		}
		for _, p := range points {
			if !push(listedBackup(ctx, req, p, repo.ID())) {
				return
			}
		}
	}
}

func listedBackup(ctx context.Context, req list.ListRequest, p repository.RestorePoint, repositoryID string) list.ListResult {
	r := req.NewListResult(ctx)
	r.DisplayName = fmt.Sprintf("%s (%s, %s)", p.VMPath, stamp(p.CreatedAt), p.Consistency)
	if p.Description != "" {
		r.DisplayName += ": " + p.Description
	}
	r.Diagnostics.Append(r.Identity.Set(ctx, backupIdentity{ID: types.StringValue(string(p.ID))})...)
	if !req.IncludeResource {
		return r
	}
	var model backupModel
	r.Diagnostics.Append(emptyResource(ctx, r.Resource, &model)...)
	model.fillListed(p, repositoryID)
	r.Diagnostics.Append(r.Resource.Set(ctx, model)...)
	return r
}

// fillListed sets what a list of backups tells of one.
func (m *backupModel) fillListed(p repository.RestorePoint, repositoryID string) {
	m.fillArguments(repositoryID, p.Description, p.Tags, p.VMPath)
	m.ID = types.StringValue(string(p.ID))
	m.CreatedAt = timeValue(p.CreatedAt)
	m.VMName = types.StringValue(p.VMName)
	m.VMPath = types.StringValue(p.VMPath)
	m.VMUUID = types.StringValue(p.BIOSUUID)
	m.VMInstanceUUID = types.StringValue(p.InstanceUUID)
	m.Consistency = types.StringValue(p.Consistency)
	m.SizeBytes = types.Int64Value(p.SizeBytes)
}
