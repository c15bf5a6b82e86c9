package vsphere

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// mayDiffer lists the properties of a configuration that a restored VM need not have as captured,
// with the reason. A path stands for everything below it; "[]" for any element.
var mayDiffer = map[string]string{
	"name":                       "is as the restore was asked for",
	"changeVersion":              "counts the server's changes",
	"modified":                   "is the time of the last change",
	"createDate":                 "is the time of creation",
	"vmxConfigChecksum":          "is over a file that names other files",
	"files":                      "are where the restore was asked to put them",
	"datastoreUrl":               "follows the files",
	"locationId":                 "is a hash of where the files are",
	"guestFullName":              "follows the guest ID",
	"initialOverhead":            "is the host's estimate",
	"hotPlugMemoryLimit":         "is the host's limit",
	"hotPlugMemoryIncrementSize": "is the host's limit",
	"vmStorageObjectId":          "names an object of a datastore",
	"swapStorageObjectId":        "names an object of a datastore",
	"contentLibItemInfo":         "says which library item the VM was deployed from",
	"forkConfigInfo":             "belongs to instant clones",
	"vmxRuntimeConfig":           "describes the running VM",
	"guestIntegrityInfo":         "describes the running VM",
	"tools.toolsVersion":         "is what the guest last reported",
	"tools.toolsInstallType":     "is what the guest last reported",
	"tools.lastInstallInfo":      "is what the guest last reported",
	"tools.pendingCustomization": "belongs to a deployment",
	"tools.customizationKeyId":   "belongs to a deployment",

	"defaultPowerOps.defaultPowerOffType": "is the host's default",
	"defaultPowerOps.defaultSuspendType":  "is the host's default",
	"defaultPowerOps.defaultResetType":    "is the host's default",

	"flags.snapshotDisabled":    "belongs to snapshots, which are not restored",
	"flags.snapshotLocked":      "belongs to snapshots, which are not restored",
	"flags.recordReplayEnabled": "is a feature of the past",
	"flags.useToe":              "is a feature of the past",
	"flags.faultToleranceType":  "belongs to a pair of VMs",

	// What follows is named by the warnings of creationSpec where it is set.
	"cpuAffinity":                  "belongs to a host",
	"memoryAffinity":               "belongs to a host",
	"cpuFeatureMask":               "belongs to a cluster",
	"managedBy":                    "belongs to an extension",
	"repConfig":                    "belongs to vSphere Replication",
	"scheduledHardwareUpgradeInfo": "is a plan for the captured VM",
	"npivNodeWorldWideName":        "is given out by a vCenter",
	"npivPortWorldWideName":        "is given out by a vCenter",
	"npivWorldWideNameType":        "is given out by a vCenter",
	"npivDesiredNodeWwns":          "is given out by a vCenter",
	"npivDesiredPortWwns":          "is given out by a vCenter",
	"npivTemporaryDisabled":        "is given out by a vCenter",
	"npivOnNonRdmDisks":            "is given out by a vCenter",
	"ftInfo":                       "belongs to a pair of VMs",
	"metroFtEnabled":               "belongs to a pair of VMs",
	"metroFtHostGroup":             "belongs to a pair of VMs",
	"networkShaper":                "is deprecated and without effect",
	"vcpuConfig":                   "belongs to a host",
	"deviceSwap":                   "is the state of an upgrade",
	"keyId":                        "belongs to encrypted VMs, which are not captured",

	"hardware.device[].key":                              "is given out by the server",
	"hardware.device[].controllerKey":                    "is given out by the server",
	"hardware.device[].device":                           "lists keys that the server gave out",
	"hardware.device[].deviceInfo":                       "is a description that the server makes",
	"hardware.device[].connectable.connected":            "is the state of the running VM",
	"hardware.device[].connectable.status":               "is the state of the running VM",
	"hardware.device[].numaNode":                         "belongs to a host",
	"hardware.device[].externalId":                       "belongs to a network controller",
	"hardware.device[].subnetId":                         "belongs to a network controller",
	"hardware.device[].backing._typeName":                "changes when a disk was in a chain of snapshots, and is checked by what it holds",
	"hardware.device[].backing.fileName":                 "is where the restore was asked to put it",
	"hardware.device[].backing.datastore":                "is where the restore was asked to put it",
	"hardware.device[].backing.backingObjectId":          "names an object of a datastore",
	"hardware.device[].backing.contentId":                "changes with every write",
	"hardware.device[].backing.changeId":                 "belongs to the tracking of the captured disk",
	"hardware.device[].backing.parent":                   "belongs to snapshots, which are not restored",
	"hardware.device[].backing.deltaDiskFormat":          "belongs to snapshots, which are not restored",
	"hardware.device[].backing.deltaDiskFormatVariant":   "belongs to snapshots, which are not restored",
	"hardware.device[].backing.deltaGrainSize":           "belongs to snapshots, which are not restored",
	"hardware.device[].backing.grainSize":                "belongs to snapshots, which are not restored",
	"hardware.device[].backing.digestEnabled":            "belongs to a host's cache",
	"hardware.device[].backing.split":                    "is the file's layout on other products",
	"hardware.device[].backing.spaceUsedInKB":            "is a measurement",
	"hardware.device[].backing.deviceName":               "is the network that the restore was asked for, or the guest operating system's client",
	"hardware.device[].backing.network":                  "is the network that the restore was asked for",
	"hardware.device[].backing.inPassthroughMode":        "is the state of the running VM",
	"hardware.device[].backing.port":                     "is the network that the restore was asked for",
	"hardware.device[].backing.opaqueNetworkId":          "is the network that the restore was asked for",
	"hardware.device[].backing.opaqueNetworkType":        "is the network that the restore was asked for",
	"hardware.device[].diskObjectId":                     "names an object of a datastore",
	"hardware.device[].vDiskId":                          "belongs to a first class disk",
	"hardware.device[].vDiskVersion":                     "belongs to a first class disk",
	"hardware.device[].iofilter":                         "belongs to a storage policy",
	"hardware.device[].independentFilters":               "belongs to a storage policy",
	"hardware.device[].vFlashCacheConfigInfo":            "is a feature of the past",
	"hardware.device[].nativeUnmanagedLinkedClone":       "is how the captured file was made",
	"hardware.device[].virtualDiskFormat":                "is how the captured file was made",
	"hardware.device[].shares":                           "is deprecated in favour of storageIOAllocation",
	"hardware.device[VirtualMachineVMCIDevice].id":       "is given out by the server",
	"hardware.device[VirtualMachineVMCIDevice].slotInfo": "is given out by the server",
}

