package hypervisortest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var powerTests = []suiteTest{
	{"power/on and off", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		for _, step := range []struct {
			name string
			do   func(ctx context.Context, vm hypervisor.VMID) error
			want hypervisor.PowerState
		}{
			{"on, already", s.Hypervisor.PowerOn, hypervisor.PoweredOn},
			{"shut down", s.Hypervisor.ShutDownGuest, hypervisor.PoweredOff},
			{"shut down, already", s.Hypervisor.ShutDownGuest, hypervisor.PoweredOff},
			{"on", s.Hypervisor.PowerOn, hypervisor.PoweredOn},
			{"off", s.Hypervisor.PowerOff, hypervisor.PoweredOff},
			{"off, already", s.Hypervisor.PowerOff, hypervisor.PoweredOff},
		} {
			if err := step.do(t.Context(), vm.ID); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
			if got := s.find(t, vm.InstanceUUID).PowerState; got != step.want {
				t.Errorf("%s: the VM is %s", step.name, got)
			}
		}
	}},
	{"power/no agent", func(t *testing.T, s *suite) {
		vm := s.add(t, VMSpec{Name: "vm1", NoAgent: true, Disks: [][]byte{pattern(1, capacities[0])}})
		wantError(t, "shut down", s.Hypervisor.ShutDownGuest(t.Context(), vm.ID), hypervisor.ErrGuestAgent)
		if got := s.find(t, vm.InstanceUUID); got.GuestAgent || got.PowerState != hypervisor.PoweredOn {
			t.Errorf("got %+v", got)
		}
	}},
	{"power/gone", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.destroy(t, vm.ID)
		wantNotFound(t, "on", s.Hypervisor.PowerOn(t.Context(), vm.ID))
		wantNotFound(t, "off", s.Hypervisor.PowerOff(t.Context(), vm.ID))
		wantNotFound(t, "shut down", s.Hypervisor.ShutDownGuest(t.Context(), vm.ID))
	}},
}

// An action is a method called on what a test has prepared.
type action struct {
	method Method
	// ready prepares and returns what calls the method.
	ready func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error
}

var actions = []action{
	{CreateSnapshot, func(_ *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			id, err := s.Hypervisor.CreateSnapshot(ctx, vm.ID, hypervisor.SnapshotSpec{Name: "a"})
			if id == "" || err == nil {
				return err
			}
			// It exists: that is allowed, the caller knows it and removes it.
			return errors.Join(err, s.Hypervisor.RemoveSnapshot(context.WithoutCancel(ctx), vm.ID, id, hypervisor.RemoveOptions{}))
		}
	}},
	{RemoveSnapshot, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		return func(ctx context.Context) error {
			return s.Hypervisor.RemoveSnapshot(ctx, vm.ID, a.ID, hypervisor.RemoveOptions{})
		}
	}},
	{RenameSnapshot, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		return func(ctx context.Context) error { return s.Hypervisor.RenameSnapshot(ctx, vm.ID, a.ID, "b", "") }
	}},
	revertAction,
	consolidateAction,
	{PowerOff, func(_ *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		return func(ctx context.Context) error { return s.Hypervisor.PowerOff(ctx, vm.ID) }
	}},
	{PowerOn, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		if err := s.Hypervisor.PowerOff(t.Context(), vm.ID); err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error { return s.Hypervisor.PowerOn(ctx, vm.ID) }
	}},
	{ShutDownGuest, func(_ *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		return func(ctx context.Context) error { return s.Hypervisor.ShutDownGuest(ctx, vm.ID) }
	}},
	{OpenPointInTime, func(_ *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			p, err := s.Hypervisor.OpenPointInTime(ctx, vm.ID, hypervisor.PointInTimeSpec{Name: TemporaryPrefix + "c"})
			if err == nil {
				err = p.Close(ctx)
			}
			return err
		}
	}},
	{ReadDisk, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		p := s.open(t, vm, hypervisor.PointInTimeSpec{})
		return func(ctx context.Context) error {
			_, err := readDisk(ctx, p, vm.Disks[0].Key)
			if closeErr := p.Close(ctx); closeErr != nil {
				t.Errorf("close: %v", closeErr)
			}
			return err
		}
	}},
	{StartRestore, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		config, _ := s.capture(t, vm)
		return func(ctx context.Context) error {
			r, err := s.Hypervisor.StartRestore(ctx, hypervisor.RestoreSpec{
				Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1",
			})
			if err == nil {
				err = r.Abort(ctx)
			}
			return err
		}
	}},
	{WriteDisk, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		config, disks := s.capture(t, vm)
		r := s.start(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"})
		return func(ctx context.Context) error {
			err := r.WriteDisk(ctx, config.Summary.Disks[0].Key, bytesSource(disks[0]))
			if abortErr := r.Abort(ctx); abortErr != nil {
				t.Errorf("abort: %v", abortErr)
			}
			return err
		}
	}},
	{Commit, func(t *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		config, disks := s.capture(t, vm)
		r := s.start(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"})
		for n, d := range config.Summary.Disks {
			if err := r.WriteDisk(t.Context(), d.Key, bytesSource(disks[n])); err != nil {
				t.Fatal(err)
			}
		}
		return func(ctx context.Context) error {
			_, _, err := r.Commit(ctx)
			if err == nil {
				return nil
			}
			if abortErr := r.Abort(ctx); abortErr != nil {
				t.Errorf("abort: %v", abortErr)
			}
			return err
		}
	}},
	{DestroyVM, func(_ *testing.T, s *suite, vm *hypervisor.VM) func(ctx context.Context) error {
		return func(ctx context.Context) error { return s.Hypervisor.DestroyVM(ctx, vm.ID) }
	}},
}

// cancelTests cancel each action before it begins and while it is under way. Either way it ends with
// the context's error, or with success if it was too late; nothing is left behind, and nothing is in
// the way of what comes next.
var cancelTests = func() []suiteTest {
	var tests []suiteTest
	for _, a := range slices.Concat(actions, inPlaceActions) {
		tests = append(tests,
			suiteTest{"cancel/before/" + string(a.method), func(t *testing.T, s *suite) {
				vm := s.vm(t, "vm1")
				do := a.ready(t, s, vm)
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				wantError(t, string(a.method), do(ctx), context.Canceled)
				s.wantUsable(t, vm)
			}},
			suiteTest{"cancel/during/" + string(a.method), func(t *testing.T, s *suite) {
				vm := s.vm(t, "vm1")
				do := a.ready(t, s, vm)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if !s.Interrupt(t, a.method, cancel) {
					t.Skip("the server can't be stopped in the middle of this")
				}
				if err := do(ctx); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("got error %v, want none or %v", err, context.Canceled)
				}
				if ctx.Err() == nil {
					t.Error("the method was not interrupted")
				}
				if a.method != DestroyVM { // of which there is no way back
					s.wantUsable(t, vm)
				}
			}})
	}
	return tests
}()

// wantUsable checks that nothing stands in the way of the next operation on a VM.
func (s *suite) wantUsable(t *testing.T, vm *hypervisor.VM) {
	t.Helper()
	before := len(s.snapshots(t, vm))
	a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "usable"})
	remove(t, s, vm, a.ID, hypervisor.RemoveOptions{})
	if after := len(s.snapshots(t, vm)); after != before {
		t.Errorf("%d snapshots, before %d", after, before)
	}
	config, disks := s.capture(t, vm)
	got := s.restore(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "usable", RunID: "usable"}, disks)
	s.destroy(t, got.ID)
}
