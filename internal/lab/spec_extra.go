package lab

import (
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

// applyTopology sets how processors are arranged. Zero leaves a number to the server.
func applyTopology(config *types.VirtualMachineConfigInfo, spec *types.VirtualMachineConfigSpec) {
	h := &config.Hardware
	if n := spec.NumCoresPerSocket; n != nil {
		h.AutoCoresPerSocket = types.NewBool(*n == 0)
		if *n != 0 {
			h.NumCoresPerSocket = n
		}
	}
	if spec.MotherboardLayout != "" {
		h.MotherboardLayout = spec.MotherboardLayout
	}
	if spec.SimultaneousThreads != 0 {
		h.SimultaneousThreads = spec.SimultaneousThreads
	}
	numa := spec.VirtualNuma
	if numa == nil {
		return
	}
	if config.NumaInfo == nil {
		config.NumaInfo = &types.VirtualMachineVirtualNumaInfo{
			AutoCoresPerNumaNode: types.NewBool(true), CoresPerNumaNode: types.NewInt32(h.NumCPU),
			VnumaOnCpuHotaddExposed: types.NewBool(false),
		}
	}
	if n := numa.CoresPerNumaNode; n != nil {
		config.NumaInfo.AutoCoresPerNumaNode = types.NewBool(*n == 0)
		if *n != 0 {
			config.NumaInfo.CoresPerNumaNode = n
		}
	}
	if numa.ExposeVnumaOnCpuHotadd != nil {
		config.NumaInfo.VnumaOnCpuHotaddExposed = numa.ExposeVnumaOnCpuHotadd
	}
}

// applyCPUMask sets masks of processor features, one for a level and vendor.
func applyCPUMask(config *types.VirtualMachineConfigInfo, changes []types.VirtualMachineCpuIdInfoSpec) {
	for _, change := range changes {
		if change.Info == nil {
			continue
		}
		config.CpuFeatureMask = slices.DeleteFunc(config.CpuFeatureMask, func(m types.HostCpuIdInfo) bool {
			return m.Level == change.Info.Level && m.Vendor == change.Info.Vendor
		})
		if change.Operation != types.ArrayUpdateOperationRemove {
			config.CpuFeatureMask = append(config.CpuFeatureMask, *change.Info)
		}
	}
}

// applyUpgrade says what becomes of a scheduled upgrade of the hardware.
func applyUpgrade(config *types.VirtualMachineConfigInfo, spec *types.VirtualMachineConfigSpec) {
	if spec.ScheduledHardwareUpgradeInfo == nil {
		return
	}
	status := types.ScheduledHardwareUpgradeInfoHardwareUpgradeStatusPending
	policy := types.ScheduledHardwareUpgradeInfoHardwareUpgradePolicy(config.ScheduledHardwareUpgradeInfo.UpgradePolicy)
	if policy == types.ScheduledHardwareUpgradeInfoHardwareUpgradePolicyNever {
		status = types.ScheduledHardwareUpgradeInfoHardwareUpgradeStatusNone
	}
	config.ScheduledHardwareUpgradeInfo.ScheduledHardwareUpgradeStatus = string(status)
}

// applyVApp sets what the simulator ignores of vApp options: all but products and properties.
func applyVApp(config *types.VirtualMachineConfigInfo, spec types.BaseVmConfigSpec) {
	if spec == nil || config.VAppConfig == nil {
		return
	}
	from, to := clone(spec).GetVmConfigSpec(), config.VAppConfig.GetVmConfigInfo()
	if from.IpAssignment != nil {
		to.IpAssignment = *from.IpAssignment
	}
	if from.Eula != nil {
		to.Eula = from.Eula
	}
	if from.OvfEnvironmentTransport != nil {
		to.OvfEnvironmentTransport = from.OvfEnvironmentTransport
	}
	if from.InstallBootRequired != nil {
		to.InstallBootRequired = *from.InstallBootRequired
	}
	if from.InstallBootStopDelay != 0 {
		to.InstallBootStopDelay = from.InstallBootStopDelay
	}
	for _, change := range from.OvfSection {
		if change.Info == nil {
			continue
		}
		to.OvfSection = slices.DeleteFunc(to.OvfSection, func(s types.VAppOvfSectionInfo) bool {
			return s.Key == change.Info.Key && s.Type == change.Info.Type
		})
		if change.Operation != types.ArrayUpdateOperationRemove {
			to.OvfSection = append(to.OvfSection, *change.Info)
		}
	}
}

// resourceConfig is what a VM is given of its pool, which a VM's configuration says too.
func resourceConfig(self types.ManagedObjectReference, config *types.VirtualMachineConfigInfo) *types.ResourceConfigSpec {
	r := &types.ResourceConfigSpec{Entity: &self, ChangeVersion: config.ChangeVersion, LastModified: &config.Modified}
	if config.CpuAllocation != nil {
		r.CpuAllocation = *clone(config.CpuAllocation)
	}
	if config.MemoryAllocation != nil {
		r.MemoryAllocation = *clone(config.MemoryAllocation)
	}
	return r
}
