package vsphere

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// revertChanges compares a VM's configuration with the one that a snapshot holds, and says by name what a
// revert to it changes, and what it leaves as it is: a sentence each. The VM's name and the place of its
// files are no part of a snapshot. Of settings that may hold secrets only the names are told. portgroup names a
// distributed port group.
func revertChanges(
	now, then *types.VirtualMachineConfigInfo, portgroup func(key string) string,
) ([]string, error) {
	var changes []string
	say := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	if a, b := now.Hardware.NumCPU, then.Hardware.NumCPU; a != b {
		say("The number of CPUs goes back from %d to %d.", a, b)
	}
	if a, b := now.Hardware.MemoryMB, then.Hardware.MemoryMB; a != b {
		say("The memory goes back from %d to %d MiB.", a, b)
	}
	if now.Version != then.Version {
		say("The hardware version goes back from %s to %s.", now.Version, then.Version)
	}
	if now.Annotation != then.Annotation {
		say("The annotation goes back to that of the snapshot.")
	}
	changes = append(changes, deviceChanges(now.Hardware.Device, then.Hardware.Device, portgroup)...)
	changes = append(changes, optionChanges(now.ExtraConfig, then.ExtraConfig)...)
	rest, err := otherChanges(now, then)
	return append(changes, rest...), err
}

// deviceChanges compares devices. vSphere keeps a device's key as long as the device stays where it is.
func deviceChanges(
	now, then object.VirtualDeviceList, portgroup func(key string) string,
) (changes []string) {
	for _, device := range now {
		old := counterpart(then, device)
		d, isDisk := device.(*types.VirtualDisk)
		switch {
		case isDisk:
			changes = append(changes, diskChange(now, d, old)...)
		case old == nil:
			changes = append(changes, fmt.Sprintf("%s isn't in the snapshot and leaves the VM.", deviceLabel(device)))
		default:
			changes = append(changes, backingChange(device, old, portgroup)...)
		}
	}
	for _, device := range then {
		if counterpart(now, device) != nil {
			continue
		}
		if d, ok := device.(*types.VirtualDisk); ok {
			changes = append(changes, fmt.Sprintf("%s (%s) comes back, with the file %s.",
				deviceLabel(d), deviceAddress(then, d), rootFile(d.Backing)))
			continue
		}
		changes = append(changes, deviceLabel(device)+" comes back.")
	}
	return changes
}

// counterpart finds a device in another list, nil if it isn't there.
func counterpart(list object.VirtualDeviceList, device types.BaseVirtualDevice) types.BaseVirtualDevice {
	other := list.FindByKey(device.GetVirtualDevice().Key)
	if other == nil || deviceKind(other) != deviceKind(device) {
		return nil
	}
	return other
}

// diskChange compares a disk with what the snapshot has in its place, which is nil for nothing.
func diskChange(
	devices object.VirtualDeviceList, now *types.VirtualDisk, old types.BaseVirtualDevice,
) (changes []string) {
	name := fmt.Sprintf("%s (%s)", deviceLabel(now), deviceAddress(devices, now))
	file := rootFile(now.Backing)
	then, ok := old.(*types.VirtualDisk)
	switch {
	case !ok:
		return []string{fmt.Sprintf("%s isn't in the snapshot and leaves the VM; its file %s stays.", name, file)}
	case rootFile(then.Backing) != file:
		return []string{fmt.Sprintf("%s goes back to the file %s; its file %s stays.", name, rootFile(then.Backing), file)}
	}
	if a, b := diskCapacity(now), diskCapacity(then); a != b {
		changes = append(changes, fmt.Sprintf("%s goes back from %d to %d bytes.", name, a, b))
	}
	if describeBacking(now.Backing).independent() {
		changes = append(changes, fmt.Sprintf("%s is independent: its content stays as it is now.", name))
	}
	return changes
}

// rootFile is the file at the bottom of a disk's chain. It stays the same in whichever snapshot the disk is.
func rootFile(backing types.BaseVirtualDeviceBackingInfo) string {
	b := describeBacking(backing)
	return firstOf(b.base, b.fileName)
}

