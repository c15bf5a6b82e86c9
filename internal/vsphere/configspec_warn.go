package vsphere

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// unsettable names the settings that belong to one host, cluster or extension and are not restored.
func unsettable(config *types.VirtualMachineConfigInfo, r rebuild) []string {
	var warnings []string
	warn := func(set bool, what string) {
		if set {
			warnings = append(warnings, what+" is not restored: it belongs to the host or cluster that the VM ran on.")
		}
	}
	affinity := func(a *types.VirtualMachineAffinityInfo) bool { return a != nil && len(a.AffinitySet) > 0 }
	warn(affinity(config.CpuAffinity) && !r.sameHost, "CPU affinity")
	warn(affinity(config.MemoryAffinity) && !r.sameHost, "memory affinity")
	warn(len(config.NpivNodeWorldWideName)+len(config.NpivPortWorldWideName) > 0, "N-port ID virtualization")
	warn(config.RepConfig != nil && config.RepConfig.VmReplicationId != "", "vSphere Replication")
	warn(config.DeviceGroups != nil && len(config.DeviceGroups.DeviceGroup) > 0, "the grouping of devices by their vendor")
	if m := config.ManagedBy; m != nil && m.ExtensionKey != "" {
		warnings = append(warnings, fmt.Sprintf("the VM was managed by the extension %q; the restored VM is not.", m.ExtensionKey))
	}
	if u := config.ScheduledHardwareUpgradeInfo; tooNew(u, r) {
		warnings = append(warnings, fmt.Sprintf(
			"the scheduled upgrade of the virtual hardware to %s is not restored: it is too new for the target.", u.VersionKey))
	}
	return append(warnings, directories(config.Files)...)
}

// tooNew reports whether an upgrade leads to hardware that the target can't make.
func tooNew(u *types.ScheduledHardwareUpgradeInfo, r rebuild) bool {
	return u != nil && u.VersionKey != "" && len(r.versions) > 0 && !slices.Contains(r.versions, u.VersionKey)
}

// directories names the directories that the captured VM had for itself. A restored VM has all its files in
// its own.
func directories(files types.VirtualMachineFileInfo) []string {
	store, vmx := splitPath(files.VmPathName)
	home := joinPath(store, path.Dir(vmx))
	var warnings []string
	for _, d := range []struct{ what, where string }{
		{"snapshots", files.SnapshotDirectory}, {"suspended memory", files.SuspendDirectory}, {"log files", files.LogDirectory},
	} {
		if d.where == "" || strings.TrimRight(d.where, "/ ") == home {
			continue
		}
		warnings = append(warnings, fmt.Sprintf(
			"the directory for %s, %s, is not restored: they are kept in the VM's own directory.", d.what, d.where))
	}
	return warnings
}

// diskExtras names what was attached to a disk beside its content.
func diskExtras(d *types.VirtualDisk) string {
	var lost []string
	if d.VDiskId != nil && d.VDiskId.Id != "" {
		lost = append(lost, fmt.Sprintf("it is no first class disk any more (ID %s)", d.VDiskId.Id))
	}
	if len(d.Iofilter)+len(d.IndependentFilters) > 0 {
		names := d.Iofilter
		for _, f := range d.IndependentFilters {
			if s, ok := f.(*types.VirtualMachineIndependentFilterSpec); ok {
				names = append(names, s.FilterName)
			}
		}
		lost = append(lost, fmt.Sprintf("its I/O filters (%s) are not restored", strings.Join(names, ", ")))
	}
	if c := d.VFlashCacheConfigInfo; c != nil && c.ReservationInMB > 0 {
		lost = append(lost, fmt.Sprintf("its flash read cache of %d MB is not restored", c.ReservationInMB))
	}
	if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && b.DigestEnabled != nil && *b.DigestEnabled {
		lost = append(lost, "its digest file for the host's content-based read cache is not restored")
	}
	if len(lost) == 0 {
		return ""
	}
	return "is restored as an ordinary disk: " + strings.Join(lost, ", ") + "."
}

// describePassthrough names the device of the host that a VM has to itself.
func describePassthrough(device types.BaseVirtualDevice) string {
	switch b := device.GetVirtualDevice().Backing.(type) {
	case *types.VirtualPCIPassthroughVmiopBackingInfo:
		return fmt.Sprintf("is a virtual GPU of the host (profile %s) and is not restored.", b.Vgpu)
	case *types.VirtualPCIPassthroughDeviceBackingInfo:
		return fmt.Sprintf("passes through a device of the host (%s, device ID %s) and is not restored.", b.Id, b.DeviceId)
	case *types.VirtualPCIPassthroughDynamicBackingInfo:
		return fmt.Sprintf("passes through a device of the host (%s) and is not restored.",
			firstOf(b.CustomLabel, b.AssignedId, "chosen at power-on"))
	case *types.VirtualPCIPassthroughDvxBackingInfo:
		return fmt.Sprintf("passes through a device of the host (class %s) and is not restored.", b.DeviceClass)
	}
	return "passes through a device of the host and is not restored."
}

// describeUSB names the USB device of a host or client.
func describeUSB(d *types.VirtualUSB) string {
	if b, ok := d.Backing.(types.BaseVirtualDeviceDeviceBackingInfo); ok {
		if name := b.GetVirtualDeviceDeviceBackingInfo().DeviceName; name != "" {
			return fmt.Sprintf("is the USB device %q of the host or of a client and is not restored.", name)
		}
	}
	return "is a USB device of the host or of a client and is not restored."
}
