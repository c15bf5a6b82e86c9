package vsphere

import (
	"context"
	"errors"
	"path"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// importSpec is the VM that the restored disks are uploaded with: nothing but those disks and their
// controllers. Its disks have the places that they were captured in, where there can be no two in one.
func (p *inPlacePlan) importSpec() (*capture, rebuild) {
	devices := p.captured.devices()
	chosen := map[int32]bool{}
	for _, d := range p.disks {
		chosen[d.captured.Key], chosen[d.captured.ControllerKey] = true, true
	}
	config := &types.VirtualMachineConfigInfo{
		Version: p.vm.Config.Version, GuestId: p.vm.Config.GuestId,
		Hardware: types.VirtualHardware{NumCPU: 1, MemoryMB: 128},
	}
	for _, device := range devices {
		if chosen[device.GetVirtualDevice().Key] || defaultDevice(device) {
			config.Hardware.Device = append(config.Hardware.Device, device)
		}
	}
	name := makingName(p.spec.RunID)
	home, _ := splitPath(p.vm.Config.Files.VmPathName)
	r := rebuild{
		name: name, marker: p.spec.RunID, identity: hypervisor.IdentityOriginal, vmPathName: joinPath(home, ""),
		disks: map[int32]string{},
	}
	if !keepsObjects(p.stores[home]) {
		r.vmPathName = joinPath(home, path.Join(name, name+".vmx"))
	}
	for _, d := range p.disks {
		r.disks[d.captured.Key] = d.path
	}
	return &capture{config: config}, r
}

// importPlace is where that VM goes: beside the VM whose disks it makes.
func (c *Client) importPlace(ctx context.Context, p *inPlacePlan, r rebuild) (*placement, error) {
	out := &placement{name: p.line.path(), datacenter: p.datacenter, stores: p.stores,
		disks: map[int32]string{}}
	for _, d := range p.disks {
		out.disks[d.captured.Key] = d.store
	}
	out.home, _ = splitPath(r.vmPathName)
	if p.vm.ResourcePool == nil || len(p.datacenter) == 0 {
		return nil, errors.New("the VM's resource pool and datacenter can't be read")
	}
	out.pool = *p.vm.ResourcePool
	if out.pool.Type == "VirtualApp" { // what is imported there would become a part of it
		var app mo.ResourcePool
		if err := c.properties(ctx, out.pool, []string{"owner"}, &app); err != nil {
			return nil, err
		}
		var compute mo.ComputeResource
		if err := c.properties(ctx, app.Owner, []string{"resourcePool"}, &compute); err != nil {
			return nil, err
		}
		if compute.ResourcePool != nil {
			out.pool = *compute.ResourcePool
		}
	}
	var err error
	if out.folder, out.folderPath, err = c.importFolder(ctx, p); err != nil {
		return nil, err
	}
	if host := p.vm.Runtime.Host; host != nil {
		hosts, err := c.hosts(ctx, []types.ManagedObjectReference{*host})
		if err != nil {
			return nil, err
		}
		if h := hosts[0].Runtime; h.ConnectionState == types.HostSystemConnectionStateConnected && !h.InMaintenanceMode {
			out.host = host
		}
	}
	return out, nil
}

// ownPolicies are the IDs of the storage policies of the VM's disks. A host without a vCenter has none.
func (c *Client) ownPolicies(ctx context.Context, p *inPlacePlan) (map[int32]string, error) {
	service, err := c.policyService(ctx)
	if errors.Is(err, hypervisor.ErrNotSupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return c.attachedPolicies(ctx, service, vmRef(p.spec.VM), p.vm.Config.Hardware.Device)
}

// importFolder is the VM's folder, or the datacenter's for VMs if the VM is in a vApp.
func (c *Client) importFolder(
	ctx context.Context, p *inPlacePlan,
) (types.ManagedObjectReference, string, error) {
	if parent := p.vm.Parent; parent != nil && parent.Type == "Folder" {
		return *parent, p.line[:len(p.line)-1].path(), nil
	}
	var dc mo.Datacenter
	ref := p.datacenter[len(p.datacenter)-1].Self
	if err := c.properties(ctx, ref, []string{"vmFolder"}, &dc); err != nil {
		return ref, "", err
	}
	return dc.VmFolder, p.datacenter.path() + "/vm", nil
}
