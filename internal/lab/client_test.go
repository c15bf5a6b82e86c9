package lab_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// createVM has another client create a VM.
func (e *env) createVM(spec types.VirtualMachineConfigSpec) (*object.VirtualMachine, error) {
	e.t.Helper()
	folder, err := e.finder.DefaultFolder(e.ctx)
	e.must(err)
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	task, err := folder.CreateVM(e.ctx, spec, pool, nil)
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(e.ctx)
	if err != nil {
		return nil, err
	}
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		e.t.Fatalf("result is %T", info.Result)
	}
	return object.NewVirtualMachine(e.client.Client, ref), nil
}

// foreignSpec is a VM as govc describes one.
func foreignSpec(name string) types.VirtualMachineConfigSpec {
	var list object.VirtualDeviceList
	scsi, _ := list.CreateSCSIController("pvscsi")
	list = append(list, scsi)
	controller, _ := scsi.(types.BaseVirtualController)
	disk := list.CreateDisk(controller, types.ManagedObjectReference{}, "")
	disk.CapacityInKB = 4096
	nic, _ := list.CreateEthernetCard("vmxnet3", &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"},
	})
	ide, _ := list.CreateIDEController()
	devices, _ := append(list, disk, nic, ide).ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherLinux64Guest", NumCPUs: 2, MemoryMB: 512, DeviceChange: devices,
		Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
	}
}

func TestForeignVM(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	vm, err := e.createVM(foreignSpec("foreign"))
	e.must(err)
	status := e.status("foreign")
	if len(status.Disks) != 1 || status.Disks[0].Key != 2000 || status.Disks[0].Label != "Hard disk 1" ||
		status.Disks[0].File != "[LocalDS_0] foreign/foreign.vmdk" || !strings.HasPrefix(status.NICs[0].MAC, "00:50:56:") {
		t.Errorf("%+v %+v", status.Disks, status.NICs)
	}
	p := make([]byte, 4)
	e.must(e.WriteDisk("foreign", 0, 4<<20-4, []byte("last")))
	e.must(e.ReadDisk("foreign", 0, 4<<20-4, p))
	if string(p) != "last" {
		t.Errorf("disk holds %q", p)
	}
	e.vm = vm
	c := e.properties().Config
	switch {
	case c.SwapPlacement != "inherit", c.CpuHotAddEnabled == nil || *c.CpuHotAddEnabled, *c.CpuAllocation.Limit != -1,
		c.CpuAllocation.Shares.Shares != 2000, c.MemoryAllocation.Shares.Shares != 5120, c.Firmware != "bios",
		!*c.Tools.AfterPowerOn, c.Flags.VirtualExecUsage != "hvAuto", !*c.Flags.EnableLogging,
		c.LatencySensitivity.Level != "normal", c.BootOptions.BootRetryDelay != 10000,
		c.DefaultPowerOps.PowerOffType != "soft", c.Hardware.NumCPU != 2:
		t.Errorf("defaults: %s", e.status("foreign").Config)
	}
	d := e.disk(2000)
	if d.StorageIOAllocation == nil || *d.StorageIOAllocation.Limit != -1 || d.StorageIOAllocation.Shares.Shares != 1000 {
		t.Errorf("%+v", d.StorageIOAllocation)
	}
	_, err = e.createVM(foreignSpec("foreign"))
	e.refused("duplicate name", err, &types.DuplicateName{})
	spec := foreignSpec("guest")
	spec.GuestId = "nonsenseGuest"
	_, err = e.createVM(spec)
	e.refused("unknown guest", err, &types.InvalidArgument{})
	spec = foreignSpec("hardware")
	spec.Version = "vmx-99"
	_, err = e.createVM(spec)
	e.refused("unknown hardware", err, &types.VirtualHardwareVersionNotSupported{})
	spec = foreignSpec("network")
	card, _ := spec.DeviceChange[2].GetVirtualDeviceConfigSpec().Device.(types.BaseVirtualEthernetCard)
	card.GetVirtualEthernetCard().Backing = &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "none"},
	}
	_, err = e.createVM(spec)
	e.refused("unknown network", err, &types.InvalidDeviceBacking{})
	if s := e.Status(); len(s.VMs) != 2 {
		t.Errorf("%d VMs", len(s.VMs))
	}
}

func TestInstanceUUIDConflict(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	spec := foreignSpec("twin")
	old := e.status("web01")
	spec.Uuid, spec.InstanceUuid = old.BIOSUUID, old.InstanceUUID
	_, err := e.createVM(spec)
	e.must(err)
	if twin := e.status("twin"); twin.BIOSUUID != old.BIOSUUID || twin.InstanceUUID == old.InstanceUUID {
		t.Errorf("%+v", twin)
	}
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	e.must(e.wait(e.vm.Destroy(e.ctx)))
	spec = foreignSpec("again")
	spec.InstanceUuid = old.InstanceUUID
	_, err = e.createVM(spec)
	e.must(err)
	if again := e.status("again"); again.InstanceUUID != old.InstanceUUID {
		t.Errorf("%+v", again)
	}
}

