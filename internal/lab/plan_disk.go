package lab

import (
	"fmt"
	"path"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// A diskOp is one change of a disk's file.
type diskOp struct {
	kind     types.VirtualDeviceConfigSpecFileOperation // create, destroy or, here only, "extend" and "attach"
	file     string
	parent   string // of a created file
	source   string // that a created file is a copy of
	capacity int64
	thick    bool
	make     diskMake
	uuid     string
}

// A diskMake is what a disk's file says about how it was made, beside its provisioning.
type diskMake struct {
	scrubbed bool   // eagerly
	format   string // of its sectors
}

const (
	opCreate  = types.VirtualDeviceConfigSpecFileOperationCreate
	opReplace = types.VirtualDeviceConfigSpecFileOperationReplace
	opDestroy = types.VirtualDeviceConfigSpecFileOperationDestroy
	opExtend  = types.VirtualDeviceConfigSpecFileOperation("extend")
	opAttach  = types.VirtualDeviceConfigSpecFileOperation("attach")
)

// addDisk plans a disk with a new file, a copy of source unless that is empty, or with one that exists.
func (p *plan) addDisk(
	index int, spec *types.VirtualDeviceConfigSpec, d *types.VirtualDisk, source string,
) types.BaseMethodFault {
	if _, ide := object.VirtualDeviceList(p.devices).FindByKey(d.ControllerKey).(*types.VirtualIDEController); ide && p.on {
		return &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: poweredOn}
	}
	b := backing(d)
	if b == nil {
		return p.addRawDisk(index, d)
	}
	fillDisk(d, b)
	if fault := checkDiskMode(b); fault != nil {
		return fault
	}
	var fault types.BaseMethodFault
	switch spec.FileOperation {
	case opCreate, opReplace:
		fault = p.createDisk(index, spec, source)
	case "":
		fault = p.attachDisk(d, b)
	default:
		return invalidDevice(index, "fileOperation")
	}
	if fault != nil {
		return fault
	}
	p.describeDisk(d, b)
	return nil
}

// addRawDisk accepts a raw device mapping, which has no content in the lab.
func (p *plan) addRawDisk(index int, d *types.VirtualDisk) types.BaseMethodFault {
	switch d.Backing.(type) {
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo, *types.VirtualDiskRawDiskVer2BackingInfo:
		d.CapacityInKB = max(d.CapacityInKB, d.CapacityInBytes/1024)
		d.CapacityInBytes = max(d.CapacityInBytes, d.CapacityInKB*1024)
		return nil
	}
	return &types.DeviceUnsupportedForVmPlatform{InvalidDeviceSpec: *invalidDevice(index, "backing")}
}

// fillDisk sets what a real host reports for a disk without being told.
func fillDisk(d *types.VirtualDisk, b *types.VirtualDiskFlatVer2BackingInfo) {
	no := func(p **bool) {
		if *p == nil {
			*p = types.NewBool(false)
		}
	}
	no(&b.ThinProvisioned)
	no(&b.EagerlyScrub)
	no(&b.WriteThrough)
	no(&b.Split)
	no(&b.DigestEnabled)
	no(&d.NativeUnmanagedLinkedClone)
	if b.DiskMode == "" {
		b.DiskMode = string(types.VirtualDiskModePersistent)
	}
	if b.Sharing == "" {
		b.Sharing = string(types.VirtualDiskSharingSharingNone)
	}
	io := d.StorageIOAllocation
	if io == nil {
		io = new(types.StorageIOAllocationInfo)
		d.StorageIOAllocation = io
	}
	if io.Limit == nil {
		io.Limit = types.NewInt64(-1)
	}
	if io.Reservation == nil {
		io.Reservation = types.NewInt32(0)
	}
	if io.Shares == nil {
		io.Shares = &types.SharesInfo{Level: types.SharesLevelNormal}
	}
	switch io.Shares.Level {
	case types.SharesLevelLow:
		io.Shares.Shares = 500
	case types.SharesLevelNormal:
		io.Shares.Shares = 1000
	case types.SharesLevelHigh:
		io.Shares.Shares = 2000
	}
	shares := *io.Shares
	d.Shares = &shares
}

func checkDiskMode(b *types.VirtualDiskFlatVer2BackingInfo) types.BaseMethodFault {
	switch types.VirtualDiskMode(b.DiskMode) {
	case types.VirtualDiskModePersistent, types.VirtualDiskModeNonpersistent, types.VirtualDiskModeUndoable,
		types.VirtualDiskModeAppend, types.VirtualDiskModeIndependent_persistent,
		types.VirtualDiskModeIndependent_nonpersistent:
		return nil
	}
	return &types.InvalidArgument{InvalidProperty: "diskMode"}
}

