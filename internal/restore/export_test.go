package restore

import (
	"context"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// DigestOf is digestOf.
func DigestOf(ctx context.Context, src disk.Source) (disk.Digest, error) {
	return digestOf(ctx, src, new(meter))
}
