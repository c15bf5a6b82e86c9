package lab

import (
	"fmt"
	"path"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CloneVMTask starts a task that copies the VM, or makes a linked clone of one of its snapshots.
func (vm *virtualMachine) CloneVMTask(ctx *simulator.Context, r *types.CloneVM_Task) soap.HasFault {
	spec := vm.job("CloneVM_Task")
	spec.cancelable = true
	task := vm.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		clone, fault := vm.lab.cloneVM(j, vm.VirtualMachine, r)
		if fault != nil {
			return nil, fault
		}
		return clone.Self, nil
	})
	return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: task}}
}

func (l *Lab) cloneVM(
	j *job, vm *simulator.VirtualMachine, r *types.CloneVM_Task,
) (*simulator.VirtualMachine, types.BaseMethodFault) {
	if l.leaseHolding(vm.Self) {
		return nil, &types.InvalidState{}
	}
	var config types.VirtualMachineConfigInfo
	var pool, host *types.ManagedObjectReference
	j.sim.WithLock(vm, func() { config, pool, host = clone(*vm.Config), vm.ResourcePool, vm.Runtime.Host })
	if ref := r.Spec.Snapshot; ref != nil {
		s, ok := j.sim.Map.Get(*ref).(*simulator.VirtualMachineSnapshot)
		if !ok || s.Vm != vm.Self {
			return nil, &types.InvalidArgument{InvalidProperty: "spec.snapshot"}
		}
		j.sim.WithLock(s, func() { config = clone(s.Config) })
	}
	if r.Spec.Location.Pool != nil {
		pool = r.Spec.Location.Pool
	}
	if r.Spec.Location.Host != nil {
		host = r.Spec.Location.Host
	} else if r.Spec.Location.Pool != nil {
		host = nil // the new pool may be another cluster's
	}
	if pool == nil {
		if pool = l.rootPool(j.sim, host); pool == nil || !r.Spec.Template {
			return nil, &types.InvalidArgument{InvalidProperty: "spec.location.pool"}
		}
	}
	spec, copies, fault := l.cloneSpec(&config, r)
	if fault != nil {
		return nil, fault
	}
	made, fault := l.createCopy(j.sim, r.Folder, spec, *pool, host, copies)
	if fault != nil {
		return nil, fault
	}
	if fault := l.finishClone(j, made, r); fault != nil {
		_ = l.destroy(j.sim, made)
		return nil, fault
	}
	return made, nil
}

// rootPool is the resource pool that a host belongs to, nil when there is none.
func (l *Lab) rootPool(ctx *simulator.Context, host *types.ManagedObjectReference) *types.ManagedObjectReference {
	if host == nil {
		return nil
	}
	h, ok := ctx.Map.Get(*host).(*simulator.HostSystem)
	if !ok || h.Parent == nil {
		return nil
	}
	switch parent := ctx.Map.Get(*h.Parent).(type) {
	case *simulator.ClusterComputeResource:
		return parent.ResourcePool
	case *mo.ComputeResource:
		return parent.ResourcePool
	}
	return nil
}

// cloneSpec describes the copy of a VM. copies are the files that its disks are copies of, by the
// devices' keys.
func (l *Lab) cloneSpec(
	config *types.VirtualMachineConfigInfo, r *types.CloneVM_Task,
) (*types.VirtualMachineConfigSpec, map[int32]string, types.BaseMethodFault) {
	spec := config.ToConfigSpec()
	spec.Name, spec.Uuid, spec.InstanceUuid, spec.ChangeVersion, spec.LocationId = r.Name, "", "", "", ""
	spec.DeviceChange, spec.Crypto, spec.VmProfile = nil, nil, nil
	spec.ChangeTrackingEnabled = types.NewBool(false)
	datastore := datastoreName(config.Files.VmPathName)
	if ref := r.Spec.Location.Datastore; ref != nil {
		ds, ok := l.model.Map().Get(*ref).(*simulator.Datastore)
		if !ok {
			return nil, nil, &types.InvalidArgument{InvalidProperty: "spec.location.datastore"}
		}
		datastore = ds.Name
	}
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", datastore)}
	linked := r.Spec.Location.DiskMoveType == string(types.VirtualMachineRelocateDiskMoveOptionsCreateNewChildDiskBacking)
	if linked && r.Spec.Snapshot == nil {
		return nil, nil, &types.InvalidArgument{InvalidProperty: "spec.snapshot"}
	}
	copies := map[int32]string{}
	for _, device := range config.Hardware.Device {
		change := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: device}
		switch d := device.(type) {
		case *types.VirtualDisk:
			b := backing(d)
			if b == nil {
				break
			}
			source := b.FileName
			change.FileOperation = opCreate
			d.DiskObjectId = ""
			b.FileName, b.Uuid, b.ChangeId, b.Parent, b.Datastore, b.DeltaDiskFormat = spec.Files.VmPathName, "", "", nil, nil, ""
			if linked {
				b.Parent = l.backingOf(source, clone(b))
			} else {
				copies[d.Key] = source
			}
		case types.BaseVirtualEthernetCard:
			card := d.GetVirtualEthernetCard()
			if card.AddressType != string(types.VirtualEthernetCardMacTypeManual) {
				card.MacAddress, card.AddressType = "", ""
			}
		}
		spec.DeviceChange = append(spec.DeviceChange, change)
	}
	return &spec, copies, nil
}

