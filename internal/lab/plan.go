package lab

import (
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A plan is what a change of devices comes to. It is made without changing anything, so that a change
// happens as a whole or not at all.
type plan struct {
	lab   *Lab
	ctx   *simulator.Context
	vm    types.ManagedObjectReference // empty before the VM exists
	name  string
	dir   string // "[LocalDS_0] web01"
	on    bool
	chain map[string]bool  // files that snapshots know
	keys  map[int32]int32  // the keys that clients gave new devices, to those that they get
	ops   []diskOp         // in order
	taken map[string]bool  // names of files to be made
	need  map[string]int64 // bytes by datastore

	copies  map[int32]string // files to copy, by the keys that clients gave new disks
	devices []types.BaseVirtualDevice
	extends []int32        // keys of disks that grow
	gone    map[int32]bool // keys of devices that are removed
}

// newPlan starts a plan for an existing VM whose lock is held.
func (l *Lab) newPlan(ctx *simulator.Context, vm *simulator.VirtualMachine) *plan {
	p := &plan{
		lab: l, ctx: ctx, vm: vm.Self, name: vm.Config.Name, dir: directory(vm.Config.Files.VmPathName),
		on: vm.Runtime.PowerState != poweredOff, devices: clone(vm.Config.Hardware.Device),
	}
	p.chain = l.snapshotDisks(ctx, vm)
	p.init()
	return p
}

func (p *plan) init() {
	p.keys, p.taken, p.need, p.gone = map[int32]int32{}, map[string]bool{}, map[string]int64{}, map[int32]bool{}
}

// snapshotDisks are the files that a VM's snapshots have as disks.
func (l *Lab) snapshotDisks(ctx *simulator.Context, vm *simulator.VirtualMachine) map[string]bool {
	files := map[string]bool{}
	if vm.Snapshot == nil {
		return files
	}
	for _, ref := range refsIn(vm.Snapshot.RootSnapshotList) {
		if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			ctx.WithLock(s, func() {
				for _, d := range disksOf(s.Config.Hardware.Device) {
					files[diskFile(d)] = true
				}
			})
		}
	}
	return files
}

// change applies changes to the plan's devices. Removals come first, so that what they free can be used
// again, then controllers, then the rest.
func (p *plan) change(changes []types.BaseVirtualDeviceConfigSpec) types.BaseMethodFault {
	changes = clone(changes)
	for _, pass := range []func(*types.VirtualDeviceConfigSpec) bool{isRemoval, isController, isRest} {
		for i, c := range changes {
			spec := c.GetVirtualDeviceConfigSpec()
			if spec.Device == nil {
				return invalidDevice(i, "device")
			}
			if !pass(spec) {
				continue
			}
			if fault := p.apply(i, spec); fault != nil {
				return fault
			}
		}
	}
	for _, d := range p.devices {
		if key := d.GetVirtualDevice().ControllerKey; key != 0 && object.VirtualDeviceList(p.devices).FindByKey(key) == nil {
			return &types.MissingController{InvalidDeviceSpec: *invalidDevice(0, "controllerKey")}
		}
	}
	relinkControllers(p.devices)
	return p.checkSpace()
}

func isRemoval(s *types.VirtualDeviceConfigSpec) bool {
	return s.Operation == types.VirtualDeviceConfigSpecOperationRemove
}

func isController(s *types.VirtualDeviceConfigSpec) bool {
	_, ok := s.Device.(types.BaseVirtualController)
	return ok && !isRemoval(s)
}

func isRest(s *types.VirtualDeviceConfigSpec) bool { return !isRemoval(s) && !isController(s) }

func invalidDevice(index int, property string) *types.InvalidDeviceSpec {
	return &types.InvalidDeviceSpec{
		InvalidVmConfig: types.InvalidVmConfig{Property: "deviceChange[" + property + "]"},
		DeviceIndex:     int32(index), //nolint:gosec // an index of a list
	}
}

func (p *plan) apply(index int, spec *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	switch spec.Operation {
	case types.VirtualDeviceConfigSpecOperationAdd:
		return p.add(index, spec)
	case types.VirtualDeviceConfigSpecOperationEdit:
		return p.edit(index, spec)
	case types.VirtualDeviceConfigSpecOperationRemove:
		return p.remove(index, spec)
	}
	return invalidDevice(index, "operation")
}

// find is the position of a device, -1 when there is none with the key.
func (p *plan) find(key int32) int {
	return slices.IndexFunc(p.devices, func(d types.BaseVirtualDevice) bool { return d.GetVirtualDevice().Key == key })
}

