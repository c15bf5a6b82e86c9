package vsphere

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A rebuild says how a captured configuration becomes a new VM. Device keys are the captured ones.
type rebuild struct {
	name       string // of the VM while it is in the making
	vmPathName string // "[datastore] directory/name.vmx"
	identity   hypervisor.Identity
	disconnect bool // network adapters don't connect at power-on

	// marker is set in extraConfig at creation and removed by the completion.
	marker string

	// disks are the file names of the disks to create, "[datastore] …". Disks of the
	// configuration that are missing here are not created.
	disks map[int32]string

	// unwanted are the disks in the backup that the restore was told to leave out.
	unwanted map[int32]bool

	// networks are the backings of the network adapters at the target.
	networks map[int32]types.BaseVirtualDeviceBackingInfo

	// versions are those of the hardware that can be made at the target; nil: not known.
	versions []string

	// sameHost is set when the VM goes to the very host that it was captured on.
	sameHost bool

	// images are the backings of the ISO and floppy images that exist at the target.
	images map[int32]types.BaseVirtualDeviceBackingInfo
}

// markerKey is the extraConfig key that carries the run's ID while a VM is in the making.
const markerKey = "terraform.vm.restore.run"

// copyConfig makes a deep copy, so that rewriting never reaches the captured configuration.
func copyConfig(config *types.VirtualMachineConfigInfo) (*types.VirtualMachineConfigInfo, error) {
	data, err := encodeConfig(config)
	if err != nil {
		return nil, err
	}
	return decodeConfig(data)
}

func encodeConfig(config *types.VirtualMachineConfigInfo) ([]byte, error) {
	var b bytes.Buffer
	if err := types.NewJSONEncoder(&b).Encode(config); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}

func decodeConfig(data []byte) (*types.VirtualMachineConfigInfo, error) {
	var config types.VirtualMachineConfigInfo
	if err := types.NewJSONDecoder(bytes.NewReader(data)).Decode(&config); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	return &config, nil
}

