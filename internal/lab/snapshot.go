package lab

import (
	"fmt"
	"os"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// point is what a snapshot needs beside its configuration.
type point struct {
	id           int32
	state        types.VirtualMachinePowerState // that a revert leads to
	data, memory string                         // files; memory is empty without
	tools        bool                           // VMware Tools ran
}

type snapshotRequest struct {
	method, name, description string
	memory                    bool
	quiesce                   types.BaseVirtualMachineGuestQuiesceSpec // nil: none
}

// CreateSnapshotTask starts a task that takes a snapshot.
func (vm *virtualMachine) CreateSnapshotTask(ctx *simulator.Context, r *types.CreateSnapshot_Task) soap.HasFault {
	request := snapshotRequest{method: "CreateSnapshot_Task", name: r.Name, description: r.Description, memory: r.Memory}
	if r.Quiesce {
		request.quiesce = new(types.VirtualMachineGuestQuiesceSpec)
	}
	return &methods.CreateSnapshot_TaskBody{
		Res: &types.CreateSnapshot_TaskResponse{Returnval: vm.startSnapshot(ctx, request)},
	}
}

// CreateSnapshotExTask starts a task that takes a snapshot.
func (vm *virtualMachine) CreateSnapshotExTask(ctx *simulator.Context, r *types.CreateSnapshotEx_Task) soap.HasFault {
	request := snapshotRequest{
		method: "CreateSnapshotEx_Task", name: r.Name, description: r.Description, memory: r.Memory, quiesce: r.QuiesceSpec,
	}
	return &methods.CreateSnapshotEx_TaskBody{
		Res: &types.CreateSnapshotEx_TaskResponse{Returnval: vm.startSnapshot(ctx, request)},
	}
}

// job describes a task that changes the VM.
func (vm *virtualMachine) job(method string) jobSpec {
	return jobSpec{
		method: method, entity: vm.VirtualMachine, name: vm.Name,
		busy: []types.ManagedObjectReference{vm.Self},
	}
}

// startVMJob starts a task that changes a VM, for a call on something else: the VM isn't locked yet.
func (l *Lab) startVMJob(
	ctx *simulator.Context, vm *simulator.VirtualMachine, method string, do work,
) (task types.ManagedObjectReference) {
	overlay := &virtualMachine{vm, l}
	ctx.WithLock(vm, func() { task = l.startJob(ctx, overlay.job(method), do) })
	return task
}

func (vm *virtualMachine) startSnapshot(ctx *simulator.Context, r snapshotRequest) types.ManagedObjectReference {
	spec := vm.job(r.method)
	spec.cancelable = true
	return vm.lab.startJob(ctx, spec, func(j *job) (result types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() { result, fault = vm.lab.takeSnapshot(j, vm.VirtualMachine, r) })
		return result, fault
	})
}

// takeSnapshot takes a snapshot of a VM whose lock is held.
func (l *Lab) takeSnapshot(
	j *job, vm *simulator.VirtualMachine, r snapshotRequest,
) (types.AnyType, types.BaseMethodFault) {
	on := vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff
	if vm.Runtime.PowerState == types.VirtualMachinePowerStateSuspended {
		r.memory = true // what a suspended VM has in memory is on disk already
	}
	r.memory = r.memory && on
	if fault := checkSnapshot(vm, r); fault != nil {
		return nil, fault
	}
	frozen := clone(*vm.Config)
	if fault := l.branch(j.sim, vm, frozen.Hardware.Device); fault != nil {
		return nil, fault
	}
	tools := vm.Runtime.PowerState == poweredOn && toolsRun(vm)
	p := &point{id: l.nextSnapshotID(vm.Self), state: types.VirtualMachinePowerStatePoweredOff, tools: tools}
	if r.memory {
		p.state = vm.Runtime.PowerState
	}
	l.writeSnapshotFiles(vm, p, r.memory)

	s := new(simulator.VirtualMachineSnapshot)
	s.Vm, s.Config = vm.Self, frozen
	j.sim.Map.Put(s)
	l.mu.Lock()
	l.points[s.Self] = p
	l.mu.Unlock()
	info := snapshotInfo(vm)
	node := types.VirtualMachineSnapshotTree{
		Snapshot: s.Self, Vm: vm.Self, Name: escapeName(r.name), Description: r.description, Id: p.id,
		CreateTime: time.Now(), State: p.state, ReplaySupported: types.NewBool(false),
		Quiesced: r.quiesce != nil && on && tools && !r.memory,
	}
	if parent, depth := findCurrent(info); depth > 0 {
		parent.ChildSnapshotList = append(parent.ChildSnapshotList, node)
	} else {
		info.RootSnapshotList = append(info.RootSnapshotList, node)
	}
	info.CurrentSnapshot = &s.Self
	setSnapshots(j.sim, vm, info)
	l.refreshLayout(j.sim, vm)
	return s.Self, nil
}

