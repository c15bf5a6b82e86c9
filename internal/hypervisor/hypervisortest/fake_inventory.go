package hypervisortest

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// SnapshotsBelow implements hypervisor.SnapshotLister.
func (f *Fake) SnapshotsBelow(ctx context.Context, folder string) iter.Seq2[hypervisor.VMSnapshots, error] {
	return func(yield func(hypervisor.VMSnapshots, error) bool) {
		if err := f.at(ctx, BeforeSnapshotsBelow); err != nil {
			yield(hypervisor.VMSnapshots{}, err)
			return
		}
		if folder != "" && folder != FakeFolder {
			yield(hypervisor.VMSnapshots{}, &hypervisor.NotAvailableError{
				Kind: "folder", Name: folder, Available: []string{FakeFolder},
			})
			return
		}
		for _, vm := range f.listed() {
			all, err := f.Snapshots(ctx, vm.ID)
			if err == nil && len(all) == 0 {
				continue
			}
			if err != nil {
				all = nil
			}
			if !yield(hypervisor.VMSnapshots{VM: vm, Snapshots: all, Err: err}, nil) {
				return
			}
		}
	}
}

// listed is all VMs, by name.
func (f *Fake) listed() []hypervisor.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	var vms []hypervisor.VM
	for id, v := range f.vms {
		if !f.hidden[id] {
			vms = append(vms, *v.copy())
		}
	}
	slices.SortFunc(vms, func(a, b hypervisor.VM) int { return strings.Compare(a.Name, b.Name) })
	return vms
}
