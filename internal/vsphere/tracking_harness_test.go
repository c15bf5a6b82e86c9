package vsphere

import (
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// saboteur plays those who do something to VMs of a lab behind our back.
func saboteur(l *lab.Lab, c *Client) hypervisortest.Saboteur {
	return hypervisortest.Saboteur{
		SetChangeTracking: func(t *testing.T, vm string, on bool) {
			t.Helper()
			reconfigure(t, c, vm, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &on})
		},
		Revert: func(t *testing.T, vm string, id hypervisor.SnapshotID) {
			t.Helper()
			task, err := c.vm(find(t, c, hypervisor.VMRef(vm)).ID).RevertToSnapshot(t.Context(), string(id), true)
			wait(t, task, err)
		},
		Resize: func(t *testing.T, vm string, n int, capacity int64) {
			t.Helper()
			editDisk(t, c, vm, n, func(d *types.VirtualDisk) { d.CapacityInBytes, d.CapacityInKB = capacity, capacity>>10 })
		},
		FailChanges: func(*testing.T) { l.Fault(lab.Fault{Method: "QueryChangedDiskAreas", Fault: "FileFault"}) },
	}
}

func wait(t *testing.T, task *object.Task, err error) {
	t.Helper()
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func reconfigure(t *testing.T, c *Client, vm string, spec types.VirtualMachineConfigSpec) {
	t.Helper()
	task, err := c.vm(find(t, c, hypervisor.VMRef(vm)).ID).Reconfigure(t.Context(), spec)
	wait(t, task, err)
}

// editDisk changes the n-th disk of a VM.
func editDisk(t *testing.T, c *Client, vm string, n int, edit func(*types.VirtualDisk)) {
	t.Helper()
	devices, err := c.vm(find(t, c, hypervisor.VMRef(vm)).ID).Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := orderedDisks(devices)[n]
	edit(d)
	reconfigure(t, c, vm, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d},
	}})
}
