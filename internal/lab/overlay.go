package lab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// The simulator finds its own objects by type assertion, so objects of other types can't stand in its
// registry. It looks a call's object up in the session first, though: what the lab does differently
// stands there, one overlay per session and object, around the one object of the registry.
type (
	virtualMachine struct {
		*simulator.VirtualMachine
		lab *Lab
	}
	snapshot struct {
		*simulator.VirtualMachineSnapshot
		lab *Lab
	}
	resourcePool struct {
		*simulator.ResourcePool
		lab *Lab
	}
	datacenter struct {
		*simulator.Datacenter
		lab *Lab
	}
	folder struct {
		*simulator.Folder
		lab *Lab
	}
	datastore struct {
		*simulator.Datastore
		lab *Lab
	}
	diskManager struct {
		*simulator.VirtualDiskManager
		lab *Lab
	}
	fileManager struct {
		*simulator.FileManager
		lab *Lab
	}
	environmentBrowser struct {
		*simulator.EnvironmentBrowser
		lab *Lab
	}
	taskView struct {
		*simulator.Task
		lab *Lab
	}
)

// Lock does nothing: calls on a snapshot lock its VM first, and then what they change.
func (*snapshot) Lock() {}

// Unlock does nothing.
func (*snapshot) Unlock() {}

// handle runs before every call of the simulator: it injects faults and puts overlays into place.
func (l *Lab) handle(ctx *simulator.Context, call *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session != nil && ctx.Session.Registry == l.internal {
		return nil, nil
	}
	if ctx.Session != nil {
		l.secrets.note(ctx.Session.Key)
	}
	correctTypes(ctx, call)
	if f, ok := l.faults.next(call.Name, faultCall); ok {
		l.sleep(context.Background(), f.Delay) // the simulator's contexts never end
		if fault := f.method(); fault != nil {
			f.fill(fault, call.This, types.ManagedObjectReference{Type: "Task", Value: "task-0"})
			return nil, fault
		}
	}
	if fault := l.forbidden(ctx, call); fault != nil {
		return nil, fault
	}
	if ctx.Session == nil || ctx.Session.Registry.Get(call.This) != nil {
		return nil, nil
	}
	if overlay := l.overlay(ctx.Map.Get(call.This)); overlay != nil {
		// Put writes to managed entities.
		ctx.WithLock(overlay, func() { ctx.Session.Registry.Put(overlay) })
		l.noteSession(ctx.Session)
	}
	return nil, nil
}

// noteSession notes that a session has overlays, and from time to time forgets those that have ended.
func (l *Lab) noteSession(session *simulator.Session) {
	l.mu.Lock()
	l.overlays[session.Registry] = session.Key
	many := len(l.overlays) > maxSessions
	l.mu.Unlock()
	if !many {
		return
	}
	alive := map[string]bool{session.Key: true}
	for _, s := range l.sessions() {
		alive[s.Key] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.overlays, func(_ *simulator.Registry, key string) bool { return !alive[key] })
}

// maxSessions is how many sessions may be noted before those that have ended are looked for.
const maxSessions = 64

// overlay is what stands before an object of the simulator, nil for most.
func (l *Lab) overlay(object mo.Reference) mo.Reference {
	switch o := object.(type) {
	case *simulator.VirtualMachine:
		return &virtualMachine{o, l}
	case *simulator.VirtualMachineSnapshot:
		return &snapshot{o, l}
	case *simulator.ResourcePool:
		return &resourcePool{o, l}
	case *simulator.Datacenter:
		return &datacenter{o, l}
	case *simulator.Folder:
		return &folder{o, l}
	case *simulator.Datastore:
		return &datastore{o, l}
	case *simulator.VirtualDiskManager:
		return &diskManager{o, l}
	case *simulator.FileManager:
		return &fileManager{o, l}
	case *simulator.OvfManager:
		return &ovfManager{o}
	case *simulator.EnvironmentBrowser:
		return &environmentBrowser{o, l}
	case *simulator.EventManager:
		return &eventManager{o, l}
	case *simulator.Task:
		return &taskView{o, l}
	case *simulator.AuthorizationManager:
		return &authorizationManager{o, l}
	}
	return nil
}

// janitor drops overlays when the simulator removes the object.
type janitor struct{ lab *Lab }

// Reference is nothing that a client can ask for.
func (j *janitor) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "LabJanitor", Value: fmt.Sprintf("%p", j.lab)}
}

// PutObject does nothing.
func (*janitor) PutObject(*simulator.Context, mo.Reference) {}

// UpdateObject does nothing.
func (*janitor) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}

// RemoveObject drops the overlays of an object.
func (j *janitor) RemoveObject(ctx *simulator.Context, ref types.ManagedObjectReference) {
	if strings.HasPrefix(ref.Value, "session[") {
		return // an object of a session that ends, whose registry the simulator holds locked meanwhile
	}
	switch ref.Type {
	case "PropertyCollector", "PropertyFilter", "ContainerView", "ListView", "EventHistoryCollector":
		// They have no overlays. The simulator removes them at the end of a session with the session's
		// registry locked, so looking into that would never return.
		return
	}
	j.lab.mu.Lock()
	defer j.lab.mu.Unlock()
	for registry := range j.lab.overlays {
		if registry.Get(ref) != nil {
			registry.Remove(ctx, ref)
		}
	}
	delete(j.lab.points, ref)
	delete(j.lab.snapshotIDs, ref)
	j.lab.delist(ref)
}

// background is a context for work of the lab's own.
func (l *Lab) background() *simulator.Context {
	ctx := *l.model.Service.Context
	return &ctx
}

// inner waits for a task of the simulator and takes it out of the inventory: to clients the lab's own
// task is the only one.
func (l *Lab) inner(ctx *simulator.Context, ref types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	task, ok := ctx.Map.Get(ref).(*simulator.Task)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: ref}
	}
	task.Wait()
	ctx.Map.Remove(ctx, ref)
	l.forgetTask(ctx, task)
	if task.Info.Error != nil {
		return nil, task.Info.Error.Fault
	}
	return task.Info.Result, nil
}

// forgetTask takes a task out of the lists of recent ones.
func (l *Lab) forgetTask(ctx *simulator.Context, task *simulator.Task) {
	without := func(refs []types.ManagedObjectReference) []types.PropertyChange {
		refs = slices.DeleteFunc(slices.Clone(refs), func(r types.ManagedObjectReference) bool { return r == task.Self })
		return []types.PropertyChange{{Name: "recentTask", Val: refs}}
	}
	manager := l.model.Service.Context.Map.Get(*l.model.ServiceContent.TaskManager)
	if m, ok := manager.(*simulator.TaskManager); ok {
		ctx.WithLock(m, func() { ctx.Update(m, without(m.RecentTask)) })
	}
	if e, ok := ctx.Map.Get(*task.Info.Entity).(mo.Entity); ok {
		ctx.WithLock(e, func() { ctx.Update(e, without(e.Entity().RecentTask)) })
	}
}
