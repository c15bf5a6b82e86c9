package vsphere

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// completionSpec is what must be changed about a VM that was created from creationSpec to make it
// the captured one: everything that refers to keys that the server gave out, and what can only be
// set on a VM that exists. The warnings name what can't be brought back.
func completionSpec(
	captured, created *types.VirtualMachineConfigInfo, r rebuild,
) (types.VirtualMachineConfigSpec, []string, error) {
	config, err := copyConfig(captured)
	if err != nil {
		return types.VirtualMachineConfigSpec{}, nil, err
	}
	// A stale version makes the server refuse the change: whatever else touched the VM in the
	// meantime must not be lost.
	spec := types.VirtualMachineConfigSpec{ChangeVersion: created.ChangeVersion}
	matched := matchDevices(config.Hardware.Device, created.Hardware.Device)

	var warnings []string
	if b := config.BootOptions; b != nil && len(b.BootOrder) > 0 {
		b.BootOrder, warnings = remapBootOrder(config.Hardware.Device, b.BootOrder, matched)
		spec.BootOptions = b
	}
	if on := config.ChangeTrackingEnabled; on != nil && *on {
		spec.ChangeTrackingEnabled = on
	}
	if r.identity == hypervisor.IdentityOriginal {
		if config.Uuid != created.Uuid {
			spec.Uuid = config.Uuid
		}
		if config.InstanceUuid != created.InstanceUuid {
			spec.InstanceUuid = config.InstanceUuid
		}
	}
	spec.VAppConfig = closeProperties(config.VAppConfig)
	spec.DeviceChange = correctDevices(config.Hardware.Device, matched, r)
	return spec, warnings, nil
}

// matchDevices finds the created device of every captured one, by class and slot. Network adapters
// whose unit the server changed are matched in order within their class. The result maps captured
// keys to created devices; devices that were left out have no entry.
func matchDevices(captured, created object.VirtualDeviceList) map[int32]types.BaseVirtualDevice {
	bySlot := map[string]types.BaseVirtualDevice{}
	for _, d := range created {
		if slot := deviceSlot(created, d); slot != "" {
			bySlot[deviceKind(d)+"@"+slot] = d
		}
	}
	matched := map[int32]types.BaseVirtualDevice{}
	taken := map[int32]bool{}
	for _, d := range captured {
		slot := deviceSlot(captured, d)
		if c, ok := bySlot[deviceKind(d)+"@"+slot]; ok && slot != "" {
			matched[d.GetVirtualDevice().Key] = c
			taken[c.GetVirtualDevice().Key] = true
		}
	}
	for _, d := range captured {
		key := d.GetVirtualDevice().Key
		if matched[key] != nil {
			continue
		}
		_, nic := d.(types.BaseVirtualEthernetCard)
		if !nic && !alone(d) {
			continue
		}
		for _, c := range created {
			if k := c.GetVirtualDevice().Key; deviceKind(c) == deviceKind(d) && !taken[k] {
				matched[key], taken[k] = c, true
				break
			}
		}
	}
	return matched
}

// unbootable names the entries of the boot order whose device is not in the specification of a new VM.
func unbootable(captured *types.VirtualMachineConfigInfo, spec types.VirtualMachineConfigSpec) []string {
	if captured.BootOptions == nil {
		return nil
	}
	kept := map[int32]types.BaseVirtualDevice{}
	for _, change := range spec.DeviceChange {
		d := change.GetVirtualDeviceConfigSpec().Device
		kept[-d.GetVirtualDevice().Key] = d
	}
	order := make([]types.BaseVirtualMachineBootOptionsBootableDevice, 0, len(captured.BootOptions.BootOrder))
	for _, entry := range captured.BootOptions.BootOrder { // remapBootOrder writes to what it is given
		switch e := entry.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			order = append(order, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: e.DeviceKey})
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			order = append(order, &types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: e.DeviceKey})
		}
	}
	_, warnings := remapBootOrder(captured.Hardware.Device, order, kept)
	return warnings
}

// alone reports whether a VM has no more than one device of the kind, wherever it is.
func alone(device types.BaseVirtualDevice) bool {
	switch device.(type) {
	case *types.VirtualMachineVideoCard, *types.VirtualMachineVMCIDevice:
		return true
	}
	return false
}

