package lab

import (
	"encoding/hex"
	"net/url"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// fileNamed is the datastore path of a file that the API names by path or by URL.
func fileNamed(name string) string {
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" {
		var p object.DatastorePath
		if p.FromString(name) {
			return p.String()
		}
		return name
	}
	p := object.DatastorePath{Datastore: u.Query().Get("dsName"), Path: strings.TrimPrefix(u.Path, "/folder/")}
	return p.String()
}

// attachedTo is the VM that has a file as a disk, nil when there is none.
func (l *Lab) attachedTo(ctx *simulator.Context, file string) *simulator.VirtualMachine {
	for _, entity := range ctx.Map.All("VirtualMachine") {
		vm, ok := entity.(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		found := false
		ctx.WithLock(vm, func() {
			for _, d := range disksOf(vm.Config.Hardware.Device) {
				found = found || diskFile(d) == file
			}
		})
		if found {
			return vm
		}
	}
	return nil
}

// checkFree refuses a file that isn't there, that something stands on, or that a running VM has.
func (l *Lab) checkFree(ctx *simulator.Context, file string) types.BaseMethodFault {
	info, err := l.store.Stat(file)
	if err != nil {
		return &types.FileNotFound{FileFault: fileFault(file)}
	}
	vm := l.attachedTo(ctx, file)
	if info.Children > 0 || vm != nil && vm.Runtime.PowerState != poweredOff {
		return &types.FileLocked{FileFault: fileFault(file)}
	}
	return nil
}

// diskJob starts a task of the disk manager.
func (m *diskManager) diskJob(
	ctx *simulator.Context, method string, do func(*simulator.Context) types.BaseMethodFault,
) types.ManagedObjectReference {
	spec := jobSpec{method: method, entity: m.VirtualDiskManager, name: "VirtualDiskManager"}
	return m.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		fault := do(j.sim)
		m.lab.refreshDatastores(j.sim)
		return nil, fault
	})
}

// CreateVirtualDiskTask starts a task that makes a disk that no VM has.
func (m *diskManager) CreateVirtualDiskTask(ctx *simulator.Context, r *types.CreateVirtualDisk_Task) soap.HasFault {
	file := fileNamed(r.Name)
	task := m.diskJob(ctx, "CreateVirtualDisk_Task", func(*simulator.Context) types.BaseMethodFault {
		spec, ok := r.Spec.(types.BaseFileBackedVirtualDiskSpec)
		switch {
		case !ok || spec.GetFileBackedVirtualDiskSpec().CapacityKb <= 0:
			return &types.InvalidArgument{InvalidProperty: "spec"}
		case m.lab.datastoreOf(file) == nil:
			return &types.InvalidDatastorePath{DatastorePath: r.Name}
		case m.lab.exists(file):
			return &types.FileAlreadyExists{FileFault: fileFault(file)}
		}
		thick := spec.GetFileBackedVirtualDiskSpec().DiskType != string(types.VirtualDiskTypeThin)
		p := &plan{lab: m.lab}
		p.init()
		o := diskOp{
			kind: opCreate, file: file, capacity: spec.GetFileBackedVirtualDiskSpec().CapacityKb * 1024,
			thick: thick, uuid: newDiskUUID(),
		}
		if thick {
			p.need[datastoreName(file)] = o.capacity
		}
		p.ops = []diskOp{o}
		if fault := p.checkSpace(); fault != nil {
			return fault
		}
		return p.perform()
	})
	return &methods.CreateVirtualDisk_TaskBody{Res: &types.CreateVirtualDisk_TaskResponse{Returnval: task}}
}

// DeleteVirtualDiskTask starts a task that removes a disk.
func (m *diskManager) DeleteVirtualDiskTask(ctx *simulator.Context, r *types.DeleteVirtualDisk_Task) soap.HasFault {
	file := fileNamed(r.Name)
	task := m.diskJob(ctx, "DeleteVirtualDisk_Task", func(sim *simulator.Context) types.BaseMethodFault {
		if fault := m.lab.checkFree(sim, file); fault != nil {
			return fault
		}
		if err := m.lab.removeDisk(file); err != nil {
			return storeFault(file, err)
		}
		return nil
	})
	return &methods.DeleteVirtualDisk_TaskBody{Res: &types.DeleteVirtualDisk_TaskResponse{Returnval: task}}
}

// ExtendVirtualDiskTask starts a task that makes a disk larger.
func (m *diskManager) ExtendVirtualDiskTask(ctx *simulator.Context, r *types.ExtendVirtualDisk_Task) soap.HasFault {
	file := fileNamed(r.Name)
	task := m.diskJob(ctx, "ExtendVirtualDisk_Task", func(sim *simulator.Context) types.BaseMethodFault {
		if fault := m.lab.checkFree(sim, file); fault != nil {
			return fault
		}
		if err := m.lab.store.Extend(file, r.NewCapacityKb*1024); err != nil {
			return storeFault(file, err)
		}
		m.lab.writeDescriptor(file)
		return nil
	})
	return &methods.ExtendVirtualDisk_TaskBody{Res: &types.ExtendVirtualDisk_TaskResponse{Returnval: task}}
}

