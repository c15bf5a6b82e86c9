package vsphere

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/pbm"
	pbmtypes "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

const (
	richFolder = "/DC0/vm/tiers/web"
	richPool   = "/DC0/host/DC0_C0/Resources/prod/web"
	richISO    = "[LocalDS_0] helper/install.iso"
	richUUID   = "11111111-2222-4333-8444-555555555555"
	richMAC    = "00:50:56:01:02:03"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// path is the object at an inventory path.
func (b *bench) path(path string) types.ManagedObjectReference {
	b.Helper()
	ref, err := b.client.findPath(b.Context(), path)
	must(b, err)
	if ref == nil {
		b.Fatalf("the lab has no %s", path)
	}
	return *ref
}

// richBench has a VM that uses everything a restore has to bring back, powered on, and what its disks hold.
func richBench(t *testing.T, name string, controllers []types.BaseVirtualDevice, extra ...types.BaseVirtualDevice) (*bench, [][]byte) {
	t.Helper()
	b := &bench{T: t, lab: labtest.Start(t, lab.Options{})}
	b.client = dial(t, labConfig(b.lab))
	b.richSurroundings()
	return b, b.addRich(name, controllers, extra...)
}

// richSurroundings makes the nested folder and pool, and an ISO image.
func (b *bench) richSurroundings() {
	b.Helper()
	ctx, c := b.Context(), b.client
	outer, err := object.NewFolder(c.vim, b.path("/DC0/vm")).CreateFolder(ctx, "tiers")
	must(b, err)
	_, err = outer.CreateFolder(ctx, "web")
	must(b, err)
	resources := types.DefaultResourceConfigSpec()
	prod, err := object.NewResourcePool(c.vim, b.path("/DC0/host/DC0_C0/Resources")).Create(ctx, "prod", resources)
	must(b, err)
	_, err = prod.Create(ctx, "web", resources)
	must(b, err)
	must(b, b.lab.AddVM(ctx, lab.VMSpec{Name: "helper", PoweredOff: true, Disks: []string{labtest.RawDisk(b.T, 1<<20, 9)}})) // the image is in its directory
	must(b, c.writeNVRAM(ctx, "/DC0", richISO, []byte("an ISO image")))
}

// addRich makes the VM. Its disks are on the first two controllers.
func (b *bench) addRich(name string, controllers []types.BaseVirtualDevice, extra ...types.BaseVirtualDevice) [][]byte {
	b.Helper()
	ctx, c := b.Context(), b.client
	var portgroup mo.DistributedVirtualPortgroup
	must(b, c.properties(ctx, b.path("/DC0/network/DC0_DVPG0"), []string{"key", "config.distributedVirtualSwitch"}, &portgroup))
	var dvs mo.DistributedVirtualSwitch
	must(b, c.properties(ctx, *portgroup.Config.DistributedVirtualSwitch, []string{"uuid"}, &dvs))
	spec := richSpec("formerly " + escapeName(name)) // its files keep that name
	spec.DeviceChange = additions(richDevices(controllers, types.DistributedVirtualSwitchPortConnection{
		SwitchUuid: dvs.Uuid, PortgroupKey: portgroup.Key,
	}), extra)
	folder := object.NewFolder(c.vim, b.path(richFolder))
	task, err := folder.CreateVM(ctx, spec, object.NewResourcePool(c.vim, b.path(richPool)), nil)
	must(b, err)
	info, err := c.waitTask(ctx, task)
	must(b, err)
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		b.Fatalf("result %v", info.Result)
	}
	b.adjust(ref, name)
	b.label(ref)
	b.entrust(ref)
	var vm mo.VirtualMachine
	must(b, c.properties(ctx, ref, []string{"config", "layoutEx"}, &vm))
	must(b, c.writeNVRAM(ctx, "/DC0", nvramFile(&vm, vm.Config), bytes.Repeat([]byte("EFI variables "), 5000)))
	must(b, c.PowerOn(ctx, hypervisor.VMID(ref.Value)))
	b.vm, err = c.vmByID(ctx, hypervisor.VMID(ref.Value))
	must(b, err)
	return b.fill(name, vm.Config.Hardware.Device)
}

