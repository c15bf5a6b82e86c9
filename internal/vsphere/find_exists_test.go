package vsphere

import (
	"errors"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// editVM changes what the server knows of a VM. It returns a function that changes it back.
func editVM(t *testing.T, l *lab.Lab, id hypervisor.VMID, edit func(*simulator.VirtualMachine)) (undo func()) {
	t.Helper()
	ctx := *l.Model().Service.Context
	object := ctx.Map.Get(vmRef(id))
	vm, ok := object.(*simulator.VirtualMachine)
	if !ok {
		t.Fatalf("the VM is a %T", object)
	}
	var config *types.VirtualMachineConfigInfo
	var state types.VirtualMachineConnectionState
	ctx.WithLock(vm, func() {
		config, state = vm.Config, vm.Runtime.ConnectionState
		changed := *config
		vm.Config = &changed
		edit(vm)
	})
	return func() {
		ctx.WithLock(vm, func() { vm.Config, vm.Runtime.ConnectionState = config, state })
	}
}

// TestVMByInstanceUUID_unreadable looks for a VM whose configuration was readable once.
func TestVMByInstanceUUID_unreadable(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01", "web02")
	vm := find(t, c, "web01")
	refused := func(name string, ask func() (*hypervisor.VM, error)) {
		t.Helper()
		got, err := ask()
		var gone *hypervisor.VMNotFoundError
		if !errors.Is(err, hypervisor.ErrOutOfReach) || errors.As(err, &gone) || !strings.Contains(err.Error(), vm.Path) {
			t.Errorf("%s: got %+v and %v, want ErrOutOfReach", name, got, err)
		}
	}
	byUUID := func(c *Client) func() (*hypervisor.VM, error) {
		return func() (*hypervisor.VM, error) { return c.VMByInstanceUUID(t.Context(), vm.InstanceUUID) }
	}
	knowing := dial(t, labConfig(l))
	if _, err := knowing.VMByInstanceUUID(t.Context(), vm.InstanceUUID); err != nil {
		t.Fatal(err)
	}
	undo := editVM(t, l, vm.ID, func(vm *simulator.VirtualMachine) {
		vm.Config.InstanceUuid, vm.Config.Uuid = "", ""
		vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateInaccessible
	})
	refused("with a hint", byUUID(knowing))
	refused("by name", func() (*hypervisor.VM, error) { return c.FindVM(t.Context(), "web01") })
	refused("by ID", func() (*hypervisor.VM, error) { return c.FindVM(t.Context(), hypervisor.VMRef(vm.ID)) })
	if _, err := c.FindVM(t.Context(), "web02"); err != nil {
		t.Errorf("another VM: %v", err)
	}
	undo()
	if got, err := byUUID(knowing)(); err != nil || got.ID != vm.ID {
		t.Errorf("got %+v and %v afterwards", got, err)
	}
}

// TestVMByInstanceUUID_indexDisagrees has the server's index name a VM that shows another identity.
func TestVMByInstanceUUID_indexDisagrees(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	vm := find(t, c, "web01")
	refs := []types.ManagedObjectReference{vmRef(vm.ID)}
	if got, err := c.identified(t.Context(), c.reads.vms, refs, vm.InstanceUUID); err != nil || got.ID != vm.ID {
		t.Errorf("got %+v and %v", got, err)
	}
	got, err := c.identified(t.Context(), c.reads.vms, refs, "00000000-0000-4000-8000-000000000001")
	if !errors.Is(err, hypervisor.ErrOutOfReach) || !strings.Contains(err.Error(), vm.InstanceUUID) {
		t.Errorf("got %+v and %v, want ErrOutOfReach", got, err)
	}
}

func TestVMByHint_unreadable(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01")
	c.hints.set(vm.InstanceUUID, vmRef(vm.ID))
	editVM(t, l, vm.ID, func(vm *simulator.VirtualMachine) { vm.Config.InstanceUuid = "" })
	if _, err := c.vmByHint(t.Context(), c.reads.vms, vm.InstanceUUID); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("got %v, want ErrOutOfReach", err)
	}
}

func TestExists(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01")
	snapshot, err := c.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		ask  func() (bool, error)
		want bool
	}{
		"VM":          {func() (bool, error) { return c.VMExists(t.Context(), vm.ID) }, true},
		"no VM":       {func() (bool, error) { return c.VMExists(t.Context(), "vm-99999") }, false},
		"snapshot":    {func() (bool, error) { return c.SnapshotExists(t.Context(), snapshot) }, true},
		"no snapshot": {func() (bool, error) { return c.SnapshotExists(t.Context(), "snapshot-99999") }, false},
	} {
		if got, err := tt.ask(); err != nil || got != tt.want {
			t.Errorf("%s: got %t and %v, want %t", name, got, err, tt.want)
		}
		l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "NoPermission", Count: 1})
		var denied *hypervisor.PermissionError
		if got, err := tt.ask(); !errors.As(err, &denied) {
			t.Errorf("%s: got %t and %v, want a PermissionError", name, got, err)
		}
		l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "ManagedObjectNotFound", Count: 1})
		if got, err := tt.ask(); err == nil {
			t.Errorf("%s: got %t although the server misses something else", name, got)
		}
	}
	if _, err := c.VMExists(t.Context(), ""); err == nil {
		t.Error("no handle is no VM")
	}
}

// TestExists_hiddenFromUser has the server keep a property back instead of failing the call.
func TestExists_hiddenFromUser(t *testing.T) {
	t.Parallel()
	ref := vmRef("vm-1")
	for name, tt := range map[string]struct {
		objects map[types.ManagedObjectReference]types.ObjectContent
		exists  bool
		fails   bool
	}{
		"kept back": {map[types.ManagedObjectReference]types.ObjectContent{ref: {Obj: ref, MissingSet: []types.MissingProperty{{
			Path: "runtime", Fault: types.LocalizedMethodFault{Fault: &types.NoPermission{PrivilegeId: "System.View"}},
		}}}}, false, true},
		"gone meanwhile": {map[types.ManagedObjectReference]types.ObjectContent{ref: {Obj: ref, MissingSet: []types.MissingProperty{{
			Path: "runtime", Fault: types.LocalizedMethodFault{Fault: &types.ManagedObjectNotFound{Obj: ref}},
		}}}}, false, false},
		"not mentioned": {nil, false, true},
		"there": {map[types.ManagedObjectReference]types.ObjectContent{ref: {Obj: ref, PropSet: []types.DynamicProperty{{
			Name: "runtime", Val: types.VirtualMachineRuntimeInfo{},
		}}}}, true, false},
	} {
		exists, err := existsIn(tt.objects, nil, ref)
		if exists != tt.exists || (err != nil) != tt.fails {
			t.Errorf("%s: got %t and %v", name, exists, err)
		}
	}
}