// creationSpec turns a captured configuration into the specification of a new VM. What can't be
// set at creation is left to completionSpec. The warnings name what the new VM will not have.
//
// govmomi's ConfigInfo.ToConfigSpec is no base for this: it asks for every device the VM has,
// default controllers included, with a file operation on each, and shares memory with its input.
func creationSpec(
	captured *types.VirtualMachineConfigInfo, r rebuild,
) (types.VirtualMachineConfigSpec, []string, error) {
	config, err := copyConfig(captured)
	if err != nil {
		return types.VirtualMachineConfigSpec{}, nil, err
	}
	spec := types.VirtualMachineConfigSpec{
		Name:                         r.name,
		Version:                      config.Version,
		GuestId:                      config.GuestId,
		AlternateGuestName:           config.AlternateGuestName,
		Annotation:                   config.Annotation,
		Files:                        &types.VirtualMachineFileInfo{VmPathName: r.vmPathName},
		Tools:                        rewriteTools(config.Tools),
		Flags:                        rewriteFlags(config.Flags),
		ConsolePreferences:           config.ConsolePreferences,
		VcpuConfig:                   config.VcpuConfig,
		CpuFeatureMask:               rewriteCPUMask(config.CpuFeatureMask),
		ScheduledHardwareUpgradeInfo: rewriteUpgrade(config.ScheduledHardwareUpgradeInfo, r),
		PowerOpInfo:                  rewritePowerOps(config.DefaultPowerOps),
		RebootPowerOff:               config.RebootPowerOff,
		NumCPUs:                      config.Hardware.NumCPU,
		NumCoresPerSocket:            coresPerSocket(config.Hardware),
		MemoryMB:                     int64(config.Hardware.MemoryMB),
		MemoryHotAddEnabled:          config.MemoryHotAddEnabled,
		CpuHotAddEnabled:             config.CpuHotAddEnabled,
		CpuHotRemoveEnabled:          config.CpuHotRemoveEnabled,
		VirtualICH7MPresent:          config.Hardware.VirtualICH7MPresent,
		VirtualSMCPresent:            config.Hardware.VirtualSMCPresent,
		CpuAllocation:                config.CpuAllocation,
		MemoryAllocation:             config.MemoryAllocation,
		LatencySensitivity:           config.LatencySensitivity,
		ExtraConfig:                  rewriteExtraConfig(config.ExtraConfig),
		SwapPlacement:                config.SwapPlacement,
		BootOptions:                  config.BootOptions,
		VAssertsEnabled:              config.VAssertsEnabled,
		Firmware:                     config.Firmware,
		MaxMksConnections:            config.MaxMksConnections,
		GuestAutoLockEnabled:         config.GuestAutoLockEnabled,
		MemoryReservationLockedToMax: config.MemoryReservationLockedToMax,
		NestedHVEnabled:              config.NestedHVEnabled,
		VPMCEnabled:                  config.VPMCEnabled,
		MessageBusTunnelEnabled:      config.MessageBusTunnelEnabled,
		MigrateEncryption:            config.MigrateEncryption,
		FtEncryptionMode:             config.FtEncryptionMode,
		SgxInfo:                      config.SgxInfo,
		GuestMonitoringModeInfo:      config.GuestMonitoringModeInfo,
		SevEnabled:                   config.SevEnabled,
		SevSnpEnabled:                config.SevSnpEnabled,
		TdxEnabled:                   config.TdxEnabled,
		VirtualNuma:                  rewriteNuma(config.NumaInfo),
		MotherboardLayout:            config.Hardware.MotherboardLayout,
		SimultaneousThreads:          config.Hardware.SimultaneousThreads,
		PmemFailoverEnabled:          config.PmemFailoverEnabled,
		VmxStatsCollectionEnabled:    config.VmxStatsCollectionEnabled,
		VmOpNotificationToAppEnabled: config.VmOpNotificationToAppEnabled,
		VmOpNotificationTimeout:      config.VmOpNotificationTimeout,
		FixedPassthruHotPlugEnabled:  config.FixedPassthruHotPlugEnabled,
		VAppConfig:                   rewriteVApp(config.VAppConfig),

		ExtensionCompatibilityConstraint: config.ExtensionCompatibilityConstraint,
	}
	if spec.BootOptions != nil {
		spec.BootOptions.BootOrder = nil // names devices by keys that the server gives out at creation
	}
	if r.sameHost {
		spec.CpuAffinity, spec.MemoryAffinity = config.CpuAffinity, config.MemoryAffinity
	}
	if r.identity == hypervisor.IdentityOriginal {
		spec.Uuid, spec.InstanceUuid = config.Uuid, config.InstanceUuid
	}
	if r.marker != "" {
		spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: markerKey, Value: r.marker})
	}
	warnings := unsettable(config, r)
	changes, deviceWarnings := newDevices(config.Hardware.Device, r)
	spec.DeviceChange = changes
	warnings = append(warnings, deviceWarnings...)
	return spec, append(warnings, unbootable(captured, spec)...), nil
}

// coresPerSocket gives zero, the server's word for its own choice, where the choice was its own.
func coresPerSocket(h types.VirtualHardware) *int32 {
	if h.AutoCoresPerSocket != nil && *h.AutoCoresPerSocket {
		return types.NewInt32(0)
	}
	return h.NumCoresPerSocket
}

// rewriteCPUMask turns masks of processor features into additions.
func rewriteCPUMask(masks []types.HostCpuIdInfo) []types.VirtualMachineCpuIdInfoSpec {
	var added []types.VirtualMachineCpuIdInfoSpec
	for i := range masks {
		added = append(added, types.VirtualMachineCpuIdInfoSpec{
			ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}, Info: &masks[i],
		})
	}
	return added
}

// rewriteUpgrade keeps when the hardware is to be upgraded and to what, not how an earlier upgrade went.
func rewriteUpgrade(u *types.ScheduledHardwareUpgradeInfo, r rebuild) *types.ScheduledHardwareUpgradeInfo {
	if u == nil || u.UpgradePolicy == "" || tooNew(u, r) {
		return nil
	}
	return &types.ScheduledHardwareUpgradeInfo{UpgradePolicy: u.UpgradePolicy, VersionKey: u.VersionKey}
}

func rewriteNuma(n *types.VirtualMachineVirtualNumaInfo) *types.VirtualMachineVirtualNuma {
	if n == nil {
		return nil
	}
	cores := n.CoresPerNumaNode
	if n.AutoCoresPerNumaNode != nil && *n.AutoCoresPerNumaNode {
		cores = types.NewInt32(0)
	}
	return &types.VirtualMachineVirtualNuma{CoresPerNumaNode: cores, ExposeVnumaOnCpuHotadd: n.VnumaOnCpuHotaddExposed}
}

