package snapshot_test

import (
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

func TestReadRenameRemove(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	taken, err := m.Take(t.Context(), snapshot.Request{VM: hypervisor.VMRef(vm.Path), Name: "a", Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	id := taken.Snapshot.ID
	if err := m.Rename(t.Context(), vm.InstanceUUID, id, "b", "new"); err != nil {
		t.Fatal(err)
	}
	read, err := m.Read(t.Context(), vm.InstanceUUID, id)
	if err != nil {
		t.Fatal(err)
	}
	if s := read.Snapshot; s.Name != "b" || s.Description != "new" || s.Path != "b" || read.Consistency != quiesce.Memory {
		t.Errorf("read %+v", read)
	}
	// Names don't matter: one snapshot is called like the other's ID.
	if _, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: string(id)}); err != nil {
		t.Fatal(err)
	}
	if found, all, err := m.List(t.Context(), "web"); err != nil || len(all) != 2 || found.ID != vm.ID {
		t.Errorf("list: %v, %v, %v", found, all, err)
	}
	for range 2 { // gone is no error
		if err := m.Remove(t.Context(), vm.InstanceUUID, id, hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Read(t.Context(), vm.InstanceUUID, id); !errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		t.Errorf("read what is gone: %v", err)
	}
	if err := m.Rename(t.Context(), vm.InstanceUUID, id, "c", ""); !errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		t.Errorf("rename what is gone: %v", err)
	}
	if left := snapshots(t, hv, vm); len(left) != 1 || left[0].Name != string(id) {
		t.Errorf("left: %+v", left)
	}
}

func TestVMGone(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	taken, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	hv.Lose(vm.ID)
	if err := m.Remove(t.Context(), vm.InstanceUUID, taken.Snapshot.ID, hypervisor.RemoveOptions{}); err != nil {
		t.Errorf("remove: %v", err)
	}
	var gone *hypervisor.VMNotFoundError
	if _, err := m.Read(t.Context(), vm.InstanceUUID, taken.Snapshot.ID); !errors.As(err, &gone) {
		t.Errorf("read: %v", err)
	}
	if _, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: "a"}); !errors.As(err, &gone) {
		t.Errorf("take: %v", err)
	}
}

// TestVMHidden has the search find nothing although the VM is there.
func TestVMHidden(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	taken, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	hv.Hide(vm.ID)
	for name, do := range map[string]func() error{
		"remove": func() error {
			return m.Remove(t.Context(), vm.InstanceUUID, taken.Snapshot.ID, hypervisor.RemoveOptions{})
		},
		"read": func() error {
			_, err := m.Read(t.Context(), vm.InstanceUUID, taken.Snapshot.ID)
			return err
		},
	} {
		var gone *hypervisor.VMNotFoundError
		if err := do(); !errors.Is(err, hypervisor.ErrOutOfReach) || errors.As(err, &gone) {
			t.Errorf("%s: got %v, want ErrOutOfReach", name, err)
		}
		hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeSnapshotExists, Err: errBroken})
		if err := do(); !errors.Is(err, errBroken) || errors.As(err, &gone) {
			t.Errorf("%s: got %v, want the failure to find out", name, err)
		}
	}
}

func TestManage_failures(t *testing.T) {
	t.Parallel()
	for point, do := range map[hypervisortest.Point]func(m *snapshot.Manager, t *testing.T, vm hypervisor.VM, id hypervisor.SnapshotID) error{
		hypervisortest.BeforeRemoveSnapshot: func(m *snapshot.Manager, t *testing.T, vm hypervisor.VM, id hypervisor.SnapshotID) error {
			return m.Remove(t.Context(), vm.InstanceUUID, id, hypervisor.RemoveOptions{})
		},
		hypervisortest.BeforeRenameSnapshot: func(m *snapshot.Manager, t *testing.T, vm hypervisor.VM, id hypervisor.SnapshotID) error {
			return m.Rename(t.Context(), vm.InstanceUUID, id, "x", "")
		},
		hypervisortest.BeforeVMByInstanceUUID: func(m *snapshot.Manager, t *testing.T, vm hypervisor.VM, id hypervisor.SnapshotID) error {
			return m.Remove(t.Context(), vm.InstanceUUID, id, hypervisor.RemoveOptions{})
		},
		hypervisortest.BeforeSnapshots: func(m *snapshot.Manager, t *testing.T, vm hypervisor.VM, id hypervisor.SnapshotID) error {
			_, err := m.Read(t.Context(), vm.InstanceUUID, id)
			return err
		},
	} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			m := newManager(hv)
			taken, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			hv.Fail(hypervisortest.Fault{At: point, Err: errBroken})
			if err := do(m, t, vm, taken.Snapshot.ID); !errors.Is(err, errBroken) {
				t.Errorf("got %v", err)
			}
			if err := do(m, t, vm, taken.Snapshot.ID); err != nil {
				t.Errorf("second attempt: %v", err)
			}
		})
	}
}
