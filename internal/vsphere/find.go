package vsphere

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A vCenter's VMs are "vm-42", an ESXi host's plain numbers.
var vmID = regexp.MustCompile(`^(vm-)?\d+$`)

// FindVM implements hypervisor.Finder. The forms of a reference are tried in turn: managed object ID,
// UUID (instance or BIOS), inventory path, name. The first that matches anything decides, so that a VM
// whose name looks like an ID can be reached by its other names.
//
// A path is absolute ("/DC0/vm/apps/web01", also without the first slash) or relative to the VM folder of
// any datacenter ("apps/web01"). Names may be written as they are displayed or with the API's escapes
// (%25, %2f, %5c).
func (c *Client) FindVM(ctx context.Context, ref hypervisor.VMRef) (*hypervisor.VM, error) {
	text := strings.TrimSpace(string(ref))
	if text == "" {
		return nil, errors.New("find virtual machine: the reference is empty")
	}
	for _, find := range []func(context.Context, string) ([]*hypervisor.VM, error){
		c.findByID, c.findByUUID, c.findByPath, c.findByName,
	} {
		found, err := find(ctx, text)
		if err != nil {
			return nil, fmt.Errorf("find virtual machine %q: %w", text, err)
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		return nil, ambiguous(ref, found)
	}
	return nil, &hypervisor.VMNotFoundError{Ref: text, Where: c.addr}
}

// ambiguous lists what matches, so that a person can pick one by what tells them apart.
func ambiguous(ref hypervisor.VMRef, found []*hypervisor.VM) error {
	lines := make([]string, len(found))
	for i, vm := range found {
		lines[i] = fmt.Sprintf("%s (%s, instance UUID %s, BIOS UUID %s)", vm.Path, vm.ID, vm.InstanceUUID, vm.BIOSUUID)
	}
	slices.Sort(lines)
	return &hypervisor.AmbiguousVMError{Ref: ref, Matches: lines}
}

// load reads the VMs of a search, as vmThrough does. One that is gone by now, or was never a VM, doesn't match.
func (c *Client) load(ctx context.Context, r *reader, refs []types.ManagedObjectReference) ([]*hypervisor.VM, error) {
	var found []*hypervisor.VM
	for i, ref := range refs {
		if ref.Type != "VirtualMachine" || slices.Contains(refs[:i], ref) {
			continue
		}
		vm, err := c.vmThrough(ctx, r, ref)
		if vmGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, vm)
	}
	return found, nil
}

func (c *Client) findByID(ctx context.Context, text string) ([]*hypervisor.VM, error) {
	if !vmID.MatchString(text) {
		return nil, nil
	}
	return c.load(ctx, c.reads.vms, []types.ManagedObjectReference{vmRef(hypervisor.VMID(text))})
}

func (c *Client) findByUUID(ctx context.Context, text string) ([]*hypervisor.VM, error) {
	id, err := uuid.Parse(text)
	if err != nil || len(text) < 32 {
		return nil, nil //nolint:nilerr // it is no UUID
	}
	var refs []types.ManagedObjectReference
	for _, instance := range []bool{true, false} {
		found, err := c.searchUUID(ctx, id.String(), instance)
		if err != nil {
			return nil, err
		}
		refs = append(refs, found...)
	}
	return c.load(ctx, c.reads.vms, refs)
}

// searchUUID asks the server's index of instance or BIOS UUIDs.
func (c *Client) searchUUID(ctx context.Context, id string, instance bool) ([]types.ManagedObjectReference, error) {
	res, err := methods.FindAllByUuid(ctx, c.vim, &types.FindAllByUuid{
		This: *c.vim.ServiceContent.SearchIndex, Uuid: id, VmSearch: true, InstanceUuid: types.NewBool(instance),
	})
	if err != nil {
		return nil, classify(err)
	}
	return res.Returnval, nil
}

func (c *Client) findByPath(ctx context.Context, text string) ([]*hypervisor.VM, error) {
	if !strings.Contains(text, "/") {
		return nil, nil
	}
	elements := strings.Split(strings.Trim(text, "/"), "/")
	for i, e := range elements {
		elements[i] = escapeName(unescapeName(e))
	}
	path := strings.Join(elements, "/")
	res, err := methods.FindByInventoryPath(ctx, c.vim, &types.FindByInventoryPath{
		This: *c.vim.ServiceContent.SearchIndex, InventoryPath: path,
	})
	if err != nil {
		return nil, classify(err)
	}
	if res.Returnval != nil && res.Returnval.Type == "VirtualMachine" {
		return c.load(ctx, c.reads.vms, []types.ManagedObjectReference{*res.Returnval})
	}
	// The index knows absolute paths through folders; what remains are relative ones, and vApps.
	named, err := c.findByName(ctx, elements[len(elements)-1])
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(named, func(vm *hypervisor.VM) bool {
		at := unescapeName(vm.Path)
		return at != "/"+unescapeName(path) &&
			(strings.HasPrefix(text, "/") || !strings.HasSuffix(at, "/vm/"+unescapeName(path)))
	}), nil
}