// backingChange compares what network adapters and drives are connected to.
func backingChange(
	now, then types.BaseVirtualDevice, portgroup func(key string) string,
) (changes []string) {
	label := deviceLabel(now)
	if a, ok := now.(types.BaseVirtualEthernetCard); ok {
		if b, ok := then.(types.BaseVirtualEthernetCard); ok {
			a, b := a.GetVirtualEthernetCard().MacAddress, b.GetVirtualEthernetCard().MacAddress
			if !strings.EqualFold(a, b) {
				changes = append(changes, fmt.Sprintf("%s goes back from the MAC address %s to %s.", label, a, b))
			}
		}
	} else if !isDrive(now) {
		return nil // told with the other settings
	}
	a, b := now.GetVirtualDevice().Backing, then.GetVirtualDevice().Backing
	key := func(key string) string { return key } // to compare, the keys do
	if connectedTo(a, key) != connectedTo(b, key) {
		changes = append(changes,
			fmt.Sprintf("%s goes back from %s to %s.", label, connectedTo(a, portgroup), connectedTo(b, portgroup)))
	}
	return changes
}

func isDrive(device types.BaseVirtualDevice) bool {
	switch device.(type) {
	case *types.VirtualCdrom, *types.VirtualFloppy:
		return true
	}
	return false
}

// connectedTo names what a network adapter or a drive is connected to.
func connectedTo(
	backing types.BaseVirtualDeviceBackingInfo, portgroup func(key string) string,
) string {
	switch b := backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		return fmt.Sprintf("network %q", b.DeviceName)
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		if b.Port.PortgroupKey == "" {
			return fmt.Sprintf("port %s of the distributed switch %s", b.Port.PortKey, b.Port.SwitchUuid)
		}
		return fmt.Sprintf("distributed port group %q", portgroup(b.Port.PortgroupKey))
	case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
		return "opaque network " + b.OpaqueNetworkId
	case types.BaseVirtualDeviceFileBackingInfo:
		return b.GetVirtualDeviceFileBackingInfo().FileName
	case types.BaseVirtualDeviceDeviceBackingInfo:
		if name := b.GetVirtualDeviceDeviceBackingInfo().DeviceName; name != "" {
			return fmt.Sprintf("device %q", name)
		}
		return "a device of the host"
	case types.BaseVirtualDeviceRemoteDeviceBackingInfo:
		return "a device of a client"
	}
	return "nothing"
}

