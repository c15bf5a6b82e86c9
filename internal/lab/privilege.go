package lab

import (
	"net/http"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A demand is what a user must be allowed to do on an object.
type demand struct {
	on  types.ManagedObjectReference
	ids []string
}

// forbidden is the fault for a call whose user lacks a privilege on one of the objects that it is about, nil
// for one that is allowed. A call that the lab doesn't know is the administrator's alone.
func (l *Lab) forbidden(ctx *simulator.Context, call *simulator.Method) types.BaseMethodFault {
	if ctx.Session == nil || ctx.Session.UserName == userName {
		return nil
	}
	demands, known := l.demands(ctx, call)
	if !known {
		return &types.NotSupported{RuntimeFault: types.RuntimeFault{MethodFault: types.MethodFault{FaultMessage: []types.LocalizableMessage{
			{Key: "lab", Message: "the lab doesn't know which privileges " + call.Name + " needs"},
		}}}}
	}
	if fault := l.denied(ctx, ctx.Session.UserName, demands); fault != nil {
		return fault
	}
	return nil
}

// denied is the fault for a user who lacks a privilege, nil if none is missing.
func (l *Lab) denied(ctx *simulator.Context, user string, demands []demand) *types.NoPermission {
	fault := &types.NoPermission{}
	for _, d := range demands {
		held := l.privilegesOn(ctx, user, d.on)
		missing := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(d.ids))), func(id string) bool { return held[id] })
		if len(missing) == 0 {
			continue
		}
		if fault.Object == nil {
			fault.Object, fault.PrivilegeId = &d.on, missing[0]
		}
		fault.MissingPrivileges = append(fault.MissingPrivileges, types.NoPermissionEntityPrivileges{Entity: d.on, PrivilegeIds: missing})
	}
	if fault.Object == nil {
		return nil
	}
	return fault
}

// freely are the methods that anybody with a session may call, apart from those whose names say that they
// only read.
var freely = []string{
	"Login", "Logout", "CurrentTime", "SessionIsActive", "AcquireCloneTicket", "CloneSession", "AcquireGenericServiceTicket", "TerminateSession",
	"CreateCollectorForEvents", "ReadNextEvents", "ReadPreviousEvents", "RewindCollector", "ResetCollector", "DestroyCollector",
	"CreateContainerView", "CreateListView", "ModifyListView", "ResetListView", "DestroyView",
	"CreateFilter", "CreatePropertyCollector", "DestroyPropertyCollector", "DestroyPropertyFilter",
	"WaitForUpdatesEx", "WaitForUpdates", "CheckForUpdates", "CancelWaitForUpdates", "ContinueRetrievePropertiesEx",
	"HasPrivilegeOnEntities", "HasUserPrivilegeOnEntities", "FetchUserPrivilegeOnEntities",
	"HttpNfcLeaseAbort", "HttpNfcLeaseComplete", "HttpNfcLeaseGetManifest", "HttpNfcLeaseProgress", "HttpNfcLeaseSetManifestChecksumType",
	"RefreshStorageInfo",
}

// onVM are the privileges that methods of a virtual machine or of a snapshot need on the virtual machine (vSphere
// Web Services API reference, "Required Privileges" of each method).
var onVM = map[string]string{
	"CreateSnapshot_Task":     "VirtualMachine.State.CreateSnapshot",
	"CreateSnapshotEx_Task":   "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":     "VirtualMachine.State.RemoveSnapshot",
	"RemoveAllSnapshots_Task": "VirtualMachine.State.RemoveSnapshot",
	"ConsolidateVMDisks_Task": "VirtualMachine.State.RemoveSnapshot",
	"RenameSnapshot":          "VirtualMachine.State.RenameSnapshot",
	"RevertToSnapshot_Task":   "VirtualMachine.State.RevertToSnapshot",

	"RevertToCurrentSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",

	"ExportSnapshot":        "VApp.Export",
	"ExportVm":              "VApp.Export",
	"PowerOnVM_Task":        "VirtualMachine.Interact.PowerOn",
	"PowerOffVM_Task":       "VirtualMachine.Interact.PowerOff",
	"ShutdownGuest":         "VirtualMachine.Interact.PowerOff",
	"SuspendVM_Task":        "VirtualMachine.Interact.Suspend",
	"ResetVM_Task":          "VirtualMachine.Interact.Reset",
	"CreateScreenshot_Task": "VirtualMachine.Interact.CreateScreenshot",
	"QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
	"UnregisterVM":          "VirtualMachine.Inventory.Unregister",
}

