package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// deltaSuffix is what the host appends to the name of a disk when a snapshot makes it go on in a new file.
var deltaSuffix = regexp.MustCompile(`-\d{6}$`)

// baseName is the name of a disk without the number of a snapshot: "[ds] vm/vm.vmdk".
func baseName(file string) string {
	return deltaSuffix.ReplaceAllString(strings.TrimSuffix(file, ".vmdk"), "") + ".vmdk"
}

// deltaName is a free name for a file on top of another one.
func (l *Lab) deltaName(file string) string {
	stem := strings.TrimSuffix(baseName(file), ".vmdk")
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s-%06d.vmdk", stem, i)
		if _, err := l.store.Stat(name); err != nil && !l.exists(name) {
			return name
		}
	}
}

// extentOf is the name of the file that holds the bytes of a disk on a real host.
func (l *Lab) extentOf(file string) string {
	stem := strings.TrimSuffix(file, ".vmdk")
	if info, err := l.store.Stat(file); err == nil && info.Parent != "" {
		return stem + "-delta.vmdk"
	}
	return stem + "-flat.vmdk"
}

// writeDescriptor makes a disk's files show in its datastore: the descriptor and an empty extent.
func (l *Lab) writeDescriptor(file string) {
	info, err := l.store.Stat(file)
	if err != nil {
		return
	}
	extent := filepath.Base(l.extentOf(file))
	kind, createType, parent := "VMFS", "vmfs", ""
	if info.Parent != "" {
		kind, createType = "VMFSSPARSE", "vmfsSparse"
		parent = fmt.Sprintf("parentFileNameHint=%q\n", filepath.Base(info.Parent))
	}
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=ffffffff\n"+
		"createType=%q\n%s\n# Extent description\nRW %d %s %q\n\n# The Disk Data Base\n#DDB\n\n"+
		"ddb.adapterType = \"lsilogic\"\nddb.thinProvisioned = \"1\"\nddb.virtualHWVersion = \"19\"\n",
		createType, parent, info.Capacity/512, kind, extent)
	if path, ok := l.path(file); ok {
		_ = os.MkdirAll(filepath.Dir(path), 0o700)
		_ = os.WriteFile(path, []byte(text), 0o600)
	}
	l.writeEmpty(l.extentOf(file), 0)
}

// removeDisk removes a disk with its files.
func (l *Lab) removeDisk(file string) error {
	extent := l.extentOf(file)
	if err := l.store.Remove(file); err != nil {
		return err
	}
	l.removeFile(file)
	l.removeFile(extent)
	return nil
}

// backingOf is the backing of a file with its parents as they are now; like is what it looks like.
func (l *Lab) backingOf(file string, like *types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDiskFlatVer2BackingInfo {
	b := clone(like)
	b.FileName, b.Parent, b.DeltaDiskFormat = file, nil, ""
	info, err := l.store.Stat(file)
	if err != nil || info.Parent == "" {
		return b
	}
	b.DeltaDiskFormat = string(types.VirtualDiskDeltaDiskFormatRedoLogFormat)
	b.Parent = l.backingOf(info.Parent, like)
	b.Parent.ChangeId = ""
	return b
}

// usedDisks are the files that a VM or a snapshot has as a disk, of all VMs: a linked clone stands on
// files of another VM. The VM's lock is held, the others' are not.
func (l *Lab) usedDisks(ctx *simulator.Context, vm *simulator.VirtualMachine) map[string]bool {
	used := map[string]bool{}
	add := func(devices []types.BaseVirtualDevice) {
		for _, d := range disksOf(devices) {
			used[diskFile(d)] = true
		}
	}
	add(vm.Config.Hardware.Device)
	if vm.Snapshot == nil {
		return used
	}
	for _, ref := range refsIn(vm.Snapshot.RootSnapshotList) {
		if s, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			ctx.WithLock(s, func() { add(s.Config.Hardware.Device) })
		}
	}
	return used
}
