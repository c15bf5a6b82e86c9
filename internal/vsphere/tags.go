package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// captureTags reads the tags of a VM, by names. An ESXi host has none.
func (c *Client) captureTags(ctx context.Context, vm types.ManagedObjectReference) ([]capturedTag, error) {
	client, err := c.rest(ctx)
	switch {
	case errors.Is(err, hypervisor.ErrNotSupported):
		return nil, nil
	case err != nil:
		return nil, err
	}
	manager := tags.NewManager(client)
	attached, err := manager.GetAttachedTags(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("read tags: %w", withoutURL(err))
	}
	if len(attached) == 0 {
		return nil, nil
	}
	categories, err := manager.GetCategories(ctx)
	if err != nil {
		return nil, fmt.Errorf("read categories of tags: %w", withoutURL(err))
	}
	names := map[string]string{}
	for _, category := range categories {
		names[category.ID] = category.Name
	}
	var out []capturedTag
	for _, t := range attached {
		out = append(out, capturedTag{Category: names[t.CategoryID], Name: t.Name})
	}
	slices.SortFunc(out, func(a, b capturedTag) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// findTags resolves tags by name. Those that don't exist are named in warnings: making them would give
// meaning to names that may mean something else here.
func (c *Client) findTags(ctx context.Context, wanted []capturedTag) (ids, warnings []string, err error) {
	if len(wanted) == 0 {
		return nil, nil, nil
	}
	client, err := c.rest(ctx)
	switch {
	case errors.Is(err, hypervisor.ErrNotSupported):
		return nil, []string{fmt.Sprintf("%d tags are not restored: an ESXi host has none.", len(wanted))}, nil
	case err != nil:
		return nil, nil, err
	}
	manager := tags.NewManager(client)
	categories, err := manager.GetCategories(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read categories of tags: %w", withoutURL(err))
	}
	known := map[string]map[string]string{} // category name, tag name, ID
	for _, w := range wanted {
		if known[w.Category] == nil {
			known[w.Category] = map[string]string{}
			for _, category := range categories {
				if category.Name != w.Category {
					continue
				}
				list, err := manager.GetTagsForCategory(ctx, category.ID)
				if err != nil {
					return nil, nil, fmt.Errorf("read tags of category %q: %w", w.Category, withoutURL(err))
				}
				for _, t := range list {
					known[w.Category][t.Name] = t.ID
				}
			}
		}
		id, ok := known[w.Category][w.Name]
		if !ok {
			warnings = append(warnings,
				fmt.Sprintf("tag %q of category %q doesn't exist here and is not restored.", w.Name, w.Category))
			continue
		}
		ids = append(ids, id)
	}
	return ids, warnings, nil
}

// attachTags gives a VM the tags with these IDs. Those that the user may not attach are named in warnings: a vCenter looks
// for the privilege on each tag, of which it doesn't tell beforehand.
func (c *Client) attachTags(ctx context.Context, vm types.ManagedObjectReference, ids []string) (warnings []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	client, err := c.rest(ctx)
	if err != nil {
		return nil, err
	}
	manager := tags.NewManager(client)
	for _, id := range ids {
		err := manager.AttachTag(ctx, id, vm)
		switch {
		case rest.IsStatusError(err, http.StatusForbidden):
			warnings = append(warnings, fmt.Sprintf("tag %s is not restored: %v.", c.tagName(ctx, manager, id),
				&hypervisor.PermissionError{Privilege: attachTag, Object: vm.Value}))
		case err != nil:
			return warnings, fmt.Errorf("attach tag %s: %w", id, withoutURL(err))
		}
	}
	return warnings, nil
}

// tagName is the name of a tag, or its ID where that can't be read.
func (c *Client) tagName(ctx context.Context, manager *tags.Manager, id string) string {
	t, err := manager.GetTag(ctx, id)
	if err != nil {
		c.log.DebugContext(ctx, "read the name of a tag", "tag", id, "error", withoutURL(err))
		return id
	}
	return fmt.Sprintf("%q", t.Name)
}

// A customValue is a value for a custom attribute that exists at the target.
type customValue struct {
	key         int32
	name, value string
}

// findCustomAttributes resolves custom attributes by name. Those that don't exist are named in warnings.
func (c *Client) findCustomAttributes(
	ctx context.Context, wanted map[string]string,
) ([]customValue, []string, error) {
	if len(wanted) == 0 {
		return nil, nil, nil
	}
	manager := c.vim.ServiceContent.CustomFieldsManager
	if manager == nil {
		return nil, []string{fmt.Sprintf("%d custom attributes are not restored: this server has none.", len(wanted))}, nil
	}
	var fields mo.CustomFieldsManager
	if err := c.properties(ctx, *manager, []string{"field"}, &fields); err != nil {
		return nil, nil, fmt.Errorf("custom attributes: %w", err)
	}
	var found []customValue
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		i := slices.IndexFunc(fields.Field, func(f types.CustomFieldDef) bool {
			return f.Name == name && (f.ManagedObjectType == "" || f.ManagedObjectType == "VirtualMachine")
		})
		if i < 0 {
			warnings = append(warnings, fmt.Sprintf("custom attribute %q doesn't exist here and is not restored.", name))
			continue
		}
		found = append(found, customValue{key: fields.Field[i].Key, name: name, value: wanted[name]})
	}
	return found, warnings, nil
}

func (c *Client) setCustomAttributes(
	ctx context.Context, vm types.ManagedObjectReference, values []customValue,
) error {
	for _, v := range values {
		_, err := methods.SetField(ctx, c.vim, &types.SetField{
			This: *c.vim.ServiceContent.CustomFieldsManager, Entity: vm, Key: v.key, Value: v.value,
		})
		if err != nil {
			return fmt.Errorf("set custom attribute %q: %w", v.name, classify(err))
		}
	}
	return nil
}
