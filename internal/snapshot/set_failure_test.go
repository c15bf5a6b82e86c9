package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

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

// TestSet_copied takes a snapshot of a copy of a VM whose files were copied while a set was taken: the copy's snapshot
// names the run of the set for good, which says nothing about the set.
func TestSet_copied(t *testing.T) {
	t.Parallel()
	hv, vms := newTiers(t, 3)
	originals, copied := vms[:2], vms[2]
	m := newManager(hv)
	var description string
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRenameSnapshot, Do: func(context.Context) {
		for _, vm := range originals {
			if s := snapshots(t, hv, vm); strings.Contains(s[0].Description, `"run"`) {
				description = s[0].Description
			}
		}
	}})
	set := takeSet(t, hv, setOf(originals))
	if _, err := hv.CreateSnapshot(t.Context(), copied.ID, hypervisor.SnapshotSpec{
		Name: "release", Description: description,
	}); err != nil {
		t.Fatal(err)
	}
	r := snapshot.Request{VM: hypervisor.VMRef(copied.Name), Name: "one"}
	if _, warnings, err := m.Check(t.Context(), r); err != nil || len(warnings) > 0 {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	if taken, err := m.Take(t.Context(), r); err != nil || len(taken.Warnings) > 0 {
		t.Errorf("got %+v, %v", taken, err)
	}
	takeSet(t, hv, setOf(vms[2:]))
	if _, missing, err := m.ReadSet(t.Context(), set.IDs()); err != nil || len(missing) > 0 {
		t.Errorf("of the set that was complete, %v is missing, %v", missing, err)
	}
	if all := snapshots(t, hv, copied); len(all) != 3 {
		t.Errorf("the copy has %+v", all)
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

// lateRename is a hypervisor that answers nothing to one request to rename a snapshot, and carries it out when the
// snapshots of its VM have been listed once more.
type lateRename struct {
	*hypervisortest.Fake

	mu   sync.Mutex
	of   hypervisor.VMID
	late func() error
}

func (l *lateRename) RenameSnapshot(
	ctx context.Context, vm hypervisor.VMID, id hypervisor.SnapshotID, name, description string,
) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if vm != l.of {
		return l.Fake.RenameSnapshot(ctx, vm, id, name, description)
	}
	l.late = func() error { return l.Fake.RenameSnapshot(context.WithoutCancel(ctx), vm, id, name, description) }
	return errBroken
}

func (l *lateRename) Snapshots(ctx context.Context, vm hypervisor.VMID) ([]hypervisor.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.Fake.Snapshots(ctx, vm)
	if vm == l.of && l.late != nil {
		err = errors.Join(err, l.late())
		l.late = nil
	}
	return all, err
}

// A request that was given up marks a snapshot as complete while its set is being removed.
func TestSet_markedLate(t *testing.T) {
	t.Parallel()
	fake, vms := newTiers(t, 3)
	hv := &lateRename{Fake: fake, of: vms[1].ID}
	set, err := newManager(hv).TakeSet(t.Context(), setOf(vms))
	if set != nil || !errors.Is(err, errBroken) {
		t.Errorf("got %+v and %v", set, err)
	}
	if hv.late != nil {
		t.Error("nothing was marked late")
	}
	wantNone(t, fake, vms)
}
