package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	poweredOn  = types.VirtualMachinePowerStatePoweredOn
	poweredOff = types.VirtualMachinePowerStatePoweredOff
	suspended  = types.VirtualMachinePowerStateSuspended
)

// PowerOnVMTask starts a task that powers the VM on.
func (vm *virtualMachine) PowerOnVMTask(ctx *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	if vm.Config.Template {
		return &methods.PowerOnVM_TaskBody{Fault_: simulator.Fault("a template can't be powered on", &types.InvalidState{})}
	}
	task := vm.startPower(ctx, "PowerOnVM_Task", poweredOn)
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: task}}
}

// PowerOffVMTask starts a task that powers the VM off.
func (vm *virtualMachine) PowerOffVMTask(ctx *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	task := vm.startPower(ctx, "PowerOffVM_Task", poweredOff)
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: task}}
}

// SuspendVMTask starts a task that suspends the VM.
func (vm *virtualMachine) SuspendVMTask(ctx *simulator.Context, _ *types.SuspendVM_Task) soap.HasFault {
	task := vm.startPower(ctx, "SuspendVM_Task", suspended)
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: task}}
}

// ResetVMTask starts a task that resets the running VM.
func (vm *virtualMachine) ResetVMTask(ctx *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	task := vm.lab.startJob(ctx, vm.job("ResetVM_Task"), func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() {
			if state := vm.Runtime.PowerState; state != poweredOn {
				fault = &types.InvalidPowerState{RequestedState: poweredOn, ExistingState: state}
				return
			}
			vm.lab.setPower(j.sim, vm.VirtualMachine, poweredOn)
		})
		return nil, fault
	})
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: task}}
}

// TerminateVM stops the VM at once, without a task.
func (vm *virtualMachine) TerminateVM(ctx *simulator.Context, _ *types.TerminateVM) soap.HasFault {
	body := new(methods.TerminateVMBody)
	if fault := vm.lab.changePower(ctx, vm.VirtualMachine, poweredOff); fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = new(types.TerminateVMResponse)
	return body
}

func (vm *virtualMachine) startPower(
	ctx *simulator.Context, method string, state types.VirtualMachinePowerState,
) types.ManagedObjectReference {
	return vm.lab.startJob(ctx, vm.job(method), func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() { fault = vm.lab.changePower(j.sim, vm.VirtualMachine, state) })
		return nil, fault
	})
}

// changePower changes the power state of a VM whose lock is held, where that is allowed.
func (l *Lab) changePower(
	ctx *simulator.Context, vm *simulator.VirtualMachine, to types.VirtualMachinePowerState,
) types.BaseMethodFault {
	from := vm.Runtime.PowerState
	switch {
	case from == to:
		return &types.InvalidPowerState{RequestedState: to, ExistingState: from}
	case to == suspended && from != poweredOn:
		return &types.InvalidPowerState{RequestedState: poweredOn, ExistingState: from}
	}
	if to == poweredOn {
		if vm.Config.Template || l.leaseHolding(vm.Self) {
			return &types.InvalidState{}
		}
		for _, d := range disksOf(vm.Config.Hardware.Device) {
			if backing(d) == nil {
				continue
			}
			if _, err := l.store.Stat(diskFile(d)); err != nil {
				return storeFault(diskFile(d), err)
			}
		}
	}
	l.setPower(ctx, vm, to)
	l.postEvent(ctx, vm, powerEvent(to))
	stem := directory(vm.Config.Files.VmPathName) + "/" + vm.Config.Name
	if to == suspended {
		l.writeEmpty(stem+".vmss", int64(vm.Config.Hardware.MemoryMB)<<20)
	} else {
		l.removeFile(stem + ".vmss")
	}
	l.refreshLayout(ctx, vm)
	return nil
}

