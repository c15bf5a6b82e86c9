package vsphere

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// capturedConfig is the configuration of a VM as a vCenter would give it, in the middle of a chain of
// snapshots, with a device of every kind that needs a decision.
func capturedConfig() *types.VirtualMachineConfigInfo {
	dev := func(key, controller, unit int32, label string, backing types.BaseVirtualDeviceBackingInfo) types.VirtualDevice {
		d := types.VirtualDevice{Key: key, ControllerKey: controller, UnitNumber: &unit, Backing: backing,
			DeviceInfo: &types.Description{Label: label, Summary: "summary"}}
		return d
	}
	controller := func(key, bus int32) types.VirtualController {
		return types.VirtualController{BusNumber: bus, Device: []int32{2000},
			VirtualDevice: types.VirtualDevice{Key: key, DeviceInfo: &types.Description{Label: "controller"}}}
	}
	objectID := "object"
	file := func(name string) types.VirtualDeviceFileBackingInfo {
		return types.VirtualDeviceFileBackingInfo{FileName: name, BackingObjectId: &objectID,
			Datastore: &types.ManagedObjectReference{Type: "Datastore", Value: "datastore-1"}}
	}
	flat := &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: file("[ds1] web/web-000001.vmdk"), DiskMode: "persistent", Uuid: "disk-uuid-1",
		ContentId: "c", ChangeId: "52 2d/1", DeltaDiskFormat: "redoLogFormat", ThinProvisioned: types.NewBool(false),
		Parent: &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: file("[ds1] web/web.vmdk"), DiskMode: "persistent", Uuid: "disk-uuid-1",
			ThinProvisioned: types.NewBool(true),
		},
	}
	nic := func(key, unit int32, label, mac, kind string, backing types.BaseVirtualDeviceBackingInfo) types.VirtualEthernetCard {
		d := dev(key, 100, unit, label, backing)
		d.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, Connected: true, Status: "ok", AllowGuestControl: true}
		return types.VirtualEthernetCard{VirtualDevice: d, MacAddress: mac, AddressType: kind, ExternalId: "external"}
	}
	standard := &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}}
	return &types.VirtualMachineConfigInfo{
		ChangeVersion: "7", Name: "web", Version: "vmx-19", GuestId: "debian12_64Guest", Annotation: "note",
		Uuid: "bios-uuid", InstanceUuid: "instance-uuid", LocationId: "564d", Firmware: "efi",
		NpivNodeWorldWideName: []int64{1}, NpivWorldWideNameType: "vc",
		Files:     types.VirtualMachineFileInfo{VmPathName: "[ds1] web/web.vmx", SnapshotDirectory: "[ds1] web/"},
		Tools:     &types.ToolsConfigInfo{ToolsVersion: 12345, ToolsUpgradePolicy: "manual", PendingCustomization: "x"},
		Flags:     types.VirtualMachineFlagInfo{DiskUuidEnabled: types.NewBool(true), SnapshotLocked: types.NewBool(false)},
		ManagedBy: &types.ManagedByInfo{ExtensionKey: "com.example"},
		Hardware: types.VirtualHardware{NumCPU: 4, MemoryMB: 2048, AutoCoresPerSocket: types.NewBool(true),
			NumCoresPerSocket: types.NewInt32(4),
			Device: []types.BaseVirtualDevice{
				&types.VirtualIDEController{VirtualController: controller(200, 0)},
				&types.VirtualIDEController{VirtualController: controller(201, 1)},
				&types.VirtualPS2Controller{VirtualController: controller(300, 0)},
				&types.VirtualPCIController{VirtualController: controller(100, 0)},
				&types.VirtualSIOController{VirtualController: controller(400, 0)},
				&types.VirtualKeyboard{VirtualDevice: dev(600, 300, 0, "Keyboard", nil)},
				&types.VirtualPointingDevice{VirtualDevice: dev(700, 300, 1, "Pointing device", nil)},
				&types.VirtualMachineVideoCard{VirtualDevice: dev(500, 100, 0, "Video card", nil), VideoRamSizeInKB: 8192},
				&types.VirtualMachineVMCIDevice{VirtualDevice: dev(12000, 100, 17, "VMCI", nil)},
				&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
					VirtualController: controller(1001, 1), SharedBus: "noSharing"}},
				&types.VirtualNVMEController{VirtualController: controller(31000, 0)},
				&types.VirtualDisk{VirtualDevice: dev(2016, 1001, 0, "Hard disk 1", flat), CapacityInKB: 1024, CapacityInBytes: 1 << 20,
					DiskObjectId: "1-2016", VDiskId: &types.ID{Id: "fcd"}, Iofilter: []string{"f"}, Shares: &types.SharesInfo{}},
				&types.VirtualDisk{VirtualDevice: dev(32000, 31000, 2, "Hard disk 2", &types.VirtualDiskRawDiskMappingVer1BackingInfo{
					VirtualDeviceFileBackingInfo: file("[ds2] web/rdm.vmdk"), CompatibilityMode: "virtualMode",
					DiskMode: "persistent", Uuid: "disk-uuid-2"}), CapacityInKB: 2048},
				&types.VirtualDisk{VirtualDevice: dev(2017, 1001, 1, "Hard disk 3", &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: file("[ds1] web/web_2.vmdk"), DiskMode: "independent_persistent"}), CapacityInKB: 1024},
				&types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{
					VirtualEthernetCard: nic(4000, 7, "Network adapter 1", "00:50:56:00:00:01", "assigned", standard)}},
				&types.VirtualE1000e{VirtualEthernetCard: nic(4001, 8, "Network adapter 2", "00:50:56:00:00:02", "manual", standard)},
				&types.VirtualSriovEthernetCard{VirtualEthernetCard: nic(4002, 9, "Network adapter 3", "00:50:56:00:00:03", "assigned", standard)},
				&types.VirtualCdrom{VirtualDevice: dev(3000, 200, 0, "CD/DVD drive 1",
					&types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: file("[iso] here.iso")})},
				&types.VirtualCdrom{VirtualDevice: dev(3002, 201, 0, "CD/DVD drive 2",
					&types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: file("[iso] gone.iso")})},
				&types.VirtualFloppy{VirtualDevice: dev(8000, 400, 0, "Floppy drive 1", &types.VirtualFloppyDeviceBackingInfo{})},
				&types.VirtualSerialPort{VirtualDevice: dev(9000, 400, 0, "Serial port 1", &types.VirtualSerialPortFileBackingInfo{})},
				&types.VirtualSerialPort{VirtualDevice: dev(9001, 400, 1, "Serial port 2", &types.VirtualSerialPortURIBackingInfo{})},
				&types.VirtualUSB{VirtualDevice: dev(7001, 7000, 0, "USB 1", nil)},
				&types.VirtualPCIPassthrough{VirtualDevice: dev(13000, 100, 18, "PCI device 0", nil)},
			},
		},
		ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "guestinfo.role", Value: "web"}, &types.OptionValue{Key: "nvram", Value: "web.nvram"},
			&types.OptionValue{Key: "ethernet0.pciSlotNumber", Value: "160"}, &types.OptionValue{Key: "scsi1:0.ctkEnabled", Value: "TRUE"},
			&types.OptionValue{Key: "migrate.hostLog", Value: "x"}, &types.OptionValue{Key: "uuid.action", Value: "keep"},
			&types.OptionValue{Key: "guestinfo.vmtools.versionNumber", Value: "1"}, &types.OptionValue{Key: markerKey, Value: "old"},
		},
		BootOptions: &types.VirtualMachineBootOptions{BootDelay: 10, BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2017},
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2016},
			&types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: 4001},
			&types.VirtualMachineBootOptionsBootableCdromDevice{},
		}},
		VAppConfig: &types.VmConfigInfo{Property: []types.VAppPropertyInfo{
			{Key: 1, Id: "open", UserConfigurable: types.NewBool(true), Value: "a"},
			{Key: 2, Id: "closed", UserConfigurable: types.NewBool(false), DefaultValue: "b", Value: "c"},
		}},
		ChangeTrackingEnabled: types.NewBool(true),
	}
}

