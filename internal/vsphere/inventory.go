package vsphere

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// vmSpec reads everything that makes a hypervisor.VM, and the folders above the VM for its path, in one
// call.
var vmSpec = readSpec{
	props: []types.PropertySpec{
		{Type: "ManagedEntity", PathSet: []string{"name", "parent"}},
		{Type: "VirtualMachine", PathSet: []string{
			"parentVApp", "config.uuid", "config.instanceUuid", "config.guestId", "config.version", "config.template",
			"config.changeTrackingEnabled", "config.flags", "config.keyId", "config.ftInfo", "config.hardware",
			"runtime.powerState", "runtime.connectionState", "runtime.faultToleranceState",
			"guest.toolsRunningStatus", "guest.ipAddress", "guest.net",
		}},
	},
	around: []types.BaseSelectionSpec{
		upwards("ManagedEntity", "parent"), upwards("VirtualMachine", "parentVApp"),
	},
}

// identitySpec is vmSpec for a hypervisor.VMIdentity: what identifiedVM needs for one, and no devices.
var identitySpec = readSpec{
	props: []types.PropertySpec{
		{Type: "ManagedEntity", PathSet: []string{"name", "parent"}},
		{Type: "VirtualMachine", PathSet: []string{
			"parentVApp", "config.uuid", "config.instanceUuid", "runtime.connectionState",
		}},
	},
	around: vmSpec.around,
}

// with is the spec with more properties of a kind of objects, of which it reads some already.
func (s readSpec) with(kind string, paths ...string) readSpec {
	s.props = slices.Clone(s.props)
	for i, p := range s.props {
		if p.Type == kind {
			s.props[i].PathSet = slices.Concat(p.PathSet, paths)
		}
	}
	return s
}

// upwards is one step from an object to what holds it, and on from there.
func upwards(kind, property string) *types.TraversalSpec {
	return &types.TraversalSpec{
		SelectionSpec: types.SelectionSpec{Name: kind + "." + property},
		Type:          kind, Path: property,
		SelectSet: []types.BaseSelectionSpec{
			&types.SelectionSpec{Name: "ManagedEntity.parent"}, &types.SelectionSpec{Name: "VirtualMachine.parentVApp"},
		},
	}
}

// Server implements hypervisor.Hypervisor: a vCenter's instance UUID, or the hardware UUID of a host.
func (c *Client) Server(ctx context.Context) (string, error) {
	if id := c.vim.ServiceContent.About.InstanceUuid; id != "" {
		return strings.ToLower(id), nil
	}
	c.serverMu.Lock()
	defer c.serverMu.Unlock()
	if c.serverID != "" {
		return c.serverID, nil
	}
	objects, err := c.list(ctx, "HostSystem", "hardware.systemInfo.uuid")
	if err != nil {
		return "", fmt.Errorf("identify %s: %w", c.addr, err)
	}
	for ref := range objects {
		var host mo.HostSystem
		if err := load(objects, ref, &host); err != nil {
			return "", fmt.Errorf("identify %s: %w", c.addr, err)
		}
		if host.Hardware != nil && host.Hardware.SystemInfo.Uuid != "" {
			c.serverID = strings.ToLower(host.Hardware.SystemInfo.Uuid)
			return c.serverID, nil
		}
	}
	return "", fmt.Errorf("identify %s: neither the server nor a host of it has a UUID", c.addr)
}

// vmByID reads a VM. Errors: a *hypervisor.VMNotFoundError, hypervisor.ErrOutOfReach.
func (c *Client) vmByID(ctx context.Context, id hypervisor.VMID) (*hypervisor.VM, error) {
	return c.vmByRef(ctx, vmRef(id))
}

// vmByRef reads a VM.
func (c *Client) vmByRef(ctx context.Context, ref types.ManagedObjectReference) (*hypervisor.VM, error) {
	return c.vmThrough(ctx, c.reads.vms, ref)
}

// vmThrough reads a VM through a reader: of another than that of VMs, only the identity counts. Calls for many VMs
// at the same time go out together. What it returns has an instance UUID: a VM that is being created, whose files
// can't be reached, or whose configuration the user may not read, has none, and must not pass for one with another
// identity.
func (c *Client) vmThrough(ctx context.Context, r *reader, ref types.ManagedObjectReference) (*hypervisor.VM, error) {
	server, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	objects, err := r.read(ctx, ref)
	if err != nil {
		return nil, c.named(classify(err))
	}
	var m mo.VirtualMachine
	if err := load(objects, ref, &m); err != nil {
		return nil, c.named(err)
	}
	return identifiedVM(&m, pathOf(objects, ref), server)
}