func (p *plan) add(index int, spec *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	device := spec.Device.GetVirtualDevice()
	old := device.Key
	if fixed, ok := p.fixedDevice(spec.Device); ok {
		p.keys[old] = fixed // every VM has it from the start
		return nil
	}
	if c, ok := spec.Device.(types.BaseVirtualController); ok {
		if fault := p.placeController(index, spec.Device, c.GetVirtualController()); fault != nil {
			return fault
		}
	} else {
		if key, ok := p.keys[device.ControllerKey]; ok {
			device.ControllerKey = key
		}
		if fault := p.place(index, spec.Device); fault != nil {
			return fault
		}
	}
	if old != 0 {
		p.keys[old] = device.Key
	}
	var fault types.BaseMethodFault
	switch d := spec.Device.(type) {
	case *types.VirtualDisk:
		fault = p.addDisk(index, spec, d, p.copies[old])
	case types.BaseVirtualEthernetCard:
		fault = p.addCard(index, d.GetVirtualEthernetCard())
	default:
		p.fillConnectable(device, spec.Device)
	}
	if fault != nil {
		return fault
	}
	p.insert(spec.Device)
	return nil
}

// insert adds a device behind all others, a disk before those with greater keys: a host lists them in order.
func (p *plan) insert(device types.BaseVirtualDevice) {
	at := len(p.devices)
	if disk, ok := device.(*types.VirtualDisk); ok {
		i := slices.IndexFunc(p.devices, func(d types.BaseVirtualDevice) bool {
			other, ok := d.(*types.VirtualDisk)
			return ok && other.Key > disk.Key
		})
		if i >= 0 {
			at = i
		}
	}
	p.devices = slices.Insert(p.devices, at, device)
}

// fixedDevice is the key of the device that every VM has instead of one that a client wants to add.
func (p *plan) fixedDevice(device types.BaseVirtualDevice) (int32, bool) {
	switch d := device.(type) {
	case *types.VirtualIDEController:
		return 200 + d.BusNumber, true
	case *types.VirtualPCIController:
		return 100, true
	case *types.VirtualPS2Controller:
		return 300, true
	case *types.VirtualSIOController:
		return 400, true
	case *types.VirtualMachineVideoCard:
		if i := p.find(500); i >= 0 {
			d.Key, d.ControllerKey, d.UnitNumber = 500, 100, types.NewInt32(0)
			d.DeviceInfo = p.devices[i].GetVirtualDevice().DeviceInfo
			p.devices[i] = d
		}
		return 500, true
	case *types.VirtualKeyboard:
		return 600, true
	case *types.VirtualPointingDevice:
		return 700, true
	case *types.VirtualMachineVMCIDevice:
		return 12000, true
	}
	return 0, false
}

func (p *plan) placeController(
	index int, device types.BaseVirtualDevice, c *types.VirtualController,
) types.BaseMethodFault {
	bus := freeBus(p.devices, device, c.BusNumber)
	if bus < 0 {
		return &types.TooManyDevices{InvalidVmConfig: types.InvalidVmConfig{Property: invalidDevice(index, "device").Property}}
	}
	c.BusNumber = bus
	c.Key, _ = controllerKey(device, bus)
	c.ControllerKey = 100
	name, summary := controllerName(device, bus)
	c.DeviceInfo = &types.Description{Label: name, Summary: summary}
	unit := int32(3) + bus
	if _, scsi := device.(types.BaseVirtualSCSIController); !scsi {
		unit = 23 + bus
	}
	for unitTaken(p.devices, 100, unit) {
		unit++
	}
	c.UnitNumber = &unit
	if s, ok := device.(types.BaseVirtualSCSIController); ok {
		scsi := s.GetVirtualSCSIController()
		scsi.ScsiCtlrUnitNumber = scsiUnit
		scsi.HotAddRemove = types.NewBool(true)
		if scsi.SharedBus == "" {
			scsi.SharedBus = types.VirtualSCSISharingNoSharing
		}
	}
	return nil
}

// place gives a device a unit, a key and a label.
func (p *plan) place(index int, device types.BaseVirtualDevice) types.BaseMethodFault {
	d := device.GetVirtualDevice()
	controller := object.VirtualDeviceList(p.devices).FindByKey(d.ControllerKey)
	units, first := unitsOf(controller)
	kind, key, defaultController, unit := kindOf(device)
	switch device.(type) {
	case *types.VirtualDisk, *types.VirtualCdrom:
		kind = "Hard disk"
		if _, ok := device.(*types.VirtualCdrom); ok {
			kind = "CD/DVD drive"
		}
		if units == 0 {
			return &types.MissingController{InvalidDeviceSpec: *invalidDevice(index, "controllerKey")}
		}
		if fault := p.placeUnit(index, d, controller, units); fault != nil {
			return fault
		}
		key = first + *d.UnitNumber
		if units == 64 && *d.UnitNumber > 15 {
			key = 2064 + *d.UnitNumber // beyond the 16 units that other adapters have
		}
	default:
		if defaultController != 0 {
			d.ControllerKey = defaultController
		}
		if d.UnitNumber == nil || *d.UnitNumber < 0 || unitTaken(p.devices, d.ControllerKey, *d.UnitNumber) {
			for unitTaken(p.devices, d.ControllerKey, unit) {
				unit++
			}
			d.UnitNumber = types.NewInt32(unit)
		}
	}
	d.Key = freeKey(p.devices, key)
	summary := ""
	if d.DeviceInfo != nil {
		summary = d.DeviceInfo.GetDescription().Summary
	}
	d.DeviceInfo = &types.Description{Label: freeLabel(p.devices, kind), Summary: summary}
	return nil
}

