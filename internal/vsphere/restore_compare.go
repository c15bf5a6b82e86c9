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
)

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
	if tooNew(captured.ScheduledHardwareUpgradeInfo, r) { // has a warning of its own
		maps.DeleteFunc(want, func(path, _ string) bool { return strings.HasPrefix(path, "scheduledHardwareUpgradeInfo.") })
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
