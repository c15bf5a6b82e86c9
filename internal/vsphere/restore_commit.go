package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Commit implements hypervisor.Restore. The name of the finished VM comes last, together with the
// removal of the marker: until then the VM can be recognised as unfinished.
func (r *restore) Commit(ctx context.Context) (*hypervisor.VM, []string, error) {
	vm, warnings, err := r.commit(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return nil, nil, fmt.Errorf("commit restore of %q: %w", r.place.name, err)
	}
	return vm, warnings, nil
}

func (r *restore) commit(ctx context.Context) (*hypervisor.VM, []string, error) {
	if err := r.verifyDisks(ctx); err != nil {
		return nil, nil, err
	}
	if err := r.lease.complete(ctx); err != nil {
		return nil, nil, err
	}
	warnings := slices.Clone(r.warnings)
	r.tenure = &tenure{client: r.client, vm: r.VM(), holder: r.spec.RunID, making: true}
	completed, err := r.complete(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range completed {
		if !slices.Contains(warnings, w) { // the plan may have foreseen it
			warnings = append(warnings, w)
		}
	}
	r.tenure.keep(ctx)
	vm, unapplied, err := r.furnish(ctx)
	if err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, unapplied...)
	if err := r.finish(ctx); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	r.committed = true
	r.mu.Unlock()
	vm, reported := r.report(ctx, vm)
	return vm, append(warnings, reported...), nil
}

// furnish gives the VM what it has beside its configuration, and has it verified. It ends when the VM isn't the run's
// any more.
func (r *restore) furnish(ctx context.Context) (vm *hypervisor.VM, warnings []string, err error) {
	ctx, stop := either(ctx, r.tenure.lost)
	defer stop()
	defer func() {
		if err != nil && r.tenure.lost.Err() != nil {
			err = errors.Join(context.Cause(r.tenure.lost), err)
		}
	}()
	if warnings, err = r.applyPolicies(ctx); err != nil {
		return nil, nil, err
	}
	if err := r.client.setCustomAttributes(ctx, r.vm, r.place.attributes); err != nil {
		return nil, nil, err
	}
	untagged, err := r.client.attachTags(ctx, r.vm, r.place.tags)
	if err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, untagged...)
	if err := r.restoreNVRAM(ctx); err != nil {
		return nil, nil, err
	}
	if err := r.checkRestoredIdentity(ctx); err != nil {
		return nil, nil, err
	}
	if r.spec.Verify != nil {
		if err := r.spec.Verify(ctx, r.VM()); err != nil {
			return nil, nil, fmt.Errorf("verify: %w", err)
		}
	}
	vm, err = r.client.vmByID(ctx, r.VM())
	return vm, warnings, err
}

// report reads the finished VM back and compares it with what was captured. The VM is whole: that it
// can't be read is a warning, and what was read of it before it was finished has to do.
func (r *restore) report(ctx context.Context, before *hypervisor.VM) (*hypervisor.VM, []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseCleanup)
	defer cancel()
	var differences []string
	vm, err := r.client.vmByID(ctx, r.VM())
	if err == nil {
		var now *types.VirtualMachineConfigInfo
		if now, err = r.readConfig(ctx); err == nil {
			differences, err = compareRestored(r.captured.config, now, r.rebuild)
		}
	}
	if err != nil {
		differences = append(differences, fmt.Sprintf(
			"%s is complete, but could not be compared with the backup: %v.", r.place.name, err))
	}
	if vm == nil {
		vm = before
		vm.Name, vm.Path = r.place.name, r.place.folderPath+"/"+r.place.name
	}
	return vm, differences
}

// verifyDisks makes sure that every disk was written and that the server still vouches for each.
func (r *restore) verifyDisks(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(r.disks)) {
		d := r.disks[key]
		if !d.done.Load() {
			return fmt.Errorf("%s was not written", d.label)
		}
		entry, _, err := r.lease.manifest(ctx, d.item.key)
		if err != nil {
			return err
		}
		if err := r.compare(d, entry); err != nil {
			return fmt.Errorf("%s: %w", d.label, err)
		}
	}
	return nil
}

func (r *restore) readConfig(ctx context.Context) (*types.VirtualMachineConfigInfo, error) {
	var vm mo.VirtualMachine
	if err := r.client.properties(ctx, r.vm, []string{"config"}, &vm); err != nil {
		return nil, err
	}
	if vm.Config == nil {
		return nil, fmt.Errorf("%s has no configuration", r.vm.Value)
	}
	return vm.Config, nil
}

// complete brings back what could not be set at creation.
func (r *restore) complete(ctx context.Context) ([]string, error) {
	created, err := r.readConfig(ctx)
	if err != nil {
		return nil, err
	}
	spec, warnings, err := completionSpec(r.captured.config, created, r.rebuild)
	if err != nil {
		return nil, err
	}
	// From now on, nobody but this run sees to it that the VM goes if it isn't finished.
	spec.ExtraConfig = append(spec.ExtraConfig, r.tenure.next(time.Time{}))
	if err := r.reconfigure(ctx, spec); err != nil {
		return nil, err
	}
	if r.rebuild.identity != hypervisor.IdentityOriginal {
		return warnings, nil
	}
	return warnings, r.correctDiskUUIDs(ctx)
}