// powerEvent is what a server logs when a VM has come to a power state.
func powerEvent(state types.VirtualMachinePowerState) types.BaseEvent {
	switch state {
	case poweredOn:
		return new(types.VmPoweredOnEvent)
	case suspended:
		return new(types.VmSuspendedEvent)
	}
	return new(types.VmPoweredOffEvent)
}

// guestCall is the fault for a call that asks the guest, nil when the guest can be asked.
func guestCall(vm *simulator.VirtualMachine) *soap.Fault {
	if state := vm.Runtime.PowerState; state != poweredOn {
		return simulator.Fault("the VM doesn't run", &types.InvalidPowerState{RequestedState: poweredOn, ExistingState: state})
	}
	if !toolsRun(vm) {
		return simulator.Fault("VMware Tools don't run", &types.ToolsUnavailable{})
	}
	return nil
}

// askGuest lets the guest change the power state, some time after the call has returned. The injected
// fault "ignore" makes the guest not care.
func (vm *virtualMachine) askGuest(ctx *simulator.Context, method string, state types.VirtualMachinePowerState) {
	sim := *ctx
	if f, ok := vm.lab.faults.next(method, faultGuest); ok && f.Fault == "ignore" {
		return
	}
	vm.lab.spawn(func() {
		sim.WithLock(vm.VirtualMachine, func() {
			if vm.Runtime.PowerState == poweredOn {
				_ = vm.lab.changePower(&sim, vm.VirtualMachine, state) // can't be refused to a running VM
			}
		})
	})
}

// ShutdownGuest asks the guest to shut down.
func (vm *virtualMachine) ShutdownGuest(ctx *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	body := new(methods.ShutdownGuestBody)
	if body.Fault_ = guestCall(vm.VirtualMachine); body.Fault_ == nil {
		vm.askGuest(ctx, "ShutdownGuest", poweredOff)
		body.Res = new(types.ShutdownGuestResponse)
	}
	return body
}

// StandbyGuest asks the guest to sleep.
func (vm *virtualMachine) StandbyGuest(ctx *simulator.Context, _ *types.StandbyGuest) soap.HasFault {
	body := new(methods.StandbyGuestBody)
	if body.Fault_ = guestCall(vm.VirtualMachine); body.Fault_ == nil {
		vm.askGuest(ctx, "StandbyGuest", suspended)
		body.Res = new(types.StandbyGuestResponse)
	}
	return body
}

// RebootGuest asks the guest to reboot.
func (vm *virtualMachine) RebootGuest(_ *simulator.Context, _ *types.RebootGuest) soap.HasFault {
	body := new(methods.RebootGuestBody)
	if body.Fault_ = guestCall(vm.VirtualMachine); body.Fault_ == nil {
		body.Res = new(types.RebootGuestResponse)
	}
	return body
}

// PowerOnMultiVMTask starts one task for each of several VMs, which a cluster places where it likes.
func (dc *datacenter) PowerOnMultiVMTask(ctx *simulator.Context, r *types.PowerOnMultiVM_Task) soap.HasFault {
	spec := jobSpec{method: "PowerOnMultiVM_Task", entity: dc.Datacenter, name: dc.Name}
	task := dc.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		result := types.ClusterPowerOnVmResult{}
		for _, ref := range r.Vm {
			vm, ok := j.sim.Map.Get(ref).(*simulator.VirtualMachine)
			if !ok {
				return nil, &types.ManagedObjectNotFound{Obj: ref}
			}
			overlay := &virtualMachine{vm, dc.lab}
			var attempt types.ManagedObjectReference
			j.sim.WithLock(vm, func() { attempt = overlay.startPower(j.sim, "PowerOnVM_Task", poweredOn) })
			result.Attempted = append(result.Attempted, types.ClusterAttemptedVmInfo{Vm: ref, Task: &attempt})
		}
		return result, nil
	})
	return &methods.PowerOnMultiVM_TaskBody{Res: &types.PowerOnMultiVM_TaskResponse{Returnval: task}}
}
