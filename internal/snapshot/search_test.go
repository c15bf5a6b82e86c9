package snapshot_test

import (
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// search collects what a query finds, as "VM:path".
func search(t *testing.T, m *snapshot.Manager, q snapshot.Query) (found []string, err error) {
	t.Helper()
	for one, err := range m.Search(t.Context(), q) {
		if err != nil {
			return found, err
		}
		text := one.VM.Name + ":" + one.Snapshot.Path
		if one.Hidden != nil {
			text = one.VM.Name + " is hidden"
		}
		found = append(found, text)
	}
	return found, nil
}

func TestSearch(t *testing.T) {
	t.Parallel()
	hv := hypervisortest.NewFake(t)
	take := func(vm hypervisor.VM, name, description string) {
		t.Helper()
		_, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: name, Description: description})
		if err != nil {
			t.Fatal(err)
		}
	}
	temporary := func(vm hypervisor.VM) (run.Run, string) {
		t.Helper()
		r := run.Start(time.Now(), time.Time{})
		name, description, err := r.LabelSnapshot(run.BackupSnapshot, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		take(vm, name, description)
		return r, name
	}
	db, web := hv.AddVM(hypervisortest.VMSpec{Name: "db"}), hv.AddVM(hypervisortest.VMSpec{Name: "web"})
	take(web, "nightly-1", "")
	take(web, "before upgrade", "")
	take(web, run.BackupSnapshot+"mine", "named like one of ours")
	take(db, "nightly-1", "")
	killed, left := temporary(db)
	killed.End()
	going, _ := temporary(web)
	defer going.End()
	const mine = "web:nightly-1/before upgrade/" + run.BackupSnapshot + "mine"
	const before, nightly, nightlyDB = "web:nightly-1/before upgrade", "web:nightly-1", "db:nightly-1"
	hour := func() time.Time { return time.Now().Add(time.Hour) }
	for name, c := range map[string]struct {
		query snapshot.Query
		now   func() time.Time
		want  []string
	}{
		"all":             {want: []string{nightlyDB, nightly, before, mine}},
		"of a VM":         {query: snapshot.Query{VM: "web"}, want: []string{nightly, before, mine}},
		"of a folder":     {query: snapshot.Query{Folder: hypervisortest.FakeFolder, Name: "nightly-1"}, want: []string{nightlyDB, nightly}},
		"by expression":   {query: snapshot.Query{NameMatches: regexp.MustCompile("upg")}, want: []string{before}},
		"left behind":     {query: snapshot.Query{Temporary: true}, want: []string{"db:nightly-1/" + left}},
		"old":             {query: snapshot.Query{OlderThan: time.Minute}},
		"old, later":      {query: snapshot.Query{OlderThan: time.Minute, Name: "nightly-1"}, now: hour, want: []string{nightlyDB, nightly}},
		"of unknown size": {query: snapshot.Query{LargerThan: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			now := c.now
			if now == nil {
				now = time.Now
			}
			m := snapshot.New(hv, slog.New(slog.DiscardHandler), now)
			if got, err := search(t, m, c.query); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q and %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestSearch_failures(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	if _, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	m := newManager(hv)
	var noVM *hypervisor.VMNotFoundError
	if _, err := search(t, m, snapshot.Query{VM: "none"}); !errors.As(err, &noVM) {
		t.Errorf("an unknown VM gives %v", err)
	}
	var noFolder *hypervisor.NotAvailableError
	if _, err := search(t, m, snapshot.Query{Folder: "/none"}); !errors.As(err, &noFolder) {
		t.Errorf("an unknown folder gives %v", err)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeSnapshotsBelow, Err: errBroken})
	if _, err := search(t, m, snapshot.Query{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeSnapshots, Err: errBroken})
	if found, err := search(t, m, snapshot.Query{}); err != nil || !slices.Equal(found, []string{"web is hidden"}) {
		t.Errorf("got %q and %v", found, err)
	}
}

func TestFindSetByID(t *testing.T) {
	t.Parallel()
	hv := hypervisortest.NewFake(t)
	for _, name := range []string{"a", "b", "c"} {
		hv.AddVM(hypervisortest.VMSpec{Name: name})
	}
	m := newManager(hv)
	set, err := m.TakeSet(t.Context(), snapshot.SetRequest{Name: "s", Members: []snapshot.SetMember{{VM: "c"}, {VM: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	ids, lost, err := m.FindSetByID(t.Context(), set.ID)
	if err != nil || len(lost) > 0 || !slices.Equal(ids, set.IDs()) {
		t.Errorf("got %v, %v and %v, want %v", ids, lost, err, set.IDs())
	}
	if _, _, err := m.FindSetByID(t.Context(), "0123456789abcdef"); !errors.Is(err, snapshot.ErrRequest) {
		t.Errorf("an unknown set gives %v", err)
	}
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeSnapshotsBelow, Err: errBroken})
	if _, _, err := m.FindSetByID(t.Context(), set.ID); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
}
