package lab

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// importTask is the name of the task in which an import's VM is created.
const importTask = "ImportVAppLRO"

// ImportVApp creates a VM and gives a lease to upload its disks. The VM stays out of everybody's
// hands until the lease is complete, and disappears if it never is.
func (p *resourcePool) ImportVApp(ctx *simulator.Context, r *types.ImportVApp) soap.HasFault {
	body := new(methods.ImportVAppBody)
	spec, ok := r.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		body.Fault_ = simulator.Fault("only a single VM can be imported", &types.InvalidArgument{InvalidProperty: "spec"})
		return body
	}
	folder := p.lab.datacenter().VmFolder
	if r.Folder != nil {
		folder = *r.Folder
	}
	if _, ok := ctx.Map.Get(folder).(*simulator.Folder); !ok {
		body.Fault_ = simulator.Fault("no such folder", &types.ManagedObjectNotFound{Obj: folder})
		return body
	}
	lease := p.lab.newLease(ctx, false)
	p.lab.startJob(ctx, jobSpec{method: importTask, entity: p.ResourcePool, name: p.Name},
		func(j *job) (types.AnyType, types.BaseMethodFault) {
			return nil, p.lab.prepareImport(j.sim, lease, spec, folder, p.Self, r.Host)
		})
	body.Res = &types.ImportVAppResponse{Returnval: lease.Self}
	return body
}

// prepareImport creates the VM of an import and makes the lease ready, or ends it.
func (l *Lab) prepareImport(
	ctx *simulator.Context, lease *httpNfcLease, spec *types.VirtualMachineImportSpec,
	folder, pool types.ManagedObjectReference, host *types.ManagedObjectReference,
) types.BaseMethodFault {
	vm, fault := l.createVM(ctx, folder, &spec.ConfigSpec, pool, host)
	if vm != nil {
		lease.mu.Lock()
		lease.entity = vm.Self
		ended := lease.ended
		lease.mu.Unlock()
		if ended { // aborted before there was anything to discard
			l.discardImport(ctx, vm.Self)
			return nil
		}
	}
	if fault != nil {
		if lease.end() {
			lease.fail(ctx, fault)
		}
		return fault
	}
	var items []*leaseItem
	ctx.WithLock(vm, func() { items = l.importItems(vm) })
	lease.ready(vm.Self, items)
	return nil
}

// importItems are the disks that the VM was created with, and image files that its drives refer to
// and that aren't there yet. The VM's lock is held.
func (l *Lab) importItems(vm *simulator.VirtualMachine) []*leaseItem {
	devices := vm.Config.Hardware.Device
	items := exportItems(vm.Self, devices, disksOf(devices))
	for _, item := range items {
		item.importKey = "/" + vm.Name + item.key[len("/"+vm.Self.Value):]
	}
	for _, d := range devices {
		if _, ok := d.(*types.VirtualDisk); ok {
			continue
		}
		b, ok := d.GetVirtualDevice().Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		name := b.GetVirtualDeviceFileBackingInfo().FileName
		file, ok := l.path(name)
		if !ok {
			continue
		}
		if _, err := os.Stat(file); err == nil {
			continue
		}
		place := slot(devices, d)
		items = append(items, &leaseItem{
			key: fmt.Sprintf("/%s/%s", vm.Self.Value, place), importKey: fmt.Sprintf("/%s/%s", vm.Name, place),
			target: fmt.Sprintf("disk-%d%s", len(items), path.Ext(name)), file: name,
		})
	}
	return items
}

// discardImport destroys a VM whose import has failed, with its files.
func (l *Lab) discardImport(ctx *simulator.Context, ref types.ManagedObjectReference) {
	if vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine); ok {
		_ = l.destroy(ctx, vm) // nobody could have powered it on
	}
}

// emptyDisk makes a disk that is to be written from its beginning to its end empty again.
func (l *Lab) emptyDisk(name string) error {
	info, err := l.store.Stat(name)
	if err != nil {
		return err
	}
	switch {
	case info.Children > 0:
		return fmt.Errorf("%s: %w", name, diskstore.ErrFrozen)
	case info.Parent != "":
		return errors.New("the disk is a link of a chain")
	case info.AllocatedBytes == 0:
		return nil
	}
	if err := l.store.Remove(name); err != nil {
		return err
	}
	return l.store.Create(name, info.Capacity)
}