func remapBootOrder(devices object.VirtualDeviceList, order []types.BaseVirtualMachineBootOptionsBootableDevice,
	matched map[int32]types.BaseVirtualDevice,
) (remapped []types.BaseVirtualMachineBootOptionsBootableDevice, warnings []string) {
	remap := func(key *int32) bool {
		d, ok := matched[*key]
		if ok {
			*key = d.GetVirtualDevice().Key
			return true
		}
		label := fmt.Sprintf("device %d", *key)
		if d := devices.FindByKey(*key); d != nil {
			label = deviceLabel(d)
		}
		warnings = append(warnings, fmt.Sprintf("%s is left out of the boot order: the restored VM doesn't have it.", label))
		return false
	}
	for _, entry := range order {
		kept := true
		switch e := entry.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			kept = remap(&e.DeviceKey)
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			kept = remap(&e.DeviceKey)
		}
		if kept {
			remapped = append(remapped, entry)
		}
	}
	return remapped, warnings
}

// closeProperties closes the vApp properties that rewriteVApp opened.
func closeProperties(vapp types.BaseVmConfigInfo) types.BaseVmConfigSpec {
	if vapp == nil {
		return nil
	}
	var spec types.VmConfigSpec
	info := vapp.GetVmConfigInfo()
	for i := range info.Property {
		if closedProperty(info.Property[i]) {
			spec.Property = append(spec.Property, types.VAppPropertySpec{
				ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationEdit},
				Info:            &info.Property[i],
			})
		}
	}
	if len(spec.Property) == 0 {
		return nil
	}
	return &spec
}

// correctDevices brings back what the server makes itself at creation, video card and VMCI device, and network
// adapters whose address or connection the server decided about by itself.
func correctDevices(
	captured []types.BaseVirtualDevice, matched map[int32]types.BaseVirtualDevice, r rebuild,
) []types.BaseVirtualDeviceConfigSpec {
	var changes []types.BaseVirtualDeviceConfigSpec
	edit := func(d types.BaseVirtualDevice) {
		changes = append(changes, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d,
		})
	}
	for _, device := range captured {
		created, ok := matched[device.GetVirtualDevice().Key]
		if !ok {
			continue
		}
		switch d := device.(type) {
		case *types.VirtualMachineVideoCard:
			if now, ok := created.(*types.VirtualMachineVideoCard); ok {
				card := *d
				card.VirtualDevice = now.VirtualDevice
				card.DeviceInfo = nil
				edit(&card)
			}
		case *types.VirtualMachineVMCIDevice:
			if now, ok := created.(*types.VirtualMachineVMCIDevice); ok && correctVMCI(d, now) {
				edit(now)
			}
		case types.BaseVirtualEthernetCard:
			now, ok := created.(types.BaseVirtualEthernetCard)
			if ok && correctNIC(d.GetVirtualEthernetCard(), now.GetVirtualEthernetCard(), r) {
				edit(created)
			}
		}
	}
	return changes
}

// correctVMCI changes a created VMCI device into the captured one, but for its ID, and reports whether it had to.
func correctVMCI(captured, created *types.VirtualMachineVMCIDevice) (changed bool) {
	want := *created
	want.AllowUnrestrictedCommunication = captured.AllowUnrestrictedCommunication
	want.FilterEnable, want.FilterInfo = captured.FilterEnable, captured.FilterInfo
	if reflect.DeepEqual(want, *created) {
		return false
	}
	*created = want
	created.DeviceInfo = nil
	return true
}

// correctNIC changes a created adapter into the captured one and reports whether it had to.
func correctNIC(captured, created *types.VirtualEthernetCard, r rebuild) (changed bool) {
	if r.identity == hypervisor.IdentityOriginal && captured.MacAddress != created.MacAddress {
		created.MacAddress, created.AddressType = captured.MacAddress, captured.AddressType
		changed = true
	}
	want := captured.Connectable != nil && captured.Connectable.StartConnected && !r.disconnect
	if c := created.Connectable; c != nil && captured.Connectable != nil && c.StartConnected != want {
		c.StartConnected = want
		changed = true
	}
	return changed
}