// copyMayDiffer are the properties that make a copy a VM of its own.
var copyMayDiffer = map[string]string{
	"uuid":                                    "is the copy's own",
	"instanceUuid":                            "is the copy's own",
	"hardware.device[].macAddress":            "is the copy's own",
	"hardware.device[].addressType":           "is the copy's own",
	"hardware.device[].backing.uuid":          "is the copy's own",
	"hardware.device[].backing.useAutoDetect": "is how a client's drive is chosen",
}

// untold are the properties whose values no warning repeats: options and those of a vApp hand passwords
// and keys to the guest (guestinfo.userdata, OVF properties), addresses of ports may hold some.
var untold = map[string]bool{
	"extraConfig":                          true,
	"vAppConfig":                           true,
	"hardware.device[].backing.serviceURI": true,
	"hardware.device[].backing.proxyURI":   true,
}

// anyCase are the properties that servers write in capital or small letters as they like.
var anyCase = map[string]bool{
	"uuid":                           true,
	"instanceUuid":                   true,
	"hardware.device[].backing.uuid": true,
	"hardware.device[].macAddress":   true,
}

// compareRestored compares a restored VM with the captured one, property by property, and returns a
// warning for each that differs though it should not. Properties that only the restored VM has are
// defaults of its server.
func compareRestored(captured, restored *types.VirtualMachineConfigInfo, r rebuild) ([]string, error) {
	spec, _, err := creationSpec(captured, r)
	if err != nil {
		return nil, err
	}
	left := leftOut(captured, spec)
	want, err := flattenConfig(captured, left)
	if err != nil {
		return nil, err
	}
	have, err := flattenConfig(restored, nil)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if same(path, have[path], want[path]) || excused(path, r) {
			continue
		}
		if isUntold(path) {
			warnings = append(warnings, path+" differs.")
			continue
		}
		now, ok := have[path]
		if !ok {
			now = "unset"
		}
		warnings = append(warnings, fmt.Sprintf("%s is %s instead of %s.", path, now, want[path]))
	}
	return warnings, nil
}

// same reports whether two values of a property are.
func same(path, have, want string) bool {
	_, bare := withoutElements(path)
	return have == want || anyCase[bare] && strings.EqualFold(have, want)
}

// isUntold reports whether the value of a property may be a secret.
func isUntold(path string) bool {
	// The key of an option may itself hold brackets and dots.
	if root := path[:strings.IndexAny(path+".", ".[")]; untold[root] {
		return true
	}
	_, bare := withoutElements(path)
	for p := bare; p != ""; p = parentPath(p) {
		if untold[p] {
			return true
		}
	}
	return false
}

