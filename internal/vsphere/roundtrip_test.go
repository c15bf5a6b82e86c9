package vsphere

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// richVM makes a VM that uses everything a restore has to bring back, and returns its disks' content.
func (b *bench) richVM(name string) [][]byte {
	b.Helper()
	ctx, c := b.Context(), b.client
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	find := func(path string) types.ManagedObjectReference {
		b.Helper()
		ref, err := c.findPath(ctx, path)
		must(err)
		if ref == nil {
			b.Fatalf("the lab has no %s", path)
		}
		return *ref
	}
	outer, err := object.NewFolder(c.vim, find("/DC0/vm")).CreateFolder(ctx, "tiers")
	must(err)
	folder, err := outer.CreateFolder(ctx, "web")
	must(err)
	resources := types.DefaultResourceConfigSpec()
	prod, err := object.NewResourcePool(c.vim, find("/DC0/host/DC0_C0/Resources")).Create(ctx, "prod", resources)
	must(err)
	pool, err := prod.Create(ctx, "web", resources)
	must(err)
	must(c.writeNVRAM(ctx, "/DC0", "[LocalDS_0] web01/install.iso", []byte("an ISO image")))

	var portgroup mo.DistributedVirtualPortgroup
	must(c.properties(ctx, find("/DC0/network/DC0_DVPG0"), []string{"key", "config.distributedVirtualSwitch"}, &portgroup))
	var dvs mo.DistributedVirtualSwitch
	must(c.properties(ctx, *portgroup.Config.DistributedVirtualSwitch, []string{"uuid"}, &dvs))

	task, err := folder.CreateVM(ctx, richSpec(escapeName(name), dvs.Uuid, portgroup.Key), pool, nil)
	must(err)
	info, err := c.waitTask(ctx, task)
	must(err)
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		b.Fatalf("result %v", info.Result)
	}
	b.bootOrder(ref)
	b.label(ref)
	var vm mo.VirtualMachine
	must(c.properties(ctx, ref, []string{"config", "layoutEx"}, &vm))
	must(c.writeNVRAM(ctx, "/DC0", nvramFile(&vm, vm.Config), bytes.Repeat([]byte("EFI variables "), 5000)))
	must(c.PowerOn(ctx, hypervisor.VMID(ref.Value)))
	var content [][]byte
	r := rand.New(rand.NewPCG(1, 2))
	for i, d := range orderedDisks(vm.Config.Hardware.Device) {
		data := make([]byte, diskCapacity(d))
		for n := range 3 {
			p := data[n<<20 : n<<20+100_000]
			for j := range p {
				p[j] = byte(r.Uint32())
			}
			must(b.lab.WriteDisk(escapeName(name), i, int64(n)<<20, p))
		}
		content = append(content, data)
	}
	return content
}

