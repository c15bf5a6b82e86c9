package snapshot

import (
	"context"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

func (m *Manager) take(_ context.Context, _ Request) (*Taken, error) {
	return nil, hypervisor.ErrNotSupported
}

func (m *Manager) check(ctx context.Context, r Request) (*hypervisor.VM, []string, error) {
	vm, err := m.hv.FindVM(ctx, r.VM)
	return vm, nil, err
}
