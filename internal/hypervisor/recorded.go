package hypervisor

import (
	"context"
	"errors"
	"fmt"
)

// FindRecorded finds a VM by the instance UUID and the handle that were recorded of it. Unlike that of
// VMByInstanceUUID, its *VMNotFoundError is certain: the server denies that the handle is one.
// Errors: a *VMNotFoundError, ErrOutOfReach.
func FindRecorded(ctx context.Context, finder Finder, instanceUUID string, last VMID) (*VM, error) {
	vm, err := finder.VMByInstanceUUID(ctx, instanceUUID)
	var notFound *VMNotFoundError
	if !errors.As(err, &notFound) {
		return vm, err
	}
	if last == "" {
		return nil, fmt.Errorf("no VM has the instance UUID %s, and no handle was recorded: %w", instanceUUID, ErrOutOfReach)
	}
	switch exists, existsErr := finder.VMExists(ctx, last); {
	case existsErr != nil:
		return nil, fmt.Errorf("no VM has the instance UUID %s, and whether %s is gone can't be told: %w",
			instanceUUID, last, existsErr)
	case exists:
		return nil, fmt.Errorf("%s exists, but no VM has the instance UUID %s: %w", last, instanceUUID, ErrOutOfReach)
	}
	return nil, err
}
