package hypervisortest

import (
	"context"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// leaveDeltas takes two snapshots, with something written between them, and removes both without merging their disks.
func (s *suite) leaveDeltas(t *testing.T, vm *hypervisor.VM) {
	t.Helper()
	var ids []hypervisor.SnapshotID
	for n, name := range []string{"a", "b"} {
		ids = append(ids, s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: name}).ID)
		s.WriteDisk(t, "vm1", 0, pattern(uint64(30+n), 100_000), int64(4096+50_000*n))
	}
	for _, id := range ids {
		remove(t, s, vm, id, hypervisor.RemoveOptions{NoConsolidate: true})
	}
}

// wantConsolidated consolidates, and reports it unless that was needed or not as is said.
func (s *suite) wantConsolidated(t *testing.T, what string, vm *hypervisor.VM, want bool) {
	t.Helper()
	if needed, err := s.Hypervisor.Consolidate(t.Context(), vm.ID); err != nil || needed != want {
		t.Errorf("%s: needed %t, %v; want %t", what, needed, err, want)
	}
}

var consolidateTests = []suiteTest{
	{"consolidate/what was left", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.wantConsolidated(t, "without snapshots", vm, false)
		s.leaveDeltas(t, vm)
		want := s.disks(t, "vm1")
		s.wantConsolidated(t, "with deltas", vm, true)
		wantBytes(t, "consolidated", s.disks(t, "vm1"), want)
		s.wantConsolidated(t, "once more", vm, false)
	}},
	{"consolidate/snapshots stay", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		kept := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "kept"})
		want := s.disks(t, "vm1")
		s.wantConsolidated(t, "with a snapshot", vm, false)
		s.leaveDeltas(t, vm)
		s.wantConsolidated(t, "with a snapshot and deltas", vm, true)
		if all := s.snapshots(t, vm); len(all) != 1 || all[0].ID != kept.ID {
			t.Errorf("the snapshots are %+v", all)
		}
		s.revert(t, vm, kept.ID, hypervisor.RevertOptions{})
		wantBytes(t, "reverted", s.disks(t, "vm1"), want)
	}},
	{"consolidate/gone", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.destroy(t, vm.ID)
		_, err := s.Hypervisor.Consolidate(t.Context(), vm.ID)
		wantNotFound(t, "consolidate", err)
	}},
}

// consolidateAction is a consolidation for cancelTests. Whatever became of it, the next one ends it.
var consolidateAction = action{Consolidate, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
	s.leaveDeltas(t, vm)
	want := s.disks(t, "vm1")
	return func(ctx context.Context) error {
		_, err := s.Hypervisor.Consolidate(ctx, vm.ID)
		wantBytes(t, "after a consolidation that was cancelled", s.disks(t, "vm1"), want)
		if _, err := s.Hypervisor.Consolidate(context.WithoutCancel(ctx), vm.ID); err != nil {
			t.Errorf("consolidate again: %v", err)
		}
		s.wantConsolidated(t, "at last", vm, false)
		return err
	}
}}