// fill writes to the VM's disks as its guest, and returns what they hold then.
func (b *bench) fill(name string, devices object.VirtualDeviceList) [][]byte {
	b.Helper()
	var content [][]byte
	r := rand.New(rand.NewPCG(1, 2))
	for i, d := range orderedDisks(devices) {
		data := make([]byte, diskCapacity(d))
		for n := range 3 {
			p := data[n<<20 : n<<20+100_000]
			for j := range p {
				p[j] = byte(r.Uint32())
			}
			must(b, b.lab.WriteDisk(escapeName(name), i, int64(n)<<20, p))
		}
		content = append(content, data)
	}
	return content
}

// sameContent compares the disks of a VM with what they should hold.
func (b *bench) sameContent(name string, content [][]byte) {
	b.Helper()
	for i, want := range content {
		got := make([]byte, len(want))
		must(b, b.lab.ReadDisk(escapeName(name), i, 0, got))
		if !bytes.Equal(got, want) {
			b.Errorf("disk %d of %s differs", i, name)
		}
	}
}

func additions(lists ...[]types.BaseVirtualDevice) []types.BaseVirtualDeviceConfigSpec {
	var out []types.BaseVirtualDeviceConfigSpec
	for _, list := range lists {
		for _, d := range list {
			spec := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d}
			if _, ok := d.(*types.VirtualDisk); ok {
				spec.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
			}
			out = append(out, spec)
		}
	}
	return out
}

// adjust sets what can't be set at creation, and the name. The VM boots from its last disk then, from its second adapter and
// from the CD-ROM.
func (b *bench) adjust(ref types.ManagedObjectReference, name string) {
	b.Helper()
	var vm mo.VirtualMachine
	must(b, b.client.properties(b.Context(), ref, []string{"config.hardware"}, &vm))
	var disk, nic int32
	var vmci types.VirtualMachineVMCIDevice
	for _, d := range vm.Config.Hardware.Device {
		switch d := d.(type) {
		case *types.VirtualMachineVMCIDevice:
			vmci = *d
		case *types.VirtualDisk:
			disk = d.GetVirtualDevice().Key
		case types.BaseVirtualEthernetCard:
			nic = d.GetVirtualEthernetCard().Key
		}
	}
	vmci.AllowUnrestrictedCommunication, vmci.FilterEnable = types.NewBool(true), types.NewBool(true)
	vmci.FilterInfo = &types.VirtualMachineVMCIDeviceFilterInfo{Filters: []types.VirtualMachineVMCIDeviceFilterSpec{
		{Rank: 1, Action: "allow", Protocol: "stream", Direction: "guest", LowerDstPortBoundary: 10, UpperDstPortBoundary: 20},
	}}
	b.reconfigure(ref, types.VirtualMachineConfigSpec{
		Name: name,
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: &vmci}},
		BootOptions: &types.VirtualMachineBootOptions{
			BootDelay: 2000, EfiSecureBootEnabled: types.NewBool(true), EnterBIOSSetup: types.NewBool(false),
			BootRetryEnabled: types.NewBool(true), BootRetryDelay: 15000, NetworkBootProtocol: "ipv6",
			BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
				&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: disk},
				&types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: nic},
				&types.VirtualMachineBootOptionsBootableCdromDevice{},
			},
		},
	})
}

func (b *bench) reconfigure(ref types.ManagedObjectReference, spec types.VirtualMachineConfigSpec) {
	b.Helper()
	task, err := object.NewVirtualMachine(b.client.vim, ref).Reconfigure(b.Context(), spec)
	must(b, err)
	_, err = b.client.waitTask(b.Context(), task)
	must(b, err)
}

