package lab

import (
	"errors"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RemoveSnapshotTask starts a task that removes a snapshot.
func (s *snapshot) RemoveSnapshotTask(ctx *simulator.Context, r *types.RemoveSnapshot_Task) soap.HasFault {
	body := new(methods.RemoveSnapshot_TaskBody)
	vm, ok := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	if !ok {
		body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: s.Vm})
		return body
	}
	task := s.lab.startVMJob(ctx, vm, "RemoveSnapshot_Task", func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm, func() {
			info := snapshotInfo(vm)
			node, _, _ := findNode(info.RootSnapshotList, s.Self)
			if node == nil {
				fault = &types.ManagedObjectNotFound{Obj: s.Self} // another task was faster
				return
			}
			gone := []types.ManagedObjectReference{s.Self}
			if r.RemoveChildren {
				gone = refsIn([]types.VirtualMachineSnapshotTree{*node})
			}
			fault = s.lab.removeSnapshots(j.sim, vm, gone, r.Consolidate == nil || *r.Consolidate)
		})
		return nil, fault
	})
	body.Res = &types.RemoveSnapshot_TaskResponse{Returnval: task}
	return body
}

// RemoveAllSnapshotsTask starts a task that removes all snapshots of a VM.
func (vm *virtualMachine) RemoveAllSnapshotsTask(ctx *simulator.Context, r *types.RemoveAllSnapshots_Task) soap.HasFault {
	spec := vm.job("RemoveAllSnapshots_Task")
	task := vm.lab.startJob(ctx, spec, func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() {
			if vm.Snapshot != nil {
				gone := refsIn(vm.Snapshot.RootSnapshotList)
				fault = vm.lab.removeSnapshots(j.sim, vm.VirtualMachine, gone, r.Consolidate == nil || *r.Consolidate)
			}
		})
		return nil, fault
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: task}}
}

// ConsolidateVMDisksTask starts a task that merges the files that belong to no snapshot.
func (vm *virtualMachine) ConsolidateVMDisksTask(ctx *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	spec := vm.job("ConsolidateVMDisks_Task")
	task := vm.lab.startJob(ctx, spec, func(j *job) (_ types.AnyType, fault types.BaseMethodFault) {
		if vm.lab.leaseHolding(vm.Self) {
			return nil, &types.FileLocked{}
		}
		j.sim.WithLock(vm.VirtualMachine, func() {
			fault = vm.lab.consolidate(j.sim, vm.VirtualMachine, nil, true)
			vm.lab.refreshLayout(j.sim, vm.VirtualMachine)
		})
		return nil, fault
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task}}
}

// removeSnapshots removes snapshots of a VM whose lock is held, and merges or leaves their files. Where
// a lease still reads them, the snapshots go and the files stay, as on a real host.
func (l *Lab) removeSnapshots(
	ctx *simulator.Context, vm *simulator.VirtualMachine, gone []types.ManagedObjectReference, merge bool,
) types.BaseMethodFault {
	if vm.Config.Template {
		return &types.NotSupported{}
	}
	info := snapshotInfo(vm)
	var files []string
	for _, ref := range gone {
		if info.CurrentSnapshot != nil && *info.CurrentSnapshot == ref {
			info.CurrentSnapshot = nil
			if _, parent, _ := findNode(info.RootSnapshotList, ref); parent != nil {
				current := parent.Snapshot
				info.CurrentSnapshot = &current
			}
		}
		if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			for _, d := range disksOf(s.Config.Hardware.Device) {
				files = append(files, chain(d)...)
			}
		}
		info.RootSnapshotList = withoutNode(info.RootSnapshotList, ref, false)
	}
	locked := l.leaseHolding(vm.Self)
	setSnapshots(ctx, vm, info)
	for _, ref := range gone {
		l.mu.Lock()
		p := l.points[ref]
		delete(l.points, ref)
		l.mu.Unlock()
		if p != nil {
			l.removeFile(p.data)
			l.removeFile(p.memory)
		}
		ctx.Map.Remove(ctx, ref)
	}
	fault := l.consolidate(ctx, vm, files, merge && !locked)
	l.refreshLayout(ctx, vm)
	return fault
}