// bootOrder makes the VM boot from its last disk, then its second adapter, then the CD-ROM.
func (b *bench) bootOrder(ref types.ManagedObjectReference) {
	b.Helper()
	var vm mo.VirtualMachine
	if err := b.client.properties(b.Context(), ref, []string{"config.hardware"}, &vm); err != nil {
		b.Fatal(err)
	}
	var disk, nic int32
	for _, d := range vm.Config.Hardware.Device {
		switch d.(type) {
		case *types.VirtualDisk:
			disk = d.GetVirtualDevice().Key
		case types.BaseVirtualEthernetCard:
			nic = d.GetVirtualDevice().Key
		}
	}
	task, err := object.NewVirtualMachine(b.client.vim, ref).Reconfigure(b.Context(), types.VirtualMachineConfigSpec{
		BootOptions: &types.VirtualMachineBootOptions{
			BootDelay: 2000, EfiSecureBootEnabled: types.NewBool(true),
			BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
				&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: disk},
				&types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: nic},
				&types.VirtualMachineBootOptionsBootableCdromDevice{},
			},
		},
	})
	if err == nil {
		_, err = b.client.waitTask(b.Context(), task)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// label gives the VM tags and custom attributes.
func (b *bench) label(ref types.ManagedObjectReference) {
	b.Helper()
	ctx := b.Context()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	client, err := b.client.rest(ctx)
	must(err)
	manager := tags.NewManager(client)
	for _, name := range []string{"tier", "owner"} {
		category, err := manager.CreateCategory(ctx, &tags.Category{
			Name: name, Cardinality: "SINGLE", AssociableTypes: []string{"VirtualMachine"},
		})
		must(err)
		tag, err := manager.CreateTag(ctx, &tags.Tag{Name: name + "-1", CategoryID: category})
		must(err)
		must(manager.AttachTag(ctx, tag, ref))
	}
	fields, err := object.GetCustomFieldsManager(b.client.vim)
	must(err)
	for _, name := range []string{"cost centre", "contact"} {
		field, err := fields.Add(ctx, name, "VirtualMachine", nil, nil)
		must(err)
		must(fields.Set(ctx, ref, field.Key, "value of "+name))
	}
}

func richSpec(name, switchUUID, portgroupKey string) types.VirtualMachineConfigSpec {
	create := types.VirtualDeviceConfigSpecFileOperationCreate
	disk := func(key, controller, unit int32, mib int64, thin bool, uuid string) *types.VirtualDeviceConfigSpec {
		return &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: create,
			Device: &types.VirtualDisk{
				CapacityInBytes: mib << 20, CapacityInKB: mib << 10,
				VirtualDevice: types.VirtualDevice{Key: key, ControllerKey: controller, UnitNumber: &unit,
					Backing: &types.VirtualDiskFlatVer2BackingInfo{
						VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[LocalDS_0]"},
						DiskMode:                     "persistent", ThinProvisioned: &thin, Uuid: uuid,
					}},
			},
		}
	}
	add := func(d types.BaseVirtualDevice) *types.VirtualDeviceConfigSpec {
		return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d}
	}
	shares := func(reservation int64) *types.ResourceAllocationInfo {
		return &types.ResourceAllocationInfo{Reservation: &reservation, Limit: types.NewInt64(4096),
			ExpandableReservation: types.NewBool(false), Shares: &types.SharesInfo{Level: types.SharesLevelCustom, Shares: 1234}}
	}
	return types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherLinux64Guest", Annotation: "Web tier.\nAsk the web team.", Firmware: "efi",
		Uuid: "11111111-2222-4333-8444-555555555555", InstanceUuid: "66666666-7777-4888-8999-aaaaaaaaaaaa",
		Files:   &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
		NumCPUs: 4, NumCoresPerSocket: types.NewInt32(2), MemoryMB: 512,
		CpuHotAddEnabled: types.NewBool(true), MemoryHotAddEnabled: types.NewBool(true), NestedHVEnabled: types.NewBool(true),
		CpuAllocation: shares(100), MemoryAllocation: shares(64),
		Flags: &types.VirtualMachineFlagInfo{DiskUuidEnabled: types.NewBool(true)},
		Tools: &types.ToolsConfigInfo{ToolsUpgradePolicy: "upgradeAtPowerCycle", SyncTimeWithHost: types.NewBool(true)},
		ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "guestinfo.metadata", Value: "aGVsbG8="},
			&types.OptionValue{Key: "guestinfo.role", Value: "web"},
			&types.OptionValue{Key: "svga.present", Value: "TRUE"},
		},
		VAppConfig: &types.VmConfigSpec{Property: []types.VAppPropertySpec{
			{ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}, Info: &types.VAppPropertyInfo{
				Key: 1, Id: "hostname", Type: "string", UserConfigurable: types.NewBool(true), Value: "web01"}},
			{ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}, Info: &types.VAppPropertyInfo{
				Key: 2, Id: "release", Type: "string", UserConfigurable: types.NewBool(false), DefaultValue: "1", Value: "2"}},
		}},
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			add(&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: "noSharing",
				VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: -1}, BusNumber: 0}}}),
			add(&types.VirtualNVMEController{VirtualController: types.VirtualController{
				VirtualDevice: types.VirtualDevice{Key: -2}, BusNumber: 0}}),
			disk(-10, -1, 0, 8, true, "6000C290-0000-0000-0000-000000000001"),
			disk(-11, -1, 3, 4, false, "6000C290-0000-0000-0000-000000000002"),
			disk(-12, -2, 1, 6, true, "6000C290-0000-0000-0000-000000000003"),
			add(&types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
				AddressType: "manual", MacAddress: "00:50:56:01:02:03", WakeOnLanEnabled: types.NewBool(true),
				VirtualDevice: types.VirtualDevice{Key: -20, Backing: &types.VirtualEthernetCardNetworkBackingInfo{
					VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}}},
			}}}),
			add(&types.VirtualE1000e{VirtualEthernetCard: types.VirtualEthernetCard{
				AddressType: "assigned", MacAddress: "00:50:56:81:02:04",
				VirtualDevice: types.VirtualDevice{Key: -21,
					Connectable: &types.VirtualDeviceConnectInfo{StartConnected: false, AllowGuestControl: true},
					Backing: &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
						Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: switchUUID, PortgroupKey: portgroupKey}}},
			}}),
			add(&types.VirtualCdrom{VirtualDevice: types.VirtualDevice{Key: -30, ControllerKey: 200, UnitNumber: types.NewInt32(0),
				Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true},
				Backing: &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{
					FileName: "[LocalDS_0] web01/install.iso"}}}}),
		},
	}
}