func testRebuild(identity hypervisor.Identity) rebuild {
	network := &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "Target"}}
	return rebuild{
		name: "tf-restore-1", vmPathName: "[ds3] web/web.vmx", identity: identity, marker: "1",
		disks:    map[int32]string{2016: "[ds3] web/web.vmdk", 32000: "[ds4]"},
		networks: map[int32]types.BaseVirtualDeviceBackingInfo{4000: network, 4001: network, 4002: network},
		images: map[int32]types.BaseVirtualDeviceBackingInfo{3000: &types.VirtualCdromIsoBackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[iso] here.iso"}}},
	}
}

// byKey finds a device to add by its captured key.
func byKey(spec types.VirtualMachineConfigSpec, key int32) types.BaseVirtualDevice {
	for _, c := range spec.DeviceChange {
		s := c.GetVirtualDeviceConfigSpec()
		if s.Device.GetVirtualDevice().Key == -key {
			return s.Device
		}
	}
	return nil
}

func TestCreationSpec(t *testing.T) {
	t.Parallel()
	captured := capturedConfig()
	before, err := encodeConfig(captured)
	if err != nil {
		t.Fatal(err)
	}
	spec, warnings, err := creationSpec(captured, testRebuild(hypervisor.IdentityOriginal))
	if err != nil {
		t.Fatal(err)
	}
	// Writing all over the result must not reach the input either.
	for _, c := range spec.DeviceChange {
		c.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice().ControllerKey = 99
	}
	spec.Flags.DiskUuidEnabled = nil
	spec.Tools.ToolsUpgradePolicy = "changed"
	spec.VAppConfig.GetVmConfigSpec().Property[0].Info.Value = "changed"
	after, err := encodeConfig(captured)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the captured configuration was changed")
	}
	for _, want := range []string{
		"Hard disk 2 was a raw device mapping", "Hard disk 3 is not in the backup", "Network adapter 3 passes through",
		"CD/DVD drive 2 had the image [iso] gone.iso", "Floppy drive 1 was connected to a drive of the host",
		"Serial port 1 is connected to a file", "USB 1 is a USB device", "PCI device 0 passes through",
		"N-port ID virtualization", "com.example", "no first class disk any more (ID fcd), its I/O filters (f)",
		"Hard disk 3 is left out of the boot order",
	} {
		if !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("no warning %q in %q", want, warnings)
		}
	}
	if len(warnings) != 12 {
		t.Errorf("%d warnings: %q", len(warnings), warnings)
	}
}

