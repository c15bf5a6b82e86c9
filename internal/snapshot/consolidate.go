package snapshot

import (
	"context"
	"fmt"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// Consolidated is what came of a consolidation.
type Consolidated struct {
	VM     hypervisor.VM // as it is afterwards
	Needed bool          // there were delta disks that belong to no snapshot
	Disks  []MovedDisk   // that the VM runs on another file of now
}

// A MovedDisk is a disk whose file is another one.
type MovedDisk struct {
	Label    string
	From, To string // as the hypervisor writes files
}

// Consolidate merges delta disks of a VM that belong to no snapshot, if there are any. It can be called again after a
// failure, and whenever somebody wonders.
// Errors: those of finding a VM, and those of hypervisor.Consolidator.
func (m *Manager) Consolidate(ctx context.Context, ref hypervisor.VMRef) (*Consolidated, error) {
	before, err := m.hv.FindVM(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("consolidate: %w", err)
	}
	if err := m.hv.CheckPrivileges(ctx, []hypervisor.VMID{before.ID}, hypervisor.ToConsolidate); err != nil {
		return nil, fmt.Errorf("consolidate the disks of %s: %w", before.Path, err)
	}
	result := &Consolidated{VM: *before}
	merging, phase := progress.Enter(ctx, "consolidating the disks", "vm", before.Path)
	result.Needed, err = m.hv.Consolidate(merging, before.ID)
	phase.Leave()
	if err != nil {
		return nil, fmt.Errorf("consolidate the disks of %s: %w", before.Path, err)
	}
	if !result.Needed {
		return result, nil
	}
	after, err := m.hv.VMByInstanceUUID(ctx, before.InstanceUUID)
	if err != nil {
		return nil, fmt.Errorf("consolidate the disks of %s: that is done; read what they are now: %w", before.Path, err)
	}
	result.VM = *after
	for _, now := range after.Disks {
		at := slices.IndexFunc(before.Disks, func(d hypervisor.Disk) bool { return d.Key == now.Key })
		if at >= 0 && before.Disks[at].Path != now.Path {
			result.Disks = append(result.Disks, MovedDisk{Label: now.Label, From: before.Disks[at].Path, To: now.Path})
		}
	}
	m.log.InfoContext(ctx, "consolidated the disks", "vm", after.Path, "disks", len(result.Disks))
	return result, nil
}