// capacityOf is the capacity that a client wants, in bytes; -1 when its two fields contradict each other.
func capacityOf(d *types.VirtualDisk) int64 {
	switch {
	case d.CapacityInBytes == 0:
		return d.CapacityInKB * 1024
	case d.CapacityInKB != 0 && d.CapacityInKB != d.CapacityInBytes/1024:
		return -1
	}
	return d.CapacityInBytes
}

func (p *plan) createDisk(index int, spec *types.VirtualDeviceConfigSpec, source string) types.BaseMethodFault {
	d, ok := spec.Device.(*types.VirtualDisk)
	if !ok || backing(d) == nil {
		return invalidDevice(index, "device")
	}
	b := backing(d)
	o := diskOp{
		kind: opCreate, capacity: capacityOf(d), thick: !*b.ThinProvisioned, source: source,
		make: diskMake{scrubbed: isTrue(b.EagerlyScrub), format: d.VirtualDiskFormat},
	}
	if b.Parent != nil {
		info, err := p.lab.store.Stat(b.Parent.FileName)
		if err != nil {
			return storeFault(b.Parent.FileName, err)
		}
		o.parent, o.capacity, o.thick = b.Parent.FileName, info.Capacity, false
	}
	if o.capacity <= 0 || o.capacity%512 != 0 {
		return invalidDevice(index, "capacityInBytes")
	}
	file, fault := p.fileName(b.FileName)
	if fault != nil {
		return fault
	}
	if p.taken[file] || p.lab.exists(file) {
		if spec.FileOperation != opReplace {
			return &types.FileAlreadyExists{FileFault: fileFault(file)}
		}
		p.ops = append(p.ops, diskOp{kind: opDestroy, file: file})
	}
	b.FileName = file
	o.file = file
	if b.Uuid == "" {
		b.Uuid = newDiskUUID()
	}
	o.uuid = strings.ToLower(b.Uuid)
	b.Uuid = o.uuid
	d.CapacityInBytes, d.CapacityInKB = o.capacity, o.capacity/1024
	if b.Parent != nil {
		b.Parent = p.lab.backingOf(b.Parent.FileName, b)
		b.DeltaDiskFormat = string(types.VirtualDiskDeltaDiskFormatRedoLogFormat)
	}
	p.taken[file] = true
	p.ops = append(p.ops, o)
	if o.thick {
		p.need[datastoreName(file)] += o.capacity
	}
	return nil
}

// newDiskUUID is a disk's identity; those of VMware begin with 6000C29.
func newDiskUUID() string {
	return "6000c29" + uuid.NewString()[7:]
}

// fileName completes the name of a file to be made.
func (p *plan) fileName(name string) (string, types.BaseMethodFault) {
	dir := p.dir
	if name != "" {
		var dp object.DatastorePath
		if !dp.FromString(name) {
			return "", &types.InvalidDatastorePath{DatastorePath: name}
		}
		if p.lab.datastoreOf(name) == nil {
			return "", &types.InvalidDatastore{Name: dp.Datastore}
		}
		if path.Ext(dp.Path) == ".vmdk" {
			return dp.String(), nil
		}
		if dp.Path != "" {
			dir = strings.TrimSuffix(dp.String(), "/")
		} else if datastoreName(p.dir) != dp.Datastore {
			dir = fmt.Sprintf("[%s] %s", dp.Datastore, p.name)
		}
	}
	for i := 0; ; i++ {
		file := fmt.Sprintf("%s/%s.vmdk", dir, p.name)
		if i > 0 {
			file = fmt.Sprintf("%s/%s_%d.vmdk", dir, p.name, i)
		}
		if !p.taken[file] && !p.lab.exists(file) {
			return file, nil
		}
	}
}

func datastoreName(file string) string {
	var dp object.DatastorePath
	dp.FromString(file)
	return dp.Datastore
}

// attachDisk plans a disk with a file that exists: capacity, identity and how it was made are the file's.
func (p *plan) attachDisk(d *types.VirtualDisk, b *types.VirtualDiskFlatVer2BackingInfo) types.BaseMethodFault {
	info, err := p.lab.store.Stat(b.FileName)
	if err != nil {
		return &types.FileNotFound{FileFault: fileFault(b.FileName)}
	}
	for _, other := range disksOf(p.devices) {
		if diskFile(other) == b.FileName {
			return &types.FileLocked{FileFault: fileFault(b.FileName)}
		}
	}
	if info.Children > 0 {
		return &types.FileLocked{FileFault: fileFault(b.FileName)} // somebody stands on it
	}
	d.CapacityInBytes, d.CapacityInKB = info.Capacity, info.Capacity/1024
	known := p.lab.diskUUID(b.FileName)
	if b.Uuid == "" {
		b.Uuid = known
	}
	b.Uuid = strings.ToLower(b.Uuid)
	b.ThinProvisioned = types.NewBool(!p.lab.isThick(b.FileName))
	made := p.lab.madeAs(b.FileName)
	b.EagerlyScrub, d.VirtualDiskFormat = types.NewBool(made.scrubbed), made.format
	full := p.lab.backingOf(b.FileName, b)
	b.Parent, b.DeltaDiskFormat = full.Parent, full.DeltaDiskFormat
	p.ops = append(p.ops, diskOp{kind: opAttach, file: b.FileName, uuid: b.Uuid})
	return nil
}

