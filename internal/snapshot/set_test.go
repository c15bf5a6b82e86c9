package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// newTiers makes a Fake with running VMs vm0, vm1, … of one disk each.
func newTiers(t *testing.T, n int) (*hypervisortest.Fake, []hypervisor.VM) {
	t.Helper()
	hv := hypervisortest.NewFake(t)
	vms := make([]hypervisor.VM, n)
	for i := range vms {
		vms[i] = hv.AddVM(hypervisortest.VMSpec{
			Name: fmt.Sprintf("vm%d", i), Disks: [][]byte{bytes.Repeat([]byte{byte(i + 1)}, 64<<10)},
		})
	}
	return hv, vms
}

// setOf asks for a set of VMs, all at once.
func setOf(vms []hypervisor.VM) snapshot.SetRequest {
	r := snapshot.SetRequest{Name: "release", Description: "before 4.2"}
	for _, vm := range vms {
		r.Members = append(r.Members, snapshot.SetMember{VM: hypervisor.VMRef(vm.Name)})
	}
	return r
}

func takeSet(t *testing.T, hv *hypervisortest.Fake, r snapshot.SetRequest) *snapshot.Set {
	t.Helper()
	set, err := newManager(hv).TakeSet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// wantNone checks that no VM has a snapshot, and that all run.
func wantNone(t *testing.T, hv *hypervisortest.Fake, vms []hypervisor.VM) {
	t.Helper()
	for _, vm := range vms {
		if left := snapshots(t, hv, vm); len(left) > 0 {
			t.Errorf("left on %s: %+v", vm.Name, left)
		}
		if state := find(t, hv, vm).PowerState; state != hypervisor.PoweredOn {
			t.Errorf("%s is %s", vm.Name, state)
		}
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 5)
	m := newManager(hv)
	// All are asked before any has answered: otherwise this waits until the test is killed.
	var all sync.WaitGroup
	all.Add(len(vms))
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCreateSnapshot, Count: len(vms), Do: func(context.Context) {
		all.Done()
		all.Wait()
	}})
	r := setOf(vms)
	r.Members[2].Quiesce = quiesce.Policy{Mode: quiesce.Required}
	set := takeSet(t, hv, r)
	if len(set.Members) != len(vms) || set.ID == "" || set.Skew > set.Spread || set.Spread <= 0 || len(set.Warnings) > 0 {
		t.Fatalf("got %+v", set)
	}
	for i, member := range set.Members {
		s := member.Snapshot
		if member.VM.ID != vms[i].ID || s.Name != "release" || s.Description != "before 4.2" || (member.Consistency == quiesce.FileSystem) != (i == 2) {
			t.Errorf("member %d: %+v", i, member)
		}
		there := snapshots(t, hv, vms[i])
		if len(there) != 1 || !strings.HasPrefix(there[0].Description, "before 4.2\n{") ||
			!strings.Contains(there[0].Description, set.ID) || strings.Contains(there[0].Description, `"run"`) {
			t.Errorf("on the server: %+v", there)
		}
	}
	read, missing, err := m.ReadSet(t.Context(), set.IDs())
	if err != nil || len(missing) > 0 || fmt.Sprint(read.IDs()) != fmt.Sprint(set.IDs()) || read.ID != set.ID ||
		read.Members[1].Snapshot.Description != "before 4.2" {
		t.Errorf("read %+v, %v, %v", read, missing, err)
	}
	found, lost, err := m.FindSet(t.Context(), set.Members[3].Snapshot.ID)
	if err != nil || len(lost) > 0 || fmt.Sprint(found) != fmt.Sprint(set.IDs()) {
		t.Errorf("found %v, %v", found, err)
	}
	for _, name := range []string{"renamed", "renamed"} {
		if err := m.RenameSet(t.Context(), set.IDs(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
	if read, _, err = m.ReadSet(t.Context(), set.IDs()); err != nil || read.ID != set.ID ||
		read.Members[4].Snapshot.Name != "renamed" || read.Members[4].Snapshot.Description != "" {
		t.Errorf("renamed: %+v, %v", read, err)
	}
	for range 2 { // gone is no error
		if err := m.RemoveSet(t.Context(), set.IDs(), hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wantNone(t, hv, vms)
}

// TestSet_missing has members disappear.
func TestSet_missing(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 4)
	m := newManager(hv)
	set := takeSet(t, hv, setOf(vms))
	ids := set.IDs()
	if err := m.Remove(t.Context(), ids[1].VM, ids[1].Snapshot, hypervisor.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	hv.Lose(vms[2].ID)
	read, missing, err := m.ReadSet(t.Context(), ids)
	if err != nil || len(missing) != 2 || missing[0].MemberID != ids[1] || missing[1].MemberID != ids[2] || len(read.Members) != 2 {
		t.Fatalf("read %+v, missing %+v, %v", read, missing, err)
	}
	var gone *hypervisor.VMNotFoundError
	if !errors.Is(missing[0].Reason, hypervisor.ErrSnapshotNotFound) || !errors.As(missing[1].Reason, &gone) {
		t.Errorf("reasons %v", missing)
	}
	found, lost, err := m.FindSet(t.Context(), ids[0].Snapshot)
	if err != nil || len(found) != 2 || !slices.Equal(lost, []hypervisor.VMID{vms[1].ID, vms[2].ID}) {
		t.Errorf("found %v, lost %v, %v", found, lost, err)
	}
	// What can't be told is no drift.
	hv.Hide(vms[3].ID)
	if read, missing, err := m.ReadSet(t.Context(), ids); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("read %+v, missing %+v, %v", read, missing, err)
	}
	if err := m.RenameSet(t.Context(), ids[:2], "x", ""); !errors.Is(err, hypervisor.ErrSnapshotNotFound) {
		t.Errorf("rename: %v", err)
	}
	if err := m.RemoveSet(t.Context(), ids[:3], hypervisor.RemoveOptions{}); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func TestSet_order(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 6)
	r := setOf(vms)
	for i, order := range []int{2, -1, 0, 2, 0, -1} {
		r.Members[i].Order = order
	}
	set := takeSet(t, hv, r)
	at := func(i int) time.Time { return set.Members[i].Snapshot.CreatedAt }
	for _, pair := range [][2]int{{1, 2}, {1, 4}, {5, 2}, {5, 4}, {2, 0}, {2, 3}, {4, 0}, {4, 3}} {
		if !at(pair[0]).Before(at(pair[1])) {
			t.Errorf("vm%d was taken at %s, vm%d at %s", pair[0], at(pair[0]), pair[1], at(pair[1]))
		}
	}
}

func TestSet_refused(t *testing.T) {
	t.Parallel()
	blocked := []hypervisor.Obstacle{{Kind: hypervisor.ObstaclePhysicalRDM, Device: "Hard disk 2", BlocksSnapshot: true}}
	var obstacle *hypervisor.ObstacleError
	var gone *hypervisor.VMNotFoundError
	is := func(target error) func(err error) bool { return func(err error) bool { return errors.Is(err, target) } }
	for name, c := range map[string]struct {
		edit func(hv *hypervisortest.Fake, vms []hypervisor.VM, r *snapshot.SetRequest)
		want func(err error) bool
	}{
		"nobody": {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) { r.Members = nil }, is(snapshot.ErrRequest)},
		"too many": {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) {
			r.Members = slices.Repeat(r.Members, 11)
		}, is(snapshot.ErrRequest)},
		"twice": {func(_ *hypervisortest.Fake, vms []hypervisor.VM, r *snapshot.SetRequest) {
			r.Members[2].VM = hypervisor.VMRef(vms[0].Path)
		}, is(snapshot.ErrRequest)},
		"no name": {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) { r.Name = "" }, is(snapshot.ErrRequest)},
		"memory and quiescing": {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) {
			r.Memory, r.Members[1].Quiesce.Mode = true, quiesce.Required
		}, is(snapshot.ErrRequest)},
		"negative skew": {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) { r.MaxSkew = -1 }, is(snapshot.ErrRequest)},
		"no such VM":    {func(_ *hypervisortest.Fake, _ []hypervisor.VM, r *snapshot.SetRequest) { r.Members[1].VM = "nothing" }, func(err error) bool { return errors.As(err, &gone) }},
		"obstacle": {func(hv *hypervisortest.Fake, vms []hypervisor.VM, _ *snapshot.SetRequest) {
			hv.Edit(vms[2].ID, func(vm *hypervisor.VM) { vm.Obstacles = blocked })
		}, func(err error) bool { return errors.As(err, &obstacle) }},
		"no agent": {func(hv *hypervisortest.Fake, vms []hypervisor.VM, r *snapshot.SetRequest) {
			hv.Edit(vms[2].ID, func(vm *hypervisor.VM) { vm.GuestAgent = false })
			r.Members[2].Quiesce.Mode = quiesce.Required
		}, is(hypervisor.ErrGuestAgent)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vms := newTiers(t, 3)
			r := setOf(vms)
			c.edit(hv, vms, &r)
			m := newManager(hv)
			if set, err := m.TakeSet(t.Context(), r); set != nil || !c.want(err) {
				t.Errorf("got %v and %v", set, err)
			}
			if _, _, err := m.CheckSet(t.Context(), r); !c.want(err) {
				t.Errorf("check: %v", err)
			}
			if n := hv.Seen(hypervisortest.BeforeCreateSnapshot); n > 0 {
				t.Errorf("%d snapshots were asked for", n)
			}
		})
	}
}

