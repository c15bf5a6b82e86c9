package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// An inPlace is a VM whose disks are being replaced.
//
// The restored disks are uploaded through a VM of their own, which is in the making as that of any restore
// is, but never finished: it gives its disks away and goes, before the VM whose disks they become is
// touched. From then on the journal of that VM alone says whose they are.
type inPlace struct {
	client *Client
	plan   *inPlacePlan
	upload *restore // the VM in the making
	tenure *tenure

	mu       sync.Mutex
	journal  *journal // as it was last written
	released bool     // the disks are no one's; the VM in the making is gone
	swapped  bool
	ended    bool
	asked    time.Time // until when the guest has time to shut down, as it was asked to; zero: it wasn't, or has

	warnings []string

	users  *fileUsers                      // of the restored disks, before the swap
	own    map[string]*types.VirtualDisk   // the VM's own disks right before the swap, by slot
	before *types.VirtualMachineConfigInfo // the VM right before the swap
}

// CheckInPlace implements hypervisor.InPlaceRestorer.
func (c *Client) CheckInPlace(ctx context.Context, spec hypervisor.InPlaceSpec) ([]string, error) {
	p, err := c.planInPlace(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("check restore in place of %s: %w", spec.VM, err)
	}
	return p.warnings, nil
}

// StartInPlace implements hypervisor.InPlaceRestorer. The journal comes before anything else, so that
// whatever is made after it can be found again.
func (c *Client) StartInPlace(
	ctx context.Context, spec hypervisor.InPlaceSpec,
) (hypervisor.InPlaceRestore, error) {
	if spec.RunID == "" {
		return nil, errors.New("start restore in place: the run has no ID")
	}
	p, err := c.planInPlace(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start restore in place of %s: %w", spec.VM, err)
	}
	r := &inPlace{client: c, plan: p, tenure: &tenure{client: c, vm: spec.VM, holder: spec.RunID}}
	if err := r.start(ctx); err != nil {
		err = errors.Join(err, r.Abort(ctx))
		return nil, fmt.Errorf("start restore in place of %s: %w", p.line.path(), err)
	}
	return r, nil
}

func (r *inPlace) start(ctx context.Context) error {
	policies, err := r.client.ownPolicies(ctx, r.plan)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		r.warnings = append(r.warnings,
			fmt.Sprintf("The restored disks have the datastore's storage policy: %v.", err))
	}
	err = r.begin(ctx, "", policies)
	// A journal that could not be written is no matter of places: nothing was asked for yet.
	if r.journal == nil || !refusesPlace(err) || ctx.Err() != nil {
		return err
	}
	// The server doesn't make disks in the directory of another VM than the one that it creates.
	if err := r.upload.remove(ctx); err != nil {
		return err
	}
	for _, d := range r.plan.disks {
		d.path = joinPath(d.store, "")
	}
	return r.begin(ctx, r.plan.spec.RunID, policies)
}

// begin writes the journal, over that of the run from, and creates the VM in the making.
func (r *inPlace) begin(ctx context.Context, from string, policies map[int32]string) error {
	p := r.plan
	captured, rebuild := p.importSpec()
	creation, _, err := creationSpec(captured.config, rebuild)
	if err != nil {
		return err
	}
	creation.ExtraConfig = append(creation.ExtraConfig,
		&types.OptionValue{Key: targetKey, Value: string(p.spec.VM)})
	place, err := r.client.importPlace(ctx, p, rebuild)
	if err != nil {
		return err
	}
	if from == "" {
		if err := r.client.mayRestoreInPlace(ctx, p, place); err != nil {
			return err
		}
	}
	r.upload = &restore{
		client: r.client, spec: hypervisor.RestoreSpec{RunID: p.spec.RunID}, captured: captured,
		place: place, rebuild: rebuild,
		disks: map[hypervisor.DiskKey]*importedDisk{},
	}
	first := &journal{
		Version: journalVersion, Run: p.spec.RunID, Holder: p.spec.RunID, bearer: bearerOf(p.vm), Phase: phaseUpload, Restart: p.spec.Ran,
		Keep: int64(p.spec.Keep / time.Second),
	}
	if from != "" {
		first.Step = r.journal.Step + 1
	}
	for _, d := range p.disks {
		first.Disks = append(first.Disks, journalDisk{
			Label: deviceLabel(d.own), Slot: d.slot, Own: describeBacking(d.own.Backing).fileName,
			Restored: d.path, Policy: policies[d.own.Key],
		})
	}
	if err := r.announce(ctx, from, first); err != nil {
		return err
	}
	if err := r.upload.start(ctx, creation); err != nil {
		return err
	}
	return r.locate(ctx)
}

