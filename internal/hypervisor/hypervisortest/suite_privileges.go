package hypervisortest

import (
	"context"
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// privilegeTests are about users who may not do everything.
var privilegeTests = []suiteTest{
	{"privileges/of one who may do everything", testMayAll},
	{"privileges/one is missing", testMayNot},
}

// privilegedOperations are all that can be asked about, with how each is done; nil: the port has no method.
var privilegedOperations = map[hypervisor.Operation]func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, s hypervisor.SnapshotID) error{
	hypervisor.ToSnapshot: func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, _ hypervisor.SnapshotID) error {
		_, err := h.CreateSnapshot(ctx, vm.ID, hypervisor.SnapshotSpec{Name: "denied"})
		return err
	},
	hypervisor.ToRenameSnapshot: func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, s hypervisor.SnapshotID) error {
		return h.RenameSnapshot(ctx, vm.ID, s, "denied", "denied")
	},
	hypervisor.ToRemoveSnapshot: func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, s hypervisor.SnapshotID) error {
		return h.RemoveSnapshot(ctx, vm.ID, s, hypervisor.RemoveOptions{})
	},
	hypervisor.ToRevert: func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, s hypervisor.SnapshotID) error {
		_, _, err := h.RevertToSnapshot(ctx, vm.ID, s, hypervisor.RevertOptions{})
		return err
	},
	hypervisor.ToPowerOff: func(ctx context.Context, h hypervisor.Hypervisor, vm *hypervisor.VM, _ hypervisor.SnapshotID) error {
		return h.PowerOff(ctx, vm.ID)
	},
	hypervisor.ToPowerOn:     nil,
	hypervisor.ToBackUp:      nil, // it needs more than one privilege, and may find out halfway
	hypervisor.ToDestroy:     nil,
	hypervisor.ToConsolidate: nil,
	hypervisor.ToScreenshot:  nil,
}

func testMayAll(t *testing.T, s *suite) {
	vm := s.vm(t, "web01")
	for operation := range privilegedOperations {
		if err := s.Hypervisor.CheckPrivileges(t.Context(), []hypervisor.VMID{vm.ID}, operation); err != nil {
			t.Errorf("%s: %v", operation, err)
		}
	}
	// What is to be done with a VM that is gone is not for this to refuse.
	if err := s.Hypervisor.CheckPrivileges(t.Context(), []hypervisor.VMID{"vm-none"}, hypervisor.ToSnapshot); err != nil {
		t.Errorf("a VM that is gone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Hypervisor.CheckPrivileges(ctx, []hypervisor.VMID{vm.ID}, hypervisor.ToSnapshot); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func testMayNot(t *testing.T, s *suite) {
	if s.Deny == nil {
		t.Skip("the server can't be told that a user may not do something")
	}
	vm, other := s.vm(t, "web01"), s.vm(t, "db01")
	snapshot := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "s", Description: "d"})
	for operation, do := range privilegedOperations {
		h := s.Deny(t, operation)
		err := h.CheckPrivileges(t.Context(), []hypervisor.VMID{other.ID, vm.ID}, operation)
		var missing *hypervisor.MissingPrivilegesError
		var denied *hypervisor.PermissionError
		switch {
		case !errors.As(err, &missing) || !errors.As(err, &denied):
			t.Errorf("%s: got %v, want a *MissingPrivilegesError of *PermissionErrors", operation, err)
			continue
		case len(missing.Missing) < 2, missing.Missing[0].Object == missing.Missing[1].Object, missing.Missing[0].Privilege == "":
			t.Errorf("%s: got %+v, want a privilege on two objects", operation, missing.Missing)
		}
		if do == nil {
			continue
		}
		before := s.snapshots(t, vm)
		if err := do(t.Context(), h, vm, snapshot.ID); !errors.As(err, &denied) {
			t.Errorf("%s: got %v, want a *PermissionError", operation, err)
		}
		after := s.snapshots(t, vm)
		if len(after) != len(before) || after[0].Name != before[0].Name || s.find(t, vm.InstanceUUID).PowerState != vm.PowerState {
			t.Errorf("%s: it was done nevertheless", operation)
		}
	}
}
