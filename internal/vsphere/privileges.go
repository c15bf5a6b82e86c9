package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A need is a privilege that has to be there on one of some objects.
type need struct {
	id   string
	on   []types.ManagedObjectReference // any of them will do
	name string                         // of the object, for people; empty: its inventory path is looked up
}

// needsOf are what operations need for certain on objects, under conditions that hold.
func needsOf(operation hypervisor.Operation, holds map[condition]bool, objects map[target][]subject) []need {
	var needs []need
	for _, g := range grants[operation] {
		if g.without != "" || g.when != unconditional && !holds[g.when] {
			continue
		}
		for _, o := range objects[g.on] {
			for _, id := range g.ids {
				needs = append(needs, need{id: id, on: o.refs, name: o.name})
			}
		}
	}
	return needs
}

// A subject is what a privilege may be needed on.
type subject struct {
	refs []types.ManagedObjectReference // alternatives
	name string
}

// just is the subject for one object.
func just(ref types.ManagedObjectReference, name string) subject {
	return subject{refs: []types.ManagedObjectReference{ref}, name: name}
}

// CheckPrivileges implements hypervisor.PrivilegeChecker.
func (c *Client) CheckPrivileges(ctx context.Context, vms []hypervisor.VMID, operations ...hypervisor.Operation) error {
	objects := map[target][]subject{}
	for _, id := range vms {
		objects[onVM] = append(objects[onVM], just(vmRef(id), ""))
	}
	if slices.Contains(operations, hypervisor.ToDestroy) {
		objects[onFolder] = c.foldersOf(ctx, vms)
	}
	var needs []need
	holds := c.conditions()
	for _, operation := range operations {
		needs = append(needs, needsOf(operation, holds, objects)...)
	}
	return c.preflight(ctx, needs)
}

// conditions are those that hold whatever is asked for.
func (c *Client) conditions() map[condition]bool {
	return map[condition]bool{ifExport: slices.Equal(c.config.Transports, []string{TransportExport})}
}

// foldersOf are the folders that VMs are in, as far as they can be read.
func (c *Client) foldersOf(ctx context.Context, vms []hypervisor.VMID) []subject {
	refs := make([]types.ManagedObjectReference, len(vms))
	for i, id := range vms {
		refs[i] = vmRef(id)
	}
	found, err := c.propertiesOf(ctx, refs, types.PropertySpec{Type: "VirtualMachine", PathSet: []string{"parent"}})
	if err != nil {
		return nil
	}
	var folders []subject
	for _, ref := range refs {
		var vm mo.VirtualMachine
		if load(found, ref, &vm) == nil && vm.Parent != nil {
			folders = append(folders, just(*vm.Parent, ""))
		}
	}
	return folders
}

// preflight refuses what the user lacks privileges for: a *hypervisor.MissingPrivilegesError. Where the server
// doesn't say what the user may do, it refuses nothing.
func (c *Client) preflight(ctx context.Context, needs []need) error {
	if len(needs) == 0 {
		return ctx.Err()
	}
	held, err := c.held(ctx, needs)
	if ctx.Err() != nil {
		return fmt.Errorf("check privileges: %w", context.Cause(ctx))
	}
	if err != nil {
		c.log.DebugContext(ctx, "the server doesn't tell which privileges the user has; going on without", "error", withoutURL(err))
		return nil
	}
	missing := map[string][]string{} // privileges by object
	var order []string
	for _, n := range needs {
		if slices.ContainsFunc(n.on, func(ref types.ManagedObjectReference) bool { return held[ref][n.id] }) {
			continue
		}
		name := n.name
		if name == "" && len(n.on) > 0 {
			name = c.pathOf(ctx, n.on[0])
		}
		if missing[name] == nil {
			order = append(order, name)
		}
		if !slices.Contains(missing[name], n.id) {
			missing[name] = append(missing[name], n.id)
		}
	}
	if len(missing) == 0 {
		c.log.DebugContext(ctx, "the user has all privileges for it", "privileges", len(needs))
		return nil
	}
	out := &hypervisor.MissingPrivilegesError{}
	for _, name := range order {
		out.Missing = append(out.Missing, hypervisor.PermissionError{Privilege: strings.Join(missing[name], ", "), Object: name})
	}
	return out
}

// errNoPrivileges: the server has nobody who knows.
var errNoPrivileges = errors.New("the server has no authorization manager")

// held asks the server in one call which of the privileges the session's user has.
func (c *Client) held(ctx context.Context, needs []need) (map[types.ManagedObjectReference]map[string]bool, error) {
	manager := c.vim.ServiceContent.AuthorizationManager
	if manager == nil {
		return nil, errNoPrivileges
	}
	ids, entities := map[string]bool{}, map[types.ManagedObjectReference]bool{}
	req := &types.HasPrivilegeOnEntities{This: *manager}
	for _, n := range needs {
		ids[n.id] = true
		for _, ref := range n.on {
			if !entities[ref] {
				entities[ref] = true
				req.Entity = append(req.Entity, ref)
			}
		}
	}
	req.PrivId = slices.Sorted(maps.Keys(ids))
	res, err := c.askPrivileges(ctx, req)
	if err != nil {
		return nil, err
	}
	held := map[types.ManagedObjectReference]map[string]bool{}
	for _, e := range res.Returnval {
		held[e.Entity] = map[string]bool{}
		for _, p := range e.PrivAvailability {
			held[e.Entity][p.PrivId] = p.IsGranted
		}
	}
	for ref := range entities {
		if held[ref] == nil {
			return nil, fmt.Errorf("the server says nothing of %s", ref.Value)
		}
	}
	return held, nil
}

// askPrivileges asks again if the session was renewed meanwhile: the question is about one.
func (c *Client) askPrivileges(ctx context.Context, req *types.HasPrivilegeOnEntities) (*types.HasPrivilegeOnEntitiesResponse, error) {
	for {
		key, err := c.session.currentKey(ctx)
		if err != nil {
			return nil, err
		}
		asked := req.SessionId
		req.SessionId = key
		res, err := methods.HasPrivilegeOnEntities(ctx, c.vim, req)
		now, keyErr := c.session.currentKey(ctx)
		if err == nil || asked != "" || keyErr != nil || now == key {
			return res, err
		}
	}
}

// pathOf is an object's inventory path, or its reference where that can't be read.
func (c *Client) pathOf(ctx context.Context, ref types.ManagedObjectReference) string {
	line, err := c.ancestors(ctx, ref)
	if err != nil || len(line) == 0 {
		return ref.Value
	}
	return line.path()
}
