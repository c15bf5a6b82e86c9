package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// Outcomes of looking for something in another place than where it was made. They are errors and
// never read as "gone": a wrong server name must not empty a state.
var (
	errOtherServer     = errors.New("the provider is configured for another server")
	errOtherRepository = errors.New("the provider is configured for another repository")
)

// serverAttribute is the server on which an object was made. It is an attribute, and no private state,
// because Terraform withholds the private state of what is tainted.
func serverAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		MarkdownDescription: "ID of the server (or host) that it was made on. It is looked for, changed and removed there and " +
			"nowhere else.",
		Computed:      true,
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
	}
}

// hypervisorOf connects to the hypervisor on which an object was made; null: it isn't known yet, as in the
// middle of an import. It comes before any question about the object: what another server answers
// says nothing about it, even if it knows the same identity. Errors: errOtherServer, and those of
// session.hypervisor.
func (s *session) hypervisorOf(ctx context.Context, made types.String) (hypervisor.Hypervisor, error) {
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return nil, err
	}
	now, err := hv.Server(ctx)
	if err != nil {
		return nil, err
	}
	if !made.IsNull() && made.ValueString() != now {
		return nil, fmt.Errorf("%w: it is %s, but the resource was made on %s", errOtherServer, now, made.ValueString())
	}
	return hv, nil
}

// snapshotsOf gives the manager of snapshots on the server on which one was made.
func (s *session) snapshotsOf(ctx context.Context, made types.String) (*snapshot.Manager, error) {
	hv, err := s.hypervisorOf(ctx, made)
	if err != nil {
		return nil, err
	}
	return snapshot.New(hv, s.log, s.now), nil
}

// checkRepository returns an error that wraps errOtherRepository unless a backup is to be looked for in
// the repository that is open.
func checkRepository(repo *repository.Repository, id string) error {
	if id != "" && id != repo.ID() {
		return fmt.Errorf("%w: its ID is %s, but the backup is in %s", errOtherRepository, repo.ID(), id)
	}
	return nil
}
