package lab

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ReconfigVMTask starts a task that changes the VM's hardware and settings.
func (vm *virtualMachine) ReconfigVMTask(ctx *simulator.Context, r *types.ReconfigVM_Task) soap.HasFault {
	task := vm.lab.startJob(ctx, vm.job("ReconfigVM_Task"), func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() { fault = vm.lab.reconfigure(j.sim, vm.VirtualMachine, &r.Spec) })
		return nil, fault
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: task}}
}

// reconfigure changes a VM whose lock is held, as a whole or not at all.
func (l *Lab) reconfigure(
	ctx *simulator.Context, vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec,
) types.BaseMethodFault {
	if spec.ChangeVersion != "" && spec.ChangeVersion != vm.Config.ChangeVersion {
		return &types.ConcurrentAccess{}
	}
	if fault := l.checkReconfigure(ctx, vm, spec); fault != nil {
		return fault
	}
	if fault := l.checkPolicies(spec); fault != nil {
		return fault
	}
	config := clone(vm.Config)
	applySpec(config, spec)
	l.applyIdentity(vm, config, spec)
	p := l.newPlan(ctx, vm)
	if fault := p.change(spec.DeviceChange); fault != nil {
		return fault
	}
	if fault := p.bootOrder(config.BootOptions, spec.BootOptions); fault != nil {
		return fault
	}
	if fault := l.simulated(ctx, vm, spec); fault != nil {
		return fault
	}
	if fault := p.perform(); fault != nil {
		return fault
	}
	config.Hardware.Device = p.devices
	toggled := isTrue(vm.Config.ChangeTrackingEnabled) != isTrue(config.ChangeTrackingEnabled)
	config.VAppConfig, config.KeyId = vm.Config.VAppConfig, vm.Config.KeyId // the simulator's work
	applyVApp(config, spec.VAppConfig)
	l.attachPolicies(vm.Self, spec, p.keys)
	l.setConfig(ctx, vm, config)
	if toggled {
		l.resetTracking(vm)
	}
	if len(p.extends) > 0 {
		l.resetTracking(vm, p.extends...)
	}
	l.refreshLayout(ctx, vm)
	l.postEvent(ctx, vm, &types.VmReconfiguredEvent{ConfigSpec: *spec})
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// applyIdentity sets name and UUIDs.
func (l *Lab) applyIdentity(
	vm *simulator.VirtualMachine, config *types.VirtualMachineConfigInfo, spec *types.VirtualMachineConfigSpec,
) {
	if spec.Name != "" {
		config.Name = escapeName(spec.Name)
	}
	if id, err := parseUUID(spec.Uuid); err == nil {
		config.Uuid = id.String()
	}
	if spec.InstanceUuid != "" {
		config.InstanceUuid = l.instanceUUID(vm.Self, spec.InstanceUuid)
	}
}

// checkReconfigure refuses changes that a VM in this state doesn't take.
func (l *Lab) checkReconfigure(
	ctx *simulator.Context, vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec,
) types.BaseMethodFault {
	if fault := l.checkSpec(ctx, spec); fault != nil {
		return fault
	}
	if vm.Config.Template {
		rest := *spec
		rest.Name, rest.Annotation, rest.ChangeVersion = "", "", ""
		if !isZero(rest) {
			return &types.NotSupported{}
		}
	}
	if spec.Name != "" && escapeName(spec.Name) != vm.Name {
		if fault := l.checkName(ctx, vm.Parent, escapeName(spec.Name), vm.Self); fault != nil {
			return fault
		}
	}
	if l.leaseHolding(vm.Self) {
		return &types.InvalidState{}
	}
	if o := spec.BootOptions; o != nil && isTrue(o.EfiSecureBootEnabled) {
		firmware := spec.Firmware
		if firmware == "" {
			firmware = vm.Config.Firmware
		}
		if firmware != string(types.GuestOsDescriptorFirmwareTypeEfi) {
			return &types.InvalidVmConfig{Property: "configSpec.bootOptions.efiSecureBootEnabled"}
		}
	}
	if spec.Version != "" && spec.Version != vm.Config.Version {
		now, _ := types.ParseHardwareVersion(vm.Config.Version)
		if to, _ := types.ParseHardwareVersion(spec.Version); to < now {
			return &types.InvalidArgument{InvalidProperty: "configSpec.version"} // there is no way back
		}
	}
	if vm.Runtime.PowerState != poweredOff {
		return checkHot(vm, spec)
	}
	return nil
}

// checkHot refuses changes that a running or suspended VM doesn't take.
func checkHot(vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	c, off := vm.Config, &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: vm.Runtime.PowerState}
	differs := func(wanted, now string) bool { return wanted != "" && !strings.EqualFold(wanted, now) }
	switch {
	case differs(spec.Firmware, c.Firmware), differs(spec.Version, c.Version), differs(spec.GuestId, c.GuestId),
		differs(spec.Uuid, c.Uuid), differs(spec.InstanceUuid, c.InstanceUuid):
		return off
	case spec.NumCoresPerSocket != nil && *spec.NumCoresPerSocket != 0 && c.Hardware.NumCoresPerSocket != nil &&
		*spec.NumCoresPerSocket != *c.Hardware.NumCoresPerSocket:
		return off
	case spec.CpuHotAddEnabled != nil && isTrue(spec.CpuHotAddEnabled) != isTrue(c.CpuHotAddEnabled),
		spec.MemoryHotAddEnabled != nil && isTrue(spec.MemoryHotAddEnabled) != isTrue(c.MemoryHotAddEnabled),
		spec.NestedHVEnabled != nil && isTrue(spec.NestedHVEnabled) != isTrue(c.NestedHVEnabled):
		return off
	case spec.NumCPUs != 0 && spec.NumCPUs != c.Hardware.NumCPU:
		if !isTrue(c.CpuHotAddEnabled) || spec.NumCPUs < c.Hardware.NumCPU {
			return &types.CpuHotPlugNotSupported{}
		}
	case spec.MemoryMB != 0 && spec.MemoryMB != int64(c.Hardware.MemoryMB):
		if !isTrue(c.MemoryHotAddEnabled) || spec.MemoryMB < int64(c.Hardware.MemoryMB) {
			return &types.MemoryHotPlugNotSupported{}
		}
	}
	return nil
}