// finishClone applies what the caller wants different, and powers on.
func (l *Lab) finishClone(j *job, vm *simulator.VirtualMachine, r *types.CloneVM_Task) (fault types.BaseMethodFault) {
	if j.ctx.Err() != nil {
		return &types.RequestCanceled{}
	}
	j.sim.WithLock(vm, func() {
		if changes := r.Spec.Location.DeviceChange; len(changes) > 0 {
			fault = l.reconfigure(j.sim, vm, &types.VirtualMachineConfigSpec{DeviceChange: changes})
		}
		if fault == nil && r.Spec.Config != nil {
			spec := *r.Spec.Config
			spec.Name, spec.Files, spec.ChangeVersion = "", nil, ""
			fault = l.reconfigure(j.sim, vm, &spec)
		}
		if fault == nil && r.Spec.Customization != nil {
			request := &types.CustomizeVM_Task{This: vm.Self, Spec: *r.Spec.Customization}
			body, ok := vm.CustomizeVMTask(j.sim, request).(*methods.CustomizeVM_TaskBody)
			if ok && body.Res != nil {
				_, fault = l.inner(j.sim, body.Res.Returnval)
			}
		}
		switch {
		case fault != nil:
		case r.Spec.Template:
			vm.MarkAsTemplate(&types.MarkAsTemplate{This: vm.Self})
			l.setConfig(j.sim, vm, clone(vm.Config))
		case r.Spec.PowerOn:
			fault = l.changePower(j.sim, vm, poweredOn)
		}
	})
	return fault
}

// RegisterVMTask starts a task that brings a VM back into the inventory by its .vmx file.
func (f *folder) RegisterVMTask(ctx *simulator.Context, r *types.RegisterVM_Task) soap.HasFault {
	spec := jobSpec{method: "RegisterVM_Task", entity: f.Folder, name: f.Name}
	task := f.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		vm, fault := f.lab.register(j.sim, f.Folder, r)
		if fault != nil {
			return nil, fault
		}
		return vm.Self, nil
	})
	return &methods.RegisterVM_TaskBody{Res: &types.RegisterVM_TaskResponse{Returnval: task}}
}

// register registers a VM. Its configuration is the one that it had when it was unregistered.
func (l *Lab) register(
	ctx *simulator.Context, f *simulator.Folder, r *types.RegisterVM_Task,
) (*simulator.VirtualMachine, types.BaseMethodFault) {
	l.creating.Lock()
	defer l.creating.Unlock()
	l.mu.Lock()
	config := l.unregistered[r.Path]
	l.mu.Unlock()
	switch {
	case !l.exists(r.Path):
		return nil, &types.NotFound{}
	case r.Name == "" && config != nil:
		r.Name = config.Name
	}
	if r.Name != "" {
		r.Name = escapeName(r.Name)
		if fault := l.checkName(ctx, &f.Self, r.Name, types.ManagedObjectReference{}); fault != nil {
			return nil, fault
		}
	}
	name := r.Name
	bare := *r
	bare.Name = strings.TrimSuffix(path.Base(r.Path), ".vmx") // the simulator looks for files of the VM's name
	body, ok := f.RegisterVMTask(ctx, &bare).(*methods.RegisterVM_TaskBody)
	if !ok {
		return nil, &types.NotSupported{}
	}
	result, fault := l.inner(ctx, body.Res.Returnval)
	if fault != nil {
		return nil, fault
	}
	ref, _ := result.(types.ManagedObjectReference)
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: ref}
	}
	ctx.WithLock(vm, func() {
		if config == nil {
			config = new(types.VirtualMachineConfigInfo)
			*config = defaultConfig(l.newestHardware(ctx))
			config.Uuid, config.Hardware.Device = vm.Config.Uuid, clone(vm.Config.Hardware.Device)
		}
		config.Name, config.Files = vm.Config.Name, vm.Config.Files
		if name != "" {
			config.Name = name // else that of the file
		}
		config.InstanceUuid = l.instanceUUID(vm.Self, config.InstanceUuid)
		l.setConfig(ctx, vm, config)
		ctx.Update(vm, []types.PropertyChange{{Name: "capability", Val: capability()}})
		l.refreshLayout(ctx, vm)
	})
	l.mu.Lock()
	delete(l.unregistered, r.Path)
	l.mu.Unlock()
	return vm, nil
}

// RelocateVMTask starts a task that moves the VM.
func (vm *virtualMachine) RelocateVMTask(ctx *simulator.Context, r *types.RelocateVM_Task) soap.HasFault {
	spec := vm.job("RelocateVM_Task")
	spec.cancelable = true
	task := vm.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		if vm.lab.leaseHolding(vm.Self) {
			return nil, &types.InvalidState{}
		}
		if ds := r.Spec.Datastore; ds != nil {
			target, ok := j.sim.Map.Get(*ds).(*simulator.Datastore)
			if !ok {
				return nil, &types.ManagedObjectNotFound{Obj: *ds}
			}
			if target.Name != datastoreName(vm.Config.Files.VmPathName) {
				return nil, &types.NotSupported{} // the lab's disks stay where they are
			}
		}
		rest := r.Spec
		rest.Datastore, rest.DeviceChange, rest.Disk = nil, nil, nil
		request := &types.RelocateVM_Task{This: vm.Self, Spec: rest}
		body, ok := vm.VirtualMachine.RelocateVMTask(j.sim, request).(*methods.RelocateVM_TaskBody)
		if !ok {
			return nil, &types.NotSupported{}
		}
		result, fault := vm.lab.inner(j.sim, body.Res.Returnval)
		if fault == nil && len(r.Spec.DeviceChange) > 0 {
			j.sim.WithLock(vm.VirtualMachine, func() {
				spec := &types.VirtualMachineConfigSpec{DeviceChange: r.Spec.DeviceChange}
				fault = vm.lab.reconfigure(j.sim, vm.VirtualMachine, spec)
			})
		}
		return result, fault
	})
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: task}}
}