// identifiedVM translates a VM that must have an instance UUID. Error: hypervisor.ErrOutOfReach.
func identifiedVM(m *mo.VirtualMachine, path, server string) (*hypervisor.VM, error) {
	vm := newVM(m)
	vm.Server, vm.Path = server, path
	if vm.InstanceUUID == "" {
		return nil, unreadable(m, path)
	}
	return vm, nil
}

// unreadable is the error for a VM of which the server shows no configuration.
func unreadable(m *mo.VirtualMachine, name string) error {
	return fmt.Errorf("the configuration of %s (%s, %s) can't be read: %w", name, m.Self.Value,
		cmp.Or(string(m.Runtime.ConnectionState), "in an unknown state"), hypervisor.ErrOutOfReach)
}

// newVM translates a VM. Where there is no configuration, what comes of it stays empty.
func newVM(m *mo.VirtualMachine) *hypervisor.VM {
	vm := &hypervisor.VM{
		ID:         hypervisor.VMID(m.Self.Value),
		Name:       unescapeName(m.Name),
		PowerState: powerStates[m.Runtime.PowerState],
	}
	if m.Guest != nil {
		vm.GuestAgent = m.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
		vm.GuestIPAddress = m.Guest.IpAddress
		vm.GuestAddresses = guestAddresses(m.Guest)
	}
	if config := m.Config; config != nil {
		vm.BIOSUUID = strings.ToLower(config.Uuid)
		vm.InstanceUUID = strings.ToLower(config.InstanceUuid)
		vm.GuestID = config.GuestId
		vm.HardwareVersion = config.Version
		vm.Template = config.Template
		vm.ChangeTracking = config.ChangeTrackingEnabled != nil && *config.ChangeTrackingEnabled
		vm.CPUs = int(config.Hardware.NumCPU)
		vm.MemoryBytes = int64(config.Hardware.MemoryMB) << 20
		vm.Disks = describeDisks(config.Hardware.Device)
	}
	vm.Obstacles = obstacles(m)
	return vm
}

// guestAddresses are the addresses of a guest that others can reach, the primary one first.
func guestAddresses(guest *types.GuestInfo) []string {
	all := []string{guest.IpAddress}
	for _, nic := range guest.Net {
		all = append(all, nic.IpAddress...)
	}
	var found []string
	for _, text := range all {
		address, err := netip.ParseAddr(text)
		if err != nil || address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsUnspecified() ||
			slices.Contains(found, text) {
			continue
		}
		found = append(found, text)
	}
	return found
}

// pathOf puts the names of the objects above ref together, from below the root folder. Names come with
// the escapes of the API, so that a slash in a name is none of the path's.
func pathOf(objects map[types.ManagedObjectReference]types.ObjectContent, ref types.ManagedObjectReference) string {
	var names []string
	// The bound guards against a cycle, which only a broken answer has.
	for at := &ref; at != nil && len(names) <= len(objects); {
		object, ok := objects[*at]
		if !ok {
			break // the user may not see it
		}
		name, parent := nameAndParent(object)
		if parent == nil && at.Type == "Folder" {
			break // the root folder has no part in paths
		}
		names = append(names, name)
		at = parent
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

func nameAndParent(content types.ObjectContent) (name string, parent *types.ManagedObjectReference) {
	for _, p := range content.PropSet {
		switch p.Name {
		case "name":
			name, _ = p.Val.(string)
		case "parent", "parentVApp":
			if ref, ok := p.Val.(types.ManagedObjectReference); ok {
				parent = &ref
			}
		}
	}
	return name, parent
}

// list reads properties of all objects of a kind.
func (c *Client) list(
	ctx context.Context, kind string, paths ...string,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	return c.listBelow(ctx, c.vim.ServiceContent.RootFolder, kind, paths...)
}

// listBelow is list for the objects below a container, however deep.
func (c *Client) listBelow(
	ctx context.Context, container types.ManagedObjectReference, kind string, paths ...string,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	for attempt := 1; ; attempt++ {
		objects, err := c.listOnce(ctx, container, kind, paths)
		// A view ends with the session; if that has to be renewed half-way, begin again.
		if err == nil || attempt == 2 || !sessionEnded(err) {
			return objects, c.named(classify(err))
		}
	}
}

func (c *Client) listOnce(
	ctx context.Context, container types.ManagedObjectReference, kind string, paths []string,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	view, err := newView(ctx, c.vim, container, kind)
	if err != nil {
		return nil, err
	}
	defer view.destroy(ctx, c.log)
	return retrieve(ctx, c.vim, types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{{Type: kind, PathSet: paths}},
		ObjectSet: []types.ObjectSpec{{
			Obj: view.ref, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: view.ref.Type, Path: "view"}},
		}},
		ReportMissingObjectsInResults: types.NewBool(true),
	})
}