func TestCreationSpec_devices(t *testing.T) {
	t.Parallel()
	spec, _, err := creationSpec(capturedConfig(), testRebuild(hypervisor.IdentityOriginal))
	if err != nil {
		t.Fatal(err)
	}
	var keys []int32
	for _, c := range spec.DeviceChange {
		s := c.GetVirtualDeviceConfigSpec()
		d := s.Device.GetVirtualDevice()
		keys = append(keys, -d.Key)
		_, isDisk := s.Device.(*types.VirtualDisk)
		if isDisk != (s.FileOperation == types.VirtualDeviceConfigSpecFileOperationCreate) {
			t.Errorf("device %d has file operation %q", d.Key, s.FileOperation)
		}
		if d.DeviceInfo != nil {
			t.Errorf("device %d has a label", d.Key)
		}
		if c, ok := s.Device.(types.BaseVirtualController); ok && c.GetVirtualController().Device != nil {
			t.Errorf("controller %d lists devices", d.Key)
		}
	}
	if want := []int32{1001, 31000, 2016, 32000, 4000, 4001, 3000, 3002, 8000, 9001}; !slices.Equal(keys, want) {
		t.Errorf("devices %v, want %v", keys, want)
	}
	for key, want := range map[int32]int32{2016: -1001, 32000: -31000, 4000: 100, 3000: 200, 3002: 201, 8000: 400, 9001: 400} {
		if d := byKey(spec, key); d.GetVirtualDevice().ControllerKey != want {
			t.Errorf("device %d is on controller %d, want %d", key, d.GetVirtualDevice().ControllerKey, want)
		}
	}
	for key, want := range map[int32]int32{2016: 0, 32000: 2, 4000: 7, 4001: 8} {
		if d := byKey(spec, key); *d.GetVirtualDevice().UnitNumber != want {
			t.Errorf("device %d has unit %d, want %d", key, *d.GetVirtualDevice().UnitNumber, want)
		}
	}
	d := byKey(spec, 2016)
	disk, ok := d.(*types.VirtualDisk)
	if !ok {
		t.Fatalf("device 2016 is %T", d)
	}
	backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		t.Fatalf("backing is %T", disk.Backing)
	}
	want := types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[ds3] web/web.vmdk"},
		DiskMode:                     "persistent", ThinProvisioned: backing.ThinProvisioned, Uuid: "disk-uuid-1",
	}
	if *backing != want || backing.ThinProvisioned == nil || !*backing.ThinProvisioned {
		t.Errorf("backing %+v: thin as the base of the chain is, and nothing else of the chain", *backing)
	}
	if disk.DiskObjectId != "" || disk.VDiskId != nil || disk.Iofilter != nil || disk.Shares != nil || disk.CapacityInBytes != 1<<20 {
		t.Errorf("disk %+v", disk)
	}
}

