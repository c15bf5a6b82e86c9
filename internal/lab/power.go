package lab

import (
	"fmt"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// setPower changes a VM's recorded power state. The VM's lock is held.
func (l *Lab) setPower(ctx *simulator.Context, vm *simulator.VirtualMachine, state types.VirtualMachinePowerState) {
	on := state == types.VirtualMachinePowerStatePoweredOn
	devices := clone(vm.Config.Hardware.Device)
	for _, d := range devices {
		if c := d.GetVirtualDevice().Connectable; c != nil {
			c.Connected = on && c.StartConnected
		}
	}
	changes := []types.PropertyChange{
		{Name: "runtime.powerState", Val: state},
		{Name: "summary.runtime.powerState", Val: state},
		{Name: "config.hardware.device", Val: devices},
	}
	up := false
	if on {
		now := time.Now()
		changes = append(changes,
			types.PropertyChange{Name: "runtime.bootTime", Val: now},
			types.PropertyChange{Name: "summary.runtime.bootTime", Val: now})
		if up = l.guestComesUp(vm); up && !hasTools(vm) {
			changes = append(changes, toolsInstalled()...)
		}
	}
	changes = append(changes, guestReports(vm, up)...)
	ctx.Update(vm, changes)
}

// guestAddress is an address for a guest, of the range for documentation (RFC 5737).
func guestAddress(instance string) string {
	var sum byte
	for i := range len(instance) {
		sum = sum*31 + instance[i]
	}
	return fmt.Sprintf("192.0.2.%d", 1+sum%254)
}

// hasTools says whether VMware Tools are installed in a VM's guest.
func hasTools(vm *simulator.VirtualMachine) bool {
	return vm.Guest != nil && vm.Guest.ToolsVersionStatus2 == string(types.VirtualMachineToolsVersionStatusGuestToolsCurrent)
}

// toolsInstalled is what a VM with running VMware Tools reports.
func toolsInstalled() []types.PropertyChange {
	const (
		status  = string(types.VirtualMachineToolsVersionStatusGuestToolsCurrent)
		running = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	)
	return []types.PropertyChange{
		{Name: "guest.toolsStatus", Val: types.VirtualMachineToolsStatusToolsOk},
		{Name: "guest.toolsVersionStatus2", Val: status},
		{Name: "guest.toolsRunningStatus", Val: running},
		{Name: "guest.toolsVersion", Val: "12352"},
		{Name: "guest.guestState", Val: "running"},
		{Name: "guest.guestOperationsReady", Val: true},
		{Name: "summary.guest.toolsStatus", Val: types.VirtualMachineToolsStatusToolsOk},
		{Name: "summary.guest.toolsVersionStatus2", Val: status},
		{Name: "summary.guest.toolsRunningStatus", Val: running},
	}
}

// toolsRun says whether VMware Tools run. The VM's lock is held.
func toolsRun(vm *simulator.VirtualMachine) bool {
	return vm.Guest != nil &&
		vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
}
