package lab

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
)

// WriteDisk writes to a disk of a VM as its running guest does. Disks count from 0 in the order of the
// VM's devices.
func (l *Lab) WriteDisk(vm string, disk int, offset int64, p []byte) error {
	return l.onDisk(vm, disk, func(file string) error { return l.store.WriteAt(file, p, offset) })
}

// ReadDisk reads from a disk of a VM as its running guest sees it.
func (l *Lab) ReadDisk(vm string, disk int, offset int64, p []byte) error {
	return l.onDisk(vm, disk, func(file string) error { return l.store.ReadAt(file, p, offset) })
}

// onDisk does something with the file that a VM writes to. The VM is locked, so that no snapshot comes
// between.
func (l *Lab) onDisk(name string, disk int, do func(file string) error) error {
	vm, ok := l.findEntity("VirtualMachine", name).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("no virtual machine %q", name)
	}
	var err error
	ctx := l.background()
	ctx.WithLock(vm, func() {
		disks := disksOf(vm.Config.Hardware.Device)
		if disk < 0 || disk >= len(disks) || diskFile(disks[disk]) == "" {
			err = fmt.Errorf("virtual machine %q has no disk %d", name, disk)
			return
		}
		err = do(diskFile(disks[disk]))
	})
	return err
}