func TestCreationSpec_settings(t *testing.T) {
	t.Parallel()
	spec, _, err := creationSpec(capturedConfig(), testRebuild(hypervisor.IdentityOriginal))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case spec.Name != "tf-restore-1", spec.Files.VmPathName != "[ds3] web/web.vmx", spec.Files.SnapshotDirectory != "":
		t.Errorf("name %q, files %+v", spec.Name, spec.Files)
	case spec.ChangeVersion != "", spec.LocationId != "", spec.NpivNodeWorldWideName != nil, spec.NpivWorldWideNameType != "",
		spec.CreateDate != nil, spec.ManagedBy != nil:
		t.Errorf("the specification has properties of the captured VM alone: %+v", spec)
	case spec.Tools.ToolsVersion != 0, spec.Tools.PendingCustomization != "", spec.Tools.ToolsUpgradePolicy != "manual":
		t.Errorf("tools %+v", spec.Tools)
	case spec.Flags.SnapshotLocked != nil, !*spec.Flags.DiskUuidEnabled:
		t.Errorf("flags %+v", spec.Flags)
	case spec.BootOptions.BootOrder != nil, spec.BootOptions.BootDelay != 10:
		t.Errorf("boot options %+v: the order comes later", spec.BootOptions)
	case *spec.NumCoresPerSocket != 0:
		t.Errorf("%d cores per socket, want the server's choice", *spec.NumCoresPerSocket)
	case spec.ChangeTrackingEnabled != nil:
		t.Error("change tracking is on during the upload")
	}
	options := map[string]any{}
	for _, o := range spec.ExtraConfig {
		options[o.GetOptionValue().Key] = o.GetOptionValue().Value
	}
	if len(options) != 3 || options["guestinfo.role"] != "web" || options["ethernet0.pciSlotNumber"] != "160" || options[markerKey] != "1" {
		t.Errorf("extraConfig %v", options)
	}
	closed := spec.VAppConfig.GetVmConfigSpec().Property[1].Info
	if !*closed.UserConfigurable || closed.Value != "c" {
		t.Errorf("property %+v: the server refuses a value of a closed one", closed)
	}
}

func TestCreationSpec_identity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		identity                                hypervisor.Identity
		bios, instance, disk, mac1, type1, mac2 string
	}{
		{hypervisor.IdentityOriginal, "bios-uuid", "instance-uuid", "disk-uuid-1", "00:50:56:00:00:01", "assigned", "00:50:56:00:00:02"},
		{hypervisor.IdentityCopy, "", "", "", "", "", ""},
	} {
		t.Run(string(test.identity), func(t *testing.T) {
			t.Parallel()
			spec, _, err := creationSpec(capturedConfig(), testRebuild(test.identity))
			if err != nil {
				t.Fatal(err)
			}
			disk := byKey(spec, 2016)
			first := byKey(spec, 4000)
			second := byKey(spec, 4001)
			one, ok1 := first.(types.BaseVirtualEthernetCard)
			two, ok2 := second.(types.BaseVirtualEthernetCard)
			if !ok1 || !ok2 {
				t.Fatalf("adapters are %T and %T", first, second)
			}
			if spec.Uuid != test.bios || spec.InstanceUuid != test.instance {
				t.Errorf("UUIDs %q, %q", spec.Uuid, spec.InstanceUuid)
			}
			if got := describeBacking(disk.GetVirtualDevice().Backing).uuid; got != test.disk {
				t.Errorf("disk UUID %q", got)
			}
			n1, n2 := one.GetVirtualEthernetCard(), two.GetVirtualEthernetCard()
			if n1.MacAddress != test.mac1 || n1.AddressType != test.type1 || n2.MacAddress != test.mac2 || n1.ExternalId != "" {
				t.Errorf("adapters %+v, %+v", n1, n2)
			}
		})
	}
}

