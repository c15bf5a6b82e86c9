package hypervisortest

import (
	"context"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Consolidate implements hypervisor.Consolidator. The delta disks of a Fake are nothing but a mark.
func (f *Fake) Consolidate(ctx context.Context, id hypervisor.VMID) (bool, error) {
	if err := f.at(ctx, BeforeConsolidate); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return false, err
	}
	needed := v.deltas
	v.deltas = false
	return needed, nil
}