// status is what the lab says about a VM.
func (b *bench) status(name string) lab.VMStatus {
	b.Helper()
	for _, vm := range b.lab.Status().VMs {
		if vm.Name == name {
			return vm
		}
	}
	b.Fatalf("the lab has no VM %q", name)
	return lab.VMStatus{}
}

// leaves turns a VM's configuration as the lab shows it into paths and values, with devices in the order
// of their class and slot. It is written without the code that is under test.
func leaves(t *testing.T, vm lab.VMStatus) map[string]string {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(vm.Config, &tree); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for key, child := range v {
				walk(path+"/"+key, child)
			}
		case []any:
			for i, child := range v {
				name := fmt.Sprint(i)
				if m, ok := child.(map[string]any); ok {
					switch path {
					case "/hardware/device":
						name = fmt.Sprintf("%v-%v-%v", m["_typeName"], m["busNumber"], m["unitNumber"])
					case "/extraConfig":
						name = fmt.Sprint(m["key"])
					}
				}
				walk(path+"/"+name, child)
			}
		default:
			out[path] = fmt.Sprint(v)
		}
	}
	walk("", tree)
	for _, d := range vm.Disks {
		out["disk "+d.Controller] = fmt.Sprint(d.UUID, d.Capacity, d.Mode, d.Label)
	}
	for i, n := range vm.NICs {
		out[fmt.Sprintf("nic %d", i)] = fmt.Sprint(n.Type, n.MAC, n.Network, n.Label)
	}
	out["tags"] = strings.Join(slices.Sorted(slices.Values(vm.Tags)), ",")
	for name, value := range vm.CustomAttributes {
		out["attribute "+name] = value
	}
	out["folder"], out["pool"], out["name"] = vm.Folder, vm.ResourcePool, vm.Name
	return out
}

// volatile are the ends of paths that differ between a running VM and a fresh one of the same make.
// The name of the NVRAM file and the IDs of disks are the server's.
var volatile = []string{"/changeVersion", "/modified", "/createDate", "/connected", "/status", "/datastore/value", "/locationId",
	"/extraConfig/nvram/value/_value", "/diskObjectId"}

func TestRestore_everything(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20) // its directory holds the ISO image
	const name = "web blue"
	content := b.richVM(name)
	vm, err := b.client.FindVM(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	b.vm = vm
	before := leaves(t, b.status(escapeName(name)))
	c := b.mustBackUp()
	if len(c.config.Warnings) > 0 {
		t.Errorf("warnings of the capture: %q", c.config.Warnings)
	}
	labtest.AssertClean(t, b.lab)
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	restored, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings of the restore: %q", warnings)
	}
	if restored.Name != name || restored.PowerState != hypervisor.PoweredOff || restored.Path != vm.Path {
		t.Errorf("got %+v", restored)
	}
	after := leaves(t, b.status(escapeName(name)))
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if before[path] == after[path] || slices.ContainsFunc(volatile, func(v string) bool { return strings.HasSuffix(path, v) }) {
			continue
		}
		t.Errorf("%s: %q before, %q after", path, before[path], after[path])
	}
	for path, value := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s: new, %q", path, value)
		}
	}
	for i, want := range content {
		got := make([]byte, len(want))
		if err := b.lab.ReadDisk(escapeName(name), i, 0, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("disk %d differs", i)
		}
	}
	b.sameNVRAM(restored, c.config.NVRAM)
	labtest.AssertClean(t, b.lab)
}

func (b *bench) sameNVRAM(vm *hypervisor.VM, want []byte) {
	b.Helper()
	var m mo.VirtualMachine
	if err := b.client.properties(b.Context(), vmRef(vm.ID), []string{"config", "layoutEx"}, &m); err != nil {
		b.Fatal(err)
	}
	got, err := b.client.readNVRAM(b.Context(), "/DC0", nvramFile(&m, m.Config))
	if err != nil {
		b.Fatal(err)
	}
	if len(want) == 0 || !bytes.Equal(got, want) {
		b.Errorf("NVRAM has %d bytes that differ from the %d captured", len(got), len(want))
	}
}
