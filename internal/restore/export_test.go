package restore

import (
	"context"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// DigestOf is digestOf.
func DigestOf(ctx context.Context, src disk.Source) (disk.Digest, error) {
	return digestOf(ctx, src, new(meter))
}

// ObserveLooks is observeLooks.
const ObserveLooks = observeLooks

// SetPause makes a Manager wait by pause.
func (m *Manager) SetPause(pause func(ctx context.Context, d time.Duration) error) { m.pause = pause }

// SetNow gives a Manager another clock.
func (m *Manager) SetNow(now func() time.Time) { m.now = now }
