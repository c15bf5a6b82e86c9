package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// permissionWarnings names who was given a role on the VM itself. Whom a restored VM is entrusted to is not
// for a backup to decide, and roles of one server mean nothing to another.
func (c *Client) permissionWarnings(ctx context.Context, vm types.ManagedObjectReference) ([]string, error) {
	manager := c.vim.ServiceContent.AuthorizationManager
	if manager == nil {
		return nil, nil
	}
	res, err := methods.RetrieveEntityPermissions(ctx, c.vim, &types.RetrieveEntityPermissions{
		This: *manager, Entity: vm, Inherited: false,
	})
	if err != nil {
		return nil, classify(err)
	}
	if len(res.Returnval) == 0 {
		return nil, nil
	}
	var auth mo.AuthorizationManager
	if err := c.properties(ctx, *manager, []string{"roleList"}, &auth); err != nil {
		return nil, err
	}
	names := map[int32]string{}
	for _, role := range auth.RoleList {
		names[role.RoleId] = role.Name
	}
	var warnings []string
	for _, p := range res.Returnval {
		if p.Entity != nil && *p.Entity != vm {
			continue // a server may list inherited ones although it wasn't asked for them
		}
		warnings = append(warnings, fmt.Sprintf("the role %q of %s on the VM is not captured.",
			firstOf(names[p.RoleId], fmt.Sprint(p.RoleId)), p.Principal))
	}
	return warnings, nil
}
