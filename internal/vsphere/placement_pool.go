package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// placePool finds the resource pool, and the cluster or host that it belongs to.
func (c *Client) placePool(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	wanted := spec.ResourcePool
	if wanted == "" && spec.Host != "" && spec.Host != captured.Host {
		// The captured pool is of no use on another host unless that is in the same cluster.
		if ok, err := c.poolOfHost(ctx, spec.Host, captured, p); err != nil || ok {
			return err
		}
	}
	if wanted == "" {
		wanted = captured.ResourcePool
	}
	pool, err := c.findPool(ctx, wanted)
	if err != nil {
		return err
	}
	return c.usePool(ctx, pool, p)
}

// findPool finds a pool by path, by the end of a path, or by the name of its cluster, whose root
// pool is meant then.
func (c *Client) findPool(ctx context.Context, wanted string) (types.ManagedObjectReference, error) {
	if strings.Contains(wanted, "/") {
		ref, err := c.findPath(ctx, wanted)
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		if ref != nil && isPool(*ref) {
			return *ref, nil
		}
	}
	all, err := c.readTree(ctx)
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	var found []types.ManagedObjectReference
	for ref := range all {
		path := all.path(ref)
		if isPool(ref) && (strings.HasSuffix(path, "/"+strings.TrimPrefix(wanted, "/")) ||
			strings.HasSuffix(path, "/"+strings.Trim(wanted, "/")+"/Resources")) {
			found = append(found, ref)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return types.ManagedObjectReference{}, &hypervisor.NotAvailableError{
			Kind: "resource pool", Name: wanted, Available: all.paths(func(e treeEntry) bool { return isPool(e.ref) }),
		}
	}
	paths := all.paths(func(e treeEntry) bool { return slices.Contains(found, e.ref) })
	return types.ManagedObjectReference{}, fmt.Errorf("resource pool %q is ambiguous, give one of the paths %s",
		wanted, strings.Join(paths, ", "))
}

func isPool(ref types.ManagedObjectReference) bool {
	return ref.Type == "ResourcePool" || ref.Type == "VirtualApp"
}

// usePool reads what belongs to a pool.
func (c *Client) usePool(ctx context.Context, pool types.ManagedObjectReference, p *placement) error {
	var props mo.ResourcePool
	if err := c.properties(ctx, pool, []string{"owner"}, &props); err != nil {
		return err
	}
	p.pool = pool
	return c.readCompute(ctx, props.Owner, p)
}

func (c *Client) readCompute(ctx context.Context, ref types.ManagedObjectReference, p *placement) error {
	p.compute = mo.ComputeResource{}
	err := c.properties(ctx, ref, []string{
		"name", "host", "datastore", "network", "environmentBrowser", "configurationEx", "resourcePool",
	}, &p.compute)
	if err != nil {
		return err
	}
	line, err := c.ancestors(ctx, ref)
	if err != nil {
		return err
	}
	if d, w := line.datacenterPath(), strings.TrimPrefix(p.datacenter.path(), "/"); d != w {
		return fmt.Errorf("%s is in datacenter %q, the folder %s is in %q", p.compute.Name, d, p.folderPath, w)
	}
	return nil
}

// poolOfHost uses the captured pool if the host belongs to its cluster, and the root pool of the host's
// cluster otherwise. It returns false when there is no such host, which placeHost then says.
func (c *Client) poolOfHost(ctx context.Context, host string, captured *capture, p *placement) (bool, error) {
	if pool, err := c.findPath(ctx, captured.ResourcePool); err == nil && pool != nil && isPool(*pool) {
		if err := c.usePool(ctx, *pool, p); err == nil {
			hosts, err := c.hosts(ctx, p.compute.Host)
			if err != nil {
				return false, err
			}
			if slices.ContainsFunc(hosts, func(h mo.HostSystem) bool { return h.Name == host }) {
				return true, nil
			}
		}
	}
	all, err := c.readTree(ctx)
	if err != nil {
		return false, err
	}
	for ref := range all {
		if ref.Type != "ComputeResource" && ref.Type != "ClusterComputeResource" {
			continue
		}
		var compute mo.ComputeResource
		if err := c.properties(ctx, ref, []string{"host", "resourcePool"}, &compute); err != nil {
			return false, err
		}
		hosts, err := c.hosts(ctx, compute.Host)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(hosts, func(h mo.HostSystem) bool { return h.Name == host }) && compute.ResourcePool != nil {
			return true, c.usePool(ctx, *compute.ResourcePool, p)
		}
	}
	return false, nil
}

func (c *Client) hosts(ctx context.Context, refs []types.ManagedObjectReference) ([]mo.HostSystem, error) {
	hosts := make([]mo.HostSystem, len(refs))
	objects, err := c.propertiesOf(ctx, refs, types.PropertySpec{Type: "HostSystem", PathSet: []string{
		"name", "runtime.connectionState", "runtime.inMaintenanceMode", "datastore", "network",
	}})
	if err != nil {
		return nil, err
	}
	for i, ref := range refs {
		if err := load(objects, ref, &hosts[i]); err != nil {
			return nil, err
		}
	}
	return hosts, nil
}

// propertiesOf reads properties of several objects in one call.
func (c *Client) propertiesOf(
	ctx context.Context, refs []types.ManagedObjectReference, props ...types.PropertySpec,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	spec := types.PropertyFilterSpec{PropSet: props}
	for _, ref := range refs {
		spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: ref})
	}
	objects, err := retrieve(ctx, c.vim, spec)
	if err != nil {
		return nil, fmt.Errorf("read %s and others: %w", refs[0].Value, classify(err))
	}
	return objects, nil
}

