package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// errNoBackup: a virtual machine has no backup in the repository.
var errNoBackup = errors.New("there is no backup")

// chosenBackups say which backups an action is about: one by its ID, or those of a virtual machine.
type chosenBackups struct {
	BackupID types.String `tfsdk:"backup_id"`
	VM       types.String `tfsdk:"vm"`
}

// chosenBackupArguments are the arguments of chosenBackups. of says which of a virtual machine's backups it is.
func chosenBackupArguments(of string) map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"backup_id": schema.StringAttribute{
			MarkdownDescription: "ID of the backup. Exactly one of `backup_id` and `vm` is given.",
			Optional:            true,
			Validators: []validator.String{
				stringvalidator.ExactlyOneOf(path.MatchRoot("backup_id"), path.MatchRoot("vm")),
				stringvalidator.LengthAtLeast(1),
			},
		},
		"vm": schema.StringAttribute{
			MarkdownDescription: of + " of this virtual machine: its BIOS UUID, instance UUID, inventory path or name when the " +
				"backup was taken. It may be gone. A reference that matches no backup is looked up on the hypervisor.",
			Optional:   true,
			Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
		},
	}
}

// find lists the backups that are chosen, newest first: all of the virtual machine, or the one.
func (c chosenBackups) find(
	ctx context.Context, s *session,
) (*repository.Repository, []repository.RestorePoint, error) {
	repo, points, err := s.listBackups(ctx, repository.Filter{VM: c.VM.ValueString()})
	switch {
	case err != nil:
		return nil, nil, err
	case !c.VM.IsNull() && len(points) == 0:
		return nil, nil, fmt.Errorf("%w of %q in the repository", errNoBackup, c.VM.ValueString())
	case !c.VM.IsNull():
		return repo, points, nil
	}
	for _, p := range points {
		if string(p.ID) == c.BackupID.ValueString() {
			return repo, []repository.RestorePoint{p}, nil
		}
	}
	return nil, nil, fmt.Errorf("find backup %q: %w", c.BackupID.ValueString(), repository.ErrNotFound)
}

// newestOfEach keeps the newest restore point of each virtual machine.
func newestOfEach(points []repository.RestorePoint) []repository.RestorePoint {
	seen := map[string]bool{}
	var newest []repository.RestorePoint
	for _, p := range points {
		if !seen[p.InstanceUUID] {
			seen[p.InstanceUUID] = true
			newest = append(newest, p)
		}
	}
	return newest
}