// label gives the VM tags and custom attributes, which it makes.
func (b *bench) label(ref types.ManagedObjectReference) {
	b.Helper()
	ctx := b.Context()
	client, err := b.client.rest(ctx)
	must(b, err)
	manager := tags.NewManager(client)
	for _, name := range []string{"tier", "owner"} {
		category, err := manager.CreateCategory(ctx, &tags.Category{
			Name: name, Description: "says the " + name, Cardinality: "SINGLE", AssociableTypes: []string{"VirtualMachine"},
		})
		must(b, err)
		tag, err := manager.CreateTag(ctx, &tags.Tag{Name: name + "-1", Description: "the first", CategoryID: category})
		must(b, err)
		must(b, manager.AttachTag(ctx, tag, ref))
	}
	fields, err := object.GetCustomFieldsManager(b.client.vim)
	must(b, err)
	for _, name := range []string{"cost centre", "contact"} {
		field, err := fields.Add(ctx, name, "VirtualMachine", nil, nil)
		must(b, err)
		must(b, fields.Set(ctx, ref, field.Key, "value of "+name))
	}
}

// goldPolicy is a storage policy that not every server has.
const goldPolicy = "gold"

// entrust gives the VM's own files the policy that every vCenter has, and its second disk one that it makes.
func (b *bench) entrust(ref types.ManagedObjectReference) {
	b.Helper()
	service, err := pbm.NewClient(b.Context(), b.client.vim)
	must(b, err)
	storage := pbmtypes.PbmProfileResourceType{ResourceType: "STORAGE"}
	all, err := service.QueryProfile(b.Context(), storage, "REQUIREMENT")
	must(b, err)
	gold, err := service.CreateProfile(b.Context(), pbmtypes.PbmCapabilityProfileCreateSpec{
		Name: goldPolicy, Category: "REQUIREMENT", ResourceType: storage, Constraints: &pbmtypes.PbmCapabilitySubProfileConstraints{},
	})
	must(b, err)
	devices, err := object.NewVirtualMachine(b.client.vim, ref).Device(b.Context())
	must(b, err)
	profile := func(id string) []types.BaseVirtualMachineProfileSpec {
		return []types.BaseVirtualMachineProfileSpec{&types.VirtualMachineDefinedProfileSpec{ProfileId: id}}
	}
	b.reconfigure(ref, types.VirtualMachineConfigSpec{
		VmProfile: profile(all[0].UniqueId),
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: orderedDisks(devices)[1], Profile: profile(gold.UniqueId),
		}},
	})
}