// demands are what the user of a call must be allowed to do; known is false for a call that isn't known.
func (l *Lab) demands(ctx *simulator.Context, call *simulator.Method) (demands []demand, known bool) {
	if id, ok := onVM[call.Name]; ok {
		return []demand{{l.vmOf(ctx, call.This), []string{id}}}, true
	}
	switch r := call.Body.(type) {
	case *types.ReconfigVM_Task:
		return l.demandsOfSpec(ctx, call.This, &r.Spec), true
	case *types.ImportVApp:
		return l.demandsOfImport(ctx, r)
	case *types.Destroy_Task:
		return l.demandsOfDestroy(ctx, r.This)
	case *types.SetVirtualDiskUuid:
		return l.onDatastore(r.Name, "Datastore.FileManagement"), true
	case *types.DeleteVirtualDisk_Task:
		return l.onDatastore(r.Name, "Datastore.FileManagement"), true
	case *types.DeleteDatastoreFile_Task:
		return l.onDatastore(r.Name, "Datastore.FileManagement"), true
	case *types.SearchDatastore_Task:
		return l.onDatastore(r.DatastorePath, "Datastore.Browse"), true
	case *types.SetField:
		return []demand{{r.Entity, []string{"Global.SetCustomField"}}}, true
	case *types.CancelTask:
		on := *l.rootFolder()
		if task, ok := ctx.Map.Get(r.This).(*simulator.Task); ok && task.Info.Entity != nil {
			on = *task.Info.Entity
		}
		return []demand{{on, []string{"Global.CancelTask"}}}, true
	}
	for _, prefix := range []string{"Retrieve", "Query", "Find", "Pbm"} {
		if strings.HasPrefix(call.Name, prefix) {
			return nil, true
		}
	}
	return nil, slices.Contains(freely, call.Name)
}

// vmOf is the virtual machine of a snapshot, or the object itself.
func (l *Lab) vmOf(ctx *simulator.Context, ref types.ManagedObjectReference) types.ManagedObjectReference {
	if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
		return s.Vm
	}
	return ref
}

// onDatastore demands privileges on the datastore of a file.
func (l *Lab) onDatastore(file string, ids ...string) []demand {
	var p object.DatastorePath
	if !p.FromString(file) {
		return nil // the call says what is wrong with it
	}
	ds := l.findEntity("Datastore", p.Datastore)
	if ds == nil {
		return nil
	}
	return []demand{{ds.Reference(), ids}}
}

// demandsOfDestroy: who removes a virtual machine needs to be allowed to on it and on its folder.
func (l *Lab) demandsOfDestroy(ctx *simulator.Context, ref types.ManagedObjectReference) ([]demand, bool) {
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, ctx.Map.Get(ref) == nil // what is no longer there is no matter of privileges
	}
	ids := []string{"VirtualMachine.Inventory.Delete"}
	demands := []demand{{ref, ids}}
	ctx.WithLock(vm, func() {
		if vm.Parent != nil {
			demands = append(demands, demand{*vm.Parent, ids})
		}
	})
	return demands, true
}

// mayFile refuses a request for a file to a user who lacks a privilege on its datastore. "Low level file
// operations" (Datastore.FileManagement) covers reading, too (VMware vSphere Security, "Datastore Privileges").
func (l *Lab) mayFile(user, file string, write bool) error {
	if user == "" || user == userName {
		return nil
	}
	ids := []string{"Datastore.Browse", "Datastore.FileManagement"}
	if write {
		ids = ids[1:]
	}
	if l.denied(l.background(), user, l.onDatastore(file, ids...)) != nil {
		return refuse(http.StatusForbidden, "a privilege on the datastore of %s is missing", file)
	}
	return nil
}