// describeDisks lists the disks among devices, in the order of controllers and units.
func describeDisks(devices []types.BaseVirtualDevice) []hypervisor.Disk {
	sorted := orderedDisks(devices)
	disks := make([]hypervisor.Disk, 0, len(sorted))
	for _, d := range sorted {
		backing := describeBacking(d.Backing)
		datastore, _ := splitPath(backing.fileName)
		disks = append(disks, hypervisor.Disk{
			Key:       diskKey(d),
			Label:     deviceLabel(d),
			Address:   deviceAddress(devices, d),
			UUID:      strings.ToLower(backing.uuid),
			Capacity:  diskCapacity(d),
			Datastore: datastore,
			Path:      backing.fileName,
		})
	}
	return disks
}

// diskKey is a disk's device key. vSphere keeps it as long as the disk stays on its controller and unit.
func diskKey(d *types.VirtualDisk) hypervisor.DiskKey {
	return hypervisor.DiskKey(strconv.Itoa(int(d.Key)))
}

// orderedDisks returns the disks among devices in the order of controllers and units, which is mostly
// the order in which a guest numbers them.
func orderedDisks(devices object.VirtualDeviceList) []*types.VirtualDisk {
	var disks []*types.VirtualDisk
	for _, device := range devices {
		if d, ok := device.(*types.VirtualDisk); ok {
			disks = append(disks, d)
		}
	}
	slices.SortStableFunc(disks, func(a, b *types.VirtualDisk) int {
		ka, ba := controllerOf(devices, a)
		kb, bb := controllerOf(devices, b)
		return cmp.Or(
			cmp.Compare(slices.Index(controllerKinds, ka), slices.Index(controllerKinds, kb)),
			cmp.Compare(ba, bb), cmp.Compare(unitOf(a), unitOf(b)), cmp.Compare(a.Key, b.Key),
		)
	})
	return disks
}

// controllerKinds are the names that addresses use, in the order of disks.
var controllerKinds = []string{"ide", "scsi", "sata", "nvme"}

// deviceAddress is the controller and unit of a device, "scsi0:1", as .vmx files write it; empty for a
// device on no controller for disks.
func deviceAddress(devices object.VirtualDeviceList, device types.BaseVirtualDevice) string {
	kind, bus := controllerOf(devices, device)
	if kind == "" || unitOf(device) < 0 {
		return ""
	}
	return fmt.Sprintf("%s%d:%d", kind, bus, unitOf(device))
}

func unitOf(device types.BaseVirtualDevice) int32 {
	if unit := device.GetVirtualDevice().UnitNumber; unit != nil {
		return *unit
	}
	return -1
}

// controllerOf returns the kind and the bus number of the controller that a device hangs on.
func controllerOf(devices object.VirtualDeviceList, device types.BaseVirtualDevice) (kind string, bus int32) {
	parent := devices.FindByKey(device.GetVirtualDevice().ControllerKey)
	if parent == nil {
		return "", 0
	}
	switch p := parent.(type) {
	case types.BaseVirtualSCSIController:
		return "scsi", p.GetVirtualSCSIController().BusNumber
	case types.BaseVirtualSATAController:
		return "sata", p.GetVirtualSATAController().BusNumber
	case *types.VirtualNVMEController:
		return "nvme", p.BusNumber
	case *types.VirtualIDEController:
		return "ide", p.BusNumber
	}
	return "", 0
}