// richSpec has every setting that is not a device's.
func richSpec(name string) types.VirtualMachineConfigSpec {
	yes, no := types.NewBool(true), types.NewBool(false)
	shares := func(reservation int64) *types.ResourceAllocationInfo {
		return &types.ResourceAllocationInfo{Reservation: &reservation, Limit: types.NewInt64(4096), OverheadLimit: types.NewInt64(77),
			ExpandableReservation: no, Shares: &types.SharesInfo{Level: types.SharesLevelCustom, Shares: 1234}}
	}
	return types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherLinux64Guest", AlternateGuestName: "Site Linux 7", Annotation: "Web tier.\nAsk the web team.",
		Firmware: "efi", Version: "vmx-17", Uuid: richUUID, InstanceUuid: "66666666-7777-4888-8999-aaaaaaaaaaaa",
		Files:   &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
		NumCPUs: 4, NumCoresPerSocket: types.NewInt32(2), MemoryMB: 512, SimultaneousThreads: 2, MotherboardLayout: "acpiHostBridges",
		VirtualICH7MPresent: yes, VirtualSMCPresent: yes, VirtualNuma: &types.VirtualMachineVirtualNuma{
			CoresPerNumaNode: types.NewInt32(2), ExposeVnumaOnCpuHotadd: yes},
		CpuHotAddEnabled: yes, CpuHotRemoveEnabled: yes, MemoryHotAddEnabled: yes, NestedHVEnabled: yes, VPMCEnabled: yes,
		CpuAllocation: shares(100), MemoryAllocation: shares(64), MemoryReservationLockedToMax: yes,
		LatencySensitivity: &types.LatencySensitivity{Level: types.LatencySensitivitySensitivityLevelHigh},
		VcpuConfig: []types.VirtualMachineVcpuConfig{
			{LatencySensitivity: &types.LatencySensitivity{Level: types.LatencySensitivitySensitivityLevelHigh, Sensitivity: 3}}},
		CpuFeatureMask: []types.VirtualMachineCpuIdInfoSpec{{
			ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd},
			Info:            &types.HostCpuIdInfo{Level: 1, Vendor: "intel", Eax: "x", Ebx: "y", Ecx: "----:0---:----", Edx: "z"},
		}},
		Flags: &types.VirtualMachineFlagInfo{
			DisableAcceleration: yes, EnableLogging: yes, RunWithDebugInfo: yes, MonitorType: "stats", HtSharing: "internal",
			DiskUuidEnabled: yes, VirtualMmuUsage: "on", VirtualExecUsage: "hvOn", SnapshotPowerOffBehavior: "revert",
			CbrcCacheEnabled: yes, VvtdEnabled: yes, VbsEnabled: yes},
		Tools: &types.ToolsConfigInfo{
			ToolsUpgradePolicy: "upgradeAtPowerCycle", SyncTimeWithHost: yes, SyncTimeWithHostAllowed: yes,
			AfterPowerOn: no, AfterResume: no, BeforeGuestStandby: no, BeforeGuestShutdown: no, BeforeGuestReboot: yes},
		PowerOpInfo: &types.VirtualMachineDefaultPowerOpInfo{
			PowerOffType: "hard", SuspendType: "soft", ResetType: "hard", StandbyAction: "powerOnSuspend"},
		ConsolePreferences: &types.VirtualMachineConsolePreferences{
			PowerOnWhenOpened: yes, EnterFullScreenOnPowerOn: yes, CloseOnPowerOffOrSuspend: yes},
		ScheduledHardwareUpgradeInfo: &types.ScheduledHardwareUpgradeInfo{UpgradePolicy: "onSoftPowerOff", VersionKey: "vmx-19"},
		SwapPlacement:                "hostLocal", RebootPowerOff: yes, VAssertsEnabled: yes, MaxMksConnections: 8, GuestAutoLockEnabled: no,
		MessageBusTunnelEnabled: yes, MigrateEncryption: "disabled", FtEncryptionMode: "ftEncryptionDisabled",
		SgxInfo:                 &types.VirtualMachineSgxInfo{EpcSize: 64, FlcMode: "locked", LePubKeyHash: "00ff", RequireAttestation: yes},
		GuestMonitoringModeInfo: &types.VirtualMachineGuestMonitoringModeInfo{GmmFile: "gmm.bin", GmmAppliance: "vmm"},
		SevEnabled:              yes, SevSnpEnabled: yes, TdxEnabled: yes, PmemFailoverEnabled: yes, VmxStatsCollectionEnabled: no,
		VmOpNotificationToAppEnabled: yes, VmOpNotificationTimeout: 90, FixedPassthruHotPlugEnabled: yes,
		ChangeTrackingEnabled: yes,
		ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "guestinfo.metadata", Value: "aGVsbG8="},
			&types.OptionValue{Key: "guestinfo.role", Value: "web"},
			&types.OptionValue{Key: "disk.EnableUUID", Value: "TRUE"},
			&types.OptionValue{Key: "sched.cpu.latencySensitivity", Value: "high"},
			&types.OptionValue{Key: "svga.present", Value: "TRUE"},
		},
		VAppConfig: richVApp(),
	}
}

