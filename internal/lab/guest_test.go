package lab_test

import (
	"testing"

	"github.com/vmware/govmomi/vim25/mo"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestGuestBoot powers a VM off and on with guests that do as they are told.
func TestGuestBoot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	want := func(step, tools, heartbeat string, address bool) {
		t.Helper()
		var vm mo.VirtualMachine
		if err := e.vm.Properties(e.ctx, e.vm.Reference(), []string{"guest", "guestHeartbeatStatus"}, &vm); err != nil {
			t.Fatal(err)
		}
		if vm.Guest.ToolsRunningStatus != tools || string(vm.GuestHeartbeatStatus) != heartbeat || (vm.Guest.IpAddress != "") != address {
			t.Errorf("%s: %s, %s, address %q", step, vm.Guest.ToolsRunningStatus, vm.GuestHeartbeatStatus, vm.Guest.IpAddress)
		}
	}
	cycle := func() {
		t.Helper()
		task, err := e.vm.PowerOff(e.ctx)
		if err == nil {
			err = task.Wait(e.ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		want("off", "guestToolsNotRunning", "gray", false)
		if task, err = e.vm.PowerOn(e.ctx); err == nil {
			err = task.Wait(e.ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want("from the start", "guestToolsRunning", "green", true)
	cycle()
	want("on again", "guestToolsRunning", "green", true)
	e.SetGuestBoot("web01", lab.GuestHangs)
	cycle()
	want("hanging", "guestToolsNotRunning", "gray", false)
	if err := e.BootGuest("web01"); err != nil {
		t.Fatal(err)
	}
	want("booted", "guestToolsRunning", "green", true)
	e.SetGuestBoot("web01", lab.GuestComesUp)
	cycle()
	want("coming up", "guestToolsRunning", "green", true)

	if err := e.BootGuest("nobody"); err == nil {
		t.Error("the guest of a VM that doesn't exist came up")
	}
	task, err := e.vm.PowerOff(e.ctx)
	if err == nil {
		err = task.Wait(e.ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := e.BootGuest("web01"); err == nil {
		t.Error("the guest of a VM that is off came up")
	}
}