// describeDisk sets what follows from the rest.
func (p *plan) describeDisk(d *types.VirtualDisk, b *types.VirtualDiskFlatVer2BackingInfo) {
	if ds := p.lab.datastoreOf(b.FileName); ds != nil {
		ref := ds.Self
		b.Datastore = &ref
	}
	if d.DiskObjectId == "" {
		d.DiskObjectId = fmt.Sprintf("%s-%d", strings.TrimPrefix(p.vm.Value, "vm-"), d.Key)
	}
	d.DeviceInfo.GetDescription().Summary = thousands(d.CapacityInKB) + " KB"
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// hasSnapshots says whether a disk's file is part of a chain that something else stands on.
func (p *plan) hasSnapshots(d *types.VirtualDisk) bool {
	b := backing(d)
	return b != nil && (b.Parent != nil || p.chain[b.FileName])
}

func (p *plan) removeDisk(index int, spec *types.VirtualDeviceConfigSpec, d *types.VirtualDisk) types.BaseMethodFault {
	if spec.FileOperation != opDestroy || backing(d) == nil {
		return nil
	}
	file := diskFile(d)
	if info, err := p.lab.store.Stat(file); p.hasSnapshots(d) || err == nil && info.Children > 0 {
		return &types.InvalidDeviceOperation{
			InvalidDeviceSpec: *invalidDevice(index, "fileOperation"), BadOp: spec.Operation, BadFileOp: spec.FileOperation,
		}
	}
	p.ops = append(p.ops, diskOp{kind: opDestroy, file: file})
	p.taken[file] = false
	return nil
}

// editDisk plans a change of a disk: its size, its settings or its file.
func (p *plan) editDisk(
	index int, spec *types.VirtualDeviceConfigSpec, was, d *types.VirtualDisk,
) types.BaseMethodFault {
	old, b := backing(was), backing(d)
	if old == nil || b == nil {
		return nil
	}
	refused := &types.InvalidDeviceOperation{InvalidDeviceSpec: *invalidDevice(index, "backing"), BadOp: spec.Operation}
	fillDisk(d, b)
	if d.DiskObjectId == "" {
		d.DiskObjectId = was.DiskObjectId
	}
	if fault := checkDiskMode(b); fault != nil {
		return fault
	}
	if b.FileName != "" && b.FileName != old.FileName {
		if p.hasSnapshots(was) || p.on {
			return refused
		}
		b.Uuid = ""
		if fault := p.attachDisk(d, b); fault != nil {
			return fault
		}
		p.describeDisk(d, b)
		return nil
	}
	if b.DiskMode != old.DiskMode && (p.on || p.hasSnapshots(was)) {
		return refused
	}
	b.FileName, b.Parent, b.DeltaDiskFormat, b.Datastore = old.FileName, old.Parent, old.DeltaDiskFormat, old.Datastore
	b.ThinProvisioned, b.EagerlyScrub, b.ChangeId = old.ThinProvisioned, old.EagerlyScrub, old.ChangeId
	if b.Uuid == "" {
		b.Uuid = old.Uuid
	}
	b.Uuid = strings.ToLower(b.Uuid)
	if b.Uuid != old.Uuid {
		p.ops = append(p.ops, diskOp{kind: opAttach, file: b.FileName, uuid: b.Uuid})
	}
	want := was.CapacityInBytes
	switch {
	case d.CapacityInBytes != 0 && d.CapacityInBytes != was.CapacityInBytes:
		want = d.CapacityInBytes
	case d.CapacityInKB != 0 && d.CapacityInKB != was.CapacityInKB:
		want = d.CapacityInKB * 1024
	}
	d.CapacityInBytes, d.CapacityInKB = want, want/1024
	switch {
	case want == was.CapacityInBytes:
		return nil
	case want < was.CapacityInBytes || want%512 != 0 || p.hasSnapshots(was):
		return refused
	}
	p.ops = append(p.ops, diskOp{kind: opExtend, file: b.FileName, capacity: want})
	p.extends = append(p.extends, d.Key)
	if p.lab.isThick(b.FileName) {
		p.need[datastoreName(b.FileName)] += want - was.CapacityInBytes
	}
	p.describeDisk(d, b)
	return nil
}

// checkSpace refuses more thick disks than the datastores have room for.
func (p *plan) checkSpace() types.BaseMethodFault {
	for name, bytes := range p.need {
		if bytes > datastoreCapacity-p.lab.reserved(name) {
			return &types.NoDiskSpace{FileFault: fileFault("[" + name + "]"), Datastore: name}
		}
	}
	return nil
}
