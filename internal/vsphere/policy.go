package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vmware/govmomi/pbm"
	pbmtypes "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// homeKey stands for the VM itself where policies are listed by the keys of disks.
const homeKey int32 = 0

// policyService is a client of the storage policy service.
// Error: hypervisor.ErrNotSupported on an ESXi host, which has none.
func (c *Client) policyService(ctx context.Context) (*pbm.Client, error) {
	if !c.vim.IsVC() {
		return nil, fmt.Errorf("storage policies of an ESXi host: %w", hypervisor.ErrNotSupported)
	}
	client, err := pbm.NewClient(ctx, c.vim)
	if err != nil {
		return nil, fmt.Errorf("reach the storage policy service: %w", withoutURL(classify(err)))
	}
	return client, nil
}

// capturePolicies reads the storage policies of a VM and its disks, by name. An ESXi host has none.
func (c *Client) capturePolicies(
	ctx context.Context, vm types.ManagedObjectReference, devices []types.BaseVirtualDevice,
) (map[int32]string, error) {
	service, err := c.policyService(ctx)
	switch {
	case errors.Is(err, hypervisor.ErrNotSupported):
		return nil, nil
	case err != nil:
		return nil, err
	}
	ids, err := c.attachedPolicies(ctx, service, vm, devices)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	var query []pbmtypes.PbmProfileId
	for _, id := range slices.Compact(slices.Sorted(maps.Values(ids))) {
		query = append(query, pbmtypes.PbmProfileId{UniqueId: id})
	}
	names, err := policyNames(ctx, service, query)
	if err != nil {
		return nil, err
	}
	policies := map[int32]string{}
	for key, id := range ids {
		policies[key] = names[id]
	}
	return policies, nil
}

// attachedPolicies are the IDs of the policies of a VM and its disks.
func (c *Client) attachedPolicies(
	ctx context.Context, service *pbm.Client, vm types.ManagedObjectReference, devices []types.BaseVirtualDevice,
) (map[int32]string, error) {
	entities := []pbmtypes.PbmServerObjectRef{{
		ObjectType: string(pbmtypes.PbmObjectTypeVirtualMachine), Key: vm.Value,
	}}
	keys := map[string]int32{vm.Value: homeKey}
	for _, d := range orderedDisks(devices) {
		key := fmt.Sprintf("%s:%d", vm.Value, d.Key)
		keys[key] = d.Key
		entities = append(entities, pbmtypes.PbmServerObjectRef{
			ObjectType: string(pbmtypes.PbmObjectTypeVirtualDiskId), Key: key,
		})
	}
	for i := range entities {
		entities[i].ServerUuid = c.vim.ServiceContent.About.InstanceUuid
	}
	results, err := service.QueryAssociatedProfiles(ctx, entities)
	if err != nil {
		return nil, fmt.Errorf("read storage policies: %w", withoutURL(classify(err)))
	}
	ids := map[int32]string{}
	for _, r := range results {
		key, ok := keys[r.Object.Key]
		if r.Fault != nil {
			return nil, fmt.Errorf("read storage policy of %s: %s", r.Object.Key, r.Fault.LocalizedMessage)
		}
		if ok && len(r.ProfileId) > 0 {
			ids[key] = r.ProfileId[0].UniqueId
		}
	}
	return ids, nil
}

// policyNames are the names of policies, by ID.
func policyNames(
	ctx context.Context, service *pbm.Client, ids []pbmtypes.PbmProfileId,
) (map[string]string, error) {
	names := map[string]string{}
	if len(ids) == 0 {
		return names, nil
	}
	profiles, err := service.RetrieveContent(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read names of storage policies: %w", withoutURL(classify(err)))
	}
	for _, p := range profiles {
		names[p.GetPbmProfile().ProfileId.UniqueId] = p.GetPbmProfile().Name
	}
	return names, nil
}

