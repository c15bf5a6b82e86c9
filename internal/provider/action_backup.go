package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// newest finds the backup that is chosen, or the newest of the virtual machine that is. Error: errSeveralVMs.
func (c chosenBackups) newest(ctx context.Context, s *session) (repository.RestorePoint, error) {
	_, points, err := c.find(ctx, s)
	if err == nil {
		err = ofOne(c.VM.ValueString(), points)
	}
	if err != nil {
		return repository.RestorePoint{}, err
	}
	return points[0], nil
}

// errSeveralVMs: a reference means backups of several virtual machines.
var errSeveralVMs = errors.New("several virtual machines were called that when they were backed up")

// ofOne makes sure that restore points are of one virtual machine. Error: errSeveralVMs, which lists them.
func ofOne(ref string, points []repository.RestorePoint) error {
	vms := newestOfEach(points)
	if len(vms) < 2 {
		return nil
	}
	lines := make([]string, len(vms))
	for i, p := range vms {
		lines[i] = fmt.Sprintf("%s (instance UUID %s, on server %s, last backed up at %s)", p.VMPath, p.InstanceUUID, p.Server,
			timeValue(p.CreatedAt).ValueString())
	}
	return fmt.Errorf("%q: %w: %s", ref, errSeveralVMs, strings.Join(lines, "; "))
}

// newestOfEach keeps the newest restore point of each virtual machine. An instance UUID is unique on one server only.
func newestOfEach(points []repository.RestorePoint) []repository.RestorePoint {
	type identity struct{ server, instance string }
	seen := map[identity]bool{}
	var newest []repository.RestorePoint
	for _, p := range points {
		if id := (identity{p.Server, strings.ToLower(p.InstanceUUID)}); !seen[id] {
			seen[id] = true
			newest = append(newest, p)
		}
	}
	return newest
}
