package lab

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// maxChangedAreas is how many extents one answer of QueryChangedDiskAreas has at most; real servers cut
// at about as many.
const maxChangedAreas = 2000

// tracking is the state of changed block tracking. The zero value is ready to use.
type tracking struct {
	mu    sync.Mutex
	disks map[trackedDisk]string // the tracking's identity, which change IDs begin with
}

// A trackedDisk is a disk of a VM, whatever its files are called.
type trackedDisk struct {
	vm   types.ManagedObjectReference
	disk int // of the store
}

// markTracking is what a snapshot does to change tracking. It closes the epoch of every disk that runs,
// and writes the change IDs into frozen, the devices of the snapshot's configuration. Where the VM has
// tracking enabled, it starts now if it hasn't yet; where it hasn't, it ends. The VM's lock is held,
// and the disks still run on the files that are about to be frozen.
func (l *Lab) markTracking(vm *simulator.VirtualMachine, frozen []types.BaseVirtualDevice) error {
	enabled := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	ids := make(map[int32]string)
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		b := backing(d)
		if b == nil || independent(b.DiskMode) {
			continue
		}
		epoch, err := l.store.Mark(b.FileName)
		if err != nil {
			return err
		}
		if enabled {
			ids[d.Key] = fmt.Sprintf("%s/%d", l.trackingID(vm.Self, d), epoch)
		}
	}
	if !enabled {
		l.resetTracking(vm)
	}
	for _, d := range disksOf(frozen) {
		if b := backing(d); b != nil {
			b.ChangeId = ids[d.Key]
		}
	}
	return nil
}

// trackingID is the identity of a disk's tracking, which starts if it hasn't yet.
func (l *Lab) trackingID(vm types.ManagedObjectReference, device *types.VirtualDisk) string {
	info, _ := l.store.Shape(diskFile(device)) // a disk without a file has no changes either
	l.tracking.mu.Lock()
	defer l.tracking.mu.Unlock()
	d := trackedDisk{vm, info.Disk}
	id, ok := l.tracking.disks[d]
	if !ok {
		if l.tracking.disks == nil {
			l.tracking.disks = make(map[trackedDisk]string)
		}
		id = newTrackingID()
		l.tracking.disks[d] = id
	}
	return id
}

// newTrackingID is a random identity in the form of a real one: "52 2d 7b 8f ac 61 51 cc-77 4c …".
func newTrackingID() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	raw[0] = 0x52
	hexadecimal := make([]string, len(raw))
	for i := range raw {
		hexadecimal[i] = hex.EncodeToString(raw[i : i+1])
	}
	return strings.Join(hexadecimal[:8], " ") + "-" + strings.Join(hexadecimal[8:], " ")
}

// resetTracking ends the tracking of some disks of a VM, by their keys, or of all: it starts anew, under
// another identity, at the next snapshot. That is what an extension and a change of the setting do. A
// revert does not, which is what makes it dangerous: a change ID from before it stays valid, but what the
// revert undid is not among the changes since.
func (l *Lab) resetTracking(vm *simulator.VirtualMachine, keys ...int32) {
	l.tracking.mu.Lock()
	defer l.tracking.mu.Unlock()
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		if info, err := l.store.Shape(diskFile(d)); err == nil && slices.Contains(keys, d.Key) {
			delete(l.tracking.disks, trackedDisk{vm.Self, info.Disk})
		}
	}
	for d := range l.tracking.disks {
		if len(keys) == 0 && d.vm == vm.Self {
			delete(l.tracking.disks, d)
		}
	}
}

// errEnough ends a walk over extents.
var errEnough = errors.New("enough")

