package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// snapshotted takes a snapshot of a VM and writes to its disk afterwards.
func snapshotted(t *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM, memory bool) (id hypervisor.SnapshotID, then []byte) {
	t.Helper()
	taken, err := newManager(hv).Take(t.Context(), snapshot.Request{VM: "web", Name: "good", Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	then = hv.DiskBytes(vm.ID, 0)
	if err := hv.WriteDisk(vm.ID, 0, []byte("evil"), 4096); err != nil {
		t.Fatal(err)
	}
	return taken.Snapshot.ID, then
}

// TestRevert_power asks for every state after every kind of snapshot, of a VM in every state.
func TestRevert_power(t *testing.T) {
	t.Parallel()
	on, off, asleep := hypervisor.PoweredOn, hypervisor.PoweredOff, hypervisor.Suspended
	for _, memory := range []bool{false, true} {
		asSnapshot := off
		if memory {
			asSnapshot = on
		}
		for power, want := range map[snapshot.Power]hypervisor.PowerState{
			"": asSnapshot, snapshot.AsSnapshot: asSnapshot, snapshot.On: on, snapshot.Off: off,
		} {
			for _, before := range []hypervisor.PowerState{on, off, asleep} {
				t.Run(fmt.Sprintf("memory %t/%s/%s", memory, power, before), func(t *testing.T) {
					t.Parallel()
					hv, vm := newVM(t)
					id, then := snapshotted(t, hv, vm, memory)
					hv.Edit(vm.ID, func(v *hypervisor.VM) { v.PowerState, v.CPUs = before, 7 })
					got, err := newManager(hv).Revert(t.Context(), snapshot.RevertRequest{Snapshot: id, Power: power})
					if err != nil {
						t.Fatal(err)
					}
					if state := find(t, hv, vm).PowerState; state != want || got.VM.PowerState != want {
						t.Errorf("the VM is %s, and was said to be %s, want %s", state, got.VM.PowerState, want)
					}
					if !bytes.Equal(hv.DiskBytes(vm.ID, 0), then) {
						t.Error("the disk is not as in the snapshot")
					}
					if !got.Snapshot.Current || got.Snapshot.ID != id || got.VM.CPUs != vm.CPUs {
						t.Errorf("got %+v", got)
					}
					wantWarnings(t, got.Undone, "CPUs goes back from 7 to 2")
					if all := snapshots(t, hv, vm); len(all) != 1 || !all[0].Current {
						t.Errorf("snapshots %+v", all)
					}
				})
			}
		}
	}
}

// TestRevert_failures has something fail at every point. The error says what state the VM is in, the disk is
// as the error says, and the next attempt succeeds.
func TestRevert_failures(t *testing.T) {
	t.Parallel()
	request := func(vm hypervisor.VMRef, power snapshot.Power) snapshot.RevertRequest {
		return snapshot.RevertRequest{VM: vm, Power: power}
	}
	for name, c := range map[string]struct {
		request  snapshot.RevertRequest
		memory   bool
		fault    hypervisortest.Fault
		reverted bool
		says     string
	}{
		"find the VM":                    {request: request("web", ""), fault: hypervisortest.Fault{At: hypervisortest.BeforeFindVM}},
		"find the VM of the snapshot":    {fault: hypervisortest.Fault{At: hypervisortest.BeforeVMOfSnapshot}},
		"read the snapshots":             {fault: hypervisortest.Fault{At: hypervisortest.BeforeSnapshots}},
		"revert":                         {fault: hypervisortest.Fault{At: hypervisortest.BeforeRevertToSnapshot}, says: "it is powered on now"},
		"reverted with an error":         {fault: hypervisortest.Fault{At: hypervisortest.AfterRevertToSnapshot}, reverted: true, says: "it is reverted, and powered off now"},
		"reverted with an error, memory": {memory: true, fault: hypervisortest.Fault{At: hypervisortest.AfterRevertToSnapshot}, reverted: true, says: "powered on now"},
		"start": {
			request: request("web", snapshot.On), reverted: true, says: "it is reverted, and powered off now",
			fault: hypervisortest.Fault{At: hypervisortest.BeforePowerOn},
		},
		"stop": {
			request: request("web", snapshot.Off), memory: true, reverted: true, says: "it is reverted, and suspended now",
			fault: hypervisortest.Fault{At: hypervisortest.BeforePowerOff},
		},
		"look": {
			request: request("web", snapshot.On), reverted: true, says: "it is reverted, and powered on now",
			fault: hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID},
		},
		"look, for good": {
			request: request("web", snapshot.On), reverted: true, says: "in a state that can't be read",
			fault: hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID, Count: 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			id, then := snapshotted(t, hv, vm, c.memory)
			now := hv.DiskBytes(vm.ID, 0)
			c.fault.Err = errBroken
			hv.Fail(c.fault)
			c.request.Snapshot = id
			m := newManager(hv)
			got, err := m.Revert(t.Context(), c.request)
			if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got error %v, want one that says %q", err, c.says)
			}
			want := now
			if c.reverted {
				want = then
			}
			if (got != nil) != c.reverted || !bytes.Equal(hv.DiskBytes(vm.ID, 0), want) {
				t.Errorf("got %+v; the disk is as in the snapshot: %t", got, bytes.Equal(hv.DiskBytes(vm.ID, 0), then))
			}
			if got, err = m.Revert(t.Context(), c.request); err != nil || got == nil {
				t.Fatalf("second attempt: %v", err)
			}
			if !bytes.Equal(hv.DiskBytes(vm.ID, 0), then) {
				t.Error("second attempt: the disk is not as in the snapshot")
			}
		})
	}
}