// announce writes the first journal, and from then on renews the lease.
func (r *inPlace) announce(ctx context.Context, from string, first *journal) error {
	if from != "" {
		return r.write(ctx, from, first, nil)
	}
	lease, err := r.tenure.begin(ctx)
	if err != nil {
		return err
	}
	err = r.write(ctx, "", first, func(*mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		return types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{lease}}, nil
	})
	if r.journal == first {
		r.tenure.keep(ctx)
	}
	return err
}

// refusesPlace tells whether a VM could not be created because of where its disks were to be.
func refusesPlace(err error) bool {
	return slices.ContainsFunc([]types.BaseMethodFault{
		&types.InvalidDatastorePath{}, &types.FileNotFound{}, &types.CannotCreateFile{}, &types.CannotAccessFile{},
		&types.FileFault{}, &types.InvalidDeviceBacking{}, &types.InvalidDeviceSpec{}, &types.InvalidArgument{},
	}, func(f types.BaseMethodFault) bool { return fault.Is(err, f) })
}

// write changes the VM together with its journal. A change that was done when ctx had ended is done.
func (r *inPlace) write(
	ctx context.Context, from string, j *journal,
	build func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error),
) error {
	done, err := r.client.change(ctx, r.plan.spec.VM, from, j, build)
	if done {
		r.mu.Lock()
		r.journal = j
		r.mu.Unlock()
	}
	return err
}

// locate reads where the server has put the disks, which may be elsewhere than was asked for.
func (r *inPlace) locate(ctx context.Context) error {
	now, err := r.upload.readConfig(ctx)
	if err != nil {
		return err
	}
	next := r.journal.as(phaseUpload)
	matched := matchDevices(r.upload.captured.devices(), now.Hardware.Device)
	moved := false
	for i, d := range r.plan.disks {
		made, ok := matched[d.captured.Key].(*types.VirtualDisk)
		if !ok {
			return fmt.Errorf("%s is missing in the VM that was created", deviceLabel(d.captured))
		}
		if file := describeBacking(made.Backing).fileName; file != d.path {
			d.path, next.Disks[i].Restored, moved = file, file, true
		}
	}
	if !moved {
		return nil
	}
	return r.write(ctx, r.plan.spec.RunID, next, nil)
}

// WriteDisk implements hypervisor.InPlaceRestore. As with a restore, a disk whose upload failed can't be
// written again. It ends when the VM is another run's: that one can't go on while this one uploads.
func (r *inPlace) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	ctx, stop := either(ctx, r.tenure.lost)
	defer stop()
	return r.upload.WriteDisk(ctx, key, src)
}

// release ends the upload: the server vouches for every disk, and the VM in the making gives them away and
// goes. The target is not touched.
func (r *inPlace) release(ctx context.Context) error {
	if err := r.upload.verifyDisks(ctx); err != nil {
		return err
	}
	if err := r.upload.lease.complete(ctx); err != nil {
		return err
	}
	if err := r.upload.correctDiskUUIDs(ctx); err != nil {
		return err
	}
	if err := r.client.detachDisks(ctx, r.upload.vm, nil); err != nil {
		return err
	}
	// Halfway through, it would not be known whether it is gone.
	cleanupCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreCleanup)
	defer cancel()
	if err := r.upload.remove(cleanupCtx); err != nil {
		return err
	}
	r.mu.Lock()
	r.released = true
	r.mu.Unlock()
	return ctx.Err()
}

// Swap implements hypervisor.InPlaceRestore.
func (r *inPlace) Swap(ctx context.Context) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	warnings, err := r.swap(ctx)
	var vm *hypervisor.VM
	if err == nil {
		vm, err = r.client.vmByID(ctx, r.plan.spec.VM)
	}
	if err == nil {
		return vm, r.journal.replaced(), warnings, nil
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = errors.Join(context.Cause(ctx), err)
	}
	err = fmt.Errorf("replace the disks of %s: %w", r.plan.line.path(), err)
	if r.swapped {
		err = &hypervisor.SwappedError{Err: err}
	}
	return nil, nil, nil, err
}

