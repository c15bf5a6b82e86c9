package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// InterruptedInPlace implements hypervisor.InPlaceRestorer.
func (c *Client) InterruptedInPlace(ctx context.Context, id hypervisor.VMID) (*hypervisor.Interrupted, error) {
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", id, err)
	}
	j, _, err := c.ownJournal(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", id, err)
	}
	if j == nil {
		return nil, nil
	}
	found := c.interruption(ctx, vm, j)
	return &found, nil
}

// RecoverInPlace implements hypervisor.InPlaceRestorer. It goes by nothing but the VM's journal and what the
// server holds, and may itself be interrupted at any moment.
func (c *Client) RecoverInPlace(
	ctx context.Context, id hypervisor.VMID, found hypervisor.Interrupted, by string,
) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	r := &recovery{client: c, id: id, tenure: &tenure{client: c, vm: id, holder: by}}
	err := r.recover(ctx, found)
	r.tenure.release()
	var vm *hypervisor.VM
	if err == nil {
		vm, err = c.vmByID(ctx, id)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("recover the restore in place of %s: %w", id, err)
	}
	return vm, r.kept, r.warnings, nil
}

// A recovery ends a restore in place by the VM's journal, which is its own when it does.
type recovery struct {
	client *Client
	id     hypervisor.VMID
	line   lineage
	tenure *tenure

	kept     []hypervisor.Replaced // disks that the VM doesn't have any more
	warnings []string
}

func (r *recovery) recover(ctx context.Context, found hypervisor.Interrupted) error {
	c := r.client
	vm, err := c.readTarget(ctx, r.id)
	if err != nil {
		return err
	}
	if r.line, err = c.ancestors(ctx, vmRef(r.id)); err != nil {
		return err
	}
	j, foreign, err := c.ownJournal(ctx, vm)
	switch {
	case err != nil:
		return err
	case foreign != nil:
		r.warnings = append(r.warnings, foreign.disowned(r.line.path()))
		_, err := c.change(ctx, r.id, "", nil, nil)
		return err
	case j == nil:
		return nil
	}
	if j, err = r.claim(ctx, j, found); err != nil {
		return err
	}
	if vm, err = c.readTarget(ctx, r.id); err != nil {
		return err
	}
	if err := c.removeUpload(ctx, vm, r.line, j.Run); err != nil {
		return err
	}
	if c.interruption(ctx, vm, j).Swapped {
		r.kept = j.replaced()
		return c.finishInPlace(ctx, r.id, r.line, j, r.kept)
	}
	switch j.Phase {
	case phaseSwapped:
		had := *j
		had.Had = true
		if j, err = r.swapBack(ctx, &had); err != nil {
			return err
		}
	case phaseStop:
		c.awaitStop(ctx, r.id, afterKilled)
	}
	return r.undo(ctx, j)
}

// claim takes a journal over if it still is as it was found. Of several who try, the server lets one: each
// changes the VM as it has read it.
func (r *recovery) claim(ctx context.Context, j *journal, found hypervisor.Interrupted) (*journal, error) {
	lease, err := r.tenure.begin(ctx)
	if err != nil {
		return nil, err
	}
	next := j.as(j.Phase)
	next.Holder = r.tenure.holder
	done, err := r.client.change(ctx, r.id, found.Holder, next,
		func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
			var spec types.VirtualMachineConfigSpec
			now, err := r.client.heldBy(ctx, vm, found.Holder)
			if err != nil {
				return spec, err
			}
			if now.Run != found.RunID || optionValue(vm.Config.ExtraConfig, tenureKey) != found.Lease {
				return spec, r.client.underWay(ctx, vm, now)
			}
			*next = *now.as(now.Phase)
			next.Holder = r.tenure.holder
			spec.ExtraConfig = []types.BaseOptionValue{lease}
			return spec, nil
		})
	if done {
		r.tenure.keep(ctx)
	}
	if errors.Is(err, hypervisor.ErrTakenOver) || errors.Is(err, errNoJournal) {
		err = &hypervisor.InterruptedError{VM: r.line.path(), Interrupted: found}
	}
	return next, err
}

