package vsphere

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A deviation is a property of a VM that is not as captured.
type deviation struct{ path, want, have string }

func (d deviation) String() string {
	if isUntold(d.path) {
		return d.path + " differs from the backup."
	}
	return fmt.Sprintf("%s is %s instead of %s.", d.path, orUnset(d.have), orUnset(d.want))
}

func orUnset(value string) string {
	if value == "" {
		return "unset"
	}
	return value
}

// ownInPlace are the properties that a VM keeps when it gets the configuration of a backup.
var ownInPlace = []string{"changeTrackingEnabled", "guestFullName"}

// foreignInPlace are those that belong to the identity of the captured VM, if that is another.
var foreignInPlace = []string{"uuid", "instanceUuid", ".macAddress", ".addressType"}

// compareInPlace compares a VM with the captured one, but for what a restore in place doesn't touch.
func compareInPlace(captured, now *types.VirtualMachineConfigInfo) ([]deviation, error) {
	matched := matchDevices(captured.Hardware.Device, now.Hardware.Device)
	gone, kept := map[int32]bool{}, map[int32]bool{}
	for _, d := range captured.Hardware.Device {
		gone[d.GetVirtualDevice().Key] = matched[d.GetVirtualDevice().Key] == nil
	}
	for _, d := range matched {
		kept[d.GetVirtualDevice().Key] = true
	}
	added := map[int32]bool{}
	for _, d := range now.Hardware.Device {
		added[d.GetVirtualDevice().Key] = !kept[d.GetVirtualDevice().Key]
	}
	want, err := flattenConfig(captured, gone)
	if err != nil {
		return nil, err
	}
	have, err := flattenConfig(now, added)
	if err != nil {
		return nil, err
	}
	other := isOther(captured, now)
	paths := maps.Clone(want)
	maps.Copy(paths, have)
	var out []deviation
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		switch {
		case same(path, have[path], want[path]), excused(path, rebuild{identity: hypervisor.IdentityOriginal}),
			slices.Contains(ownInPlace, path), other && endsWithAny(path, foreignInPlace):
			continue
		}
		out = append(out, deviation{path: path, want: want[path], have: have[path]})
	}
	return out, nil
}

func endsWithAny(s string, ends []string) bool {
	return slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(s, end) })
}

// deviceDeviations names the devices that only one of the two VMs has. A restore in place neither adds nor
// removes any.
func deviceDeviations(captured, now object.VirtualDeviceList) []string {
	matched := matchDevices(captured, now)
	var out []string
	kept := map[int32]bool{}
	for _, d := range captured {
		if m := matched[d.GetVirtualDevice().Key]; m != nil {
			kept[m.GetVirtualDevice().Key] = true
		} else if !defaultDevice(d) {
			out = append(out, fmt.Sprintf(
				"%s of the backup is not in the virtual machine, and is not added.", deviceLabel(d)))
		}
	}
	for _, d := range now {
		if !kept[d.GetVirtualDevice().Key] && !defaultDevice(d) {
			out = append(out, fmt.Sprintf("%s is not in the backup, and stays as it is.", deviceLabel(d)))
		}
	}
	return out
}

// hardwareWarnings says what bringing back the hardware will change, and what it can't.
func (p *inPlacePlan) hardwareWarnings() ([]string, error) {
	if !p.spec.Hardware {
		return nil, nil
	}
	differences, err := compareInPlace(p.captured.config, p.vm.Config)
	if err != nil {
		return nil, err
	}
	var changes []string
	for _, d := range differences {
		if isUntold(d.path) {
			changes = append(changes, d.path)
			continue
		}
		changes = append(changes, fmt.Sprintf("%s from %s to %s", d.path, orUnset(d.have), orUnset(d.want)))
	}
	var warnings []string
	if len(changes) > 0 {
		warnings = append(warnings, fmt.Sprintf(
			"The configuration of %s is brought back to that of the backup, as far as it can be: %s.",
			p.line.path(), strings.Join(changes, "; ")))
	}
	return append(warnings, deviceDeviations(p.captured.devices(), p.vm.Config.Hardware.Device)...), nil
}
