package vsphere

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

// TestIndependent has disks of every kind: what is an obstacle is what snapshots leave out, and what a
// lease doesn't have.
func TestIndependent(t *testing.T) {
	t.Parallel()
	const mode = string(types.VirtualDiskModeIndependent_persistent)
	file := types.VirtualDeviceFileBackingInfo{FileName: "[ds1] web01/web01.vmdk"}
	for name, backing := range map[string]func(mode string) types.BaseVirtualDeviceBackingInfo{
		"flat": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskFlatVer2BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"space-efficient": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskSeSparseBackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"sparse": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskSparseVer2BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"old flat": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskFlatVer1BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"old sparse": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskSparseVer1BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"persistent memory": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskLocalPMemBackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
		"virtual RDM": func(mode string) types.BaseVirtualDeviceBackingInfo {
			return &types.VirtualDiskRawDiskMappingVer1BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			independent := diskOn(2001, 1000, 1, "Hard disk 2", backing(mode))
			config := &types.VirtualMachineConfigInfo{}
			config.Hardware.Device = []types.BaseVirtualDevice{
				scsi(types.VirtualSCSISharingNoSharing), diskOn(2000, 1000, 0, "Hard disk 1", backing("persistent")), independent,
			}
			p := &pointInTime{}
			p.addDisks(&capture{config: config})
			if len(p.disks) != 1 || p.disks[0].key != "2000" {
				t.Errorf("a lease is expected to have %d disks, want the persistent one", len(p.disks))
			}
			found := deviceObstacles(config.Hardware.Device)
			if len(found) != 1 || found[0].Disk != diskKey(independent) {
				t.Errorf("got %+v, want an obstacle for the independent disk", found)
			}
			if got := describeBacking(independent.Backing).fileName; got != file.FileName {
				t.Errorf("got the file %q", got)
			}
		})
	}
}