func richVApp() *types.VmConfigSpec {
	add := types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	property := func(p types.VAppPropertyInfo) types.VAppPropertySpec {
		p.ClassId, p.InstanceId, p.Category, p.Label, p.Description = "com.example", "1", "Network", "A label", "Says what it is."
		return types.VAppPropertySpec{ArrayUpdateSpec: add, Info: &p}
	}
	return &types.VmConfigSpec{
		Product: []types.VAppProductSpec{{ArrayUpdateSpec: add, Info: &types.VAppProductInfo{
			Key: 7, ClassId: "com.example", InstanceId: "1", Name: "Web", Vendor: "Example", Version: "7", FullVersion: "7.1",
			VendorUrl: "https://example.com", ProductUrl: "https://example.com/web", AppUrl: "https://${hostname}",
		}}},
		Property: []types.VAppPropertySpec{
			property(types.VAppPropertyInfo{Key: 1, Id: "hostname", Type: "string", UserConfigurable: types.NewBool(true), Value: "web01",
				TypeReference: "string(..20)"}),
			property(types.VAppPropertyInfo{Key: 2, Id: "release", Type: "string", UserConfigurable: types.NewBool(false), DefaultValue: "1",
				Value: "2", TypeReference: "x"}),
		},
		IpAssignment: &types.VAppIPAssignmentInfo{SupportedAllocationScheme: []string{"ovfenv"}, IpAllocationPolicy: "fixedPolicy",
			SupportedIpProtocol: []string{"IPv4"}, IpProtocol: "IPv4"},
		Eula: []string{"Be nice."}, OvfEnvironmentTransport: []string{"com.vmware.guestInfo", "iso"},
		OvfSection: []types.VAppOvfSectionSpec{{ArrayUpdateSpec: add, Info: &types.VAppOvfSectionInfo{
			Key: 3, Namespace: "http://example.com/ovf", Type: "ExampleSection", AtEnvelopeLevel: types.NewBool(true), Contents: "<x/>"}}},
		InstallBootRequired: types.NewBool(true), InstallBootStopDelay: 30,
	}
}

// pvscsiAndNVMe and lsiAndSATA are controllers for the disks of a rich VM.
func pvscsiAndNVMe() []types.BaseVirtualDevice {
	return []types.BaseVirtualDevice{
		&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: "noSharing",
			VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: -1}, BusNumber: 1}}},
		&types.VirtualNVMEController{SharedBus: "noSharing", VirtualController: types.VirtualController{
			VirtualDevice: types.VirtualDevice{Key: -2}, BusNumber: 2}},
	}
}

func lsiAndSATA() []types.BaseVirtualDevice {
	return []types.BaseVirtualDevice{
		&types.VirtualLsiLogicSASController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: "noSharing",
			VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: -1}, BusNumber: 0}}},
		&types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: types.VirtualController{
			VirtualDevice: types.VirtualDevice{Key: -2}, BusNumber: 1}}},
	}
}

