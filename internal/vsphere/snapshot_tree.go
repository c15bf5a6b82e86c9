package vsphere

import (
	"context"
	"fmt"
	"path"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Snapshots implements hypervisor.Snapshotter. Calls for many VMs at the same time go out together.
func (c *Client) Snapshots(ctx context.Context, vm hypervisor.VMID) ([]hypervisor.Snapshot, error) {
	var m mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.snapshots, vm, &m); err != nil {
		return nil, fmt.Errorf("list the snapshots of %s: %w", vm, err)
	}
	return snapshots(&m), nil
}

// A treeNode is a snapshot and where it is in the tree.
type treeNode struct {
	node   *types.VirtualMachineSnapshotTree
	parent *types.ManagedObjectReference
	path   string
	depth  int
}

// flatten lists the nodes of a tree, parents before their children.
func flatten(info *types.VirtualMachineSnapshotInfo) []treeNode {
	if info == nil {
		return nil
	}
	var nodes []treeNode
	var walk func(list []types.VirtualMachineSnapshotTree, parent *treeNode)
	walk = func(list []types.VirtualMachineSnapshotTree, parent *treeNode) {
		for i := range list {
			n := treeNode{node: &list[i], path: unescapeName(list[i].Name), depth: 1}
			if parent != nil {
				n.parent, n.path, n.depth = &parent.node.Snapshot, parent.path+"/"+n.path, parent.depth+1
			}
			nodes = append(nodes, n)
			walk(list[i].ChildSnapshotList, &n)
		}
	}
	walk(info.RootSnapshotList, nil)
	return nodes
}

// snapshots translates what was read of a VM.
func snapshots(m *mo.VirtualMachine) []hypervisor.Snapshot {
	nodes := flatten(m.Snapshot)
	out := make([]hypervisor.Snapshot, 0, len(nodes))
	layout := newLayout(m.LayoutEx)
	for _, n := range nodes {
		current := m.Snapshot.CurrentSnapshot != nil && *m.Snapshot.CurrentSnapshot == n.node.Snapshot
		s := hypervisor.Snapshot{
			ID:          hypervisor.SnapshotID(n.node.Snapshot.Value),
			Name:        unescapeName(n.node.Name),
			Description: n.node.Description,
			CreatedAt:   n.node.CreateTime.UTC(),
			PowerState:  powerStates[n.node.State],
			// A snapshot without memory leads to a VM that is off, whatever the VM was
			// (VirtualMachine.CreateSnapshot_Task in the API reference).
			Memory:      layout.hasMemory(n.node.Snapshot) || n.node.State == types.VirtualMachinePowerStatePoweredOn,
			Quiesced:    n.node.Quiesced,
			Application: n.node.Quiesced && n.node.BackupManifest != "",
			Path:        n.path,
			Depth:       n.depth,
			Current:     current,
			SizeBytes:   layout.size(n.node, current),
		}
		if n.parent != nil {
			s.Parent = hypervisor.SnapshotID(n.parent.Value)
		}
		for _, child := range n.node.ChildSnapshotList {
			s.Children = append(s.Children, hypervisor.SnapshotID(child.Snapshot.Value))
		}
		out = append(out, s)
	}
	return out
}

var powerStates = map[types.VirtualMachinePowerState]hypervisor.PowerState{
	types.VirtualMachinePowerStatePoweredOn:  hypervisor.PoweredOn,
	types.VirtualMachinePowerStatePoweredOff: hypervisor.PoweredOff,
	types.VirtualMachinePowerStateSuspended:  hypervisor.Suspended,
}

// A layout indexes the files of a VM.
type layout struct {
	files     map[int32]types.VirtualMachineFileLayoutExFileInfo
	snapshots map[types.ManagedObjectReference]types.VirtualMachineFileLayoutExSnapshotLayout
	running   []types.VirtualMachineFileLayoutExDiskLayout
}

// newLayout returns nil when the files are not known.
func newLayout(ex *types.VirtualMachineFileLayoutEx) *layout {
	if ex == nil {
		return nil
	}
	l := &layout{
		files:     make(map[int32]types.VirtualMachineFileLayoutExFileInfo, len(ex.File)),
		snapshots: make(map[types.ManagedObjectReference]types.VirtualMachineFileLayoutExSnapshotLayout, len(ex.Snapshot)),
		running:   ex.Disk,
	}
	for _, f := range ex.File {
		l.files[f.Key] = f
	}
	for _, s := range ex.Snapshot {
		l.snapshots[s.Key] = s
	}
	return l
}

// hasMemory tells whether a snapshot has a file of its own with the VM's memory.
func (l *layout) hasMemory(ref types.ManagedObjectReference) bool {
	if l == nil {
		return false
	}
	s, ok := l.snapshots[ref]
	if !ok || s.MemoryKey < 0 {
		return false
	}
	f, ok := l.files[s.MemoryKey]
	return ok && (f.Type == string(types.VirtualMachineFileLayoutExFileTypeSnapshotMemory) || path.Ext(f.Name) == ".vmem")
}

// size returns what a snapshot holds on the datastore, in bytes as the server last counted them: the
// deltas that were begun because of it, its state and its memory. -1: unknown.
func (l *layout) size(node *types.VirtualMachineSnapshotTree, current bool) int64 {
	if l == nil {
		return -1
	}
	own, ok := l.snapshots[node.Snapshot]
	if !ok {
		return -1
	}
	frozen := make(map[int32]map[int32]bool, len(own.Disk)) // file keys by disk
	for _, d := range own.Disk {
		frozen[d.Key] = make(map[int32]bool)
		for _, unit := range d.Chain {
			for _, key := range unit.FileKey {
				frozen[d.Key][key] = true
			}
		}
	}
	held := map[int32]bool{own.DataKey: true, own.MemoryKey: true}
	begun := func(disks []types.VirtualMachineFileLayoutExDiskLayout) {
		for _, d := range disks {
			base, ok := frozen[d.Key]
			if !ok {
				continue // the disk came later
			}
			for _, unit := range d.Chain {
				for _, key := range unit.FileKey {
					if !base[key] {
						held[key] = true
					}
				}
			}
		}
	}
	for _, child := range node.ChildSnapshotList {
		begun(l.snapshots[child.Snapshot].Disk)
	}
	if current {
		begun(l.running)
	}
	var size int64
	for key := range held {
		size += l.files[key].Size // zero for a key that is no file's
	}
	return size
}
