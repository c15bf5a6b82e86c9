package lab

import (
	"path"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// DestroyTask starts a task that removes the VM and its files.
func (vm *virtualMachine) DestroyTask(ctx *simulator.Context, _ *types.Destroy_Task) soap.HasFault {
	task := vm.lab.startJob(ctx, vm.job("Destroy_Task"), func(j *job) (types.AnyType, types.BaseMethodFault) {
		if vm.lab.leaseHolding(vm.Self) {
			return nil, &types.InvalidState{}
		}
		return nil, vm.lab.destroy(j.sim, vm.VirtualMachine)
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: task}}
}

// destroy removes a VM with its snapshots, disks and files.
func (l *Lab) destroy(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	if ctx.Map.Get(vm.Self) == nil {
		return &types.ManagedObjectNotFound{Obj: vm.Self} // another task was faster
	}
	var files []string
	var fault types.BaseMethodFault
	var vmx, name string
	ctx.WithLock(vm, func() {
		if ctx.Map.Get(vm.Self) == nil { // while this one waited
			fault = &types.ManagedObjectNotFound{Obj: vm.Self}
			return
		}
		if vm.Runtime.PowerState != poweredOff {
			fault = &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: vm.Runtime.PowerState}
			return
		}
		files, vmx, name = l.ownDisks(ctx, vm), vm.Config.Files.VmPathName, vm.Config.Name
		fault = l.unregister(ctx, vm)
	})
	if fault != nil {
		return fault
	}
	for again := true; again; { // a parent can go when its children are gone
		again = false
		for _, file := range files {
			if l.removeDisk(file) == nil {
				again = true
			}
		}
	}
	l.mu.Lock()
	delete(l.unregistered, vmx)
	l.mu.Unlock()
	l.removeDirectory(directory(vmx), strings.TrimSuffix(path.Base(vmx), ".vmx"), name)
	l.refreshDatastores(ctx)
	return nil
}

// ownDisks are the files of a VM's disks and of its snapshots'. Independent disks are the VM's too.
func (l *Lab) ownDisks(ctx *simulator.Context, vm *simulator.VirtualMachine) []string {
	var files []string
	add := func(devices []types.BaseVirtualDevice) {
		for _, d := range disksOf(devices) {
			files = append(files, chain(d)...)
		}
	}
	add(vm.Config.Hardware.Device)
	if vm.Snapshot != nil {
		for _, ref := range refsIn(vm.Snapshot.RootSnapshotList) {
			if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
				ctx.WithLock(s, func() { add(s.Config.Hardware.Device) })
			}
		}
	}
	return files
}

// UnregisterVM takes the VM out of the inventory; its files stay.
func (vm *virtualMachine) UnregisterVM(ctx *simulator.Context, _ *types.UnregisterVM) soap.HasFault {
	body := new(methods.UnregisterVMBody)
	running := vm.lab.busyWith(vm.Self)
	switch {
	case running != nil:
		body.Fault_ = simulator.Fault("", &types.TaskInProgress{Task: *running})
	case vm.lab.leaseHolding(vm.Self):
		body.Fault_ = simulator.Fault("", &types.InvalidState{})
	default:
		if fault := vm.lab.unregister(ctx, vm.VirtualMachine); fault != nil {
			body.Fault_ = simulator.Fault("", fault)
			return body
		}
		body.Res = new(types.UnregisterVMResponse)
	}
	return body
}

// unregister takes a VM whose lock is held out of the inventory.
func (l *Lab) unregister(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	if state := vm.Runtime.PowerState; state != poweredOff {
		return &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: state}
	}
	var snapshots []types.ManagedObjectReference
	if vm.Snapshot != nil {
		snapshots = refsIn(vm.Snapshot.RootSnapshotList)
	}
	l.mu.Lock()
	l.unregistered[vm.Config.Files.VmPathName] = clone(vm.Config)
	l.mu.Unlock()
	body := vm.UnregisterVM(ctx, &types.UnregisterVM{This: vm.Self})
	if f := body.Fault(); f != nil {
		if fault, ok := f.VimFault().(types.BaseMethodFault); ok {
			return fault
		}
		return &types.RuntimeFault{}
	}
	for _, ref := range snapshots {
		ctx.Map.Remove(ctx, ref)
	}
	return nil
}
