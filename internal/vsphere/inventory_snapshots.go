package vsphere

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// maxListed is how many VMs one call reads with all their devices, snapshots and files, so that memory for
// the answers is bounded.
const maxListed = 250

// containers are the kinds of objects that VMs can be listed below, as CreateContainerView has them.
var containers = []string{"Folder", "Datacenter", "ComputeResource", "ClusterComputeResource", "ResourcePool", "VirtualApp", "HostSystem"}

// SnapshotsBelow implements hypervisor.SnapshotLister.
func (c *Client) SnapshotsBelow(ctx context.Context, folder string) iter.Seq2[hypervisor.VMSnapshots, error] {
	return func(yield func(hypervisor.VMSnapshots, error) bool) {
		fail := func(err error) {
			yield(hypervisor.VMSnapshots{}, fmt.Errorf("list snapshots: %w", c.named(classify(err))))
		}
		server, err := c.Server(ctx)
		if err != nil {
			fail(err)
			return
		}
		refs, err := c.withSnapshots(ctx, folder)
		if err != nil {
			fail(err)
			return
		}
		for batch := range slices.Chunk(refs, maxListed) {
			requests := make([]*readRequest, len(batch))
			for i, ref := range batch {
				requests[i] = &readRequest{ref: ref}
			}
			objects, err := c.reads.listed.call(ctx, requests)
			if err != nil {
				fail(err)
				return
			}
			for _, ref := range batch {
				if _, ok := objects[ref]; !ok {
					continue // gone by now
				}
				if one := c.listed(objects, ref, server); (len(one.Snapshots) > 0 || one.Err != nil) && !yield(one, nil) {
					return
				}
			}
		}
	}
}

// listed translates one VM with its snapshots.
func (c *Client) listed(
	objects map[types.ManagedObjectReference]types.ObjectContent, ref types.ManagedObjectReference, server string,
) hypervisor.VMSnapshots {
	var m mo.VirtualMachine
	path := pathOf(objects, ref)
	err := load(objects, ref, &m)
	if err == nil {
		var vm *hypervisor.VM
		if vm, err = identifiedVM(&m, path, server); err == nil {
			return hypervisor.VMSnapshots{VM: *vm, Snapshots: snapshots(&m)}
		}
	}
	return hypervisor.VMSnapshots{VM: hypervisor.VM{ID: hypervisor.VMID(ref.Value), Path: path, Server: server}, Err: err}
}

// withSnapshots lists the VMs below a folder that have snapshots, by name. Of one whose snapshots may not be
// read, or whose files the server can't read (see readVM), it can't be told.
func (c *Client) withSnapshots(ctx context.Context, folder string) ([]types.ManagedObjectReference, error) {
	container := c.vim.ServiceContent.RootFolder
	if folder != "" {
		ref, err := c.findPath(ctx, folder)
		if err != nil {
			return nil, err
		}
		if ref == nil || !slices.Contains(containers, ref.Type) {
			return nil, c.noFolder(ctx, folder)
		}
		container = *ref
	}
	objects, err := c.listBelow(ctx, container, "VirtualMachine", "name", "snapshot", "config.instanceUuid")
	if err != nil {
		return nil, err
	}
	names := make(map[types.ManagedObjectReference]string)
	for ref, object := range objects {
		has := func(name string) bool {
			return slices.ContainsFunc(object.PropSet, func(p types.DynamicProperty) bool { return p.Name == name })
		}
		if has("snapshot") || !has("config.instanceUuid") || len(object.MissingSet) > 0 {
			names[ref], _ = nameAndParent(object)
		}
	}
	refs := make([]types.ManagedObjectReference, 0, len(names))
	for ref := range names {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b types.ManagedObjectReference) int {
		return cmp.Or(cmp.Compare(names[a], names[b]), cmp.Compare(a.Value, b.Value))
	})
	return refs, nil
}

// noFolder says that there is no such folder, and which there are.
func (c *Client) noFolder(ctx context.Context, wanted string) error {
	tree, err := c.readTree(ctx)
	if err != nil {
		return err
	}
	return &hypervisor.NotAvailableError{Kind: "folder", Name: wanted, Available: tree.paths(holdsVMs)}
}

// holdsVMs reports whether an entry is a folder that VMs can be in.
func holdsVMs(e treeEntry) bool { return slices.Contains(e.childType, "VirtualMachine") }