// TestSet_depth refuses a set of which one member's chain is too deep, and counts what a killed run left.
func TestSet_depth(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 2)
	for n := range hypervisor.MaxSnapshotDepth {
		if _, err := hv.CreateSnapshot(t.Context(), vms[1].ID, hypervisor.SnapshotSpec{Name: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := newManager(hv).TakeSet(t.Context(), setOf(vms)); !errors.Is(err, hypervisor.ErrTooManySnapshots) {
		t.Errorf("got %v", err)
	}
	wantNone(t, hv, vms[:1])
}

func TestSet_skew(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 2)
	r := setOf(vms)
	r.Members[1].Order, r.MaxSkew = 1, 1 // a nanosecond
	if set, err := newManager(hv).TakeSet(t.Context(), r); set != nil || !errors.Is(err, snapshot.ErrSkew) {
		t.Errorf("got %v and %v", set, err)
	}
	wantNone(t, hv, vms)
	// Clocks that contradict each other say nothing: the skew is what it can be at most.
	hv.SetClock(vms[0].ID, time.Hour)
	r.MaxSkew = time.Minute
	set := takeSet(t, hv, r)
	if set.Skew != set.Spread || set.Skew > time.Minute {
		t.Errorf("skew %s, spread %s", set.Skew, set.Spread)
	}
	wantWarnings(t, set.Warnings, "clocks")
	// All clocks are wrong by the same.
	hv.SetClock(vms[1].ID, time.Hour)
	if set = takeSet(t, hv, r); len(set.Warnings) > 0 || set.Skew > set.Spread {
		t.Errorf("got %+v", set)
	}
}