// ended is err and what else stayed behind.
func (r *recovery) ended(err error) error {
	errs := []error{err}
	for _, w := range r.warnings {
		errs = append(errs, errors.New(w))
	}
	return errors.Join(errs...)
}

// afterKilled is how long a recovery waits for a guest that was perhaps asked to shut down, to start it
// again.
const afterKilled = 5 * time.Second

// awaitStop waits for a VM whose guest may be shutting down.
func (c *Client) awaitStop(ctx context.Context, id hypervisor.VMID, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.waitPowerState(ctx, id, types.VirtualMachinePowerStatePoweredOff); err != nil {
		c.log.InfoContext(ctx, "the guest was asked to shut down, and hasn't", "vm", id, "error", err)
	}
}

// removeUpload removes the VM in the making of a run that was killed. Its lease may hold it for a while.
func (c *Client) removeUpload(ctx context.Context, vm *mo.VirtualMachine, line lineage, runID string) error {
	p := &inPlacePlan{vm: vm, line: line, datacenter: line.toDatacenter()}
	if len(p.datacenter) == 0 {
		return errors.New("the VM's datacenter can't be read")
	}
	folder, _, err := c.importFolder(ctx, p)
	if err != nil {
		return err
	}
	ref, err := c.findMade(ctx, folder, runID)
	if err != nil || ref == nil {
		return err
	}
	return c.destroyMade(ctx, *ref, c.destroyHeld)
}

// releaseTarget takes away from a VM in the making what the VM that it was made for has. A restore in place
// never lets two VMs have one disk; should it be so nevertheless, that disk must not go with the first.
func (c *Client) releaseTarget(ctx context.Context, ref types.ManagedObjectReference) error {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, ref, []string{"config.extraConfig"}, &vm); err != nil || vm.Config == nil {
		if vmGone(err) {
			return nil
		}
		return err
	}
	target := optionValue(vm.Config.ExtraConfig, targetKey)
	if target == "" {
		return nil
	}
	var holder mo.VirtualMachine
	err := c.properties(ctx, vmRef(hypervisor.VMID(target)), []string{"config.hardware", "layoutEx", "runtime.connectionState"}, &holder)
	switch {
	case vmGone(err):
		return nil
	case err != nil:
		return err
	case holder.Config == nil: // its disks may be those of the VM in the making
		return unreadable(&holder, "the virtual machine that it was made for")
	}
	files := map[string]bool{}
	addFiles(files, &holder)
	if len(files) == 0 {
		return nil
	}
	return c.detachDisks(ctx, ref, slices.Collect(maps.Keys(files)))
}

// toDatacenter is the lineage down to the datacenter; empty: there is none on the way.
func (l lineage) toDatacenter() lineage {
	i := slices.IndexFunc(l, func(e mo.ManagedEntity) bool { return e.Self.Type == "Datacenter" })
	return l[:i+1]
}

// swapBack gives a VM that is off its own disks back.
func (r *recovery) swapBack(ctx context.Context, j *journal) (*journal, error) {
	users, err := r.client.usersOf(ctx, r.line, j.paths(ownPath))
	if err != nil {
		return nil, err
	}
	if err := r.tenure.check(ctx); err != nil {
		return nil, err
	}
	err = r.client.putBackNVRAM(ctx, r.id, r.line, j)
	switch {
	case errors.Is(err, errNoFile):
		r.warnings = append(r.warnings, fmt.Sprintf("%s keeps the firmware variables that it has now: the copy of its "+
			"own, %s, is gone.", r.line.path(), j.NVRAM))
	case err != nil:
		return nil, err
	}
	next := j.as(phaseStop)
	build := func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		if state := vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
			return types.VirtualMachineConfigSpec{},
				fmt.Errorf("the VM is %s: somebody else has started it", powerStates[state])
		}
		return swapSpec(vm, j.Disks, ownPath, nil, users)
	}
	_, err = r.client.change(ctx, r.id, j.Holder, next, build)
	return next, err
}

