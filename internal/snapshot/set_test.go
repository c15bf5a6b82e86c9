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
	found, err := m.FindSet(t.Context(), set.Members[3].Snapshot.ID)
	if err != nil || fmt.Sprint(found) != fmt.Sprint(set.IDs()) {
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
	if found, err := m.FindSet(t.Context(), ids[0].Snapshot); err != nil || len(found) != 2 {
		t.Errorf("found %v, %v", found, err)
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

// TestSet_failures has each member fail at each point. Nothing is left of the others, and the next set is
// taken.
func TestSet_failures(t *testing.T) {
	t.Parallel()
	const members = 3
	for _, point := range []hypervisortest.Point{
		hypervisortest.BeforeFindVM, hypervisortest.BeforeSnapshots, hypervisortest.BeforeCreateSnapshot,
		hypervisortest.AfterCreateSnapshot, hypervisortest.BeforeRenameSnapshot,
	} {
		for _, ordered := range []bool{false, true} {
			for skip := range members {
				t.Run(fmt.Sprintf("%s %d, ordered %t", point, skip, ordered), func(t *testing.T) {
					t.Parallel()
					hv, vms := newTiers(t, members)
					r := setOf(vms)
					for i := range r.Members {
						if ordered {
							r.Members[i].Order = i
						}
					}
					fault := hypervisortest.Fault{At: point, Skip: skip, Err: errBroken}
					if point == hypervisortest.BeforeSnapshots {
						fault.Skip += members // what is read back
					}
					hv.Fail(fault)
					set, err := newManager(hv).TakeSet(t.Context(), r)
					if set != nil || !errors.Is(err, errBroken) || errors.Is(err, context.Canceled) {
						t.Errorf("got %v and %v", set, err)
					}
					wantNone(t, hv, vms)
					if ordered && point == hypervisortest.BeforeCreateSnapshot && hv.Seen(point) != skip+1 {
						t.Errorf("%d snapshots were asked for", hv.Seen(point))
					}
					if again := takeSet(t, hv, r); len(again.Warnings) > 0 {
						t.Errorf("second attempt: %q", again.Warnings)
					}
				})
			}
		}
	}
}

func TestSet_quiesceIgnored(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 3)
	hv.QuiesceIgnored = true
	r := setOf(vms)
	r.Members[1].Quiesce.Mode = quiesce.Required
	if set, err := newManager(hv).TakeSet(t.Context(), r); set != nil || !errors.Is(err, hypervisor.ErrQuiesce) {
		t.Errorf("got %v and %v", set, err)
	}
	wantNone(t, hv, vms)
	r.Members[1].Quiesce.Mode = quiesce.Preferred
	if set := takeSet(t, hv, r); len(set.Warnings) != 1 {
		t.Errorf("warnings %q", set.Warnings)
	}
}

func TestSet_cancelled(t *testing.T) {
	t.Parallel()
	for _, point := range []hypervisortest.Point{
		hypervisortest.BeforeFindVM, hypervisortest.BeforeSnapshots, hypervisortest.BeforeCreateSnapshot,
		hypervisortest.AfterCreateSnapshot, hypervisortest.BeforeRenameSnapshot,
	} {
		for skip := range 3 {
			t.Run(fmt.Sprintf("%s %d", point, skip), func(t *testing.T) {
				t.Parallel()
				hv, vms := newTiers(t, 3)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				hv.Fail(hypervisortest.Fault{At: point, Skip: skip, Do: func(context.Context) { cancel() }})
				set, err := newManager(hv).TakeSet(ctx, setOf(vms))
				if set != nil || !errors.Is(err, context.Canceled) {
					t.Errorf("got %v and %v", set, err)
				}
				wantNone(t, hv, vms)
			})
		}
	}
}

// TestSet_notRemoved can't remove what was taken already. The caller learns of it, and the next set removes it.
func TestSet_notRemoved(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 3)
	r := setOf(vms)
	for i := range r.Members {
		r.Members[i].Order = i
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCreateSnapshot, Skip: 2, Err: errBroken})
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Count: 2, Err: errors.New("locked")})
	m := newManager(hv)
	set, err := m.TakeSet(t.Context(), r)
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "locked") || set == nil || len(set.Members) != 2 {
		t.Fatalf("got %+v and %v", set, err)
	}
	_, warnings, err := m.CheckSet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, warnings, "is removed first")
	again := takeSet(t, hv, r)
	wantWarnings(t, again.Warnings, "removed the incomplete set")
	for _, vm := range vms {
		if all := snapshots(t, hv, vm); len(all) != 1 {
			t.Errorf("%s: %+v", vm.Name, all)
		}
	}
}

