package hypervisortest

import (
	"context"
	"fmt"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// revert reverts and returns the VM as the server says it is afterwards.
func (s *suite) revert(
	t *testing.T, vm *hypervisor.VM, id hypervisor.SnapshotID, options hypervisor.RevertOptions,
) *hypervisor.VM {
	t.Helper()
	got, _, err := s.Hypervisor.RevertToSnapshot(t.Context(), vm.ID, id, options)
	if err != nil {
		t.Fatal(err)
	}
	now := s.find(t, vm.InstanceUUID)
	if got == nil || got.ID != vm.ID || got.PowerState != now.PowerState || got.Name != vm.Name {
		t.Errorf("told %+v, but the VM is %+v", got, now)
	}
	return now
}

// current is the current snapshot of a VM.
func (s *suite) current(t *testing.T, vm *hypervisor.VM) (id hypervisor.SnapshotID) {
	t.Helper()
	for _, snap := range s.snapshots(t, vm) {
		if snap.Current {
			id = snap.ID
		}
	}
	return id
}

var revertTests = []suiteTest{
	{"revert/bytes", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		var ids []hypervisor.SnapshotID
		var want [][][]byte
		for n := range 3 {
			s.WriteDisk(t, "vm1", n%2, pattern(uint64(10+n), 100_000), int64(4096*n))
			ids = append(ids, s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: fmt.Sprint(n)}).ID)
			want = append(want, s.disks(t, "vm1"))
		}
		for _, n := range []int{2, 0, 1, 1, 0, 2} {
			s.WriteDisk(t, "vm1", 0, pattern(uint64(20+n), 50_000), 12_288)
			s.revert(t, vm, ids[n], hypervisor.RevertOptions{Stay: n%2 == 0})
			wantBytes(t, fmt.Sprintf("reverted to %d", n), s.disks(t, "vm1"), want[n])
			if got := s.current(t, vm); got != ids[n] {
				t.Errorf("reverted to %s: the current snapshot is %s", ids[n], got)
			}
		}
		// A branch: what is written from here on belongs to neither.
		s.revert(t, vm, ids[0], hypervisor.RevertOptions{})
		branch := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "branch"})
		if branch.Parent != ids[0] || branch.Depth != 2 || len(s.snapshots(t, vm)) != 4 {
			t.Errorf("the branch is %+v", branch)
		}
		for _, id := range append(ids, branch.ID) {
			remove(t, s, vm, id, hypervisor.RemoveOptions{})
		}
		wantBytes(t, "all removed", s.disks(t, "vm1"), want[0])
	}},
	{"revert/power", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		disk := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "disk"})
		memory := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "memory", Memory: true})
		for _, c := range []struct {
			to   hypervisor.Snapshot
			stay bool
			want hypervisor.PowerState
		}{
			{disk, false, hypervisor.PoweredOff}, {memory, false, hypervisor.PoweredOn}, {disk, true, hypervisor.PoweredOff},
			{memory, true, hypervisor.Suspended}, {memory, false, hypervisor.PoweredOn}, {memory, true, hypervisor.Suspended},
			{disk, false, hypervisor.PoweredOff},
		} {
			got := s.revert(t, vm, c.to.ID, hypervisor.RevertOptions{Stay: c.stay})
			if got.PowerState != c.want {
				t.Errorf("reverted to %s, stay %t: the VM is %s, want %s", c.to.Name, c.stay, got.PowerState, c.want)
			}
		}
		s.revert(t, vm, memory.ID, hypervisor.RevertOptions{Stay: true})
		if err := s.Hypervisor.PowerOn(t.Context(), vm.ID); err != nil {
			t.Errorf("resume: %v", err)
		}
		s.revert(t, vm, memory.ID, hypervisor.RevertOptions{Stay: true})
		if err := s.Hypervisor.PowerOff(t.Context(), vm.ID); err != nil {
			t.Errorf("stop a suspended VM: %v", err)
		}
		if got := s.find(t, vm.InstanceUUID).PowerState; got != hypervisor.PoweredOff {
			t.Errorf("the VM is %s", got)
		}
	}},
	{"revert/nothing to undo", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		for what, undone := range map[string]func() ([]string, error){
			"preview": func() ([]string, error) { return s.Hypervisor.RevertChanges(t.Context(), vm.ID, a.ID) },
			"revert": func() ([]string, error) {
				_, undone, err := s.Hypervisor.RevertToSnapshot(t.Context(), vm.ID, a.ID, hypervisor.RevertOptions{})
				return undone, err
			},
		} {
			if got, err := undone(); err != nil || len(got) > 0 {
				t.Errorf("%s: %q, %v", what, got, err)
			}
		}
	}},
	{"revert/wrong", func(t *testing.T, s *suite) {
		vm, other := s.vm(t, "vm1"), s.vm(t, "vm2")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		revert := func(vm hypervisor.VMID, id hypervisor.SnapshotID) error {
			got, _, err := s.Hypervisor.RevertToSnapshot(t.Context(), vm, id, hypervisor.RevertOptions{})
			if _, changesErr := s.Hypervisor.RevertChanges(t.Context(), vm, id); got != nil || changesErr == nil {
				t.Errorf("got %v; what it would change: %v", got, changesErr)
			}
			return err
		}
		want := s.disks(t, "vm2")
		wantError(t, "another's snapshot", revert(other.ID, a.ID), hypervisor.ErrSnapshotNotFound)
		wantBytes(t, "the other", s.disks(t, "vm2"), want)
		if got := s.find(t, other.InstanceUUID).PowerState; got != hypervisor.PoweredOn {
			t.Errorf("the other VM is %s", got)
		}
		remove(t, s, vm, a.ID, hypervisor.RemoveOptions{})
		wantError(t, "a removed snapshot", revert(vm.ID, a.ID), hypervisor.ErrSnapshotNotFound)
		b := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "b"})
		s.destroy(t, vm.ID)
		wantNotFound(t, "a VM that is gone", revert(vm.ID, b.ID))
	}},
	{"revert/the VM of a snapshot", func(t *testing.T, s *suite) {
		vm, other := s.vm(t, "vm1"), s.vm(t, "vm2")
		a, b := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"}), s.snapshot(t, other, hypervisor.SnapshotSpec{Name: "a"})
		for id, want := range map[hypervisor.SnapshotID]*hypervisor.VM{a.ID: vm, b.ID: other} {
			got, err := s.Hypervisor.VMOfSnapshot(t.Context(), id)
			if err != nil || got.InstanceUUID != want.InstanceUUID || got.Path != want.Path {
				t.Errorf("%s: %+v, %v", id, got, err)
			}
		}
		remove(t, s, vm, a.ID, hypervisor.RemoveOptions{})
		_, err := s.Hypervisor.VMOfSnapshot(t.Context(), a.ID)
		wantError(t, "a removed snapshot", err, hypervisor.ErrSnapshotNotFound)
		s.destroy(t, other.ID)
		_, err = s.Hypervisor.VMOfSnapshot(t.Context(), b.ID)
		wantError(t, "of a VM that is gone", err, hypervisor.ErrSnapshotNotFound)
	}},
}

// revertAction is a revert for cancelTests. Whether it was too late to cancel it shows in what it returns.
var revertAction = action{RevertToSnapshot, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
	a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
	want := s.disks(t, "vm1")
	s.WriteDisk(t, "vm1", 0, pattern(5, 100_000), 4096)
	undo := s.disks(t, "vm1")
	return func(ctx context.Context) error {
		got, _, err := s.Hypervisor.RevertToSnapshot(ctx, vm.ID, a.ID, hypervisor.RevertOptions{})
		if got == nil {
			want = undo
		}
		wantBytes(t, "after the revert", s.disks(t, "vm1"), want)
		return err
	}
}}
