package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// planBackup checks what can be checked before a backup is taken.
func (s *session) planBackup(
	ctx context.Context, requested backupRequested, op operation, diags *diag.Diagnostics,
) {
	_, err := s.repository(ctx, false)
	if err != nil && !errors.Is(err, repository.ErrNotMade) { // the backup makes it
		op.failPlan(ctx, diags, err)
	}
	if requested.VM.IsUnknown() || !fullyKnown(ctx, requested.ExcludeDisks) {
		return // which disks there are to judge isn't known
	}
	m, err := s.backupChecks(ctx)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	requested = requested.planned(ctx)
	request := requested.request(ctx, diags)
	if diags.HasError() {
		return
	}
	check, err := m.Check(ctx, request)
	if err != nil {
		op.failPlan(ctx, diags, err)
		return
	}
	warnings(diags, "Backup With Reservations", check.Warnings)
}

// planned is what is requested without what isn't known yet, of which a plan can say nothing. The disks to exclude are known.
func (m backupRequested) planned(ctx context.Context) backupRequested {
	m.Quiesce = knownObject(ctx, m.Quiesce)
	m.Retention = knownObject(ctx, m.Retention)
	if !fullyKnown(ctx, m.Tags) {
		m.Tags = types.MapNull(types.StringType)
	}
	return m
}

// takeBackup takes a backup and has the repository maintained. Nil: there is none, and diags say why.
func (s *session) takeBackup(
	ctx context.Context, requested backupRequested, op operation, diags *diag.Diagnostics,
) (*backup.Result, *repository.Repository) {
	request := requested.request(ctx, diags)
	if diags.HasError() {
		return nil, nil
	}
	op = op.leaving("There is no backup, and no snapshot of this run was left behind, unless the error names one.")
	m, err := s.backups(ctx)
	if err != nil {
		op.fail(ctx, diags, err)
		return nil, nil
	}
	repo, err := s.repository(ctx, false)
	if err != nil {
		op.fail(ctx, diags, err)
		return nil, nil
	}
	result, err := m.Take(ctx, request)
	if errors.Is(err, repository.ErrUncertain) {
		op = op.leaving("No snapshot of this run was left behind, unless the error names one.")
	}
	if err != nil {
		op.fail(ctx, diags, err)
		return nil, nil
	}
	warnings(diags, "Backup Taken With Reservations", result.Warnings)
	warnings(diags, "Repository Not Maintained", m.Maintain(ctx))
	return result, repo
}
