package lab

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
)

// WriteDisk writes to a disk of a VM as its running guest does. Disks count from 0 in the order of the
// VM's devices.
func (l *Lab) WriteDisk(vm string, disk int, offset int64, p []byte) error {
	file, err := l.guestDisk(vm, disk)
	if err != nil {
		return err
	}
	return l.store.WriteAt(file, p, offset)
}

// ReadDisk reads from a disk of a VM as its running guest sees it.
func (l *Lab) ReadDisk(vm string, disk int, offset int64, p []byte) error {
	file, err := l.guestDisk(vm, disk)
	if err != nil {
		return err
	}
	return l.store.ReadAt(file, p, offset)
}

// guestDisk is the file that a VM writes to.
func (l *Lab) guestDisk(name string, disk int) (string, error) {
	vm, ok := l.findEntity("VirtualMachine", name).(*simulator.VirtualMachine)
	if !ok {
		return "", fmt.Errorf("no virtual machine %q", name)
	}
	var file string
	ctx := l.background()
	ctx.WithLock(vm, func() {
		if disks := disksOf(vm.Config.Hardware.Device); disk >= 0 && disk < len(disks) {
			file = diskFile(disks[disk])
		}
	})
	if file == "" {
		return "", fmt.Errorf("virtual machine %q has no disk %d", name, disk)
	}
	return file, nil
}
