package lab

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// maxSnapshotLevels is how deep a chain of snapshots may be on a real host.
const maxSnapshotLevels = 32

// findNode finds a snapshot in a tree, and its depth: 1 for a root, 0 when it isn't there.
func findNode(
	trees []types.VirtualMachineSnapshotTree, ref types.ManagedObjectReference,
) (node, parent *types.VirtualMachineSnapshotTree, depth int) {
	for i := range trees {
		if trees[i].Snapshot == ref {
			return &trees[i], nil, 1
		}
		node, parent, depth := findNode(trees[i].ChildSnapshotList, ref)
		if node == nil {
			continue
		}
		if parent == nil {
			parent = &trees[i]
		}
		return node, parent, depth + 1
	}
	return nil, nil, 0
}

// withoutNode takes a snapshot out of a tree. Its children take its place or, with all, go with it.
func withoutNode(
	trees []types.VirtualMachineSnapshotTree, ref types.ManagedObjectReference, all bool,
) []types.VirtualMachineSnapshotTree {
	var rest []types.VirtualMachineSnapshotTree
	for _, t := range trees {
		switch {
		case t.Snapshot != ref:
			t.ChildSnapshotList = withoutNode(t.ChildSnapshotList, ref, all)
			rest = append(rest, t)
		case !all:
			rest = append(rest, t.ChildSnapshotList...)
		}
	}
	return rest
}

// refsIn lists the snapshots of a tree, parents first.
func refsIn(trees []types.VirtualMachineSnapshotTree) []types.ManagedObjectReference {
	var refs []types.ManagedObjectReference
	for _, t := range trees {
		refs = append(refs, t.Snapshot)
		refs = append(refs, refsIn(t.ChildSnapshotList)...)
	}
	return refs
}

// snapshotInfo is a copy of what a VM says about its snapshots. The VM's lock is held.
func snapshotInfo(vm *simulator.VirtualMachine) *types.VirtualMachineSnapshotInfo {
	if vm.Snapshot == nil {
		return new(types.VirtualMachineSnapshotInfo)
	}
	return clone(vm.Snapshot)
}

// setSnapshots changes what a VM says about its snapshots. The VM's lock is held.
func setSnapshots(ctx *simulator.Context, vm *simulator.VirtualMachine, info *types.VirtualMachineSnapshotInfo) {
	if len(info.RootSnapshotList) == 0 {
		ctx.Update(vm, []types.PropertyChange{{Name: "snapshot", Val: nil}, {Name: "rootSnapshot", Val: nil}})
		return
	}
	roots := make([]types.ManagedObjectReference, len(info.RootSnapshotList))
	for i, t := range info.RootSnapshotList {
		roots[i] = t.Snapshot
	}
	vm.Snapshot = info
	var current types.AnyType // nil when the VM descends from no snapshot any more
	if info.CurrentSnapshot != nil {
		current = *info.CurrentSnapshot
	}
	ctx.Update(vm, []types.PropertyChange{
		{Name: "snapshot.rootSnapshotList", Val: info.RootSnapshotList},
		{Name: "snapshot.currentSnapshot", Val: current},
		{Name: "rootSnapshot", Val: roots},
	})
	setChildren(ctx, info.RootSnapshotList)
}

// setChildren tells snapshots of their children.
func setChildren(ctx *simulator.Context, trees []types.VirtualMachineSnapshotTree) {
	for _, t := range trees {
		s, ok := ctx.Map.Get(t.Snapshot).(*simulator.VirtualMachineSnapshot)
		if !ok {
			continue
		}
		var children []types.ManagedObjectReference
		for _, c := range t.ChildSnapshotList {
			children = append(children, c.Snapshot)
		}
		ctx.WithLock(s, func() { ctx.Update(s, []types.PropertyChange{{Name: "childSnapshot", Val: children}}) })
		setChildren(ctx, t.ChildSnapshotList)
	}
}

// escapeName escapes what can't stand in a name, as the API does: %, / and \.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/':
			b.WriteString("%2f")
		case c == '\\':
			b.WriteString("%5c")
		case c == '%' && !escapeAt(name[i:]):
			b.WriteString("%25")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescapeName is the reverse of escapeName.
func unescapeName(name string) string {
	return strings.NewReplacer("%25", "%", "%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`).Replace(name)
}

// escapeAt says whether s starts with an escape sequence.
func escapeAt(s string) bool {
	return len(s) >= 3 && isHex(s[1]) && isHex(s[2])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