// TestSet_leftBehind is a run that died while it marked the set as complete: some members don't name it any
// more. A later set on one of the VMs removes all of them, and no other snapshot.
func TestSet_leftBehind(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 4)
	m := newManager(hv)
	complete := takeSet(t, hv, setOf(vms))
	theirs, err := hv.CreateSnapshot(t.Context(), vms[1].ID, hypervisor.SnapshotSpec{Name: "release", Description: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRenameSnapshot, Skip: 2, Err: errBroken})
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Count: 3, Err: errors.New("killed")})
	half, err := m.TakeSet(t.Context(), setOf(vms))
	if !errors.Is(err, errBroken) || len(half.Members) != 4 {
		t.Fatalf("got %+v and %v", half, err)
	}
	last := ""
	for i, vm := range vms {
		if s := snapshots(t, hv, vm); strings.Contains(s[len(s)-1].Description, `"run"`) {
			last = vm.Name
		} else if len(s) != 2 && i != 1 {
			t.Errorf("%s: %+v", vm.Name, s)
		}
	}
	one, err := m.TakeSet(t.Context(), snapshot.SetRequest{
		Name: "later", Members: []snapshot.SetMember{{VM: hypervisor.VMRef(last)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, one.Warnings, "removed the incomplete set of snapshots "+half.ID)
	if read, missing, err := m.ReadSet(t.Context(), complete.IDs()); err != nil || len(missing) > 0 {
		t.Errorf("the complete set: %+v, %v, %v", read, missing, err)
	}
	for _, vm := range vms {
		want := []string{complete.ID}
		if vm.ID == vms[1].ID {
			want = append(want, "mine")
		}
		if vm.Name == last {
			want = append(want, one.ID)
		}
		all := snapshots(t, hv, vm)
		for i := range want {
			if len(all) != len(want) || !strings.Contains(all[i].Description, want[i]) {
				t.Fatalf("%s has %+v, want %q", vm.Name, all, want)
			}
		}
	}
	if all := snapshots(t, hv, vms[1]); all[1].ID != theirs {
		t.Errorf("%+v", all)
	}
}

// TestSet_leftBehindSingle takes one snapshot of a VM on which half a set was left.
func TestSet_leftBehindSingle(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 2)
	m := newManager(hv)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRenameSnapshot, Err: errBroken})
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Count: 2, Err: errors.New("killed")})
	if _, err := m.TakeSet(t.Context(), setOf(vms)); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	name := vms[0].Name
	if s := snapshots(t, hv, vms[0]); !strings.Contains(s[0].Description, `"run"`) {
		name = vms[1].Name
	}
	r := snapshot.Request{VM: hypervisor.VMRef(name), Name: "one"}
	_, warnings, err := m.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, warnings, "is removed first")
	// What can't be removed is in nobody's way.
	taken, err := m.Take(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, taken.Warnings, "can't be removed")
	if taken, err = m.Take(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, taken.Warnings, "removed the incomplete set")
	if a, b := len(snapshots(t, hv, vms[0])), len(snapshots(t, hv, vms[1])); a+b != 2 {
		t.Errorf("%d and %d snapshots", a, b)
	}
}

// TestSet_underWay takes a set while another is being taken of the same VMs: that is not incomplete.
func TestSet_underWay(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 2)
	m := newManager(hv)
	var other *snapshot.Set
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRenameSnapshot, Do: func(ctx context.Context) {
		var err error
		if other, err = m.TakeSet(ctx, setOf(vms)); err != nil {
			t.Error(err)
		}
	}})
	set := takeSet(t, hv, setOf(vms))
	if len(other.Warnings) > 0 || len(set.Warnings) > 0 {
		t.Errorf("warnings %q, %q", other.Warnings, set.Warnings)
	}
	for _, s := range []*snapshot.Set{set, other} {
		if _, missing, err := m.ReadSet(t.Context(), s.IDs()); err != nil || len(missing) > 0 {
			t.Errorf("missing %v, %v", missing, err)
		}
	}
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
