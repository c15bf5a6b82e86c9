package hypervisortest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var inPlaceTests = []suiteTest{
	{"in place/round trip", func(t *testing.T, s *suite) {
		c := s.changed(t)
		for _, run := range []string{"run1", "run2"} {
			spec := c.spec(run)
			spec.PowerOff = true // the second time, the guest's agent may not be there yet
			if warnings, err := s.Hypervisor.CheckInPlace(t.Context(), spec); err != nil || len(warnings) > 0 {
				t.Fatalf("check: %q, %v", warnings, err)
			}
			r, replaced := s.swapped(t, s.Hypervisor, c, spec)
			wantBytes(t, "swapped", s.disks(t, "vm1"), c.then)
			if err := r.Finish(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if err := r.Abort(t.Context()); err != nil {
				t.Errorf("abort after finish: %v", err)
			}
			vm := s.find(t, c.InstanceUUID)
			for n, d := range vm.Disks {
				was := c.Disks[n]
				if d.Key != was.Key || d.Address != was.Address || d.UUID != was.UUID || d.Path != replaced[n].Now || d.Path == replaced[n].Path {
					t.Errorf("disk %d is %+v, was %+v, replaced %+v", n, d, was, replaced[n])
				}
			}
			used := []hypervisor.Replaced{{Label: "in use", Path: vm.Disks[0].Path}}
			if err := s.Hypervisor.DeleteReplaced(t.Context(), c.ID, used); err == nil {
				t.Error("a disk was deleted that the VM has")
			}
			s.ended(t, c, replaced)
			if err := s.Hypervisor.PowerOn(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			s.WriteDisk(t, "vm1", 0, []byte("and on it goes"), 0)
			c.now = s.disks(t, "vm1")
		}
	}},
	{"in place/back", func(t *testing.T, s *suite) {
		c := s.changed(t)
		r, _ := s.swapped(t, s.Hypervisor, c, c.spec("run1"))
		if err := r.Back(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "back", s.disks(t, "vm1"), c.now)
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2 {
			if err := r.Abort(cancelled); err != nil {
				t.Errorf("abort: %v", err)
			}
		}
		wantBytes(t, "aborted", s.disks(t, "vm1"), c.now)
		s.wantPower(t, c, hypervisor.PoweredOn)
		s.ended(t, c, nil)
	}},
	{"in place/abort", func(t *testing.T, s *suite) {
		c := s.changed(t)
		for _, written := range []int{0, 1, 2} {
			r := s.startInPlace(t, s.Hypervisor, c.spec("run1"))
			for n, d := range c.config.Summary.Disks[:written] {
				if err := r.WriteDisk(t.Context(), d.Key, bytesSource(c.then[n])); err != nil {
					t.Fatal(err)
				}
			}
			if written < 2 {
				if _, _, _, err := r.Swap(t.Context()); err == nil {
					t.Error("swapped without all disks")
				}
				if err := r.Finish(t.Context(), nil); err == nil {
					t.Error("finished without a swap")
				}
			}
			if err := r.Abort(t.Context()); err != nil {
				t.Errorf("abort: %v", err)
			}
			wantBytes(t, "aborted", s.disks(t, "vm1"), c.now)
			s.wantPower(t, c, hypervisor.PoweredOn)
			s.ended(t, c, nil)
		}
	}},
	{"in place/subset", func(t *testing.T, s *suite) {
		c := s.changed(t)
		spec := c.spec("run1")
		spec.Disks = []hypervisor.DiskKey{c.config.Summary.Disks[1].Key}
		r, replaced := s.swapped(t, s.Hypervisor, c, spec)
		if err := r.Finish(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "subset", s.disks(t, "vm1"), [][]byte{c.now[0], c.then[1]})
		if len(replaced) != 1 {
			t.Errorf("replaced %+v", replaced)
		}
		s.ended(t, c, replaced)
	}},
	{"in place/snapshots", func(t *testing.T, s *suite) {
		c := s.changed(t)
		a := s.snapshot(t, c.VM, hypervisor.SnapshotSpec{Name: "a"})
		s.snapshot(t, c.VM, hypervisor.SnapshotSpec{Name: "b"})
		spec := c.spec("run1")
		_, err := s.Hypervisor.CheckInPlace(t.Context(), spec)
		wantError(t, "check", err, hypervisor.ErrSnapshotsInTheWay)
		_, err = s.Hypervisor.StartInPlace(t.Context(), spec)
		wantError(t, "start", err, hypervisor.ErrSnapshotsInTheWay)
		spec.RemoveSnapshots = true
		warnings, err := s.Hypervisor.CheckInPlace(t.Context(), spec)
		if err != nil || len(warnings) == 0 {
			t.Errorf("check: warnings %q, %v", warnings, err)
		}
		r, replaced := s.swapped(t, s.Hypervisor, c, spec)
		if err := r.Finish(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "restored", s.disks(t, "vm1"), c.then)
		if left := s.snapshots(t, c.VM); len(left) > 0 {
			t.Errorf("snapshots %+v, among them %s", left, a.ID)
		}
		s.ended(t, c, replaced)
	}},
	{"in place/refused", refusedInPlace},
	{"in place/killed after the swap", func(t *testing.T, s *suite) {
		c := s.changed(t)
		killed := s.Connect(t)
		_, want := s.swapped(t, killed, c, c.spec("run1"))
		found := s.wantInterrupted(t, c, hypervisor.Interrupted{RunID: "run1", Swapped: true, Stopped: true})
		vm, replaced, warnings, err := s.Hypervisor.RecoverInPlace(t.Context(), c.ID, found, "run2")
		if err != nil || len(warnings) > 0 || vm.ID != c.ID || !slices.EqualFunc(replaced, want, sameReplaced) {
			t.Errorf("recovered %+v, replaced %+v, want %+v, %v", vm, replaced, want, err)
		}
		wantBytes(t, "recovered", s.disks(t, "vm1"), c.then)
		s.wantKept(t, c, want)
		s.recovered(t, c, found)
		s.ended(t, c, replaced)
		s.wantKept(t, c, nil)
	}},
	{"in place/killed when undoing", func(t *testing.T, s *suite) {
		c := s.changed(t)
		r, _ := s.swapped(t, s.Connect(t), c, c.spec("run1"))
		if err := r.Back(t.Context()); err != nil {
			t.Fatal(err)
		}
		found := s.wantInterrupted(t, c, hypervisor.Interrupted{RunID: "run1", Stopped: true})
		vm, replaced, warnings, err := s.Hypervisor.RecoverInPlace(t.Context(), c.ID, found, "run2")
		if err != nil || len(warnings) > 0 || vm.PowerState != hypervisor.PoweredOn || len(replaced) > 0 {
			t.Errorf("recovered %+v, replaced %+v, %v", vm, replaced, err)
		}
		wantBytes(t, "recovered", s.disks(t, "vm1"), c.now)
		s.recovered(t, c, found)
		s.ended(t, c, nil)
	}},
	{"in place/taken over", func(t *testing.T, s *suite) {
		c := s.changed(t)
		r, want := s.swapped(t, s.Connect(t), c, c.spec("run1"))
		if err := r.Holds(t.Context()); err != nil {
			t.Errorf("before: %v", err)
		}
		found := s.wantInterrupted(t, c, hypervisor.Interrupted{RunID: "run1", Swapped: true, Stopped: true})
		// Two runs recover at a time: one does.
		errs := make([]error, 2)
		var group sync.WaitGroup
		for n, by := range []string{"run2", "run3"} {
			h := s.Connect(t)
			group.Go(func() { _, _, _, errs[n] = h.RecoverInPlace(t.Context(), c.ID, found, by) })
		}
		group.Wait()
		for n, err := range errs {
			var interrupted *hypervisor.InterruptedError
			if err != nil && !errors.As(err, &interrupted) || err != nil && errs[1-n] != nil {
				t.Errorf("recover: %v", err) // neither is an error if one has ended when the other begins
			}
		}
		s.wantKept(t, c, want)
		next := s.startInPlace(t, s.Hypervisor, c.spec("run4"))
		// The first one goes on.
		for what, err := range map[string]error{
			"holds": r.Holds(t.Context()), "back": r.Back(t.Context()), "finish": r.Finish(t.Context(), nil),
		} {
			wantError(t, what, err, hypervisor.ErrTakenOver)
		}
		if err := r.Abort(t.Context()); err != nil {
			t.Errorf("abort: %v", err)
		}
		if err := next.Holds(t.Context()); err != nil {
			t.Errorf("the next restore: %v", err)
		}
		if err := next.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		s.wantPower(t, c, hypervisor.PoweredOff)
		wantBytes(t, "taken over", s.disks(t, "vm1"), c.then)
		s.ended(t, c, want)
	}},
	{"in place/kept", func(t *testing.T, s *suite) {
		c := s.changed(t)
		r, kept := s.swapped(t, s.Hypervisor, c, c.spec("run1"))
		s.wantKept(t, c, nil)
		if err := r.Finish(t.Context(), kept); err != nil {
			t.Fatal(err)
		}
		s.wantKept(t, c, kept)
		for range 2 {
			if err := s.Hypervisor.ForgetKept(t.Context(), c.ID, kept[:1]); err != nil {
				t.Fatal(err)
			}
			s.wantKept(t, c, kept[1:])
		}
		s.ended(t, c, kept)
		s.wantKept(t, c, nil)
	}},
	{"in place/ran", func(t *testing.T, s *suite) {
		c := s.changed(t)
		if err := s.Hypervisor.PowerOff(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		spec := c.spec("run1")
		spec.Ran = true
		r := s.startInPlace(t, s.Hypervisor, spec)
		s.wantInterrupted(t, c, hypervisor.Interrupted{RunID: "run1", Stopped: true})
		if err := r.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantPower(t, c, hypervisor.PoweredOn)
		s.ended(t, c, nil)
	}},
	{"in place/left", func(t *testing.T, s *suite) {
		c := s.changed(t)
		r, _ := s.swapped(t, s.Hypervisor, c, c.spec("run1"))
		r.Leave()
		if err := r.Abort(t.Context()); err != nil {
			t.Errorf("abort: %v", err)
		}
		found := s.wantInterrupted(t, c, hypervisor.Interrupted{RunID: "run1", Swapped: true, Stopped: true})
		_, replaced, _, err := s.Hypervisor.RecoverInPlace(t.Context(), c.ID, found, "run2")
		if err != nil {
			t.Error(err)
		}
		s.ended(t, c, replaced)
	}},
}

func refusedInPlace(t *testing.T, s *suite) {
	c := s.changed(t)
	mute := s.add(t, VMSpec{Name: "mute", NoAgent: true, Disks: [][]byte{c.then[0], c.then[1]}})
	other := s.add(t, VMSpec{Name: "other", Disks: [][]byte{pattern(3, capacities[1]), pattern(4, capacities[1])}})
	var mismatch *hypervisor.DiskMismatchError
	var gone *hypervisor.VMNotFoundError
	for _, test := range []struct {
		name string
		spec func(*hypervisor.InPlaceSpec)
		is   func(error) bool
	}{
		{"unknown format", func(s *hypervisor.InPlaceSpec) { s.Config.Format = "other/1" },
			func(err error) bool { return errors.Is(err, hypervisor.ErrConfigFormat) }},
		{"no agent", func(s *hypervisor.InPlaceSpec) { s.VM = mute.ID },
			func(err error) bool { return errors.Is(err, hypervisor.ErrGuestAgent) }},
		{"other capacity", func(s *hypervisor.InPlaceSpec) { s.VM = other.ID },
			func(err error) bool { return errors.As(err, &mismatch) && len(mismatch.Disks) == 2 }},
		{"no such VM", func(s *hypervisor.InPlaceSpec) { s.VM = "vm-4711" },
			func(err error) bool { return errors.As(err, &gone) }},
		{"no such disk", func(s *hypervisor.InPlaceSpec) { s.Disks = []hypervisor.DiskKey{"4711"} },
			func(err error) bool { return err != nil }},
	} {
		spec := c.spec("run1")
		test.spec(&spec)
		if _, err := s.Hypervisor.CheckInPlace(t.Context(), spec); !test.is(err) {
			t.Errorf("%s: check: %v", test.name, err)
		}
		if _, err := s.Hypervisor.StartInPlace(t.Context(), spec); !test.is(err) {
			t.Errorf("%s: start: %v", test.name, err)
		}
	}
	// A VM whose guest can't be asked can be stopped nevertheless, if that is allowed.
	m := changedVM{VM: mute, config: c.config, then: c.then, now: s.disks(t, "mute")}
	spec := m.spec("run1")
	spec.PowerOff = true
	r, replaced := s.swapped(t, s.Hypervisor, m, spec)
	if err := r.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "mute", s.disks(t, "mute"), c.then)
	s.ended(t, m, replaced)
	wantBytes(t, "untouched", s.disks(t, "vm1"), c.now)
}

// inPlaceActions are the methods of restores in place that are cancelled.
var inPlaceActions = []action{
	{StartInPlace, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		config, _ := s.capture(t, vm)
		return func(ctx context.Context) error {
			r, err := s.Hypervisor.StartInPlace(ctx, hypervisor.InPlaceSpec{VM: vm.ID, Config: config, RunID: "run1"})
			if err == nil {
				err = r.Abort(ctx)
			}
			return err
		}
	}},
	{Swap, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		config, disks := s.capture(t, vm)
		spec := hypervisor.InPlaceSpec{VM: vm.ID, Config: config, RunID: "run1"}
		r := s.startInPlace(t, s.Hypervisor, spec)
		if err := writeInPlace(t.Context(), r, spec, disks); err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error {
			_, _, _, err := r.Swap(ctx)
			if err == nil {
				return r.Finish(context.WithoutCancel(ctx), nil)
			}
			if abortErr := r.Abort(ctx); abortErr != nil {
				t.Errorf("abort: %v", abortErr)
			}
			return err
		}
	}},
}
