package hypervisor

import "context"

// A Screenshooter takes pictures of what virtual machines show.
type Screenshooter interface {
	// Screenshot takes a picture of the screen of a VM that is powered on: the content of a PNG file. Nothing of it
	// stays on the server. Errors: ErrNotSupported, a *VMNotFoundError, a *PermissionError.
	Screenshot(ctx context.Context, vm VMID) ([]byte, error)
}
