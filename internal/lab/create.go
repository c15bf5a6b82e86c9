package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// createVM creates a VM as the API does, whoever asks: CreateVM_Task, an import, the seeding. host may
// be nil. Disks to be created have a file in the disk store afterwards.
func (l *Lab) createVM(
	ctx *simulator.Context, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference,
) (*simulator.VirtualMachine, types.BaseMethodFault) {
	f, ok := ctx.Map.Get(folder).(*simulator.Folder)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: folder}
	}
	body, ok := f.CreateVMTask(ctx, &types.CreateVM_Task{This: folder, Config: *spec, Pool: pool, Host: host}).(*methods.CreateVM_TaskBody)
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
		for _, d := range disksOf(vm.Config.Hardware.Device) {
			if err := l.store.Create(diskFile(d), d.CapacityInBytes); err != nil {
				fault = storeFault(diskFile(d), err)
			}
			l.writeDescriptor(diskFile(d))
		}
	})
	return vm, fault
}
