package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RevertToSnapshotTask starts a task that brings a VM back to a snapshot.
func (s *snapshot) RevertToSnapshotTask(ctx *simulator.Context, r *types.RevertToSnapshot_Task) soap.HasFault {
	body := new(methods.RevertToSnapshot_TaskBody)
	vm, ok := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	if !ok {
		body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Vm})
		return body
	}
	suppress := r.SuppressPowerOn != nil && *r.SuppressPowerOn
	task := s.lab.startRevert(ctx, vm, "RevertToSnapshot_Task", s.Self, suppress)
	body.Res = &types.RevertToSnapshot_TaskResponse{Returnval: task}
	return body
}

// RevertToCurrentSnapshotTask starts a task that brings a VM back to its current snapshot.
func (vm *virtualMachine) RevertToCurrentSnapshotTask(
	ctx *simulator.Context, r *types.RevertToCurrentSnapshot_Task,
) soap.HasFault {
	body := new(methods.RevertToCurrentSnapshot_TaskBody)
	if vm.Snapshot == nil || vm.Snapshot.CurrentSnapshot == nil {
		body.Fault_ = simulator.Fault("no current snapshot", &types.NotFound{})
		return body
	}
	suppress := r.SuppressPowerOn != nil && *r.SuppressPowerOn
	task := vm.lab.startRevert(ctx, vm.VirtualMachine, "RevertToCurrentSnapshot_Task", *vm.Snapshot.CurrentSnapshot, suppress)
	body.Res = &types.RevertToCurrentSnapshot_TaskResponse{Returnval: task}
	return body
}

func (l *Lab) startRevert(
	ctx *simulator.Context, vm *simulator.VirtualMachine, method string, to types.ManagedObjectReference, suppress bool,
) types.ManagedObjectReference {
	return l.startVMJob(ctx, vm, method, func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm, func() { fault = l.revert(j.sim, vm, to, suppress) })
		return nil, fault
	})
}

// revert brings a VM whose lock is held back to a snapshot: disks, hardware, settings and power state.
func (l *Lab) revert(
	ctx *simulator.Context, vm *simulator.VirtualMachine, to types.ManagedObjectReference, suppress bool,
) types.BaseMethodFault {
	s, ok := ctx.Map.Get(to).(*simulator.VirtualMachineSnapshot)
	l.mu.Lock()
	p := l.points[to]
	l.mu.Unlock()
	switch {
	case !ok || p == nil:
		return &types.ManagedObjectNotFound{Obj: to}
	case vm.Config.Template:
		return &types.NotSupported{}
	case vm.Config.Flags.SnapshotLocked != nil && *vm.Config.Flags.SnapshotLocked:
		return &types.SnapshotLocked{}
	case l.leaseHolding(vm.Self):
		return &types.InvalidState{}
	}
	var config types.VirtualMachineConfigInfo
	ctx.WithLock(s, func() { config = clone(s.Config) })
	devices, fault := l.revertDisks(vm, config.Hardware.Device)
	if fault != nil {
		return fault
	}
	var left []string
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		if !isIndependent(d) {
			left = append(left, diskFile(d))
		}
	}
	toggled := isTrue(vm.Config.ChangeTrackingEnabled) != isTrue(config.ChangeTrackingEnabled)
	config.Hardware.Device = devices
	config.Name, config.Files = vm.Config.Name, vm.Config.Files // the VM's place isn't part of a snapshot
	l.setConfig(ctx, vm, &config)
	l.dropUnused(ctx, vm, left, devices)

	state := p.state
	if suppress && state == types.VirtualMachinePowerStatePoweredOn {
		state = types.VirtualMachinePowerStateSuspended // its memory is there, it just doesn't run
	}
	l.setPower(ctx, vm, state)
	l.keepSuspended(vm)
	info := snapshotInfo(vm)
	info.CurrentSnapshot = &to
	setSnapshots(ctx, vm, info)
	if toggled {
		l.resetTracking(vm)
	}
	l.refreshLayout(ctx, vm)
	return nil
}

// keepSuspended makes or removes the file with the memory of a suspended VM.
func (l *Lab) keepSuspended(vm *simulator.VirtualMachine) {
	file := directory(vm.Config.Files.VmPathName) + "/" + vm.Config.Name + ".vmss"
	if vm.Runtime.PowerState == suspended {
		l.writeEmpty(file, int64(vm.Config.Hardware.MemoryMB)<<20)
	} else {
		l.removeFile(file)
	}
}

// revertDisks gives every disk of a snapshot a new file on top of the frozen one. Independent disks stay
// as they are; one that the VM doesn't have any more comes back if there still is its file. On a fault
// nothing has changed.
func (l *Lab) revertDisks(
	vm *simulator.VirtualMachine, frozen []types.BaseVirtualDevice,
) ([]types.BaseVirtualDevice, types.BaseMethodFault) {
	now := map[int32]*types.VirtualDisk{}
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		now[d.Key] = d
	}
	var made []string
	var devices []types.BaseVirtualDevice
	for _, device := range frozen {
		d, ok := device.(*types.VirtualDisk)
		if !ok {
			devices = append(devices, device)
			continue
		}
		if isIndependent(d) {
			if current := now[d.Key]; current != nil && isIndependent(current) {
				devices = append(devices, clone(current))
			} else if _, err := l.store.Stat(diskFile(d)); err == nil {
				devices = append(devices, d)
			}
			continue
		}
		parent := backing(d)
		child := l.deltaName(parent.FileName)
		if err := l.store.CreateChild(child, parent.FileName); err != nil {
			for _, name := range made {
				_ = l.removeDisk(name)
			}
			return nil, storeFault(parent.FileName, err)
		}
		made = append(made, child)
		l.writeDescriptor(child)
		d.Backing = deltaBacking(child, parent)
		devices = append(devices, d)
	}
	return devices, nil
}

// dropUnused removes the running files that a revert has left: those on top of a file that a snapshot has.
// The first file of a disk that came later isn't one of them: the disk is detached, and its file stays.
func (l *Lab) dropUnused(
	ctx *simulator.Context, vm *simulator.VirtualMachine, files []string, devices []types.BaseVirtualDevice,
) {
	bases := map[string]bool{}
	for _, d := range disksOf(devices) {
		bases[baseName(diskFile(d))] = true
	}
	used := l.usedDisks(ctx, vm)
	for _, file := range files {
		info, err := l.store.Stat(file)
		if err == nil && !used[file] && info.Children == 0 && (bases[baseName(file)] || used[info.Parent]) {
			_ = l.removeDisk(file) // at worst a file stays that nobody needs
		}
	}
}

// setConfig replaces a VM's configuration and what repeats it elsewhere. The VM's lock is held.
func (l *Lab) setConfig(ctx *simulator.Context, vm *simulator.VirtualMachine, config *types.VirtualMachineConfigInfo) {
	stamp(config)
	vm.Config = config
	ctx.Update(vm, configChanges(ctx, vm))
	l.enlist(vm)
}