func (r *inPlace) swap(ctx context.Context) ([]string, error) {
	r.mu.Lock()
	over := r.ended || r.released
	r.mu.Unlock()
	if over {
		return nil, errors.New("the restore has ended, or failed before")
	}
	for _, step := range []func(context.Context) error{
		r.release, r.findUsers, r.bringDown, r.dropSnapshots, r.exchange, r.verify,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	warnings := r.warnings
	for _, d := range r.plan.disks {
		if path.Dir(d.path) != path.Dir(baseFile(d.own.Backing)) {
			warnings = append(warnings, fmt.Sprintf(
				"%s is at %s now, not in the directory of the virtual machine: the server chose that place.",
				deviceLabel(d.own), d.path))
		}
	}
	more, err := r.configure(ctx)
	return append(warnings, more...), err
}

// Back implements hypervisor.InPlaceRestore: the reverse of Swap, in reverse order.
func (r *inPlace) Back(ctx context.Context) error {
	if err := r.back(ctx); err != nil {
		return fmt.Errorf("put the own disks of %s back: %w", r.plan.line.path(), err)
	}
	return nil
}

func (r *inPlace) back(ctx context.Context) error {
	if !r.swapped {
		return errors.New("they were not replaced")
	}
	if err := r.tenure.check(ctx); err != nil {
		return err
	}
	vm, err := r.client.readTarget(ctx, r.plan.spec.VM)
	if err != nil {
		return err
	}
	if state := vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
		return fmt.Errorf("the VM is %s, not powered off", powerStates[state])
	}
	if err := r.unconfigure(ctx); err != nil {
		return err
	}
	run := r.plan.spec.RunID
	next := r.journal.as(phaseStop)
	users, err := r.client.usersOf(ctx, r.plan.line, next.paths(ownPath))
	if err != nil {
		return err
	}
	err = r.write(ctx, run, next, func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
		return swapSpec(vm, next.Disks, ownPath, r.own, users)
	})
	r.swapped = r.journal != next
	return err
}

// Holds implements hypervisor.InPlaceRestore. A journal that somebody has removed gives the VM to nobody.
func (r *inPlace) Holds(ctx context.Context) error {
	if err := r.tenure.check(ctx); err != nil && !errors.Is(err, errNoJournal) {
		return fmt.Errorf("restore in place of %s: %w", r.plan.line.path(), err)
	}
	return nil
}

// Finish implements hypervisor.InPlaceRestore.
func (r *inPlace) Finish(ctx context.Context, kept []hypervisor.Replaced) error {
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	if ended {
		return nil
	}
	err := errors.New("the disks were not replaced")
	if r.swapped {
		if err := r.Holds(ctx); err != nil {
			return err
		}
		err = r.client.finishInPlace(ctx, r.plan.spec.VM, r.plan.datacenter, r.journal, kept)
	}
	if err != nil {
		return fmt.Errorf("finish the restore in place of %s: %w", r.plan.line.path(), err)
	}
	r.Leave()
	return nil
}

// Leave implements hypervisor.InPlaceRestore.
func (r *inPlace) Leave() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.tenure.release()
}

// Abort implements hypervisor.InPlaceRestore.
func (r *inPlace) Abort(ctx context.Context) error {
	r.mu.Lock()
	ended := r.ended
	r.ended = true
	r.mu.Unlock()
	if ended {
		return nil
	}
	defer r.tenure.release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreCleanup)
	defer cancel()
	if err := r.abort(ctx); err != nil {
		return fmt.Errorf("undo the restore in place of %s: %w", r.plan.line.path(), err)
	}
	return nil
}

func (r *inPlace) abort(ctx context.Context) error {
	if r.upload == nil {
		return nil
	}
	if !r.released {
		if err := r.upload.remove(ctx); err != nil {
			return err
		}
	}
	id := r.plan.spec.VM
	if wait := min(time.Until(r.asked), afterAsked); wait > 0 {
		r.client.awaitStop(ctx, id, wait) // and can be started again then
	}
	vm, err := r.client.readTarget(ctx, id)
	undo := &recovery{client: r.client, id: id, line: r.plan.line, tenure: r.tenure}
	if vmGone(err) && r.journal != nil { // and its disks with it; those that it never got are left
		return undo.ended(undo.deleteRestored(ctx, r.journal))
	}
	if err != nil {
		return err
	}
	j, _, err := r.client.ownJournal(ctx, vm)
	switch {
	case err != nil:
		return err
	case j == nil && r.journal == nil, j != nil && j.Holder != r.plan.spec.RunID:
		return nil // it was never written, or somebody else cleans up
	case j == nil: // as when the VM was reverted to a snapshot
		return undo.ended(undo.undoLost(ctx, r.journal))
	case r.swapped:
		return errors.Join(undo.restart(ctx, j), r.client.finishInPlace(ctx, id, r.plan.datacenter, j, j.replaced()))
	}
	if j.Phase == phaseSwapped || j.Phase == phaseDone { // though nobody was told so: the answer was lost for good
		if j, err = undo.swapBack(ctx, j); err != nil {
			return err
		}
	}
	return undo.ended(undo.undo(ctx, j))
}
