package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// MoveIntoFolderTask starts a task that moves objects into the folder, all of them or none.
func (f *folder) MoveIntoFolderTask(ctx *simulator.Context, r *types.MoveIntoFolder_Task) soap.HasFault {
	spec := jobSpec{method: "MoveIntoFolder_Task", entity: f.Folder, name: f.Name, busy: vmsAmong(r.List)}
	task := f.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		for _, ref := range r.List {
			vm, ok := j.sim.Map.Get(ref).(*simulator.VirtualMachine)
			if !ok {
				continue
			}
			if fault := f.lab.checkName(j.sim, &f.Self, vm.Name, ref); fault != nil {
				return nil, fault
			}
		}
		body, ok := f.Folder.MoveIntoFolderTask(j.sim, r).(*methods.MoveIntoFolder_TaskBody)
		if !ok {
			return nil, &types.NotSupported{}
		}
		return f.lab.inner(j.sim, body.Res.Returnval)
	})
	return &methods.MoveIntoFolder_TaskBody{Res: &types.MoveIntoFolder_TaskResponse{Returnval: task}}
}

// vmsAmong are the VMs among objects.
func vmsAmong(refs []types.ManagedObjectReference) []types.ManagedObjectReference {
	var vms []types.ManagedObjectReference
	for _, ref := range refs {
		if ref.Type == "VirtualMachine" {
			vms = append(vms, ref)
		}
	}
	return vms
}
