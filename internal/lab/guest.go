package lab

import (
	"fmt"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
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

// GuestBoot says what a guest does when its VM is powered on.
type GuestBoot int

// What guests do. Without being told otherwise, one comes up if the lab knows that it has VMware Tools, which
// it does of VMs that it was started with.
const (
	GuestComesUp GuestBoot = iota + 1 // VMware Tools run at once, with a heartbeat and an address
	GuestHangs                        // nothing is heard of it, until BootGuest
)

// SetGuestBoot says what the guest of a VM does when the VM is powered on from now on. The VM may be one that
// doesn't exist yet. A name that ends with an asterisk is that of all VMs whose names begin like it, and of which
// nothing else was said.
func (l *Lab) SetGuestBoot(vm string, boot GuestBoot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guests[vm] = boot
}

// BootGuest makes the guest of a running VM come up: VMware Tools run, with a heartbeat and an address.
func (l *Lab) BootGuest(name string) error {
	vm, ok := l.findEntity("VirtualMachine", name).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("no virtual machine %q", name)
	}
	var err error
	ctx := l.background()
	ctx.WithLock(vm, func() {
		if vm.Runtime.PowerState != poweredOn {
			err = fmt.Errorf("virtual machine %q is %s", name, vm.Runtime.PowerState)
			return
		}
		ctx.Update(vm, append(toolsInstalled(), guestReports(vm, true)...))
	})
	return err
}

// guestComesUp says whether VMware Tools run when a VM is powered on. The VM's lock is held.
func (l *Lab) guestComesUp(vm *simulator.VirtualMachine) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	boot, told := l.guests[vm.Name]
	for name, of := range l.guests {
		if prefix, ok := strings.CutSuffix(name, "*"); ok && !told && strings.HasPrefix(vm.Name, prefix) {
			boot = of
		}
	}
	switch boot {
	case GuestComesUp:
		return true
	case GuestHangs:
		return false
	}
	return hasTools(vm)
}

// guestReports is what is known of a guest, from its Tools if they run.
func guestReports(vm *simulator.VirtualMachine, up bool) []types.PropertyChange {
	running, guest := string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning), "notRunning"
	heartbeat := types.ManagedEntityStatusGray
	var host, address string
	if up {
		running, guest = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning), "running"
		heartbeat = types.ManagedEntityStatusGreen
		host, address = vm.Config.Name, guestAddress(vm.Config.InstanceUuid)
	}
	return []types.PropertyChange{
		{Name: "guestHeartbeatStatus", Val: heartbeat},
		{Name: "guest.guestState", Val: guest},
		{Name: "guest.hostName", Val: host},
		{Name: "guest.ipAddress", Val: address},
		{Name: "summary.guest.hostName", Val: host},
		{Name: "summary.guest.ipAddress", Val: address},
		{Name: "guest.toolsRunningStatus", Val: running},
		{Name: "summary.guest.toolsRunningStatus", Val: running},
	}
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