// clone clones the VM.
func (e *env) clone(name string, spec types.VirtualMachineCloneSpec) error {
	e.t.Helper()
	folder, err := e.finder.DefaultFolder(e.ctx)
	e.must(err)
	return e.wait(e.vm.Clone(e.ctx, folder, name, spec))
}

func TestClone(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.write(0, 1000, "original")
	s := e.snapshot("base")
	e.write(0, 1000, "modified")
	e.must(e.clone("copy", types.VirtualMachineCloneSpec{}))
	e.must(e.clone("linked", types.VirtualMachineCloneSpec{
		Snapshot: &s, Location: types.VirtualMachineRelocateSpec{
			DiskMoveType: string(types.VirtualMachineRelocateDiskMoveOptionsCreateNewChildDiskBacking),
		},
	}))
	for name, want := range map[string]string{"copy": "modified", "linked": "original"} {
		p := make([]byte, 8)
		e.must(e.ReadDisk(name, 0, 1000, p))
		if string(p) != want {
			t.Errorf("%s holds %q, want %q", name, p, want)
		}
		e.must(e.WriteDisk(name, 0, 1000, []byte("its own ")))
	}
	if got := e.read(0, 1000, 8); got != "modified" {
		t.Errorf("the original holds %q", got)
	}
	linked, copied := e.status("linked"), e.status("copy")
	if len(linked.Disks[0].Chain) != 2 || len(copied.Disks[0].Chain) != 1 || copied.Disks[0].UUID == e.status("web01").Disks[0].UUID ||
		copied.NICs[0].MAC == e.status("web01").NICs[0].MAC {
		t.Errorf("%+v %+v", linked.Disks, copied.Disks)
	}
	e.refused("clone to a taken name", e.clone("copy", types.VirtualMachineCloneSpec{}), &types.DuplicateName{})
	e.must(e.wait(e.vm.RemoveAllSnapshot(e.ctx, nil)))
	p := make([]byte, 8)
	e.must(e.ReadDisk("linked", 1, 0, p))
	if got := e.read(0, 1000, 8); got != "modified" {
		t.Errorf("the original holds %q", got)
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.write(0, 0, "still here")
	old := e.status("web01")
	e.refused("unregister while on", e.vm.Unregister(e.ctx), &types.InvalidPowerState{})
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	e.must(e.vm.Unregister(e.ctx))
	folder, err := e.finder.DefaultFolder(e.ctx)
	e.must(err)
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	e.must(e.wait(folder.RegisterVM(e.ctx, "[LocalDS_0] web01/web01.vmx", "back", false, pool, nil)))
	now := e.status("back")
	if now.BIOSUUID != old.BIOSUUID || now.InstanceUUID != old.InstanceUUID || len(now.Disks) != 2 {
		t.Errorf("%+v", now)
	}
	p := make([]byte, 10)
	e.must(e.ReadDisk("back", 0, 0, p))
	if string(p) != "still here" {
		t.Errorf("disk holds %q", p)
	}
	e.refused("register what isn't there",
		e.wait(folder.RegisterVM(e.ctx, "[LocalDS_0] no/no.vmx", "no", false, pool, nil)), &types.NotFound{})
}

func TestDiskManager(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	m := object.NewVirtualDiskManager(e.client.Client)
	dc, err := e.finder.DefaultDatacenter(e.ctx)
	e.must(err)
	const running, copied, moved = "[LocalDS_0] web01/web01.vmdk", "[LocalDS_0] web01/copy.vmdk", "[LocalDS_0] moved.vmdk"
	e.refused("delete a running VM's disk", e.wait(m.DeleteVirtualDisk(e.ctx, running, dc)), &types.FileLocked{})
	e.refused("set its UUID", m.SetVirtualDiskUuid(e.ctx, running, dc, "60 00 C2 9a 00 00 00 00-00 00 00 00 00 00 00 01"), &types.FileLocked{})
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	e.must(e.wait(m.CopyVirtualDisk(e.ctx, running, dc, copied, dc, nil, false)))
	e.refused("copy to a taken name", e.wait(m.CopyVirtualDisk(e.ctx, running, dc, copied, dc, nil, false)), &types.FileAlreadyExists{})
	e.must(e.wait(m.MoveVirtualDisk(e.ctx, copied, dc, moved, dc, false)))
	const id = "60 00 c2 9a 00 00 00 00-00 00 00 00 00 00 00 01"
	e.must(m.SetVirtualDiskUuid(e.ctx, moved, dc, id))
	if got, err := m.QueryVirtualDiskUuid(e.ctx, moved, dc); err != nil || got != id {
		t.Errorf("%q %v", got, err)
	}
	e.must(e.reconfigure(opAdd, noFile, newDisk(4, moved, 0)))
	if d := e.disk(2004); flat(d).Uuid != "6000c29a-0000-0000-0000-000000000001" || d.CapacityInBytes != 4<<20 {
		t.Errorf("%+v", flat(d))
	}
	var want, got [512]byte
	e.must(e.ReadDisk("web01", 0, 1<<20, want[:]))
	e.must(e.ReadDisk("web01", 2, 1<<20, got[:]))
	if want != got {
		t.Error("the copy differs")
	}
	f := object.NewFileManager(e.client.Client)
	e.must(e.wait(e.vm.PowerOn(e.ctx)))
	e.refused("delete a running VM's directory", e.wait(f.DeleteDatastoreFile(e.ctx, "[LocalDS_0] web01", dc)), &types.FileLocked{})
}

func TestTags(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	if got := e.status("web01").Tags; len(got) != 1 || got[0] != "environment/production" {
		t.Errorf("tags of a seeded VM: %v", got)
	}
	c := rest.NewClient(e.client.Client)
	e.must(c.Login(e.ctx, url.UserPassword(e.User(), e.Password())))
	m := tags.NewManager(c)
	id, err := m.CreateCategory(e.ctx, &tags.Category{
		Name: "team", Cardinality: "MULTIPLE", AssociableTypes: []string{"urn:vim25:VirtualMachine"},
	})
	e.must(err)
	category, err := m.GetCategory(e.ctx, id)
	e.must(err)
	if len(category.AssociableTypes) != 1 || category.AssociableTypes[0] != "VirtualMachine" {
		t.Errorf("%v", category.AssociableTypes)
	}
	tag, err := m.CreateTag(e.ctx, &tags.Tag{Name: "storage", CategoryID: id})
	e.must(err)
	e.must(m.AttachTag(e.ctx, tag, e.vm))
	if got := e.status("web01").Tags; len(got) != 2 || got[1] != "team/storage" {
		t.Errorf("%v", got)
	}
	if c := rest.NewClient(e.client.Client); c.Login(e.ctx, url.UserPassword(e.User(), "wrong")) == nil {
		t.Error("the tag service takes a wrong password")
	}
}

// TestGeneralType checks that a cluster can be asked for as the compute resource that it is.
func TestGeneralType(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	cluster, err := e.finder.ClusterComputeResource(e.ctx, "DC0_C0")
	e.must(err)
	ref := types.ManagedObjectReference{Type: "ComputeResource", Value: cluster.Reference().Value}
	var o mo.ComputeResource
	e.must(property.DefaultCollector(e.client.Client).RetrieveOne(e.ctx, ref, []string{"name", "environmentBrowser"}, &o))
	if o.Name != "DC0_C0" || o.EnvironmentBrowser == nil {
		t.Fatalf("%+v", o)
	}
	res, err := methods.QueryConfigOption(e.ctx, e.client, &types.QueryConfigOption{This: *o.EnvironmentBrowser, Key: "vmx-17"})
	e.must(err)
	if v := res.Returnval; v.Version != "vmx-17" || v.HardwareOptions.HwVersion != 17 {
		t.Errorf("%s %d", v.Version, v.HardwareOptions.HwVersion)
	}
	wrong := types.ManagedObjectReference{Type: "VirtualApp", Value: e.properties().ResourcePool.Value}
	err = property.DefaultCollector(e.client.Client).RetrieveOne(e.ctx, wrong, []string{"name"}, &mo.VirtualApp{})
	e.refused("a pool as a vApp", err, &types.ManagedObjectNotFound{})
}

// TestWaitForUpdates checks that a client that waits for a part of the configuration hears of it.
func TestWaitForUpdates(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	seen := make(chan string, 10)
	waited := make(chan error, 1)
	go func() {
		c := property.DefaultCollector(e.client.Client)
		waited <- property.Wait(e.ctx, c, e.vm.Reference(), []string{"config.annotation"}, func(changes []types.PropertyChange) bool {
			for _, change := range changes {
				text, _ := change.Val.(string)
				seen <- text
				if text == "new" {
					return true
				}
			}
			return false
		})
	}()
	if first := <-seen; first == "new" {
		t.Errorf("annotation is %q", first)
	}
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{Annotation: "new"})))
	e.must(<-waited)
}