// reconfigure changes the VM. When it isn't known whether the server acted, the VM is as good as lost, and
// the restore with it.
func (r *restore) reconfigure(ctx context.Context, spec types.VirtualMachineConfigSpec) error {
	unlock, err := r.client.lockVM(ctx, r.VM())
	if err != nil {
		return err
	}
	defer unlock()
	_, err = r.client.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.ReconfigVM_Task(ctx, r.client.vim, &types.ReconfigVM_Task{This: r.vm, Spec: spec})
		if err != nil {
			return nil, err
		}
		return object.NewTask(r.client.vim, res.Returnval), nil
	})
	if err != nil {
		return fmt.Errorf("reconfigure %s: %w", r.vm.Value, classify(err))
	}
	return nil
}

// correctDiskUUIDs gives the disks that the server chose a UUID for the captured one. The guest finds disks
// by it, and so does other Terraform state.
func (r *restore) correctDiskUUIDs(ctx context.Context) error {
	created, err := r.readConfig(ctx)
	if err != nil {
		return err
	}
	matched := matchDevices(r.captured.devices(), created.Hardware.Device)
	for _, d := range orderedDisks(r.captured.devices()) {
		if _, ok := r.place.disks[d.Key]; !ok {
			continue
		}
		now, ok := matched[d.Key].(*types.VirtualDisk)
		if !ok {
			return fmt.Errorf("%s is missing in the VM that was created", deviceLabel(d))
		}
		want, have := describeBacking(d.Backing), describeBacking(now.Backing)
		if want.uuid == "" || strings.EqualFold(want.uuid, have.uuid) {
			continue
		}
		dc := r.place.datacenter.datacenter()
		_, err := methods.SetVirtualDiskUuid(ctx, r.client.vim, &types.SetVirtualDiskUuid{
			This: *r.client.vim.ServiceContent.VirtualDiskManager, Name: have.fileName, Datacenter: &dc.Self, Uuid: want.uuid,
		})
		if err != nil {
			return fmt.Errorf("set UUID of %s: %w", deviceLabel(d), classify(err))
		}
	}
	return nil
}

// restoreNVRAM brings back the firmware's variables, among them the boot entries of EFI.
func (r *restore) restoreNVRAM(ctx context.Context) error {
	if len(r.spec.Config.NVRAM) == 0 {
		return nil
	}
	var vm mo.VirtualMachine
	if err := r.client.properties(ctx, r.vm, []string{"layoutEx", "config"}, &vm); err != nil {
		return err
	}
	if vm.Config == nil {
		return fmt.Errorf("%s has no configuration", r.vm.Value)
	}
	err := r.client.writeNVRAM(ctx, r.place.datacenter.datacenterPath(), nvramFile(&vm, vm.Config), r.spec.Config.NVRAM)
	r.writing = errors.Is(err, errUnknownEnd)
	return err
}

// checkRestoredIdentity makes sure that the VM is who it is meant to be. A vCenter changes an instance
// UUID by itself when another VM has it.
func (r *restore) checkRestoredIdentity(ctx context.Context) error {
	if r.rebuild.identity != hypervisor.IdentityOriginal {
		return nil
	}
	now, err := r.readConfig(ctx)
	if err != nil {
		return err
	}
	want := r.captured.config
	if !strings.EqualFold(now.Uuid, want.Uuid) {
		return fmt.Errorf("the server gave the VM the BIOS UUID %s instead of %s", now.Uuid, want.Uuid)
	}
	if want.InstanceUuid != "" && !strings.EqualFold(now.InstanceUuid, want.InstanceUuid) {
		return fmt.Errorf("the server gave the VM the instance UUID %s instead of %s", now.InstanceUuid, want.InstanceUuid)
	}
	return nil
}

// finish gives the VM its name and takes the marker away, in one step, if the VM still is the run's. When the answer
// is lost, the VM is asked, and asked again while the server may be at it.
func (r *restore) finish(ctx context.Context) error {
	r.tenure.release()
	for attempt := 1; ; attempt++ {
		now, err := r.readConfig(ctx)
		switch {
		case err != nil:
			return err
		case attempt > 1 && r.isFinished(now):
			return nil
		}
		if err := r.tenure.made(now); err != nil {
			return err
		}
		err = r.reconfigure(ctx, types.VirtualMachineConfigSpec{
			Name: escapeName(r.place.name), ChangeVersion: now.ChangeVersion,
			ExtraConfig: []types.BaseOptionValue{
				&types.OptionValue{Key: markerKey, Value: ""}, &types.OptionValue{Key: tenureKey, Value: ""},
			},
		})
		switch {
		case err == nil:
			return nil
		case fault.Is(err, &types.DuplicateName{}):
			return &hypervisor.NameInUseError{Name: r.place.name, Folder: r.place.folderPath}
		}
		again := isAmbiguous(err) || fault.Is(err, &types.ConcurrentAccess{})
		if !again || attempt == journalAttempts || pause(ctx, backoff(attempt)) != nil {
			return err
		}
	}
}

// isFinished tells whether a VM has its name, and nothing of the run any more.
func (r *restore) isFinished(now *types.VirtualMachineConfigInfo) bool {
	return now.Name == escapeName(r.place.name) &&
		optionValue(now.ExtraConfig, markerKey) == "" && optionValue(now.ExtraConfig, tenureKey) == ""
}