// QueryChangedDiskAreas lists what a disk has allocated (change ID "*") or what changed since an earlier
// change ID, as of a snapshot, or as of now for a VM that is powered off.
func (vm *virtualMachine) QueryChangedDiskAreas(
	ctx *simulator.Context, r *types.QueryChangedDiskAreas,
) soap.HasFault {
	body := new(methods.QueryChangedDiskAreasBody)
	fail := func(fault types.BaseMethodFault) soap.HasFault {
		body.Fault_ = simulator.Fault(faultMessage(fault), fault)
		return body
	}
	d, current, fault := vm.trackedDisk(ctx, r)
	if fault != nil {
		return fail(fault)
	}
	if r.StartOffset < 0 || r.StartOffset >= d.CapacityInBytes {
		return fail(invalidArgument("startOffset"))
	}
	if current == "" { // tracking didn't run when the disk was frozen
		return fail(&types.FileFault{File: ctkFile(diskFile(d))})
	}
	since, fault := sinceEpoch(current, r.ChangeId, diskFile(d))
	if fault != nil {
		return fail(fault)
	}
	info := types.DiskChangeInfo{StartOffset: r.StartOffset, Length: d.CapacityInBytes - r.StartOffset}
	add := func(off, length int64) error {
		end := off + length
		if end <= r.StartOffset {
			return nil
		}
		if n := len(info.ChangedArea); n == maxChangedAreas {
			last := info.ChangedArea[n-1]
			info.Length = last.Start + last.Length - r.StartOffset
			return errEnough
		}
		off = max(off, r.StartOffset)
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: off, Length: end - off})
		return nil
	}
	var err error
	if r.ChangeId == "*" {
		err = vm.lab.store.Extents(diskFile(d), add)
	} else {
		err = vm.lab.store.Changed(diskFile(d), since, add)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return fail(storeFault(diskFile(d), err))
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: info}
	return body
}

// trackedDisk finds the disk that a query is about, and its change ID at that point.
func (vm *virtualMachine) trackedDisk(
	ctx *simulator.Context, r *types.QueryChangedDiskAreas,
) (*types.VirtualDisk, string, types.BaseMethodFault) {
	devices := vm.Config.Hardware.Device
	if r.Snapshot != nil {
		s, ok := ctx.Map.Get(*r.Snapshot).(*simulator.VirtualMachineSnapshot)
		if !ok || s.Vm != vm.Self {
			return nil, "", &types.NotFound{}
		}
		devices = s.Config.Hardware.Device
	} else if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		return nil, "", invalidArgument("snapshot")
	}
	for _, d := range disksOf(devices) {
		if d.Key != r.DeviceKey {
			continue
		}
		b := backing(d)
		switch {
		case b == nil || independent(b.DiskMode):
			return nil, "", invalidArgument("deviceKey")
		case r.Snapshot != nil:
			return d, b.ChangeId, nil
		case vm.Config.ChangeTrackingEnabled == nil || !*vm.Config.ChangeTrackingEnabled:
			return d, "", nil
		}
		return d, fmt.Sprintf("%s/%d", vm.lab.trackingID(vm.Self, d), int64(1)<<62), nil
	}
	return nil, "", invalidArgument("deviceKey")
}

// sinceEpoch is the epoch of a change ID. It must come from the tracking that the disk's current change
// ID is of, and from before it.
func sinceEpoch(current, id, file string) (int64, types.BaseMethodFault) {
	if id == "*" {
		return 0, nil
	}
	base, epoch, ok := parseChangeID(id)
	if !ok {
		return 0, invalidArgument("changeId")
	}
	running, now, _ := parseChangeID(current)
	if base != running || epoch > now {
		return 0, &types.FileFault{File: ctkFile(file)}
	}
	return epoch, nil
}

// parseChangeID splits a change ID.
func parseChangeID(id string) (tracking string, epoch int64, ok bool) {
	tracking, number, ok := strings.Cut(id, "/")
	epoch, err := strconv.ParseInt(number, 10, 64)
	return tracking, epoch, ok && err == nil && epoch >= 0 && tracking != ""
}

func invalidArgument(property string) *types.InvalidArgument {
	return &types.InvalidArgument{InvalidProperty: property}
}

// ctkFile is the name of the file that a disk's change tracking is kept in.
func ctkFile(disk string) string { return strings.TrimSuffix(disk, ".vmdk") + "-ctk.vmdk" }