func TestRevert_cancelled(t *testing.T) {
	t.Parallel()
	for point, reverted := range map[hypervisortest.Point]bool{
		hypervisortest.BeforeVMOfSnapshot: false, hypervisortest.BeforeSnapshots: false, hypervisortest.BeforeRevertToSnapshot: false,
		hypervisortest.AfterRevertToSnapshot: true, hypervisortest.BeforePowerOn: true, hypervisortest.BeforeVMByInstanceUUID: true,
	} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			id, then := snapshotted(t, hv, vm, false)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hv.Fail(hypervisortest.Fault{At: point, Do: func(context.Context) { cancel() }})
			got, err := newManager(hv).Revert(ctx, snapshot.RevertRequest{Snapshot: id, Power: snapshot.On})
			if !errors.Is(err, context.Canceled) || (got != nil) != reverted {
				t.Errorf("got %v and %v", got, err)
			}
			if bytes.Equal(hv.DiskBytes(vm.ID, 0), then) != reverted {
				t.Errorf("reverted: %t", !reverted)
			}
			if state := find(t, hv, vm).PowerState; got != nil && got.VM.PowerState != state {
				t.Errorf("the VM is said to be %s, and is %s", got.VM.PowerState, state)
			}
		})
	}
}

func TestRevert_refused(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	hv.AddVM(hypervisortest.VMSpec{Name: "db", Disks: [][]byte{make([]byte, 1<<20)}})
	id, _ := snapshotted(t, hv, vm, false)
	m := newManager(hv)
	var wrong *snapshot.WrongVMError
	var gone *hypervisor.VMNotFoundError
	var obstacle *hypervisor.ObstacleError
	refused := func(r snapshot.RevertRequest, is func(err error) bool) {
		t.Helper()
		if got, err := m.Revert(t.Context(), r); got != nil || !is(err) {
			t.Errorf("%+v: got %v and %v", r, got, err)
		}
		if got, err := m.CheckRevert(t.Context(), r); got != nil || !is(err) {
			t.Errorf("check %+v: got %v and %v", r, got, err)
		}
	}
	refused(snapshot.RevertRequest{}, func(err error) bool { return errors.Is(err, snapshot.ErrRequest) })
	refused(snapshot.RevertRequest{Snapshot: id, Power: "maybe"}, func(err error) bool { return errors.Is(err, snapshot.ErrRequest) })
	refused(snapshot.RevertRequest{Snapshot: id, VM: "db"}, func(err error) bool {
		return errors.As(err, &wrong) && wrong.Of == vm.Path
	})
	refused(snapshot.RevertRequest{Snapshot: id, VM: "nothing"}, func(err error) bool { return errors.As(err, &gone) })
	missing := func(err error) bool { return errors.Is(err, hypervisor.ErrSnapshotNotFound) }
	refused(snapshot.RevertRequest{Snapshot: "snapshot-99"}, missing)
	refused(snapshot.RevertRequest{Snapshot: "snapshot-99", VM: "web"}, missing)
	hv.Edit(vm.ID, func(v *hypervisor.VM) {
		v.Obstacles = []hypervisor.Obstacle{{Kind: hypervisor.ObstacleLocked, Reason: "locked"}}
	})
	refused(snapshot.RevertRequest{Snapshot: id}, func(err error) bool { return errors.As(err, &obstacle) })
	hv.Hide(vm.ID)
	refused(snapshot.RevertRequest{Snapshot: id}, func(err error) bool { return errors.Is(err, hypervisor.ErrOutOfReach) })
	refused(snapshot.RevertRequest{Snapshot: id, VM: "db"}, func(err error) bool { return errors.As(err, &wrong) && wrong.Of == "" })
	if n := hv.Seen(hypervisortest.AfterRevertToSnapshot); n != 0 {
		t.Errorf("reverted %d times", n)
	}
}

func TestCheckRevert(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	id, _ := snapshotted(t, hv, vm, true)
	hv.Edit(vm.ID, func(v *hypervisor.VM) { v.MemoryBytes *= 2 })
	got, err := newManager(hv).CheckRevert(t.Context(), snapshot.RevertRequest{VM: "web", Snapshot: id})
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, got.Warnings, "stops it at once")
	wantWarnings(t, got.Undone, "memory goes back")
	if now := find(t, hv, vm); now.MemoryBytes != 2*vm.MemoryBytes || now.PowerState != hypervisor.PoweredOn {
		t.Errorf("the check changed the VM: %+v", now)
	}
}