// MoveVirtualDiskTask starts a task that renames or moves a disk.
func (m *diskManager) MoveVirtualDiskTask(ctx *simulator.Context, r *types.MoveVirtualDisk_Task) soap.HasFault {
	from, to := fileNamed(r.SourceName), fileNamed(r.DestName)
	task := m.diskJob(ctx, "MoveVirtualDisk_Task", func(sim *simulator.Context) types.BaseMethodFault {
		if fault := m.prepareTarget(sim, from, to, isTrue(r.Force)); fault != nil {
			return fault
		}
		return m.lab.moveDisk(from, to)
	})
	return &methods.MoveVirtualDisk_TaskBody{Res: &types.MoveVirtualDisk_TaskResponse{Returnval: task}}
}

// CopyVirtualDiskTask starts a task that copies a disk.
func (m *diskManager) CopyVirtualDiskTask(ctx *simulator.Context, r *types.CopyVirtualDisk_Task) soap.HasFault {
	from, to := fileNamed(r.SourceName), fileNamed(r.DestName)
	task := m.diskJob(ctx, "CopyVirtualDisk_Task", func(sim *simulator.Context) types.BaseMethodFault {
		if fault := m.prepareTarget(sim, from, to, isTrue(r.Force)); fault != nil {
			return fault
		}
		if err := m.lab.store.Clone(from, to); err != nil {
			return storeFault(from, err)
		}
		m.lab.setDiskUUID(to, newDiskUUID())
		m.lab.writeDescriptor(to)
		return nil
	})
	return &methods.CopyVirtualDisk_TaskBody{Res: &types.CopyVirtualDisk_TaskResponse{Returnval: task}}
}

// prepareTarget refuses a source that can't be taken and a target that is taken.
func (m *diskManager) prepareTarget(ctx *simulator.Context, from, to string, force bool) types.BaseMethodFault {
	if fault := m.lab.checkFree(ctx, from); fault != nil {
		return fault
	}
	if m.lab.datastoreOf(to) == nil || path.Ext(to) != ".vmdk" {
		return &types.InvalidDatastorePath{DatastorePath: to}
	}
	if !m.lab.exists(to) {
		return nil
	}
	if !force {
		return &types.FileAlreadyExists{FileFault: fileFault(to)}
	}
	if fault := m.lab.checkFree(ctx, to); fault != nil {
		return fault
	}
	if err := m.lab.removeDisk(to); err != nil {
		return storeFault(to, err)
	}
	return nil
}

// moveDisk renames a disk with its files.
func (l *Lab) moveDisk(from, to string) types.BaseMethodFault {
	id, extent := l.diskUUID(from), l.extentOf(from)
	if err := l.store.Rename(from, to); err != nil {
		return storeFault(from, err)
	}
	l.setDiskUUID(to, id)
	l.mu.Lock()
	l.thick[to], l.made[to] = l.thick[from], l.made[from]
	delete(l.thick, from)
	delete(l.made, from)
	l.mu.Unlock()
	l.removeFile(from)
	l.removeFile(extent)
	l.writeDescriptor(to)
	return nil
}

// QueryVirtualDiskUuid tells a disk's identity: "60 00 C2 9a …-… …".
func (m *diskManager) QueryVirtualDiskUuid(_ *simulator.Context, r *types.QueryVirtualDiskUuid) soap.HasFault {
	body := new(methods.QueryVirtualDiskUuidBody)
	file := fileNamed(r.Name)
	if _, err := m.lab.store.Stat(file); err != nil {
		body.Fault_ = simulator.Fault("", &types.FileNotFound{FileFault: fileFault(file)})
		return body
	}
	id, err := parseUUID(m.lab.diskUUID(file))
	if err != nil {
		body.Fault_ = simulator.Fault("", &types.CannotAccessFile{FileFault: fileFault(file)})
		return body
	}
	pairs := make([]string, len(id))
	for i, b := range id {
		pairs[i] = hex.EncodeToString([]byte{b})
	}
	text := strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
	body.Res = &types.QueryVirtualDiskUuidResponse{Returnval: text}
	return body
}

// SetVirtualDiskUuid changes a disk's identity.
func (m *diskManager) SetVirtualDiskUuid(ctx *simulator.Context, r *types.SetVirtualDiskUuid) soap.HasFault {
	body := new(methods.SetVirtualDiskUuidBody)
	file := fileNamed(r.Name)
	id, err := parseUUID(r.Uuid)
	if err != nil {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "uuid"})
		return body
	}
	sim := *ctx
	if fault := m.lab.checkFree(&sim, file); fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	m.lab.setDiskUUID(file, id.String())
	if vm := m.lab.attachedTo(&sim, file); vm != nil {
		sim.WithLock(vm, func() {
			config := clone(vm.Config)
			for _, d := range disksOf(config.Hardware.Device) {
				if b := backing(d); b != nil && b.FileName == file {
					b.Uuid = id.String()
				}
			}
			m.lab.setConfig(&sim, vm, config)
		})
	}
	body.Res = new(types.SetVirtualDiskUuidResponse)
	return body
}