// placeHost chooses the host, and takes the datastores and networks that are at hand there. A cluster
// that balances load chooses for itself; without DRS the server wants to be told.
func (c *Client) placeHost(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	hosts, err := c.hosts(ctx, p.compute.Host)
	if err != nil {
		return err
	}
	usable := slices.DeleteFunc(slices.Clone(hosts), func(h mo.HostSystem) bool {
		return h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected || h.Runtime.InMaintenanceMode
	})
	p.usable = usable
	names := make([]string, len(usable))
	for i, h := range usable {
		names[i] = h.Name
	}
	slices.Sort(names)
	wanted := spec.Host
	if wanted == "" && len(usable) > 0 && !balancesLoad(p.compute.ConfigurationEx) {
		wanted = usable[0].Name
		if slices.Contains(names, captured.Host) {
			wanted = captured.Host
		}
	}
	datastores, networks := p.compute.Datastore, p.compute.Network
	if wanted != "" || len(usable) == 0 {
		i := slices.IndexFunc(usable, func(h mo.HostSystem) bool { return h.Name == wanted })
		if i < 0 {
			return &hypervisor.NotAvailableError{Kind: "host", Name: wanted, Available: names}
		}
		p.host = &usable[i].Self
		datastores, networks = usable[i].Datastore, usable[i].Network
	}
	p.compute.Datastore, p.compute.Network = datastores, networks
	return nil
}

// preferHost has the original come back to the host that it was captured on, if that one has all that the VM
// needs. A cluster that balances load is free to move it when it starts.
func (c *Client) preferHost(
	_ context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	i := slices.IndexFunc(p.usable, func(h mo.HostSystem) bool { return h.Name == captured.Host })
	if i < 0 {
		return nil
	}
	host := p.usable[i]
	if p.host == nil && spec.Identity == hypervisor.IdentityOriginal && p.reachedBy(host) {
		p.host = &host.Self
	}
	p.sameHost = p.host != nil && *p.host == host.Self
	return nil
}

// reachedBy reports whether a host has the datastores and networks of the VM.
func (p *placement) reachedBy(host mo.HostSystem) bool {
	stores := []string{p.home}
	for _, name := range p.disks {
		stores = append(stores, name)
	}
	for _, name := range stores {
		if !slices.Contains(host.Datastore, p.stores[name].Self) {
			return false
		}
	}
	for _, ref := range p.attached {
		if !slices.Contains(host.Network, ref) {
			return false
		}
	}
	return true
}

func balancesLoad(config types.BaseComputeResourceConfigInfo) bool {
	cluster, ok := config.(*types.ClusterConfigInfoEx)
	return ok && cluster.DrsConfig.Enabled != nil && *cluster.DrsConfig.Enabled
}

// checkHardwareVersion refuses a VM that the target is too old for.
func (c *Client) checkHardwareVersion(
	ctx context.Context, _ hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if p.compute.EnvironmentBrowser == nil || captured.config.Version == "" {
		return nil
	}
	res, err := methods.QueryConfigOptionDescriptor(ctx, c.vim, &types.QueryConfigOptionDescriptor{
		This: *p.compute.EnvironmentBrowser,
	})
	if err != nil {
		return fmt.Errorf("read the hardware versions that %s supports: %w", p.compute.Name, classify(err))
	}
	var supported []string
	for _, d := range res.Returnval {
		here := p.host == nil || len(d.Host) == 0 || slices.Contains(d.Host, *p.host)
		if d.CreateSupported && here {
			supported = append(supported, d.Key)
		}
	}
	p.versions = supported
	if len(supported) == 0 || slices.Contains(supported, captured.config.Version) {
		return nil
	}
	slices.SortFunc(supported, func(a, b string) int { return versionNumber(a) - versionNumber(b) })
	return &hypervisor.HardwareVersionError{Version: captured.config.Version, Supported: supported}
}

// versionNumber is 19 for "vmx-19".
func versionNumber(version string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(version, "vmx-"))
	if err != nil {
		return 0
	}
	return n
}
