package lab

import (
	"os"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// DeleteDatastoreFileTask starts a task that removes a file or a directory with what is in it.
func (m *fileManager) DeleteDatastoreFileTask(ctx *simulator.Context, r *types.DeleteDatastoreFile_Task) soap.HasFault {
	name := fileNamed(r.Name)
	spec := jobSpec{method: "DeleteDatastoreFile_Task", entity: m.FileManager, name: "FileManager"}
	task := m.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		fault := m.lab.deletePath(j.sim, name)
		m.lab.refreshDatastores(j.sim)
		return nil, fault
	})
	return &methods.DeleteDatastoreFile_TaskBody{Res: &types.DeleteDatastoreFile_TaskResponse{Returnval: task}}
}

// deletePath removes what a datastore has under a name, unless something of it is in use.
func (l *Lab) deletePath(ctx *simulator.Context, name string) types.BaseMethodFault {
	file, ok := l.path(name)
	if !ok || strings.HasSuffix(name, "]") {
		return &types.InvalidDatastorePath{DatastorePath: name}
	}
	if _, err := os.Lstat(file); err != nil {
		return &types.FileNotFound{FileFault: fileFault(name)}
	}
	var disks []string
	for _, disk := range l.store.Names() {
		if disk == name || strings.HasPrefix(disk, name+"/") || descriptorOf(name) == disk {
			disks = append(disks, disk)
		}
	}
	for _, disk := range disks {
		if vm := l.attachedTo(ctx, disk); vm != nil && vm.Runtime.PowerState != poweredOff || l.standsOn(disk, name) {
			return &types.FileLocked{FileFault: fileFault(disk)}
		}
	}
	for again := true; again; { // children before parents
		again = false
		for _, disk := range disks {
			if l.removeDisk(disk) == nil {
				again = true
			}
		}
	}
	if err := os.RemoveAll(file); err != nil {
		return &types.CannotDeleteFile{FileFault: fileFault(name)}
	}
	return nil
}

// standsOn says whether a file outside of a directory stands on a disk.
func (l *Lab) standsOn(disk, directory string) bool {
	for _, child := range l.children()[disk] {
		if !strings.HasPrefix(child, directory+"/") || l.standsOn(child, directory) {
			return true
		}
	}
	return false
}

// MoveDatastoreFileTask starts a task that moves a file; a disk is moved with its extent.
func (m *fileManager) MoveDatastoreFileTask(ctx *simulator.Context, r *types.MoveDatastoreFile_Task) soap.HasFault {
	from, to := fileNamed(r.SourceName), fileNamed(r.DestinationName)
	spec := jobSpec{method: "MoveDatastoreFile_Task", entity: m.FileManager, name: "FileManager"}
	task := m.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		if _, err := m.lab.store.Stat(from); err == nil {
			disks := &diskManager{lab: m.lab}
			if fault := disks.prepareTarget(j.sim, from, to, isTrue(r.Force)); fault != nil {
				return nil, fault
			}
			return nil, m.lab.moveDisk(from, to)
		}
		body, ok := m.FileManager.MoveDatastoreFileTask(j.sim, r).(*methods.MoveDatastoreFile_TaskBody)
		if !ok {
			return nil, &types.NotSupported{}
		}
		return m.lab.inner(j.sim, body.Res.Returnval)
	})
	return &methods.MoveDatastoreFile_TaskBody{Res: &types.MoveDatastoreFile_TaskResponse{Returnval: task}}
}

// RefreshDatastore recomputes the datastore's free space.
func (d *datastore) RefreshDatastore(ctx *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	d.lab.refreshDatastores(ctx)
	return &methods.RefreshDatastoreBody{Res: new(types.RefreshDatastoreResponse)}
}
