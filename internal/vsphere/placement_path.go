package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// A lineage is an object's ancestors, from the root's child (a datacenter or a folder of datacenters)
// down to the object itself.
type lineage []mo.ManagedEntity

// path is the inventory path, "/DC0/vm/apps". Names come with the API's escapes: a slash in a name is "%2f".
func (l lineage) path() string {
	var b strings.Builder
	for _, e := range l {
		b.WriteByte('/')
		b.WriteString(e.Name)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// datacenter is the datacenter on the way, or nil.
func (l lineage) datacenter() *mo.ManagedEntity {
	for i := range l {
		if l[i].Self.Type == "Datacenter" {
			return &l[i]
		}
	}
	return nil
}

// datacenterPath is the path down to the datacenter, as the datastore browser over HTTP wants it.
func (l lineage) datacenterPath() string {
	for i := range l {
		if l[i].Self.Type == "Datacenter" {
			return strings.TrimPrefix(l[:i+1].path(), "/")
		}
	}
	return ""
}

// ancestors reads the lineage of an object. govmomi's mo.Ancestors is no alternative: it never returns
// when the user may not see one of the ancestors.
func (c *Client) ancestors(ctx context.Context, ref types.ManagedObjectReference) (lineage, error) {
	objects, err := retrieve(ctx, c.vim, types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{
			{Type: "ManagedEntity", PathSet: []string{"name", "parent"}},
			{Type: "VirtualMachine", PathSet: []string{"parentVApp"}},
		},
		ObjectSet: []types.ObjectSpec{{
			Obj:       ref,
			SelectSet: []types.BaseSelectionSpec{upwards("ManagedEntity", "parent"), upwards("VirtualMachine", "parentVApp")},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("read where %s is: %w", ref.Value, classify(err))
	}
	var line lineage
	for at := &ref; at != nil && len(line) < len(objects); {
		content, ok := objects[*at]
		if !ok {
			break
		}
		entity := mo.ManagedEntity{ExtensibleManagedObject: mo.ExtensibleManagedObject{Self: *at}}
		entity.Name, entity.Parent = nameAndParent(content)
		line = append(line, entity)
		at = entity.Parent
	}
	slices.Reverse(line)
	if len(line) > 0 && line[0].Parent == nil {
		line = line[1:] // the root folder has no part in paths
	}
	return line, nil
}

// A treeEntry is a folder, a datacenter, a compute resource or a resource pool.
type treeEntry struct {
	ref       types.ManagedObjectReference
	name      string
	parent    types.ManagedObjectReference
	childType []string
}

// A tree is the inventory without its leaves.
type tree map[types.ManagedObjectReference]treeEntry

// readTree reads the containers of the inventory.
func (c *Client) readTree(ctx context.Context) (tree, error) {
	out := tree{}
	for _, kind := range []string{"Folder", "Datacenter", "ComputeResource", "ResourcePool"} {
		paths := []string{"name", "parent"}
		if kind == "Folder" {
			paths = append(paths, "childType")
		}
		objects, err := c.list(ctx, kind, paths...)
		if err != nil {
			return nil, fmt.Errorf("list the inventory: %w", err)
		}
		for ref, object := range objects {
			e := treeEntry{ref: ref}
			var parent *types.ManagedObjectReference
			if e.name, parent = nameAndParent(object); parent != nil {
				e.parent = *parent
			}
			for _, p := range object.PropSet {
				if list, ok := p.Val.(types.ArrayOfString); ok {
					e.childType = list.String
				}
			}
			out[ref] = e
		}
	}
	return out, nil
}

// path is the inventory path of an entry.
func (t tree) path(ref types.ManagedObjectReference) string {
	var b []string
	for range len(t) {
		e, ok := t[ref]
		if !ok {
			break
		}
		b = append(b, e.name)
		ref = e.parent
	}
	slices.Reverse(b)
	return "/" + strings.Join(b, "/")
}

// paths are the sorted paths of the entries that match.
func (t tree) paths(match func(treeEntry) bool) []string {
	var out []string
	for ref, e := range t {
		if match(e) {
			out = append(out, t.path(ref))
		}
	}
	slices.Sort(out)
	return out
}