// leftOut are the devices that the specification doesn't ask for as captured, by key: those without a place
// at the target, and drives that lost their medium. They have warnings of their own.
func leftOut(captured *types.VirtualMachineConfigInfo, spec types.VirtualMachineConfigSpec) map[int32]bool {
	left := map[int32]bool{}
	for _, d := range captured.Hardware.Device {
		if !defaultDevice(d) {
			left[d.GetVirtualDevice().Key] = true
		}
	}
	for _, change := range spec.DeviceChange {
		d := change.GetVirtualDeviceConfigSpec().Device
		delete(left, -d.GetVirtualDevice().Key)
		switch d.GetVirtualDevice().Backing.(type) {
		case *types.VirtualCdromRemotePassthroughBackingInfo, *types.VirtualFloppyRemoteDeviceBackingInfo:
			left[-d.GetVirtualDevice().Key] = true
		}
	}
	return left
}

// excused reports whether a property is among those that may differ.
func excused(path string, r rebuild) bool {
	kind, bare := withoutElements(path)
	for p := bare; p != ""; p = parentPath(p) {
		if mayDiffer[p] != "" || mayDiffer[strings.Replace(p, "device[]", "device["+kind+"]", 1)] != "" {
			return true
		}
		if r.identity == hypervisor.IdentityCopy && copyMayDiffer[p] != "" {
			return true
		}
	}
	return r.disconnect && bare == "hardware.device[].connectable.startConnected"
}

// withoutElements replaces what is in brackets, and returns the class of the device that was named there.
func withoutElements(path string) (kind, bare string) {
	before, rest, ok := strings.Cut(path, "[")
	element, after, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return "", path
	}
	kind, _, _ = strings.Cut(element, "@")
	return kind, before + "[]" + after
}

func parentPath(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

// flattenConfig turns a configuration into paths and values. Devices are named by class and slot instead of
// their position, options by their keys. Devices in skip are left out.
func flattenConfig(config *types.VirtualMachineConfigInfo, skip map[int32]bool) (map[string]string, error) {
	data, err := encodeConfig(config)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var tree map[string]any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	out := map[string]string{}
	names := deviceNames(config)
	if hardware, ok := tree["hardware"].(map[string]any); ok {
		list, _ := hardware["device"].([]any)
		for i, d := range config.Hardware.Device {
			if i < len(list) && !skip[d.GetVirtualDevice().Key] {
				flattenValue(out, "hardware.device["+names[d.GetVirtualDevice().Key]+"]", list[i])
			}
		}
		delete(hardware, "device")
	}
	for _, o := range config.ExtraConfig {
		if v := o.GetOptionValue(); !transientKey(v.Key) {
			out["extraConfig["+v.Key+"]"] = fmt.Sprint(v.Value)
		}
	}
	delete(tree, "extraConfig")
	if boot, ok := tree["bootOptions"].(map[string]any); ok {
		delete(boot, "bootOrder")
		flattenBootOrder(out, config, names, skip)
	}
	flattenValue(out, "", tree)
	return out, nil
}

// deviceNames names devices by class and slot. What has no slot is numbered within its class.
func deviceNames(config *types.VirtualMachineConfigInfo) map[int32]string {
	names := map[int32]string{}
	count := map[string]int{}
	for _, d := range config.Hardware.Device {
		kind := deviceKind(d)
		slot := deviceSlot(config.Hardware.Device, d)
		if slot == "" || kind == "VirtualMachineVideoCard" || kind == "VirtualMachineVMCIDevice" {
			slot = strconv.Itoa(count[kind])
			count[kind]++
		}
		names[d.GetVirtualDevice().Key] = kind + "@" + slot
	}
	return names
}

func flattenBootOrder(
	out map[string]string, config *types.VirtualMachineConfigInfo, names map[int32]string, skip map[int32]bool,
) {
	n := 0
	for _, entry := range config.BootOptions.BootOrder {
		var value string
		switch e := entry.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			if skip[e.DeviceKey] {
				continue
			}
			value = "disk " + names[e.DeviceKey]
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			if skip[e.DeviceKey] {
				continue
			}
			value = "network " + names[e.DeviceKey]
		default:
			value = fmt.Sprintf("%T", entry)
		}
		out[fmt.Sprintf("bootOptions.bootOrder[%d]", n)] = value
		n++
	}
}

func flattenValue(out map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			switch {
			case key == "_typeName" && !strings.HasSuffix(path, "backing"):
			case path == "":
				flattenValue(out, key, child)
			default:
				flattenValue(out, path+"."+key, child)
			}
		}
	case []any:
		for i, child := range v {
			flattenValue(out, fmt.Sprintf("%s[%d]", path, i), child)
		}
	case nil:
	default:
		out[path] = fmt.Sprint(v)
	}
}
