package lab

import (
	"reflect"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// checkSpec refuses settings that no VM can have.
func (l *Lab) checkSpec(ctx *simulator.Context, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	if spec.GuestId != "" && !slices.Contains(simulator.GuestID, types.VirtualMachineGuestOsIdentifier(spec.GuestId)) {
		return &types.InvalidArgument{InvalidProperty: "configSpec.guestId"}
	}
	if spec.Version != "" {
		version, err := types.ParseHardwareVersion(spec.Version)
		if err != nil || version > l.newestHardware(ctx) {
			return &types.VirtualHardwareVersionNotSupported{}
		}
	}
	switch types.GuestOsDescriptorFirmwareType(spec.Firmware) {
	case "", types.GuestOsDescriptorFirmwareTypeBios, types.GuestOsDescriptorFirmwareTypeEfi:
	default:
		return &types.InvalidArgument{InvalidProperty: "configSpec.firmware"}
	}
	switch {
	case spec.NumCPUs < 0:
		return &types.InvalidArgument{InvalidProperty: "configSpec.numCPUs"}
	case spec.MemoryMB < 0 || spec.MemoryMB%4 != 0:
		return &types.InvalidArgument{InvalidProperty: "configSpec.memoryMB"}
	}
	for i, id := range []string{spec.Uuid, spec.InstanceUuid} {
		if _, err := parseUUID(id); id != "" && err != nil {
			return &types.InvalidArgument{InvalidProperty: []string{"configSpec.uuid", "configSpec.instanceUuid"}[i]}
		}
	}
	return nil
}

// newestHardware is the newest hardware version that a host of the lab can run.
func (l *Lab) newestHardware(ctx *simulator.Context) types.HardwareVersion {
	host, ok := ctx.Map.Any("HostSystem").(*simulator.HostSystem)
	if !ok || host.Config == nil {
		return types.VMX13
	}
	version, err := types.ParseESXiVersion(host.Config.Product.Version)
	if err != nil {
		return types.VMX13
	}
	return version.HardwareVersion()
}

// applySpec sets what a specification has in a configuration. Fields of the same name and type are
// set when they aren't zero; structures are merged field by field.
func applySpec(config *types.VirtualMachineConfigInfo, spec *types.VirtualMachineConfigSpec) {
	spec = clone(spec)
	mergeFields(reflect.ValueOf(config).Elem(), reflect.ValueOf(spec).Elem(),
		"ChangeVersion", "CreateDate", "ExtraConfig", "Files", "Flags", "VAppConfig", "FtInfo", "CpuFeatureMask")
	if spec.Flags != nil {
		mergeFields(reflect.ValueOf(&config.Flags).Elem(), reflect.ValueOf(spec.Flags).Elem())
	}
	if spec.PowerOpInfo != nil {
		mergeFields(reflect.ValueOf(&config.DefaultPowerOps).Elem(), reflect.ValueOf(spec.PowerOpInfo).Elem())
	}
	h := &config.Hardware
	if spec.NumCPUs != 0 {
		h.NumCPU = spec.NumCPUs
	}
	applyTopology(config, spec)
	if spec.MemoryMB != 0 {
		h.MemoryMB = int32(min(spec.MemoryMB, 1<<31-1)) //nolint:gosec // bounded
	}
	if spec.VirtualICH7MPresent != nil {
		h.VirtualICH7MPresent = spec.VirtualICH7MPresent
	}
	if spec.VirtualSMCPresent != nil {
		h.VirtualSMCPresent = spec.VirtualSMCPresent
	}
	if f := spec.Files; f != nil {
		mergeFields(reflect.ValueOf(&config.Files).Elem(), reflect.ValueOf(f).Elem(), "VmPathName")
	}
	if spec.ManagedBy != nil && spec.ManagedBy.ExtensionKey == "" {
		config.ManagedBy = nil
	}
	applyCPUMask(config, spec.CpuFeatureMask)
	applyUpgrade(config, spec)
	applyExtraConfig(config, spec.ExtraConfig)
	fillShares(config)
	if spec.GuestId != "" {
		config.GuestFullName = guestName(spec.GuestId)
	}
}

// mergeFields copies the fields that aren't zero from src to those of the same name and type in dst.
// Pointers to structures are followed.
func mergeFields(dst, src reflect.Value, except ...string) {
	for i := range src.NumField() {
		field, value := src.Type().Field(i), src.Field(i)
		if value.IsZero() || slices.Contains(except, field.Name) {
			continue
		}
		target := dst.FieldByName(field.Name)
		if !target.IsValid() || target.Type() != value.Type() {
			continue
		}
		if value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct && !target.IsNil() {
			mergeFields(target.Elem(), value.Elem())
			continue
		}
		target.Set(value)
	}
}

// applyExtraConfig sets options by key; an empty value removes one.
func applyExtraConfig(config *types.VirtualMachineConfigInfo, changes []types.BaseOptionValue) {
	for _, change := range changes {
		option := change.GetOptionValue()
		i := slices.IndexFunc(config.ExtraConfig, func(o types.BaseOptionValue) bool {
			return o.GetOptionValue().Key == option.Key
		})
		text, isText := option.Value.(string)
		switch {
		case option.Value == nil || isText && text == "":
			if i >= 0 {
				config.ExtraConfig = slices.Delete(config.ExtraConfig, i, i+1)
			}
		case i >= 0:
			config.ExtraConfig[i] = option
		default:
			config.ExtraConfig = append(config.ExtraConfig, option)
		}
		if strings.EqualFold(option.Key, "disk.EnableUUID") {
			config.Flags.DiskUuidEnabled = types.NewBool(strings.EqualFold(text, "TRUE"))
		}
	}
}

// fillShares computes the shares that a level stands for.
func fillShares(config *types.VirtualMachineConfigInfo) {
	fill := func(a *types.ResourceAllocationInfo, normal int32) {
		if a == nil || a.Shares == nil {
			return
		}
		switch a.Shares.Level {
		case types.SharesLevelLow:
			a.Shares.Shares = normal / 2
		case types.SharesLevelNormal:
			a.Shares.Shares = normal
		case types.SharesLevelHigh:
			a.Shares.Shares = normal * 2
		}
	}
	fill(config.CpuAllocation, config.Hardware.NumCPU*1000)
	fill(config.MemoryAllocation, config.Hardware.MemoryMB*10)
	if config.LatencySensitivity != nil {
		config.LatencySensitivity.Sensitivity = 0 // deprecated, reported only for "custom"
	}
}

// defaultConfig is what a new VM has without being told, as vCenter 8 reports it.
func defaultConfig(version types.HardwareVersion) types.VirtualMachineConfigInfo {
	no, yes := types.NewBool(false), types.NewBool(true)
	allocation := func() *types.ResourceAllocationInfo {
		return &types.ResourceAllocationInfo{
			Reservation: types.NewInt64(0), ExpandableReservation: types.NewBool(false), Limit: types.NewInt64(-1),
			Shares: &types.SharesInfo{Level: types.SharesLevelNormal},
		}
	}
	return clone(types.VirtualMachineConfigInfo{
		Version:            version.String(),
		GuestId:            string(types.VirtualMachineGuestOsIdentifierOtherGuest),
		GuestFullName:      guestName(string(types.VirtualMachineGuestOsIdentifierOtherGuest)),
		Firmware:           string(types.GuestOsDescriptorFirmwareTypeBios),
		SwapPlacement:      string(types.VirtualMachineConfigInfoSwapPlacementTypeInherit),
		CpuAllocation:      allocation(),
		MemoryAllocation:   allocation(),
		LatencySensitivity: &types.LatencySensitivity{Level: types.LatencySensitivitySensitivityLevelNormal},
		Hardware: types.VirtualHardware{
			NumCPU: 1, NumCoresPerSocket: types.NewInt32(1), MemoryMB: 128, VirtualICH7MPresent: no, VirtualSMCPresent: no,
			AutoCoresPerSocket: no, SimultaneousThreads: 1, MotherboardLayout: "i440bxHostBridge",
		},
		Flags: types.VirtualMachineFlagInfo{
			DisableAcceleration: no, EnableLogging: yes, UseToe: no, RunWithDebugInfo: no, MonitorType: "release",
			HtSharing: "any", SnapshotDisabled: no, SnapshotLocked: no, DiskUuidEnabled: no,
			VirtualMmuUsage: "automatic", VirtualExecUsage: "hvAuto", SnapshotPowerOffBehavior: "powerOff",
			RecordReplayEnabled: no, FaultToleranceType: "unset", CbrcCacheEnabled: no, VvtdEnabled: no, VbsEnabled: no,
		},
		Tools: &types.ToolsConfigInfo{
			AfterPowerOn: yes, AfterResume: yes, BeforeGuestStandby: yes, BeforeGuestShutdown: yes,
			ToolsUpgradePolicy: "manual", SyncTimeWithHostAllowed: yes, SyncTimeWithHost: no,
			LastInstallInfo: &types.ToolsConfigInfoToolsLastInstallInfo{},
		},
		DefaultPowerOps: types.VirtualMachineDefaultPowerOpInfo{
			PowerOffType: "soft", SuspendType: "hard", ResetType: "soft", DefaultPowerOffType: "soft",
			DefaultSuspendType: "hard", DefaultResetType: "soft", StandbyAction: "checkpoint",
		},
		RebootPowerOff: no,
		BootOptions: &types.VirtualMachineBootOptions{
			EnterBIOSSetup: no, EfiSecureBootEnabled: no, BootRetryEnabled: no, BootRetryDelay: 10000, NetworkBootProtocol: "ipv4",
		},
		MemoryHotAddEnabled: no, CpuHotAddEnabled: no, CpuHotRemoveEnabled: no, NestedHVEnabled: no, VPMCEnabled: no,
		MemoryReservationLockedToMax: no, ChangeTrackingEnabled: no, VAssertsEnabled: no, MessageBusTunnelEnabled: no,
		ScheduledHardwareUpgradeInfo: &types.ScheduledHardwareUpgradeInfo{
			UpgradePolicy:                  string(types.ScheduledHardwareUpgradeInfoHardwareUpgradePolicyNever),
			ScheduledHardwareUpgradeStatus: string(types.ScheduledHardwareUpgradeInfoHardwareUpgradeStatusNone),
		},
		GuestAutoLockEnabled: yes, MaxMksConnections: 40, SevEnabled: no, NpivTemporaryDisabled: yes,
		VmOpNotificationToAppEnabled: no, VmxStatsCollectionEnabled: yes, PmemFailoverEnabled: no,
		MigrateEncryption: string(types.VirtualMachineConfigSpecEncryptedVMotionModesOpportunistic),
		FtEncryptionMode:  string(types.VirtualMachineConfigSpecEncryptedFtModesFtEncryptionOpportunistic),
	})
}

// guestNames are the names of some guest operating systems as vCenter writes them.
var guestNames = map[types.VirtualMachineGuestOsIdentifier]string{
	types.VirtualMachineGuestOsIdentifierOtherGuest:        "Other (32-bit)",
	types.VirtualMachineGuestOsIdentifierOtherGuest64:      "Other (64-bit)",
	types.VirtualMachineGuestOsIdentifierOtherLinux64Guest: "Other Linux (64-bit)",
	types.VirtualMachineGuestOsIdentifierUbuntu64Guest:     "Ubuntu Linux (64-bit)",
	types.VirtualMachineGuestOsIdentifierDebian12_64Guest:  "Debian GNU/Linux 12 (64-bit)",
	types.VirtualMachineGuestOsIdentifierRhel9_64Guest:     "Red Hat Enterprise Linux 9 (64-bit)",
}

func guestName(id string) string {
	if name, ok := guestNames[types.VirtualMachineGuestOsIdentifier(id)]; ok {
		return name
	}
	return id
}
