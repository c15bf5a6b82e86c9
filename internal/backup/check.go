package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// maxDepth is the deepest chain of snapshots that a VM can have, the temporary one included.
const maxDepth = 32

// check is everything that Take does before it creates anything.
func (m *Manager) check(ctx context.Context, r Request) (*Check, error) {
	if r.VM == "" {
		return nil, fmt.Errorf("%w: no VM is named", ErrRequest)
	}
	if err := r.Quiesce.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if r.Parallel < 0 {
		return nil, fmt.Errorf("%w: the number of disks to copy at the same time is negative", ErrRequest)
	}
	vm, err := m.hv.FindVM(ctx, r.VM)
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	excluded, err := exclude(vm, r.ExcludeDisks)
	if err != nil {
		return nil, err
	}
	if err := obstacles(vm, excluded); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	snapshots, err := m.hv.Snapshots(ctx, vm.ID)
	if err != nil {
		return nil, fmt.Errorf("back up %s: list snapshots: %w", vm.Path, err)
	}
	for _, s := range snapshots {
		if s.Current && s.Depth >= maxDepth {
			return nil, fmt.Errorf("back up %s: it runs on a chain of %d snapshots, with no room for a temporary one: %w",
				vm.Path, s.Depth, hypervisor.ErrTooManySnapshots)
		}
	}
	c := &Check{VM: vm, Excluded: excluded, snapshots: snapshots}
	for _, d := range excluded {
		c.Warnings = append(c.Warnings, fmt.Sprintf(
			"%s (%s, %d bytes) of %s is excluded: the backup doesn't hold it.", d.Label, d.Address, d.Capacity, vm.Name))
	}
	return c, nil
}

// exclude resolves what people write to the VM's disks.
func exclude(vm *hypervisor.VM, names []string) ([]hypervisor.Disk, error) {
	for _, name := range names {
		if !slices.ContainsFunc(vm.Disks, func(d hypervisor.Disk) bool { return named(d, name) }) {
			return nil, fmt.Errorf("%w: %s has no disk %q to exclude; it has: %s",
				ErrRequest, vm.Path, name, describe(vm.Disks))
		}
	}
	var excluded []hypervisor.Disk
	for _, d := range vm.Disks {
		if slices.ContainsFunc(names, func(name string) bool { return named(d, name) }) {
			excluded = append(excluded, d)
		}
	}
	if len(vm.Disks) > 0 && len(excluded) == len(vm.Disks) {
		return nil, fmt.Errorf("%w: every disk of %s is excluded", ErrRequest, vm.Path)
	}
	return excluded, nil
}

func named(d hypervisor.Disk, name string) bool {
	return name != "" &&
		(d.Label == name || strings.EqualFold(d.Address, name) || strings.EqualFold(d.UUID, name))
}

func describe(disks []hypervisor.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	lines := make([]string, len(disks))
	for i, d := range disks {
		lines[i] = fmt.Sprintf("%q (%s)", d.Label, d.Address)
	}
	return strings.Join(lines, ", ")
}

// obstacles refuses a VM that can't be captured as a whole. Leaving out a disk removes the obstacle
// that is about this disk, unless not even a snapshot is possible.
func obstacles(vm *hypervisor.VM, excluded []hypervisor.Disk) error {
	left := slices.DeleteFunc(slices.Clone(vm.Obstacles), func(o hypervisor.Obstacle) bool {
		out := slices.ContainsFunc(excluded, func(d hypervisor.Disk) bool {
			return o.Disk != "" && d.Key == o.Disk
		})
		return out && !o.BlocksSnapshot
	})
	if len(left) > 0 {
		return &hypervisor.ObstacleError{VM: vm.Path, Obstacles: left}
	}
	return nil
}