// findByName searches all VMs for a name.
func (c *Client) findByName(ctx context.Context, text string) ([]*hypervisor.VM, error) {
	objects, err := c.listing.get(ctx)
	if err != nil {
		return nil, err
	}
	var refs []types.ManagedObjectReference
	for ref, object := range objects {
		name, _ := nameAndParent(object)
		if name == text || unescapeName(name) == text || unescapeName(name) == unescapeName(text) {
			refs = append(refs, ref)
		}
	}
	return c.load(ctx, c.reads.vms, refs)
}

// VMByInstanceUUID implements hypervisor.Finder.
func (c *Client) VMByInstanceUUID(ctx context.Context, id string) (*hypervisor.VM, error) {
	return c.vmByInstanceUUID(ctx, c.reads.vms, id)
}

// IdentifyVM implements hypervisor.Finder.
func (c *Client) IdentifyVM(ctx context.Context, id string) (*hypervisor.VMIdentity, error) {
	vm, err := c.vmByInstanceUUID(ctx, c.reads.who, id)
	if err != nil {
		return nil, err
	}
	identity := vm.Identity()
	return &identity, nil
}

// vmByInstanceUUID finds a VM, as vmThrough reads it.
func (c *Client) vmByInstanceUUID(ctx context.Context, r *reader, id string) (*hypervisor.VM, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("find virtual machine by instance UUID %s: it is not a UUID", id)
	}
	vm, err := c.vmKnownAs(ctx, r, parsed.String())
	if err != nil {
		return nil, fmt.Errorf("find virtual machine by instance UUID %s: %w", id, err)
	}
	return vm, nil
}

// vmKnownAs goes by what is known of an instance UUID, and asks the server otherwise.
func (c *Client) vmKnownAs(ctx context.Context, r *reader, id string) (*hypervisor.VM, error) {
	if ref, ok := c.hints.get(id); ok {
		vm, err := c.vmThrough(ctx, r, ref)
		if err == nil && vm.InstanceUUID == id {
			return vm, nil
		}
		if err != nil && !vmGone(err) {
			return nil, err
		}
		// What was known is out of date: ask.
	} else if c.hints.many() {
		return c.vmByHint(ctx, r, id)
	}
	return c.vmBySearch(ctx, r, id)
}

// vmBySearch asks the server's index.
func (c *Client) vmBySearch(ctx context.Context, r *reader, id string) (*hypervisor.VM, error) {
	refs, err := c.searchUUID(ctx, id, true)
	if err != nil {
		return nil, err
	}
	return c.identified(ctx, r, refs, id)
}

// identified reads the VM that the index has found. That may lag behind the configurations, which decide.
func (c *Client) identified(
	ctx context.Context, r *reader, refs []types.ManagedObjectReference, id string,
) (*hypervisor.VM, error) {
	found, err := c.load(ctx, r, refs)
	if err != nil {
		return nil, err
	}
	for _, vm := range found {
		if vm.InstanceUUID != id {
			return nil, fmt.Errorf("the server's index names %s (%s), whose configuration has the instance UUID %s: %w",
				vm.Path, vm.ID, vm.InstanceUUID, hypervisor.ErrOutOfReach)
		}
	}
	switch len(found) {
	case 0:
		return nil, &hypervisor.VMNotFoundError{Ref: id, Where: c.addr}
	case 1:
		c.hints.set(id, vmRef(found[0].ID))
		return found[0], nil
	}
	return nil, ambiguous(hypervisor.VMRef(id), found)
}

// vmByHint lists all VMs once instead of asking the index for each of many.
func (c *Client) vmByHint(ctx context.Context, r *reader, id string) (*hypervisor.VM, error) {
	objects, err := c.overview.listing(ctx)
	if err != nil {
		return nil, err
	}
	for ref := range objects {
		var m mo.VirtualMachine
		if load(objects, ref, &m) == nil && m.Config != nil {
			c.hints.set(strings.ToLower(m.Config.InstanceUuid), ref)
		}
	}
	if ref, ok := c.hints.get(id); ok {
		vm, err := c.vmThrough(ctx, r, ref)
		if err == nil && vm.InstanceUUID == id {
			return vm, nil
		}
		if err != nil && !vmGone(err) {
			return nil, err
		}
	}
	return c.vmBySearch(ctx, r, id)
}
