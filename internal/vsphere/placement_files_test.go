package vsphere

import (
	"maps"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// TestPlacement_rebuild has disks whose names say nothing of the VM's: those in its own directory keep them.
func TestPlacement_rebuild(t *testing.T) {
	t.Parallel()
	file := func(name string, parent *types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDiskFlatVer2BackingInfo {
		return &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: name}, Parent: parent}
	}
	config := &types.VirtualMachineConfigInfo{Files: types.VirtualMachineFileInfo{VmPathName: "[ds1] old/web.vmx"}}
	config.Hardware.Device = append(config.Hardware.Device, &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
		VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1000}}}})
	for i, backing := range []*types.VirtualDiskFlatVer2BackingInfo{
		file("[ds1] old/os-000002.vmdk", file("[ds1] old/os.vmdk", nil)), // in a chain of snapshots
		file("[ds1] old/web-000001.vmdk", nil),                           // in one that isn't told
		file("[ds1] elsewhere/data.vmdk", nil),
		file("[ds2] old/logs.vmdk", nil),
		file("[ds1] elsewhere/more.vmdk", nil),
	} {
		config.Hardware.Device = append(config.Hardware.Device, &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
			Key: 2000 + int32(i), ControllerKey: 1000, UnitNumber: types.NewInt32(int32(i)), Backing: backing}}) //nolint:gosec // few
	}
	captured := &capture{config: config, Name: "web"}
	for _, test := range []struct {
		name      string
		spec      hypervisor.RestoreSpec
		directory string
		disks     map[int32]string
	}{
		{"original", hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal}, "old", map[int32]string{
			2000: "[ds1] old/os.vmdk", 2001: "[ds1] old/web.vmdk", 2002: "[ds1] old/web_1.vmdk", 2003: "[ds2]", 2004: "[ds1] old/web_2.vmdk"}},
		{"renamed", hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal, Name: "new"}, "", nil},
		{"copy", hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy}, "", nil},
	} {
		p := &placement{name: "web", home: "ds1", disks: map[int32]string{2000: "ds1", 2001: "ds1", 2002: "ds1", 2003: "ds2", 2004: "ds1"}}
		if test.spec.Name != "" {
			p.name = test.spec.Name
		}
		directory, vmx := ownDirectory(test.spec, captured, p)
		if directory != test.directory {
			t.Errorf("%s: directory %q, want %q", test.name, directory, test.directory)
		}
		if directory == "" {
			p.directory, p.vmx = p.name, p.name+".vmx"
			base := "[ds1] " + p.name + "/" + p.name
			test.disks = map[int32]string{2000: base + ".vmdk", 2001: base + "_1.vmdk", 2002: base + "_2.vmdk", 2003: "[ds2]", 2004: base + "_3.vmdk"}
		} else {
			p.directory, p.vmx, p.keepFiles = directory, vmx, true
		}
		if r := p.rebuild(test.spec, captured); !maps.Equal(r.disks, test.disks) {
			t.Errorf("%s: disks %v, want %v", test.name, r.disks, test.disks)
		}
	}
}
