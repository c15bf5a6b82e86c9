package vsphere

import "github.com/vmware/govmomi/vim25/types"

// A diskBacking is what the kinds of backings of disks have in common, and what decides about them.
type diskBacking struct {
	mode, uuid   string
	fileName     string
	sharing      string
	thin, eager  *bool
	writeThrough *bool
	raw          bool // a device of the host
	physical     bool // a raw one that bypasses snapshots
	encrypted    bool

	changeID string // of the end of the chain; only that of a snapshot means something
	base     string // name of the file at the bottom of the chain
}

// independent tells whether snapshots leave the disk out.
func (b diskBacking) independent() bool {
	return b.mode == string(types.VirtualDiskModeIndependent_persistent) ||
		b.mode == string(types.VirtualDiskModeIndependent_nonpersistent)
}

// describeBacking reads a backing. Of a disk in a chain of snapshots the base says how it is
// provisioned, and the end of the chain has the mode.
func describeBacking(backing types.BaseVirtualDeviceBackingInfo) diskBacking {
	switch b := backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		base := b
		for base.Parent != nil {
			base = base.Parent
		}
		return diskBacking{mode: b.DiskMode, uuid: firstOf(b.Uuid, base.Uuid), fileName: b.FileName, sharing: b.Sharing,
			thin: base.ThinProvisioned, eager: base.EagerlyScrub, writeThrough: b.WriteThrough, encrypted: b.KeyId != nil,
			changeID: b.ChangeId, base: base.FileName}
	case *types.VirtualDiskSeSparseBackingInfo:
		base := b
		for base.Parent != nil {
			base = base.Parent
		}
		return diskBacking{mode: b.DiskMode, uuid: firstOf(b.Uuid, base.Uuid), fileName: b.FileName,
			thin: types.NewBool(true), writeThrough: b.WriteThrough, encrypted: b.KeyId != nil,
			changeID: b.ChangeId, base: base.FileName}
	case *types.VirtualDiskSparseVer2BackingInfo:
		base := b
		for base.Parent != nil {
			base = base.Parent
		}
		return diskBacking{mode: b.DiskMode, uuid: firstOf(b.Uuid, base.Uuid), fileName: b.FileName,
			thin: types.NewBool(true), writeThrough: b.WriteThrough, encrypted: b.KeyId != nil,
			changeID: b.ChangeId, base: base.FileName}
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		base := b
		for base.Parent != nil {
			base = base.Parent
		}
		return diskBacking{mode: b.DiskMode, uuid: firstOf(b.Uuid, base.Uuid), fileName: b.FileName, sharing: b.Sharing,
			raw: true, physical: b.CompatibilityMode == string(types.VirtualDiskCompatibilityModePhysicalMode),
			changeID: b.ChangeId, base: base.FileName}
	case types.BaseVirtualDiskRawDiskVer2BackingInfo:
		device := b.GetVirtualDiskRawDiskVer2BackingInfo()
		return diskBacking{uuid: device.Uuid, fileName: device.DescriptorFileName, sharing: device.Sharing,
			raw: true, physical: true, changeID: device.ChangeId, base: device.DescriptorFileName}
	}
	return describeOldBacking(backing)
}

// describeOldBacking reads the kinds of backings that are seldom met.
func describeOldBacking(backing types.BaseVirtualDeviceBackingInfo) diskBacking {
	switch b := backing.(type) {
	case *types.VirtualDiskLocalPMemBackingInfo:
		return diskBacking{mode: b.DiskMode, uuid: b.Uuid, fileName: b.FileName}
	case *types.VirtualDiskFlatVer1BackingInfo:
		return diskBacking{mode: b.DiskMode, fileName: b.FileName, writeThrough: b.WriteThrough}
	case *types.VirtualDiskSparseVer1BackingInfo:
		return diskBacking{mode: b.DiskMode, fileName: b.FileName, thin: types.NewBool(true), writeThrough: b.WriteThrough}
	case types.BaseVirtualDeviceFileBackingInfo:
		return diskBacking{fileName: b.GetVirtualDeviceFileBackingInfo().FileName}
	}
	return diskBacking{}
}
