package vsphere

import (
	"context"
	"maps"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// mayRestore refuses a restore to a new VM that the user lacks privileges for.
// Error: a *hypervisor.MissingPrivilegesError.
func (r *restore) mayRestore(ctx context.Context) error {
	p, config := r.place, r.captured.config
	holds := map[condition]bool{
		ifDisks:      len(p.disks) > 0,
		ifNetworks:   len(p.attached) > 0,
		ifOriginal:   r.spec.Identity == hypervisor.IdentityOriginal && len(p.disks) > 0,
		ifBootOrder:  config.BootOptions != nil && len(config.BootOptions.BootOrder) > 0,
		ifTracking:   config.ChangeTrackingEnabled != nil && *config.ChangeTrackingEnabled,
		ifVApp:       closeProperties(config.VAppConfig) != nil,
		ifAttributes: len(p.attributes) > 0,
		ifNVRAM:      len(r.spec.Config.NVRAM) > 0,
	}
	subjects := p.subjects()
	for _, ref := range p.attached {
		subjects[onNetwork] = append(subjects[onNetwork], just(ref, ""))
	}
	needs := needsOf(toRestore, holds, subjects)
	// The finished VM will have what its folder and its resource pool hand down to it.
	subjects[onVM] = subjects[onNewVM]
	for _, operation := range r.spec.Then {
		needs = append(needs, needsOf(operation, r.client.conditions(), subjects)...)
	}
	return r.client.preflight(ctx, needs)
}

// subjects are the objects around a VM that is going to be made.
func (p *placement) subjects() map[target][]subject {
	out := map[target][]subject{
		onPool:   {just(p.pool, "")},
		onFolder: {just(p.folder, "")},
		onNewVM:  {{refs: []types.ManagedObjectReference{p.folder, p.pool}}},
	}
	if p.pool.Type == "VirtualApp" { // whose VMs are in no folder
		out[onFolder], out[onNewVM] = nil, out[onPool]
	}
	used := map[string]bool{}
	for _, store := range p.disks {
		used[store] = true
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		out[onDatastore] = append(out[onDatastore], storeSubject(p.stores, name)...)
	}
	out[onHome] = storeSubject(p.stores, p.home)
	return out
}

// storeSubject is a datastore, if it is known.
func storeSubject(stores map[string]mo.Datastore, name string) []subject {
	store, ok := stores[name]
	if !ok {
		return nil
	}
	return []subject{just(store.Self, "datastore "+name)}
}

// mayRestoreInPlace refuses a restore in place that the user lacks privileges for.
// Error: a *hypervisor.MissingPrivilegesError.
func (c *Client) mayRestoreInPlace(ctx context.Context, p *inPlacePlan, place *placement) error {
	boot := p.vm.Config.BootOptions
	holds := map[condition]bool{
		ifRunning:   p.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff,
		ifSnapshots: p.vm.Snapshot != nil || consolidationNeeded(p.vm),
		ifBootOrder: !p.spec.Hardware && boot != nil && len(boot.BootOrder) > 0, // else it is one of the settings
	}
	subjects := place.subjects()
	subjects[onVM] = []subject{just(vmRef(p.spec.VM), p.line.path())}
	needs := needsOf(toRestoreInPlace, holds, subjects)
	for _, operation := range p.spec.Then {
		needs = append(needs, needsOf(operation, c.conditions(), subjects)...)
	}
	return c.preflight(ctx, needs)
}
