package hypervisortest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// VMOfSnapshot implements hypervisor.Reverter.
func (f *Fake) VMOfSnapshot(ctx context.Context, id hypervisor.SnapshotID) (*hypervisor.VM, error) {
	if err := f.at(ctx, BeforeVMOfSnapshot); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for vm, v := range f.vms {
		if v.find(id) == nil {
			continue
		}
		if f.hidden[vm] {
			return nil, fmt.Errorf("find the VM of %s: %w", id, hypervisor.ErrOutOfReach)
		}
		return v.copy(), nil
	}
	return nil, fmt.Errorf("find the VM of %s: %w", id, hypervisor.ErrSnapshotNotFound)
}

// RevertChanges implements hypervisor.Reverter.
func (f *Fake) RevertChanges(
	ctx context.Context, id hypervisor.VMID, snapshot hypervisor.SnapshotID,
) ([]string, error) {
	if err := f.at(ctx, BeforeRevertChanges); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, s, err := f.revertible(id, snapshot)
	if err != nil {
		return nil, err
	}
	return v.undoes(s), nil
}

// RevertToSnapshot implements hypervisor.Reverter. Where it fails after the revert, that is done.
func (f *Fake) RevertToSnapshot(
	ctx context.Context, id hypervisor.VMID, snapshot hypervisor.SnapshotID, options hypervisor.RevertOptions,
) (*hypervisor.VM, []string, error) {
	if err := f.at(ctx, BeforeRevertToSnapshot); err != nil {
		return nil, nil, err
	}
	vm, undone, err := f.revert(id, snapshot, options)
	if err != nil {
		return nil, nil, err
	}
	return vm, undone, f.at(ctx, AfterRevertToSnapshot)
}

func (f *Fake) revert(
	id hypervisor.VMID, snapshot hypervisor.SnapshotID, options hypervisor.RevertOptions,
) (*hypervisor.VM, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, s, err := f.revertible(id, snapshot)
	if err != nil {
		return nil, nil, err
	}
	undone := v.undoes(s)
	v.PowerState = s.PowerState
	if options.Stay && s.PowerState == hypervisor.PoweredOn {
		v.PowerState = hypervisor.Suspended
		if f.StayDropsMemory {
			v.PowerState = hypervisor.PoweredOff
		}
	}
	v.GuestAgent = v.PowerState == hypervisor.PoweredOn && s.config.GuestAgent
	v.GuestID, v.HardwareVersion = s.config.GuestID, s.config.HardwareVersion
	v.CPUs, v.MemoryBytes = s.config.CPUs, s.config.MemoryBytes
	v.network, v.connected = s.network, s.connected
	v.Disks, v.images = slices.Clone(s.config.Disks), map[hypervisor.DiskKey]*image{}
	for key, m := range s.images {
		v.images[key] = m.freeze()
	}
	v.current = s.ID
	return v.copy(), undone, nil
}

// revertible finds a VM and a snapshot of it. The caller holds the lock.
func (f *Fake) revertible(id hypervisor.VMID, snapshot hypervisor.SnapshotID) (*fakeVM, *fakeSnapshot, error) {
	v, err := f.vm(id)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range v.Obstacles {
		if o.Kind == hypervisor.ObstacleLocked || o.Kind == hypervisor.ObstacleTemplate {
			return nil, nil, &hypervisor.ObstacleError{VM: v.Path, Obstacles: []hypervisor.Obstacle{o}}
		}
	}
	s := v.find(snapshot)
	if s == nil {
		return nil, nil, fmt.Errorf("revert %s to %s: %w", v.Name, snapshot, hypervisor.ErrSnapshotNotFound)
	}
	return v, s, nil
}

// undoes says what in a VM's configuration isn't as in a snapshot.
func (v *fakeVM) undoes(s *fakeSnapshot) (changes []string) {
	if v.CPUs != s.config.CPUs {
		changes = append(changes, fmt.Sprintf("The number of CPUs goes back from %d to %d.", v.CPUs, s.config.CPUs))
	}
	if v.MemoryBytes != s.config.MemoryBytes {
		changes = append(changes,
			fmt.Sprintf("The memory goes back from %d to %d bytes.", v.MemoryBytes, s.config.MemoryBytes))
	}
	if v.network != s.network {
		changes = append(changes, fmt.Sprintf("The network goes back from %q to %q.", v.network, s.network))
	}
	for _, d := range v.Disks {
		if hypervisor.FindDisk(s.config.Disks, d.Label) < 0 {
			changes = append(changes, fmt.Sprintf("%s leaves the VM; its file %s stays.", d.Label, d.Path))
		}
	}
	for _, d := range s.config.Disks {
		if hypervisor.FindDisk(v.Disks, d.Label) < 0 {
			changes = append(changes, d.Label+" comes back.")
		}
	}
	return changes
}

// SetClock puts the clock of a VM's host ahead, or behind, which the times of its snapshots show.
func (f *Fake) SetClock(id hypervisor.VMID, ahead time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vms[id].clock = ahead
}