// placePolicies finds the storage policies by name. One of a disk that goes to another datastore than its own
// is left out: it is a promise about that one.
func (c *Client) placePolicies(
	ctx context.Context, _ hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if len(captured.StoragePolicies) == 0 {
		return nil
	}
	ids, err := c.findPolicies(ctx)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("look for storage policies: %w", context.Cause(ctx))
	case err != nil && !errors.Is(err, hypervisor.ErrNotSupported):
		p.warnings = append(p.warnings, fmt.Sprintf("storage policies are not restored: %v.", err))
		return nil
	}
	p.policies = map[int32]string{}
	place := func(key int32, label, was, now string) {
		name := captured.StoragePolicies[key]
		switch id := ids[name]; {
		case name == "":
		case id == "":
			p.warnings = append(p.warnings,
				fmt.Sprintf("the storage policy %q of %s doesn't exist here and is not restored.", name, label))
		case was != now:
			p.warnings = append(p.warnings, fmt.Sprintf(
				"the storage policy %q of %s is not restored: it was on datastore %q and goes to %q.", name, label, was, now))
		default:
			p.policies[key] = id
		}
	}
	home, _ := splitPath(captured.config.Files.VmPathName)
	place(homeKey, "the VM's own files", home, p.home)
	for _, d := range orderedDisks(captured.devices()) {
		if store, ok := p.disks[d.Key]; ok {
			was, _ := splitPath(describeBacking(d.Backing).fileName)
			place(d.Key, deviceLabel(d), was, store)
		}
	}
	return nil
}

// findPolicies are the IDs of all storage policies, by name.
func (c *Client) findPolicies(ctx context.Context) (map[string]string, error) {
	service, err := c.policyService(ctx)
	if err != nil {
		return nil, err
	}
	all, err := service.QueryProfile(ctx,
		pbmtypes.PbmProfileResourceType{ResourceType: string(pbmtypes.PbmProfileResourceTypeEnumSTORAGE)},
		string(pbmtypes.PbmProfileCategoryEnumREQUIREMENT))
	if err != nil {
		return nil, fmt.Errorf("list storage policies: %w", withoutURL(classify(err)))
	}
	names, err := policyNames(ctx, service, all)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for id, name := range names {
		ids[name] = id
	}
	return ids, nil
}

// applyPolicies gives the VM and its disks the storage policies that they had. The datastore may refuse one: the
// VM is whole without it, so that this is a warning. Policies are attached to a VM that exists rather than at its
// creation, where a refusal would be the end of the restore.
func (r *restore) applyPolicies(ctx context.Context) ([]string, error) {
	if len(r.place.policies) == 0 {
		return nil, nil
	}
	err := r.attachPolicies(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("attach storage policies: %w", context.Cause(ctx))
	}
	if err != nil {
		return []string{fmt.Sprintf("the storage policies of the VM and its disks are not restored: %v.", err)}, nil
	}
	return nil, nil
}

func (r *restore) attachPolicies(ctx context.Context) error {
	created, err := r.readConfig(ctx)
	if err != nil {
		return err
	}
	service, err := r.client.policyService(ctx)
	if err != nil {
		return err
	}
	have, err := r.client.attachedPolicies(ctx, service, r.vm, created.Hardware.Device)
	if err != nil {
		return err
	}
	profile := func(id string) []types.BaseVirtualMachineProfileSpec {
		return []types.BaseVirtualMachineProfileSpec{&types.VirtualMachineDefinedProfileSpec{ProfileId: id}}
	}
	spec := types.VirtualMachineConfigSpec{ChangeVersion: created.ChangeVersion}
	matched := matchDevices(r.captured.devices(), created.Hardware.Device)
	for _, key := range slices.Sorted(maps.Keys(r.place.policies)) {
		id := r.place.policies[key]
		if key == homeKey {
			if have[homeKey] != id {
				spec.VmProfile = profile(id)
			}
			continue
		}
		if d, ok := matched[key]; ok && have[d.GetVirtualDevice().Key] != id {
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d, Profile: profile(id),
			})
		}
	}
	if spec.VmProfile == nil && spec.DeviceChange == nil {
		return nil
	}
	return r.reconfigure(ctx, spec)
}