// richDevices are three disks on two controllers, two adapters on a standard and a distributed network, a
// CD-ROM with an image, serial port, USB, video card and what else outlives its host.
func richDevices(controllers []types.BaseVirtualDevice, port types.DistributedVirtualSwitchPortConnection) []types.BaseVirtualDevice {
	yes, no := types.NewBool(true), types.NewBool(false)
	disk := func(key, controller, unit int32, mib int64, backing types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDisk {
		backing.FileName, backing.DiskMode, backing.Sharing = "[LocalDS_0]", "persistent", "sharingNone"
		return &types.VirtualDisk{
			CapacityInBytes: mib << 20, CapacityInKB: mib << 10, VirtualDiskFormat: "native_4k", GuestReadOnly: no,
			VirtualDevice: types.VirtualDevice{Key: key, ControllerKey: controller, UnitNumber: &unit, Backing: &backing},
			StorageIOAllocation: &types.StorageIOAllocationInfo{Limit: types.NewInt64(1000 + mib), Reservation: types.NewInt32(5),
				Shares: &types.SharesInfo{Level: types.SharesLevelCustom, Shares: 700}},
		}
	}
	connect := func(start bool) *types.VirtualDeviceConnectInfo {
		return &types.VirtualDeviceConnectInfo{StartConnected: start, AllowGuestControl: !start, MigrateConnect: "disconnect"}
	}
	nic := func(key, slot int32, start bool, backing types.BaseVirtualDeviceBackingInfo) types.VirtualEthernetCard {
		return types.VirtualEthernetCard{
			WakeOnLanEnabled: types.NewBool(!start), UptCompatibilityEnabled: yes,
			ResourceAllocation: &types.VirtualEthernetCardResourceAllocation{Reservation: types.NewInt64(10), Limit: types.NewInt64(500),
				Share: types.SharesInfo{Level: types.SharesLevelCustom, Shares: 77}},
			VirtualDevice: types.VirtualDevice{Key: key, Backing: backing, Connectable: connect(start),
				SlotInfo: &types.VirtualDevicePciBusSlotInfo{PciSlotNumber: slot}},
		}
	}
	vmxnet := types.VirtualVmxnet3{Uptv2Enabled: no, StrictLatencyConfig: &types.VirtualVmxnet3StrictLatencyConfig{
		Allowed: yes, MeasureLatency: yes, MaxTxQueues: 1, MaxRxQueues: 2, TxDataRingDescSize: 128, RxDataRingDescSize: 256,
		DisableOffload: "tso"}, VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: nic(-20, 192, true,
		&types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{
			DeviceName: "VM Network"}})}}
	vmxnet.NumaNode = types.NewInt32(1)
	vmxnet.AddressType, vmxnet.MacAddress = "manual", richMAC
	e1000e := types.VirtualE1000e{VirtualEthernetCard: nic(-21, 160, false,
		&types.VirtualEthernetCardDistributedVirtualPortBackingInfo{Port: port})}
	e1000e.AddressType, e1000e.MacAddress = "assigned", "00:50:56:81:02:04"
	return append(controllers,
		disk(-10, -1, 0, 8, types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: yes, WriteThrough: yes,
			Uuid: "6000C290-0000-0000-0000-000000000001"}),
		disk(-11, -1, 3, 4, types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: no, EagerlyScrub: yes,
			Uuid: "6000C290-0000-0000-0000-000000000002"}),
		disk(-12, -2, 1, 6, types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: yes, Uuid: "6000C290-0000-0000-0000-000000000003"}),
		&vmxnet, &e1000e,
		&types.VirtualCdrom{VirtualDevice: types.VirtualDevice{Key: -30, ControllerKey: 200, UnitNumber: types.NewInt32(1),
			Connectable: connect(true),
			Backing: &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{
				FileName: richISO}}}},
		&types.VirtualSerialPort{YieldOnPoll: true, VirtualDevice: types.VirtualDevice{Key: -40, Connectable: connect(true),
			Backing: &types.VirtualSerialPortURIBackingInfo{VirtualDeviceURIBackingInfo: types.VirtualDeviceURIBackingInfo{
				ServiceURI: "telnet://console.example:7001", Direction: "server", ProxyURI: "telnets://proxy.example:13370"}}}},
		&types.VirtualUSBController{AutoConnectDevices: yes, EhciEnabled: yes, VirtualController: types.VirtualController{
			VirtualDevice: types.VirtualDevice{Key: -50}}},
		&types.VirtualUSBXHCIController{AutoConnectDevices: yes, VirtualController: types.VirtualController{
			VirtualDevice: types.VirtualDevice{Key: -51}}},
		&types.VirtualMachineVideoCard{VideoRamSizeInKB: 16384, NumDisplays: 2, UseAutoDetect: yes, Enable3DSupport: yes,
			Use3dRenderer: "software", GraphicsMemorySizeInKB: 524288, VirtualDevice: types.VirtualDevice{Key: -60}},
	)
}
