package lab

import (
	"fmt"
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ExportSnapshot gives a lease on the disks as of the snapshot. The VM may run.
func (s *snapshot) ExportSnapshot(ctx *simulator.Context, _ *types.ExportSnapshot) soap.HasFault {
	body := new(methods.ExportSnapshotBody)
	if body.Fault_ = s.lab.changing(s.Self); body.Fault_ != nil {
		return body
	}
	vm := ctx.Map.Get(s.Vm)
	if vm == nil {
		body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Vm})
		return body
	}
	var lease *httpNfcLease
	var items []*leaseItem
	ctx.WithLock(vm, func() { // its snapshots aren't removed meanwhile
		if ctx.Map.Get(s.Self) == nil {
			body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Self})
			return
		}
		devices := clone(s.Config.Hardware.Device)
		var disks []*types.VirtualDisk
		for _, d := range disksOf(devices) {
			if b := backing(d); b == nil || !independent(b.DiskMode) { // a snapshot has no part in the others
				disks = append(disks, d)
			}
		}
		lease, items = s.lab.newLease(ctx, true, s.Vm, s.Self), exportItems(s.Vm, devices, disks)
	})
	if lease == nil {
		return body
	}
	s.lab.spawn(func() { lease.ready(s.Vm, items) })
	body.Res = &types.ExportSnapshotResponse{Returnval: lease.Self}
	return body
}

// ExportVm gives a lease on the disks and the NVRAM of a VM that is powered off.
func (vm *virtualMachine) ExportVm(ctx *simulator.Context, _ *types.ExportVm) soap.HasFault {
	body := new(methods.ExportVmBody)
	if body.Fault_ = vm.lab.changing(vm.Self); body.Fault_ != nil {
		return body
	}
	if state := vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
		body.Fault_ = simulator.Fault("the VM is not powered off", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: state,
		})
		return body
	}
	lease := vm.lab.newLease(ctx, true, vm.Self)
	items := exportItems(vm.Self, vm.Config.Hardware.Device, disksOf(vm.Config.Hardware.Device))
	if item := vm.lab.nvramItem(vm.VirtualMachine, len(items)); item != nil {
		items = append(items, item)
	}
	vm.lab.spawn(func() { lease.ready(vm.Self, items) })
	body.Res = &types.ExportVmResponse{Returnval: lease.Self}
	return body
}

// changing is the fault for an object that a task is changing.
func (l *Lab) changing(ref types.ManagedObjectReference) *soap.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j := l.busy[ref]; j != nil {
		return simulator.Fault("another task is running", &types.TaskInProgress{Task: j.task.Self})
	}
	return nil
}

// independent says whether a disk mode keeps a disk out of snapshots.
func independent(mode string) bool {
	switch types.VirtualDiskMode(mode) {
	case types.VirtualDiskModeIndependent_persistent, types.VirtualDiskModeIndependent_nonpersistent:
		return true
	}
	return false
}

// exportItems are the items of disks. Keys are those of a real vCenter, by controller and unit.
func exportItems(
	vm types.ManagedObjectReference, devices []types.BaseVirtualDevice, disks []*types.VirtualDisk,
) []*leaseItem {
	items := make([]*leaseItem, 0, len(disks))
	for i, d := range disks {
		items = append(items, &leaseItem{
			key:    fmt.Sprintf("/%s/%s", vm.Value, slot(devices, d)),
			target: fmt.Sprintf("disk-%d.vmdk", i),
			disk:   true, device: d.Key, file: diskFile(d), capacity: d.CapacityInBytes,
		})
	}
	return items
}

// nvramItem is the item of a VM's NVRAM, nil when it has none.
func (l *Lab) nvramItem(vm *simulator.VirtualMachine, index int) *leaseItem {
	if vm.LayoutEx == nil {
		return nil
	}
	for _, f := range vm.LayoutEx.File {
		if f.Type != string(types.VirtualMachineFileLayoutExFileTypeNvram) {
			continue
		}
		name, ok := l.path(f.Name)
		if !ok {
			return nil
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil
		}
		return &leaseItem{
			key: fmt.Sprintf("/%s/nvram", vm.Self.Value), target: fmt.Sprintf("disk-%d.nvram", index),
			file: f.Name, size: info.Size(),
		}
	}
	return nil
}
