package vsphere

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A difference is a group of a VM's properties that a restored VM need not have as captured, for one
// reason. A property stands for everything below it; "[]" for any element of a list.
type difference struct {
	when       occasion
	why        string
	properties []string
}

// An occasion is when a difference is to be expected.
type occasion string

const (
	always occasion = "always" // also when the VM comes back as the original, where it was
	asked  occasion = "asked"  // when the restore was told to place or name the VM in another way
	copied occasion = "copied" // when the VM is a copy
)

// differences are all properties that may differ. Everything else that a vCenter says about a VM comes back
// as captured, or a warning names it. The guide "What is restored" lists them; a test keeps the two the same.
var differences = []difference{
	{always, "The server gives these out; the restored virtual machine is another object of its " +
		"inventory.", []string{
		"self", "resourceConfig.entity", "resourceConfig.changeVersion", "resourceConfig.lastModified",
		"summary.vm", "config.changeVersion", "config.modified", "config.createDate",
		"config.locationId", "config.vmxConfigChecksum", "config.hardware.device[].key",
		"config.hardware.device[].controllerKey", "config.hardware.device[].device",
		"config.hardware.device[].deviceInfo", "config.hardware.device[].backing.port.portKey",
		"config.hardware.device[].backing.port.connectionCookie",
		"config.hardware.device[VirtualMachineVMCIDevice].id",
		"config.hardware.device[VirtualMachineVMCIDevice].slotInfo",
	}},
	{always, "They describe the running virtual machine, or measure something.", []string{
		"runtime", "guest", "guestHeartbeatStatus", "summary.runtime", "summary.guest",
		"summary.quickStats", "summary.storage", "summary.overallStatus", "overallStatus",
		"configStatus", "configIssue", "layout", "layoutEx", "storage", "recentTask", "disabledMethod",
		"triggeredAlarmState", "declaredAlarmState", "config.vmxRuntimeConfig",
		"config.guestIntegrityInfo", "config.tools.toolsVersion", "config.tools.toolsInstallType",
		"config.tools.lastInstallInfo",
		"config.scheduledHardwareUpgradeInfo.scheduledHardwareUpgradeStatus",
		"config.scheduledHardwareUpgradeInfo.fault", "config.hardware.device[].connectable.connected",
		"config.hardware.device[].connectable.status",
		"config.hardware.device[].backing.spaceUsedInKB",
		"config.hardware.device[].backing.inPassthroughMode",
		"config.hardware.device[].backing.contentId",
	}},
	{always, "Snapshots are not part of a backup: a disk comes back as one file, whose change " +
		"tracking begins anew.", []string{
		"snapshot", "rootSnapshot", "config.flags.snapshotDisabled", "config.flags.snapshotLocked",
		"config.hardware.device[].backing._typeName", "config.hardware.device[].backing.parent",
		"config.hardware.device[].backing.changeId",
		"config.hardware.device[].backing.deltaDiskFormat",
		"config.hardware.device[].backing.deltaDiskFormatVariant",
		"config.hardware.device[].backing.deltaGrainSize",
		"config.hardware.device[].backing.grainSize", "config.hardware.device[].backing.split",
	}},
	{always, "The host or the cluster decides.", []string{
		"capability", "environmentBrowser", "config.guestFullName", "summary.config.guestFullName",
		"config.initialOverhead", "config.hotPlugMemoryLimit", "config.hotPlugMemoryIncrementSize",
		"config.defaultPowerOps.defaultPowerOffType", "config.defaultPowerOps.defaultSuspendType",
		"config.defaultPowerOps.defaultResetType",
	}},
	{always, "They tie the virtual machine to one host, array, extension or replication; a warning " +
		"names them where they are set.", []string{
		"config.cpuAffinity", "config.memoryAffinity", "config.managedBy", "summary.config.managedBy",
		"config.repConfig", "config.npivNodeWorldWideName", "config.npivPortWorldWideName",
		"config.npivWorldWideNameType", "config.npivDesiredNodeWwns", "config.npivDesiredPortWwns",
		"config.npivTemporaryDisabled", "config.npivOnNonRdmDisks", "config.deviceGroups",
		"config.hardware.device[].deviceGroupInfo",
	}},
	{always, "They belong to the file on its datastore, or to a filter in front of it; a warning " +
		"names filters, caches and first class disks.", []string{
		"config.vmStorageObjectId", "config.swapStorageObjectId", "config.vFlashCacheReservation",
		"config.hardware.device[].backing.backingObjectId",
		"config.hardware.device[].backing.digestEnabled", "config.hardware.device[].diskObjectId",
		"config.hardware.device[].vDiskId", "config.hardware.device[].vDiskVersion",
		"config.hardware.device[].iofilter", "config.hardware.device[].independentFilters",
		"config.hardware.device[].vFlashCacheConfigInfo",
		"config.hardware.device[].nativeUnmanagedLinkedClone",
	}},
	{always, "They say how the captured virtual machine was deployed or upgraded.", []string{
		"config.contentLibItemInfo", "config.forkConfigInfo", "config.tools.pendingCustomization",
		"config.tools.customizationKeyId", "config.deviceSwap",
	}},
	{always, "A network controller (NSX) gives them out.", []string{
		"config.hardware.device[].externalId", "config.hardware.device[].subnetId",
	}},
	{always, "Who may do what is kept with the inventory, not with the virtual machine; a warning " +
		"names the permissions that were given on itself.", []string{
		"permission", "effectiveRole",
	}},
	{always, "Virtual machines with Fault Tolerance or encryption, and persistent memory, are not " +
		"captured.", []string{
		"config.ftInfo", "summary.config.ftInfo", "config.flags.faultToleranceType",
		"config.metroFtEnabled", "config.metroFtHostGroup", "config.files.ftMetadataDirectory",
		"config.keyId", "config.hardware.device[].backing.keyId", "config.pmem",
	}},
	{always, "They are without effect since long.", []string{
		"config.networkShaper", "config.flags.recordReplayEnabled", "config.flags.useToe",
		"config.hardware.device[].shares",
	}},
	{always, "These options describe one run or one place of a virtual machine, or say what a " +
		"property says too.", transientOptions()},
	{asked, "The restore was asked for a name or place, or the captured one was taken.", []string{
		"name", "parent", "parentVApp", "resourcePool", "datastore", "network", "config.name",
		"config.files", "config.datastoreUrl", "summary.config.name", "summary.config.vmPathName",
		"config.hardware.device[].backing.fileName", "config.hardware.device[].backing.datastore",
		"config.hardware.device[].backing.deviceName", "config.hardware.device[].backing.network",
		"config.hardware.device[].backing.useAutoDetect", "config.hardware.device[].backing.port",
		"config.hardware.device[].backing.opaqueNetworkId",
		"config.hardware.device[].backing.opaqueNetworkType",
	}},
	{copied, "They make the copy a virtual machine of its own.", []string{
		"config.uuid", "config.instanceUuid", "summary.config.uuid", "summary.config.instanceUuid",
		"config.hardware.device[].macAddress", "config.hardware.device[].addressType",
		"config.hardware.device[].backing.uuid",
	}},
	{copied, "The network adapters of a copy don't connect at power-on, unless that is asked for.", []string{
		"config.hardware.device[].connectable.startConnected",
	}},
}