// checkName refuses a name that is taken in a folder.
func (l *Lab) checkName(
	ctx *simulator.Context, folder *types.ManagedObjectReference, name string, self types.ManagedObjectReference,
) types.BaseMethodFault {
	if len(name) > 80 {
		return &types.InvalidName{Name: name, Entity: &self}
	}
	if folder == nil {
		return nil
	}
	f, ok := ctx.Map.Get(*folder).(*simulator.Folder)
	if !ok {
		return nil
	}
	if other := ctx.Map.FindByName(name, slices.Clone(f.ChildEntity)); other != nil && other.Reference() != self {
		return &types.DuplicateName{Name: name, Object: other.Reference()}
	}
	return nil
}

// bootOrder sets a boot order. Its devices must be there; keys that a client made up become those that
// the devices got. A device that is removed leaves the order, also if another takes its place and key.
func (p *plan) bootOrder(options, wanted *types.VirtualMachineBootOptions) types.BaseMethodFault {
	if options != nil {
		options.BootOrder = slices.DeleteFunc(options.BootOrder, func(e types.BaseVirtualMachineBootOptionsBootableDevice) bool {
			key, ok := bootKey(e)
			return ok && p.gone[*key]
		})
	}
	if options == nil || wanted == nil || wanted.BootOrder == nil {
		return nil
	}
	order := clone(wanted.BootOrder)
	for _, device := range order {
		key, ok := bootKey(device)
		if !ok {
			continue
		}
		if to, ok := p.keys[*key]; ok {
			*key = to
		}
		if object.VirtualDeviceList(p.devices).FindByKey(*key) == nil {
			return &types.InvalidArgument{InvalidProperty: "configSpec.bootOptions.bootOrder"}
		}
	}
	options.BootOrder = order
	return nil
}

// bootKey is the device that an entry of a boot order names by its key.
func bootKey(entry types.BaseVirtualMachineBootOptionsBootableDevice) (key *int32, ok bool) {
	switch d := entry.(type) {
	case *types.VirtualMachineBootOptionsBootableDiskDevice:
		return &d.DeviceKey, true
	case *types.VirtualMachineBootOptionsBootableEthernetDevice:
		return &d.DeviceKey, true
	}
	return nil, false
}

// simulated has the simulator do what the lab adds nothing to: vApp options, encryption, tags, and its
// own options ("SET.guest.ipAddress").
func (l *Lab) simulated(
	ctx *simulator.Context, vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec,
) types.BaseMethodFault {
	rest := types.VirtualMachineConfigSpec{VAppConfig: spec.VAppConfig, Crypto: spec.Crypto, TagSpecs: spec.TagSpecs}
	for _, o := range spec.ExtraConfig {
		if strings.HasPrefix(o.GetOptionValue().Key, "SET.") {
			rest.ExtraConfig = append(rest.ExtraConfig, o)
		}
	}
	if isZero(rest) {
		return nil
	}
	body, ok := vm.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: vm.Self, Spec: rest}).(*methods.ReconfigVM_TaskBody)
	if !ok {
		return &types.NotSupported{}
	}
	_, fault := l.inner(ctx, body.Res.Returnval)
	return fault
}

// RenameTask starts a task that renames the VM.
func (vm *virtualMachine) RenameTask(ctx *simulator.Context, r *types.Rename_Task) soap.HasFault {
	task := vm.lab.startJob(ctx, vm.job("Rename_Task"), func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() {
			if r.NewName == "" {
				fault = &types.InvalidName{Name: r.NewName, Entity: &vm.Self}
				return
			}
			fault = vm.lab.reconfigure(j.sim, vm.VirtualMachine, &types.VirtualMachineConfigSpec{Name: r.NewName})
		})
		return nil, fault
	})
	return &methods.Rename_TaskBody{Res: &types.Rename_TaskResponse{Returnval: task}}
}

// MarkAsTemplate makes a template of a VM that is powered off.
func (vm *virtualMachine) MarkAsTemplate(ctx *simulator.Context, r *types.MarkAsTemplate) soap.HasFault {
	if running := vm.lab.busyWith(vm.Self); running != nil {
		return &methods.MarkAsTemplateBody{Fault_: simulator.Fault("", &types.TaskInProgress{Task: *running})}
	}
	if vm.lab.leaseHolding(vm.Self) {
		return &methods.MarkAsTemplateBody{Fault_: simulator.Fault("", &types.InvalidState{})}
	}
	res := vm.VirtualMachine.MarkAsTemplate(r)
	if res.Fault() == nil {
		vm.lab.setConfig(ctx, vm.VirtualMachine, clone(vm.Config))
	}
	return res
}

// MarkAsVirtualMachine makes a VM of a template.
func (vm *virtualMachine) MarkAsVirtualMachine(ctx *simulator.Context, r *types.MarkAsVirtualMachine) soap.HasFault {
	if _, ok := ctx.Map.Get(r.Pool).(mo.Entity); !ok {
		return &methods.MarkAsVirtualMachineBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: r.Pool})}
	}
	res := vm.VirtualMachine.MarkAsVirtualMachine(r)
	if res.Fault() == nil {
		vm.lab.setConfig(ctx, vm.VirtualMachine, clone(vm.Config))
	}
	return res
}