// findCurrent finds the node of the current snapshot.
func findCurrent(info *types.VirtualMachineSnapshotInfo) (node *types.VirtualMachineSnapshotTree, depth int) {
	if info.CurrentSnapshot == nil {
		return nil, 0
	}
	node, _, depth = findNode(info.RootSnapshotList, *info.CurrentSnapshot)
	return node, depth
}

// checkSnapshot refuses what a real host refuses.
func checkSnapshot(vm *simulator.VirtualMachine, r snapshotRequest) types.BaseMethodFault {
	flags := vm.Config.Flags
	switch {
	case vm.Config.Template:
		return &types.NotSupported{}
	case r.name == "":
		return &types.InvalidName{Name: r.name}
	case flags.SnapshotDisabled != nil && *flags.SnapshotDisabled:
		return &types.SnapshotDisabled{}
	case flags.SnapshotLocked != nil && *flags.SnapshotLocked:
		return &types.SnapshotLocked{}
	}
	if r.quiesce != nil {
		// The field is in minutes, see VirtualMachineGuestQuiesceSpec.
		if t := r.quiesce.GetVirtualMachineGuestQuiesceSpec().Timeout; t != 0 && (t < 5 || t > 240) {
			return &types.InvalidArgument{InvalidProperty: "quiesceSpec.timeout"}
		}
	}
	if vm.Snapshot != nil {
		if _, depth := findCurrent(vm.Snapshot); depth >= maxSnapshotLevels {
			return &types.TooManySnapshotLevels{}
		}
	}
	return checkSnapshotDevices(vm.Config.Hardware.Device, r.memory)
}

func checkSnapshotDevices(devices []types.BaseVirtualDevice, memory bool) types.BaseMethodFault {
	for _, device := range devices {
		var why types.BaseMethodFault
		switch d := device.(type) {
		case *types.VirtualPCIPassthrough:
			if memory {
				why = &types.DeviceNotSupported{Device: label(d)}
			}
		case *types.VirtualDisk:
			why = diskObstacle(devices, d)
			if memory && why == nil && isIndependent(d) {
				return &types.MemorySnapshotOnIndependentDisk{}
			}
		}
		if why != nil {
			return &types.SnapshotIncompatibleDeviceInVm{
				Fault: types.LocalizedMethodFault{Fault: why, LocalizedMessage: faultMessage(why)},
			}
		}
	}
	return nil
}

// diskObstacle is why a disk can't be part of a snapshot, nil when it can.
func diskObstacle(devices []types.BaseVirtualDevice, d *types.VirtualDisk) types.BaseMethodFault {
	controller := object.VirtualDeviceList(devices).FindByKey(d.ControllerKey)
	if c, ok := controller.(types.BaseVirtualSCSIController); ok {
		if bus := c.GetVirtualSCSIController().SharedBus; bus != "" && bus != types.VirtualSCSISharingNoSharing {
			return &types.SharedBusControllerNotSupported{DeviceNotSupported: types.DeviceNotSupported{Device: label(controller)}}
		}
	}
	unsupported := types.DeviceNotSupported{Device: label(d)}
	switch b := d.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		if b.Sharing == string(types.VirtualDiskSharingSharingMultiWriter) {
			unsupported.Reason = "multi-writer"
			return &unsupported
		}
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		if b.CompatibilityMode == string(types.VirtualDiskCompatibilityModePhysicalMode) {
			return &types.PhysCompatRDMNotSupported{RDMNotSupported: types.RDMNotSupported{DeviceNotSupported: unsupported}}
		}
	case *types.VirtualDiskRawDiskVer2BackingInfo:
		return &types.RawDiskNotSupported{DeviceNotSupported: unsupported}
	}
	return nil
}

