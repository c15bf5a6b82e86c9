package vsphere

import (
	"strings"
	"testing"
)

// readByOthers are the properties that vsphere_virtual_machine, of the provider that most people manage VMs with,
// reads into its state (its functions flattenVirtualMachineConfigInfo and the Read of its devices, version 2), but
// for those that it computes anew at every read: the managed object ID, the change version, the power state, what
// the guest reports, and keys of devices.
var readByOthers = strings.Fields(`
	config.uuid config.name config.guestId config.alternateGuestName config.annotation config.version config.firmware
	config.hardware.numCPU config.hardware.numCoresPerSocket config.hardware.memoryMB config.numaInfo.coresPerNumaNode
	config.memoryHotAddEnabled config.memoryReservationLockedToMax config.cpuHotAddEnabled config.cpuHotRemoveEnabled
	config.swapPlacement config.nestedHVEnabled config.vPMCEnabled
	config.tools.syncTimeWithHost config.tools.syncTimeWithHostAllowed config.tools.toolsUpgradePolicy
	config.tools.afterPowerOn config.tools.afterResume config.tools.beforeGuestStandby config.tools.beforeGuestShutdown
	config.tools.beforeGuestReboot
	config.flags.diskUuidEnabled config.flags.virtualExecUsage config.flags.virtualMmuUsage config.flags.enableLogging
	config.flags.vbsEnabled config.flags.vvtdEnabled
	config.cpuAllocation.limit config.cpuAllocation.reservation config.cpuAllocation.shares.level
	config.cpuAllocation.shares.shares config.memoryAllocation.limit config.memoryAllocation.reservation
	config.memoryAllocation.shares.level config.memoryAllocation.shares.shares config.latencySensitivity.level
	config.extraConfig[].value config.vAppConfig.property[].value config.vAppConfig.ovfEnvironmentTransport[]
	config.bootOptions.bootDelay config.bootOptions.efiSecureBootEnabled config.bootOptions.bootRetryEnabled
	config.bootOptions.bootRetryDelay config.files.vmPathName resourcePool runtime.host datastore[] customValue[].value
	config.hardware.device[].busNumber config.hardware.device[].unitNumber config.hardware.device[].sharedBus
	config.hardware.device[].capacityInBytes config.hardware.device[].backing.uuid config.hardware.device[].backing.diskMode
	config.hardware.device[].backing.writeThrough config.hardware.device[].backing.sharing
	config.hardware.device[].backing.thinProvisioned config.hardware.device[].backing.eagerlyScrub
	config.hardware.device[].backing.datastore config.hardware.device[].backing.fileName
	config.hardware.device[].storageIOAllocation.limit config.hardware.device[].storageIOAllocation.reservation
	config.hardware.device[].storageIOAllocation.shares.level config.hardware.device[].storageIOAllocation.shares.shares
	config.hardware.device[].macAddress config.hardware.device[].addressType config.hardware.device[].backing.network
	config.hardware.device[].backing.port.switchUuid config.hardware.device[].backing.port.portgroupKey
	config.hardware.device[].resourceAllocation.limit config.hardware.device[].resourceAllocation.reservation
	config.hardware.device[].resourceAllocation.share.level config.hardware.device[].resourceAllocation.share.shares
	config.hardware.device[].numDisplays config.hardware.device[].videoRamSizeInKB config.hardware.device[].use3dRenderer
`)

// sameToOthers makes sure that the state which somebody else keeps of the VM is still true, whatever the list of
// differences says.
func sameToOthers(t *testing.T, before, after reading) {
	t.Helper()
	found := map[string]bool{}
	for path, value := range before {
		bare := brackets.ReplaceAllString(path, "[]")
		found[bare] = true
		for _, read := range readByOthers {
			if read == bare && after[path] != value {
				t.Errorf("%s: %q before, %q after", path, value, after[path])
			}
		}
	}
	for _, read := range readByOthers {
		if !found[read] {
			t.Errorf("the VM has no %s", read)
		}
	}
	for _, what := range []string{"tags", "path", "order of adapters", "order of disks", "storage policy of the VM"} {
		if before[what] != after[what] || before[what] == "" {
			t.Errorf("%s: %q before, %q after", what, before[what], after[what])
		}
	}
}