// rewriteTools keeps what an administrator sets and drops what the guest reports.
func rewriteTools(t *types.ToolsConfigInfo) *types.ToolsConfigInfo {
	if t == nil {
		return nil
	}
	t.ToolsVersion, t.ToolsInstallType, t.PendingCustomization = 0, "", ""
	t.CustomizationKeyId, t.LastInstallInfo = nil, nil
	return t
}

func rewriteFlags(f types.VirtualMachineFlagInfo) *types.VirtualMachineFlagInfo {
	f.SnapshotDisabled, f.SnapshotLocked, f.RecordReplayEnabled, f.UseToe = nil, nil, nil, nil
	f.FaultToleranceType = ""
	if f == (types.VirtualMachineFlagInfo{}) {
		return nil
	}
	return &f
}

func rewritePowerOps(p types.VirtualMachineDefaultPowerOpInfo) *types.VirtualMachineDefaultPowerOpInfo {
	// The default types say what "preset" means on the host; they can't be set.
	p.DefaultPowerOffType, p.DefaultSuspendType, p.DefaultResetType = "", "", ""
	if p == (types.VirtualMachineDefaultPowerOpInfo{}) {
		return nil
	}
	return &p
}

// Keys of extraConfig that describe one run or one place of a VM rather than its configuration.
var (
	transientKeys = map[string]bool{
		"nvram": true, "vmci0.id": true, "softpoweroff": true, "cleanshutdown": true, "ctkenabled": true,
		"sched.swap.derivedname": true, "tools.syncstate": true, "tools.remindinstall": true,
		"vmotion.checkpointfbsize": true, "vmotion.checkpointsvgaprimarysize": true, "viv.moid": true,
		"monitor.phys_bits_used": true, "vmware.tools.internalversion": true, "vmware.tools.requiredversion": true,
		"migrate.hostlogstate": true, "migrate.migrationid": true, "migrate.hostlog": true,
		markerKey: true, journalKey: true, tenureKey: true, keptKey: true, targetKey: true,
	}
	transientPrefixes = []string{"migrate.", "uuid.", "guestinfo.vmtools.", "guestinfo.appinfo", "vmware.tools.",
		"snapshot.", "replay."}
	transientSuffixes = []string{".ctkenabled", ".redo"}
)

func transientKey(key string) bool {
	key = strings.ToLower(key)
	if transientKeys[key] {
		return true
	}
	for _, p := range transientPrefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	for _, s := range transientSuffixes {
		if strings.HasSuffix(key, s) {
			return true
		}
	}
	return false
}

func rewriteExtraConfig(options []types.BaseOptionValue) []types.BaseOptionValue {
	var kept []types.BaseOptionValue
	for _, o := range options {
		if v := o.GetOptionValue(); !transientKey(v.Key) {
			kept = append(kept, &types.OptionValue{Key: v.Key, Value: v.Value})
		}
	}
	return kept
}

// rewriteVApp turns the vApp options into additions. A value of a property that users may not
// configure is refused by the server, so such properties are open until the completion closes them.
func rewriteVApp(vapp types.BaseVmConfigInfo) types.BaseVmConfigSpec {
	if vapp == nil {
		return nil
	}
	info := vapp.GetVmConfigInfo()
	add := types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	spec := &types.VmConfigSpec{
		Eula:                    info.Eula,
		InstallBootRequired:     types.NewBool(info.InstallBootRequired),
		InstallBootStopDelay:    info.InstallBootStopDelay,
		IpAssignment:            &info.IpAssignment,
		OvfEnvironmentTransport: info.OvfEnvironmentTransport,
	}
	for i := range info.Product {
		spec.Product = append(spec.Product, types.VAppProductSpec{ArrayUpdateSpec: add, Info: &info.Product[i]})
	}
	for i := range info.OvfSection {
		spec.OvfSection = append(spec.OvfSection, types.VAppOvfSectionSpec{ArrayUpdateSpec: add, Info: &info.OvfSection[i]})
	}
	for i := range info.Property {
		p := info.Property[i]
		if closedProperty(p) {
			p.UserConfigurable = types.NewBool(true)
		}
		spec.Property = append(spec.Property, types.VAppPropertySpec{ArrayUpdateSpec: add, Info: &p})
	}
	return spec
}

// closedProperty reports whether p has a value that its users could not have given it.
func closedProperty(p types.VAppPropertyInfo) bool {
	open := p.UserConfigurable != nil && *p.UserConfigurable
	return !open && p.Value != "" && p.Value != p.DefaultValue
}