func TestCreationSpec_disconnect(t *testing.T) {
	t.Parallel()
	r := testRebuild(hypervisor.IdentityCopy)
	r.disconnect = true
	spec, _, err := creationSpec(capturedConfig(), r)
	if err != nil {
		t.Fatal(err)
	}
	d := byKey(spec, 4000)
	if c := d.GetVirtualDevice().Connectable; c.StartConnected || c.Connected || c.Status != "" || !c.AllowGuestControl {
		t.Errorf("connectable %+v", c)
	}
}

func TestCompletionSpec(t *testing.T) {
	t.Parallel()
	captured := capturedConfig()
	created := capturedConfig()
	created.ChangeVersion = "fresh"
	created.Uuid = "another"
	// The server gave out other keys, and another address for the second adapter.
	for _, d := range created.Hardware.Device {
		switch dev := d.(type) {
		case *types.VirtualDisk:
			dev.Key += 500
		case *types.VirtualE1000e:
			dev.Key = 4444
			dev.MacAddress = "00:50:56:99:99:99"
		case *types.VirtualMachineVideoCard:
			dev.Key, dev.VideoRamSizeInKB = 555, 4096
		}
	}
	created.Hardware.Device = slices.DeleteFunc(created.Hardware.Device, func(d types.BaseVirtualDevice) bool {
		return deviceLabel(d) == "Hard disk 3"
	})
	spec, warnings, err := completionSpec(captured, created, testRebuild(hypervisor.IdentityOriginal))
	if err != nil {
		t.Fatal(err)
	}
	if spec.ChangeVersion != "fresh" || spec.Uuid != "bios-uuid" || spec.InstanceUuid != "" || !*spec.ChangeTrackingEnabled {
		t.Errorf("specification %+v", spec)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "Hard disk 3 is left out of the boot order") {
		t.Errorf("warnings %q", warnings)
	}
	order := spec.BootOptions.BootOrder
	if len(order) != 3 || spec.BootOptions.BootDelay != 10 {
		t.Fatalf("boot options %+v", spec.BootOptions)
	}
	disk, ok1 := order[0].(*types.VirtualMachineBootOptionsBootableDiskDevice)
	nic, ok2 := order[1].(*types.VirtualMachineBootOptionsBootableEthernetDevice)
	if !ok1 || !ok2 || disk.DeviceKey != 2516 || nic.DeviceKey != 4444 {
		t.Errorf("boot order %+v, %+v", order[0], order[1])
	}
	var edited []int32
	for _, c := range spec.DeviceChange {
		s := c.GetVirtualDeviceConfigSpec()
		edited = append(edited, s.Device.GetVirtualDevice().Key)
		if s.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			t.Errorf("operation %q", s.Operation)
		}
		if n, ok := s.Device.(*types.VirtualE1000e); ok && n.MacAddress != "00:50:56:00:00:02" {
			t.Errorf("address %q", n.MacAddress)
		}
		if v, ok := s.Device.(*types.VirtualMachineVideoCard); ok && v.VideoRamSizeInKB != 8192 {
			t.Errorf("video card %+v", v)
		}
	}
	if !slices.Equal(edited, []int32{555, 4444}) {
		t.Errorf("edited devices %v", edited)
	}
	if p := spec.VAppConfig.GetVmConfigSpec().Property; len(p) != 1 || p[0].Info.Key != 2 || *p[0].Info.UserConfigurable {
		t.Errorf("vApp properties %+v", p)
	}
}
