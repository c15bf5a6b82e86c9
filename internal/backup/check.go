package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// Check does at plan time what can be done without touching the VM: it resolves the reference and
// the excluded disks, refuses what Take would refuse, and returns the warnings that Take would give.
func (m *Manager) Check(ctx context.Context, r Request) (*Check, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
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
	if depth := m.depth(snapshots); depth >= hypervisor.MaxSnapshotDepth {
		return nil, fmt.Errorf("back up %s: it runs on a chain of %d snapshots, with no room for a temporary one: %w",
			vm.Path, depth, hypervisor.ErrTooManySnapshots)
	}
	c := &Check{VM: vm, Excluded: excluded, snapshots: snapshots}
	if r.Retention != nil {
		if err := m.checkIdentity(ctx, c); err != nil {
			return nil, fmt.Errorf("back up %s: %w", vm.Path, err)
		}
	}
	for _, d := range excluded {
		c.Warnings = append(c.Warnings, fmt.Sprintf(
			"%s (%s, %d bytes) of %s is excluded: the backup doesn't hold it.", d.Label, d.Address, d.Capacity, vm.Name))
	}
	switch {
	case !r.Quiesce.Wanted() || quiesce.Possible(vm):
	case r.Quiesce.Mode == quiesce.Required:
		return nil, fmt.Errorf("back up %s: %w", vm.Path, cannotQuiesce(vm))
	default:
		c.Warnings = append(c.Warnings, fmt.Sprintf("the backup is crash-consistent: %v.", cannotQuiesce(vm)))
	}
	return c, nil
}

// checkIdentity finds out whether other VMs have the VM's instance UUID. A vCenter sees to it that none has; a host may have
// copies that were made by hand. Which backups are whose can't be told then.
func (m *Manager) checkIdentity(ctx context.Context, c *Check) error {
	_, err := m.hv.FindVM(ctx, hypervisor.VMRef(c.VM.InstanceUUID))
	var notFound *hypervisor.VMNotFoundError
	var ambiguous *hypervisor.AmbiguousVMError
	switch {
	case err == nil, errors.As(err, &notFound): // the server's index may not have it yet
		return nil
	case !errors.As(err, &ambiguous):
		return err
	}
	c.shared = true
	c.Warnings = append(c.Warnings, fmt.Sprintf("the backup is pinned, and retention removes none: more than one virtual machine has "+
		"the instance UUID %s, so that it can't be told whose backups are whose: %s. Give the copies another.",
		c.VM.InstanceUUID, strings.Join(ambiguous.Matches, ", ")))
	return nil
}

// check refuses a request that means nothing, whichever VM it is about.
func (r Request) check() error {
	switch r.Mode {
	case "", ModeAuto, ModeFull:
	default:
		return fmt.Errorf("unknown mode %q", r.Mode)
	}
	switch r.ChangeTracking {
	case "", hypervisor.TrackingUse, hypervisor.TrackingEnable, hypervisor.TrackingIgnore:
	default:
		return fmt.Errorf("unknown use of change tracking %q", r.ChangeTracking)
	}
	switch r.Recheck {
	case RecheckNothing, RecheckSample:
	default:
		return fmt.Errorf("unknown way %q to check change tracking", r.Recheck)
	}
	if r.VM == "" {
		return errors.New("no VM is named")
	}
	if r.Retention != nil {
		if err := r.Retention.check(); err != nil {
			return err
		}
	}
	return r.Quiesce.Check()
}

func cannotQuiesce(vm *hypervisor.VM) error {
	if vm.PowerState != hypervisor.PoweredOn {
		return fmt.Errorf("%w: %s is not running", hypervisor.ErrQuiesce, vm.Name)
	}
	return fmt.Errorf("%s can't be quiesced: %w", vm.Name, hypervisor.ErrGuestAgent)
}

// depth is how many snapshots the VM runs on, without those that Take removes before it takes its own.
func (m *Manager) depth(snapshots []hypervisor.Snapshot) int {
	depth := 0
	var next hypervisor.SnapshotID
	for _, s := range slices.Backward(snapshots) { // children before their parents
		if !s.Current && s.ID != next {
			continue
		}
		next = s.Parent
		if r, _, ours := temporary(s); !ours || !r.Dead(m.now()) {
			depth++
		}
	}
	return depth
}

// exclude resolves what people write to the VM's disks.
func exclude(vm *hypervisor.VM, names []string) ([]hypervisor.Disk, error) {
	for _, name := range names {
		if hypervisor.FindDisk(vm.Disks, name) < 0 {
			return nil, fmt.Errorf("%w: %s has no disk %q to exclude; it has: %s",
				ErrRequest, vm.Path, name, hypervisor.ListDisks(vm.Disks))
		}
	}
	var excluded []hypervisor.Disk
	for _, d := range vm.Disks {
		if slices.ContainsFunc(names, d.Answers) {
			excluded = append(excluded, d)
		}
	}
	if len(vm.Disks) > 0 && len(excluded) == len(vm.Disks) {
		return nil, fmt.Errorf("%w: every disk of %s is excluded", ErrRequest, vm.Path)
	}
	return excluded, nil
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
