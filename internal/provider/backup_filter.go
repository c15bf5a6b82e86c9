package provider

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// backupFilter selects backups, for both data sources.
type backupFilter struct {
	VM             types.String `tfsdk:"vm"`
	Before         types.String `tfsdk:"before"`
	After          types.String `tfsdk:"after"`
	Tags           types.Map    `tfsdk:"tags"`
	MinConsistency types.String `tfsdk:"min_consistency"`

	MinVerification types.String `tfsdk:"min_verification"`
}

func backupFilterAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"vm": schema.StringAttribute{
			MarkdownDescription: "Backups of this virtual machine: its BIOS UUID, instance UUID, inventory path or name when " +
				"the backup was taken. It may be gone. A reference that matches no backup is looked up on the hypervisor.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
		"before": schema.StringAttribute{
			MarkdownDescription: "Backups of before this time (RFC 3339).",
			Optional:            true,
			Validators:          []validator.String{timestamp{}},
		},
		"after": schema.StringAttribute{
			MarkdownDescription: "Backups of after this time (RFC 3339).",
			Optional:            true,
			Validators:          []validator.String{timestamp{}},
		},
		"tags": schema.MapAttribute{
			MarkdownDescription: "Backups that have all of these tags.",
			Optional:            true,
			ElementType:         types.StringType,
		},
		"min_consistency": schema.StringAttribute{
			MarkdownDescription: "Backups that are at least this consistent: `crash`, `filesystem` or `application`.",
			Optional:            true,
			Validators: []validator.String{stringvalidator.OneOf(
				string(quiesce.Crash), string(quiesce.FileSystem), string(quiesce.Application))},
		},
		"min_verification": schema.StringAttribute{
			MarkdownDescription: "Backups that are at least so verified, and in which nothing was found damaged since: `index`, `data` " +
				"(action `vm_backup_verify`) or `restore` (action `vm_restore_test`).",
			Optional: true,
			Validators: []validator.String{stringvalidator.OneOf(string(repository.VerifyIndex), string(repository.VerifyData),
				string(repository.VerifyRestore))},
		},
	}
}

func (f *backupFilter) filter(ctx context.Context, diags *diag.Diagnostics) repository.Filter {
	return repository.Filter{
		VM:             f.VM.ValueString(),
		Before:         timeOf(f.Before),
		After:          timeOf(f.After),
		Tags:           textMap(ctx, f.Tags, diags),
		MinConsistency: f.MinConsistency.ValueString(),

		MinVerification: repository.VerifyLevel(f.MinVerification.ValueString()),
	}
}

// timeOf reads a validated timestamp; null is the zero time.
func timeOf(value types.String) time.Time {
	t, err := time.Parse(time.RFC3339, value.ValueString())
	if err != nil {
		return time.Time{}
	}
	return t
}

// listBackups opens the repository and lists what a filter selects, newest first. A reference that matches no
// backup as it is written may be one that only the hypervisor can resolve, such as vm-42.
func (s *session) listBackups(
	ctx context.Context, f repository.Filter,
) (*repository.Repository, []repository.RestorePoint, error) {
	repo, _, points, err := s.findBackups(ctx, f)
	return repo, points, err
}

// findBackups is listBackups that tells which filter found them.
func (s *session) findBackups(
	ctx context.Context, f repository.Filter,
) (*repository.Repository, repository.Filter, []repository.RestorePoint, error) {
	repo, err := s.repository(ctx, false)
	if err != nil {
		return nil, f, nil, err
	}
	points, err := repo.List(ctx, f)
	if err == nil && len(points) == 0 && f.VM != "" {
		points, err = s.listBackupsOf(ctx, repo, &f)
	}
	return repo, f, points, err
}

// listBackupsOf is listBackups with what the hypervisor knows the VM by.
func (s *session) listBackupsOf(
	ctx context.Context, repo *repository.Repository, f *repository.Filter,
) ([]repository.RestorePoint, error) {
	hv, err := s.hypervisor(ctx)
	if errors.Is(err, errNoHypervisor) || stillUnknown(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	vm, err := hv.FindVM(ctx, hypervisor.VMRef(f.VM))
	var notFound *hypervisor.VMNotFoundError
	switch {
	case errors.As(err, &notFound):
		return nil, nil
	case err != nil:
		return nil, err
	case strings.EqualFold(vm.InstanceUUID, f.VM):
		return nil, nil
	}
	f.VM = vm.InstanceUUID
	return repo.List(ctx, *f)
}
