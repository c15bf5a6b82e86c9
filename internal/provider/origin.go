package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/diag"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// Outcomes of looking for something in another place than where it was made. They are errors and
// never read as "gone": a wrong server name must not empty a state.
var (
	errOtherServer     = errors.New("the provider is configured for another server")
	errOtherRepository = errors.New("the provider is configured for another repository")
)

// serverKey is the private state of the server on which an object was made.
const serverKey = "server"

// privateWriter is the part of a resource's private state that can be written.
type privateWriter interface {
	SetKey(ctx context.Context, key string, value []byte) diag.Diagnostics
}

func recordServer(ctx context.Context, private privateWriter, server string) diag.Diagnostics {
	value, err := json.Marshal(server)
	if err != nil {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Unable to Record Server", sentence(err.Error()))}
	}
	return private.SetKey(ctx, serverKey, value)
}

// checkServer is asked when something is gone: it returns an error that wraps errOtherServer if the
// thing was made on another server than the configured one.
func (s *session) checkServer(ctx context.Context, private privateState) error {
	value, _ := private.GetKey(ctx, serverKey)
	if value == nil {
		return nil
	}
	var made string
	if err := json.Unmarshal(value, &made); err != nil {
		return fmt.Errorf("read private state: %w", err)
	}
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return err
	}
	now, err := hv.Server(ctx)
	if err != nil {
		return err
	}
	if made != "" && made != now {
		return fmt.Errorf("%w: it is %s, but the resource was made on %s", errOtherServer, now, made)
	}
	return nil
}

// checkRepository returns an error that wraps errOtherRepository unless a backup is to be looked for in
// the repository that is open.
func checkRepository(repo *repository.Repository, id string) error {
	if id != "" && id != repo.ID() {
		return fmt.Errorf("%w: its ID is %s, but the backup is in %s", errOtherRepository, repo.ID(), id)
	}
	return nil
}