// consolidate removes the files that nothing stands on and, with merge, those that stand between two
// others without being anybody's disk. files are where to look beside the VM's own. The VM's lock is held.
func (l *Lab) consolidate(
	ctx *simulator.Context, vm *simulator.VirtualMachine, files []string, merge bool,
) types.BaseMethodFault {
	files = l.family(vm, files)
	used := l.usedDisks(ctx, vm)
	merged := map[string]string{}
	needed := false
	for again := true; again; {
		again, needed = false, false
		children := l.children()
		for _, file := range files {
			if _, err := l.store.Stat(file); err != nil || used[file] {
				continue // gone, or a disk
			}
			switch below := children[file]; {
			case len(below) == 0:
				if l.leaseHolding(vm.Self) {
					needed = true
					continue
				}
				if err := l.removeDisk(file); err != nil {
					return storeFault(file, err)
				}
				again = true
			case len(below) > 1:
			case !merge:
				needed = true
			default:
				if fault := l.merge(below[0], file); fault != nil {
					return fault
				}
				if used[below[0]] {
					delete(used, below[0])
					used[file] = true
				}
				for from, to := range merged {
					if to == below[0] {
						merged[from] = file
					}
				}
				merged[below[0]] = file
				again = true
			}
			if again {
				break // the children have changed
			}
		}
	}
	l.renameDisks(ctx, vm, merged)
	ctx.Update(vm, []types.PropertyChange{
		{Name: "runtime.consolidationNeeded", Val: needed},
		{Name: "summary.runtime.consolidationNeeded", Val: needed},
	})
	return nil
}

// family are the files that are, or have been, of the same disks as a VM's own and some others.
func (l *Lab) family(vm *simulator.VirtualMachine, files []string) []string {
	bases := map[string]bool{}
	for _, file := range files {
		bases[baseName(file)] = true
	}
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		if b := backing(d); b != nil {
			bases[baseName(b.FileName)] = true
		}
	}
	var family []string
	for _, name := range l.store.Names() {
		if bases[baseName(name)] {
			family = append(family, name)
		}
	}
	return family
}

// merge merges a file into the one below it.
func (l *Lab) merge(child, parent string) types.BaseMethodFault {
	extent := l.extentOf(child)
	if err := l.store.Commit(child); err != nil {
		if errors.Is(err, diskstore.ErrInUse) {
			return &types.FileLocked{FileFault: fileFault(parent)}
		}
		return storeFault(child, err)
	}
	l.removeFile(child)
	l.removeFile(extent)
	return nil
}

// children are the files on top of each file.
func (l *Lab) children() map[string][]string {
	children := map[string][]string{}
	for _, name := range l.store.Names() {
		if info, err := l.store.Stat(name); err == nil && info.Parent != "" {
			children[info.Parent] = append(children[info.Parent], name)
		}
	}
	return children
}

// renameDisks writes what has been merged, and the chains as they are now, into a VM and its snapshots.
func (l *Lab) renameDisks(ctx *simulator.Context, vm *simulator.VirtualMachine, merged map[string]string) {
	if len(merged) == 0 {
		return
	}
	rewrite := func(devices []types.BaseVirtualDevice) []types.BaseVirtualDevice {
		devices = clone(devices)
		for _, d := range disksOf(devices) {
			b := backing(d)
			if b == nil {
				continue
			}
			file := b.FileName
			if to, ok := merged[file]; ok {
				file = to
			}
			d.Backing = l.backingOf(file, b)
		}
		return devices
	}
	l.setDevices(ctx, vm, rewrite(vm.Config.Hardware.Device))
	if vm.Snapshot == nil {
		return
	}
	for _, ref := range refsIn(vm.Snapshot.RootSnapshotList) {
		if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			ctx.WithLock(s, func() {
				devices := rewrite(s.Config.Hardware.Device)
				ctx.Update(s, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
			})
		}
	}
}