func (p *plan) placeUnit(
	index int, d *types.VirtualDevice, controller types.BaseVirtualDevice, units int32,
) types.BaseMethodFault {
	_, scsi := controller.(types.BaseVirtualSCSIController)
	if d.UnitNumber != nil && *d.UnitNumber >= 0 {
		unit := *d.UnitNumber
		if unit >= units || scsi && unit == scsiUnit || unitTaken(p.devices, d.ControllerKey, unit) {
			return invalidDevice(index, "unitNumber")
		}
		return nil
	}
	for unit := range units {
		if (!scsi || unit != scsiUnit) && !unitTaken(p.devices, d.ControllerKey, unit) {
			d.UnitNumber = types.NewInt32(unit)
			return nil
		}
	}
	return &types.TooManyDevices{InvalidVmConfig: types.InvalidVmConfig{Property: "unitNumber"}}
}

// fillConnectable gives removable devices a connection.
func (p *plan) fillConnectable(d *types.VirtualDevice, device types.BaseVirtualDevice) {
	switch device.(type) {
	case types.BaseVirtualEthernetCard, *types.VirtualCdrom, *types.VirtualFloppy, *types.VirtualSerialPort,
		*types.VirtualParallelPort:
	default:
		return
	}
	if d.Connectable == nil {
		d.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true}
	}
	if d.Connectable.MigrateConnect == "" {
		d.Connectable.MigrateConnect = string(types.VirtualDeviceConnectInfoMigrateConnectOpUnset)
	}
	d.Connectable.Status = string(types.VirtualDeviceConnectInfoStatusUntried)
	d.Connectable.Connected = p.on && d.Connectable.Connected
	if info := d.DeviceInfo.GetDescription(); info.Summary == "" {
		info.Summary = info.Label
		if b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
			info.Summary = "ISO " + b.GetVirtualDeviceFileBackingInfo().FileName
		}
	}
}

func (p *plan) edit(index int, spec *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	device := spec.Device.GetVirtualDevice()
	i := p.find(device.Key)
	if i < 0 {
		return invalidDevice(index, "key")
	}
	old := p.devices[i].GetVirtualDevice()
	device.DeviceInfo = old.DeviceInfo
	if device.ControllerKey == 0 {
		device.ControllerKey = old.ControllerKey
	}
	if device.UnitNumber == nil {
		device.UnitNumber = old.UnitNumber
	}
	if device.Backing == nil {
		device.Backing = old.Backing
	}
	if device.Connectable == nil {
		device.Connectable = old.Connectable
	}
	moved := device.ControllerKey != old.ControllerKey ||
		device.UnitNumber != nil && old.UnitNumber != nil && *device.UnitNumber != *old.UnitNumber
	if moved && unitTaken(p.devices, device.ControllerKey, *device.UnitNumber) {
		return invalidDevice(index, "unitNumber")
	}
	if moved && p.on {
		return &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: poweredOn}
	}
	switch d := spec.Device.(type) {
	case *types.VirtualDisk:
		was, ok := p.devices[i].(*types.VirtualDisk)
		if !ok {
			return invalidDevice(index, "device")
		}
		if fault := p.editDisk(index, spec, was, d); fault != nil {
			return fault
		}
	case types.BaseVirtualEthernetCard:
		was, ok := p.devices[i].(types.BaseVirtualEthernetCard)
		if !ok {
			return invalidDevice(index, "device")
		}
		if fault := p.editCard(index, was.GetVirtualEthernetCard(), d.GetVirtualEthernetCard()); fault != nil {
			return fault
		}
	}
	p.devices[i] = spec.Device
	return nil
}

func (p *plan) remove(index int, spec *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	i := p.find(spec.Device.GetVirtualDevice().Key)
	if i < 0 {
		return invalidDevice(index, "key")
	}
	device := p.devices[i]
	if disk, ok := device.(*types.VirtualDisk); ok {
		if fault := p.removeDisk(index, spec, disk); fault != nil {
			return fault
		}
	}
	p.devices = slices.Delete(p.devices, i, i+1)
	p.gone[device.GetVirtualDevice().Key] = true
	if _, ok := device.(types.BaseVirtualController); ok {
		key := device.GetVirtualDevice().Key
		inUse := func(d types.BaseVirtualDevice) bool { return d.GetVirtualDevice().ControllerKey == key }
		if slices.ContainsFunc(p.devices, inUse) {
			return &types.ResourceInUse{Type: "VirtualController", Name: label(device)}
		}
	}
	return nil
}