// undo removes what a restore that didn't swap the disks has made, and starts the VM again if it was stopped
// for it. The journal goes last.
func (r *recovery) undo(ctx context.Context, j *journal) error {
	c := r.client
	if err := r.tenure.check(ctx); err != nil {
		return err
	}
	if err := r.deleteRestored(ctx, j); err != nil {
		return err
	}
	vm, err := c.readTarget(ctx, r.id)
	if err != nil {
		return err
	}
	if !slices.Equal(bootNames(vm.Config), j.Boot) && len(j.Boot) > 0 {
		next := j.as(j.Phase)
		if _, err := c.change(ctx, r.id, j.Holder, next, bootSpecOf(j.Boot)); err != nil {
			return err
		}
	}
	return errors.Join(r.restart(ctx, j), c.finishInPlace(ctx, r.id, r.line, j, r.kept))
}

// undoLost is undo by a journal that the VM doesn't have any more. Which disks it has is left as it is. Where
// somebody may have taken the restore over and ended it, nothing is touched.
func (r *recovery) undoLost(ctx context.Context, j *journal) error {
	taken, err := r.tenure.mayBeTaken(ctx)
	if err != nil {
		return err
	}
	if taken {
		return fmt.Errorf("%w, or the VM's journal was removed; these disks are left alone: %s",
			hypervisor.ErrTakenOver, strings.Join(j.paths(restoredPath), ", "))
	}
	if err := r.deleteRestored(ctx, j); err != nil {
		return err
	}
	if j.Restart {
		err = r.client.PowerOn(ctx, r.id)
	}
	return errors.Join(err, r.client.finishInPlace(ctx, r.id, r.line, j, nil), r.tenure.end(ctx))
}

// deleteRestored deletes the restored disks, but for those that the VM has, which are its own then. One that
// another VM has is kept, and so are all if the VM may have been started with them since: a process that was
// killed did not see what came of them.
func (r *recovery) deleteRestored(ctx context.Context, j *journal) error {
	users, err := r.client.usersOf(ctx, r.line, j.paths(restoredPath))
	if err != nil {
		return err
	}
	var unused, had []string
	for _, d := range j.Disks {
		reason := users.inUse(d.Restored)
		switch {
		case users.has(vmRef(r.id), d.Restored):
		case j.Had:
			had = append(had, d.Restored)
			r.kept = append(r.kept, hypervisor.Replaced{Label: d.Label, Path: d.Restored, Now: d.Own})
		case reason != "" && isDisk(d.Restored):
			r.kept = append(r.kept, hypervisor.Replaced{Label: d.Label, Path: d.Restored, Now: d.Own})
			r.warnings = append(r.warnings, fmt.Sprintf("The restored disk %s (%s) was left behind: %s.",
				d.Restored, d.Label, reason))
		default:
			unused = append(unused, d.Restored)
		}
	}
	if len(had) > 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("%s had the restored disks of a restore in place that was killed "+
			"before it was complete, and has its own again. What somebody may have written to the restored ones is kept: %s.",
			r.line.path(), strings.Join(had, ", ")))
	}
	return r.client.deleteDisks(ctx, r.line, unused)
}

// restart starts a VM that ran before the restore stopped it.
func (r *recovery) restart(ctx context.Context, j *journal) error {
	if !j.Restart {
		return nil
	}
	if err := r.tenure.check(ctx); err != nil {
		return err
	}
	return r.client.PowerOn(ctx, r.id)
}

// finishInPlace removes the journal, and what only it knows of. Disks that are kept, the VM remembers; those of which
// it isn't said until when are kept for as long as the journal says.
func (c *Client) finishInPlace(
	ctx context.Context, id hypervisor.VMID, line lineage, j *journal, kept []hypervisor.Replaced,
) error {
	if j.NVRAM != "" {
		if err := c.deleteFile(ctx, line, j.NVRAM); err != nil {
			return err
		}
	}
	until := time.Now().UTC().Truncate(time.Second).Add(time.Duration(j.Keep) * time.Second)
	for i := range kept {
		if kept[i].Until.IsZero() {
			kept[i].Until = until
		}
	}
	_, err := c.change(ctx, id, j.Holder, nil, func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		var spec types.VirtualMachineConfigSpec
		option, err := c.remember(ctx, vm, kept)
		if option != nil {
			spec.ExtraConfig = []types.BaseOptionValue{option}
		}
		return spec, err
	})
	if errors.Is(err, errNoJournal) {
		return nil
	}
	return err
}