// ownOptions begins the keys that this program sets while it works on a VM.
const ownOptions = "terraform.vm."

// transientOptions are the keys of extraConfig that are not restored, as properties.
func transientOptions() []string {
	var keys []string
	for key := range transientKeys {
		covered := slices.ContainsFunc(transientPrefixes, func(p string) bool { return strings.HasPrefix(key, p) })
		if !covered && !strings.HasPrefix(key, ownOptions) {
			keys = append(keys, key)
		}
	}
	for _, prefix := range transientPrefixes {
		keys = append(keys, prefix+"*")
	}
	for _, suffix := range transientSuffixes {
		keys = append(keys, "*"+suffix)
	}
	slices.Sort(keys)
	for i, key := range keys {
		keys[i] = "config.extraConfig[" + key + "]"
	}
	return keys
}

// mayDiffer are the properties by path, with the occasion on which they may differ.
var mayDiffer = func() map[string]occasion {
	all := map[string]occasion{}
	for _, d := range differences {
		for _, p := range d.properties {
			all[p] = d.when
		}
	}
	return all
}()

// excused reports whether a property of the configuration is among those that may differ.
func excused(path string, r rebuild) bool {
	kind, bare := withoutElements("config." + path)
	if strings.HasSuffix(bare, ".connectable.startConnected") {
		return r.disconnect
	}
	for p := bare; p != ""; p = parentPath(p) {
		when, ok := mayDiffer[p]
		if !ok {
			when, ok = mayDiffer[strings.Replace(p, "device[]", "device["+kind+"]", 1)]
		}
		if ok && (when != copied || r.identity == hypervisor.IdentityCopy) {
			return true
		}
	}
	return false
}

// differencesTable is what the guide says about an occasion, in Markdown.
func differencesTable(when occasion) string {
	var b strings.Builder
	b.WriteString("| Properties | Why they may differ |\n| --- | --- |\n")
	for _, d := range differences {
		if d.when != when {
			continue
		}
		quoted := make([]string, len(d.properties))
		for i, p := range d.properties {
			quoted[i] = "`" + p + "`"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(quoted, ", "), d.why)
	}
	return b.String()
}