// isIndependent says whether snapshots leave a disk out.
func isIndependent(d *types.VirtualDisk) bool {
	b := backing(d)
	return b == nil || independent(b.DiskMode)
}

// branch lets a VM go on in new files on top of those it has, and writes change IDs into the frozen
// devices. The VM's lock is held. On a fault nothing has changed.
func (l *Lab) branch(
	ctx *simulator.Context, vm *simulator.VirtualMachine, frozen []types.BaseVirtualDevice,
) types.BaseMethodFault {
	if err := l.markTracking(vm, frozen); err != nil {
		return storeFault("", err)
	}
	devices := clone(vm.Config.Hardware.Device)
	var made []string
	for _, d := range devices {
		disk, ok := d.(*types.VirtualDisk)
		if !ok || isIndependent(disk) {
			continue
		}
		parent := backing(disk)
		child := l.deltaName(parent.FileName)
		if err := l.store.CreateChild(child, parent.FileName); err != nil {
			for _, name := range made {
				_ = l.store.Remove(name)
			}
			return storeFault(child, err)
		}
		made = append(made, child)
		disk.Backing = deltaBacking(child, parent)
	}
	for _, name := range made {
		l.writeDescriptor(name)
	}
	l.setDevices(ctx, vm, devices)
	return nil
}

// setDevices sets the devices of a VM whose lock is held, which makes another version of its configuration.
func (l *Lab) setDevices(ctx *simulator.Context, vm *simulator.VirtualMachine, devices []types.BaseVirtualDevice) {
	config := clone(vm.Config)
	config.Hardware.Device = devices
	l.setConfig(ctx, vm, config)
}

// deltaBacking is the backing of a file on top of another.
func deltaBacking(file string, parent *types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDiskFlatVer2BackingInfo {
	b := clone(parent)
	b.FileName, b.Parent, b.ChangeId = file, parent, ""
	b.DeltaDiskFormat = string(types.VirtualDiskDeltaDiskFormatRedoLogFormat)
	return b
}

func (l *Lab) nextSnapshotID(vm types.ManagedObjectReference) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshotIDs[vm]++
	return l.snapshotIDs[vm]
}

// snapshotDataSize is what a snapshot's configuration and device state take on a datastore, about.
const snapshotDataSize = 28 << 10

// writeSnapshotFiles makes the files of a snapshot beside its disks. They are empty but have a size.
func (l *Lab) writeSnapshotFiles(vm *simulator.VirtualMachine, p *point, memory bool) {
	base := fmt.Sprintf("%s/%s-Snapshot%d", directory(vm.Config.Files.VmPathName), vm.Config.Name, p.id)
	p.data = base + ".vmsn"
	l.writeEmpty(p.data, snapshotDataSize)
	if memory {
		p.memory = base + ".vmem"
		l.writeEmpty(p.memory, int64(vm.Config.Hardware.MemoryMB)<<20)
	}
}

// writeEmpty makes a sparse file of a datastore. That it can't be made shows when somebody reads it.
func (l *Lab) writeEmpty(name string, size int64) {
	file, ok := l.path(name)
	if !ok {
		return
	}
	if f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		_ = f.Truncate(size)
		_ = f.Close()
	}
}

// RenameSnapshot changes name and description at once.
func (s *snapshot) RenameSnapshot(ctx *simulator.Context, r *types.RenameSnapshot) soap.HasFault {
	body := new(methods.RenameSnapshotBody)
	vm, ok := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	switch {
	case !ok:
		body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Vm})
		return body
	case r.Name == "" && r.Description == "":
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "name"})
		return body
	}
	if running := s.lab.busyWith(vm.Self); running != nil {
		body.Fault_ = simulator.Fault("", &types.TaskInProgress{Task: *running})
		return body
	}
	ctx.WithLock(vm, func() {
		info := snapshotInfo(vm)
		node, _, _ := findNode(info.RootSnapshotList, s.Self)
		if node == nil {
			body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Self})
			return
		}
		if r.Name != "" {
			node.Name = escapeName(r.Name)
		}
		if r.Description != "" {
			node.Description = r.Description
		}
		setSnapshots(ctx, vm, info)
		body.Res = new(types.RenameSnapshotResponse)
	})
	return body
}