// optionChanges names the advanced settings that differ. Their values may be secrets.
func optionChanges(now, then []types.BaseOptionValue) []string {
	values := func(options []types.BaseOptionValue) map[string]string {
		out := map[string]string{}
		for _, o := range options {
			if v := o.GetOptionValue(); !transientKey(v.Key) {
				out[v.Key] = fmt.Sprint(v.Value)
			}
		}
		return out
	}
	a, b := values(now), values(then)
	var back, gone []string
	for key, value := range a {
		switch old, ok := b[key]; {
		case !ok:
			gone = append(gone, key)
		case old != value:
			back = append(back, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			back = append(back, key)
		}
	}
	slices.Sort(back)
	slices.Sort(gone)
	var changes []string
	if len(back) > 0 {
		changes = append(changes, "Advanced settings go back: "+strings.Join(back, ", ")+".")
	}
	if len(gone) > 0 {
		changes = append(changes, "Advanced settings that the snapshot doesn't have are removed: "+
			strings.Join(gone, ", ")+".")
	}
	return changes
}

// notReverted are the properties that differ between a VM and its snapshots without meaning anything, and
// those that have sentences of their own.
var notReverted = map[string]bool{
	"name": true, "files": true, "datastoreUrl": true, "changeVersion": true, "modified": true, "createDate": true,
	"locationId": true, "vmxConfigChecksum": true, "initialOverhead": true, "hotPlugMemoryLimit": true,
	"hotPlugMemoryIncrementSize": true, "vmxRuntimeConfig": true, "guestIntegrityInfo": true, "guestFullName": true,
	"vmStorageObjectId": true, "swapStorageObjectId": true, "contentLibItemInfo": true,
	"tools.toolsVersion": true, "tools.toolsInstallType": true, "tools.lastInstallInfo": true,
	"flags.snapshotDisabled": true, "flags.snapshotLocked": true, "flags.snapshotPowerOffBehavior": true,

	"hardware.numCPU": true, "hardware.memoryMB": true, "version": true, "annotation": true, "extraConfig": true,
	"hardware.device[].deviceInfo": true, "hardware.device[].capacityInKB": true, "hardware.device[].capacityInBytes": true,
	"hardware.device[].connectable.connected": true, "hardware.device[].connectable.status": true,
	"hardware.device[].device": true, "hardware.device[].macAddress": true, "hardware.device[].diskObjectId": true,
	"hardware.device[].shares":                  true,
	"hardware.device[].backing.fileName":        true,
	"hardware.device[].backing.datastore":       true,
	"hardware.device[].backing.parent":          true,
	"hardware.device[].backing.changeId":        true,
	"hardware.device[].backing.contentId":       true,
	"hardware.device[].backing.deviceName":      true,
	"hardware.device[].backing.network":         true,
	"hardware.device[].backing.port":            true,
	"hardware.device[].backing._typeName":       true,
	"hardware.device[].backing.useAutoDetect":   true,
	"hardware.device[].backing.spaceUsedInKB":   true,
	"hardware.device[].backing.digestEnabled":   true,
	"hardware.device[].backing.opaqueNetworkId": true, "hardware.device[].backing.opaqueNetworkType": true,
	"hardware.device[].backing.backingObjectId": true, "hardware.device[].backing.deltaDiskFormat": true,
	"hardware.device[].backing.deltaDiskFormatVariant": true, "hardware.device[].backing.deltaGrainSize": true,
	"hardware.device[].backing.grainSize": true, "hardware.device[].backing.inPassthroughMode": true,
}

// longestValue is how much of a value a sentence repeats.
const longestValue = 60

// otherChanges names all that differs besides, in one sentence for the VM and one for each device.
func otherChanges(now, then *types.VirtualMachineConfigInfo) ([]string, error) {
	skipNow, skipThen := onlyIn(now, then), onlyIn(then, now)
	a, err := flattenConfig(now, skipNow)
	if err != nil {
		return nil, err
	}
	b, err := flattenConfig(then, skipThen)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	names := deviceNames(then)
	for _, d := range then.Hardware.Device {
		labels[names[d.GetVirtualDevice().Key]] = deviceLabel(d)
	}
	paths := maps.Clone(a)
	maps.Copy(paths, b)
	groups := map[string][]string{}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if same(path, a[path], b[path]) || isNotReverted(path) || derived(path, a, b) {
			continue
		}
		group, property := "", path
		if rest, ok := strings.CutPrefix(path, "hardware.device["); ok {
			name, after, _ := strings.Cut(rest, "].")
			group, property = labels[name], after
		}
		groups[group] = append(groups[group], describeChange(path, property, a, b))
	}
	var changes []string
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		of := "Other settings go back: "
		if group != "" {
			of = "Settings of " + group + " go back: "
		}
		changes = append(changes, of+strings.Join(groups[group], ", ")+".")
	}
	return changes, nil
}

// derived reports whether a number of shares follows from a level and from what it is a share of, which have
// sentences of their own.
func derived(path string, now, then map[string]string) bool {
	of, ok := strings.CutSuffix(path, ".shares.shares")
	level := now[of+".shares.level"]
	return ok && level == then[of+".shares.level"] && level != string(types.SharesLevelCustom)
}

// describeChange tells the values of a property where they are short and no secrets.
func describeChange(path, property string, now, then map[string]string) string {
	from, had := now[path]
	to, has := then[path]
	if !had {
		from = "unset"
	}
	if !has {
		to = "unset"
	}
	if isUntold(path) || len(from)+len(to) > longestValue {
		return property
	}
	return fmt.Sprintf("%s (%s to %s)", property, from, to)
}

// onlyIn are the devices of a configuration that another doesn't have, or not with the same file.
func onlyIn(config, other *types.VirtualMachineConfigInfo) map[int32]bool {
	out := map[int32]bool{}
	for _, d := range config.Hardware.Device {
		there := counterpart(other.Hardware.Device, d)
		if there == nil {
			out[d.GetVirtualDevice().Key] = true
			continue
		}
		a, isDisk := d.(*types.VirtualDisk)
		if b, ok := there.(*types.VirtualDisk); ok && isDisk && rootFile(a.Backing) != rootFile(b.Backing) {
			out[a.Key] = true
		}
	}
	return out
}

// isNotReverted reports whether a property, or what it belongs to, is in notReverted.
func isNotReverted(path string) bool {
	if root := path[:strings.IndexAny(path+".", ".[")]; notReverted[root] {
		return true // the key of an option may itself hold brackets and dots
	}
	_, bare := withoutElements(path)
	for p := bare; p != ""; p = parentPath(p) {
		if notReverted[p] {
			return true
		}
	}
	return false
}
