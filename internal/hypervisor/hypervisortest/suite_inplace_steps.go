package hypervisortest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Methods of restores in place that a Harness is asked to interrupt.
const (
	StartInPlace Method = "StartInPlace"
	Swap         Method = "Swap"
)

// A changedVM is one that was captured and has been written to since.
type changedVM struct {
	*hypervisor.VM
	config hypervisor.Config
	then   [][]byte // its disks as captured
	now    [][]byte
}

func (s *suite) changed(t *testing.T) changedVM {
	t.Helper()
	const name = "vm1"
	vm := s.vm(t, name)
	c := changedVM{VM: vm}
	c.config, c.then = s.capture(t, vm)
	for n := range c.then {
		s.WriteDisk(t, name, n, bytes.Repeat([]byte("changed "), 100), 1<<20)
	}
	c.now = s.disks(t, name)
	return c
}

func (c changedVM) spec(run string) hypervisor.InPlaceSpec {
	return hypervisor.InPlaceSpec{VM: c.ID, Config: c.config, RunID: run}
}

// startInPlace starts a restore in place, which is aborted when the test ends if it wasn't ended before.
func (s *suite) startInPlace(t *testing.T, h hypervisor.Hypervisor, spec hypervisor.InPlaceSpec) hypervisor.InPlaceRestore {
	t.Helper()
	r, err := h.StartInPlace(t.Context(), spec)
	if err != nil {
		t.Fatalf("start in place: %v", err)
	}
	if h == s.Hypervisor {
		t.Cleanup(func() { _ = r.Abort(context.WithoutCancel(t.Context())) }) // the test itself looks at the first error
	}
	return r
}

func writeInPlace(ctx context.Context, r hypervisor.InPlaceRestore, spec hypervisor.InPlaceSpec, disks [][]byte) error {
	errs := make([]error, len(disks))
	var group sync.WaitGroup
	for n, d := range spec.Config.Summary.Disks {
		if spec.Disks == nil || slices.Contains(spec.Disks, d.Key) {
			group.Go(func() { errs[n] = r.WriteDisk(ctx, d.Key, bytesSource(disks[n])) })
		}
	}
	group.Wait()
	return errors.Join(errs...)
}

// swapped starts a restore in place, writes the disks and swaps them.
func (s *suite) swapped(t *testing.T, h hypervisor.Hypervisor, c changedVM, spec hypervisor.InPlaceSpec) (hypervisor.InPlaceRestore, []hypervisor.Replaced) {
	t.Helper()
	r := s.startInPlace(t, h, spec)
	if err := writeInPlace(t.Context(), r, spec, c.then); err != nil {
		t.Fatalf("write: %v", err)
	}
	wantBytes(t, "before the swap", s.disks(t, c.Name), c.now)
	if got := s.find(t, c.InstanceUUID); got.PowerState != c.PowerState {
		t.Errorf("the VM is %s before the swap", got.PowerState)
	}
	vm, replaced, warnings, err := r.Swap(t.Context())
	if err != nil {
		t.Fatalf("swap: %v", err)
	}
	if vm.ID != c.ID || vm.InstanceUUID != c.InstanceUUID || vm.PowerState != hypervisor.PoweredOff || len(warnings) > 0 {
		t.Errorf("swapped: %+v, warnings %q", vm, warnings)
	}
	return r, replaced
}

// ended checks that a VM has no journal, and deletes what was replaced.
func (s *suite) ended(t *testing.T, c changedVM, replaced []hypervisor.Replaced) {
	t.Helper()
	if got, err := s.Hypervisor.InterruptedInPlace(t.Context(), c.ID); err != nil || got != nil {
		t.Errorf("journal: %+v, %v", got, err)
	}
	for range 2 { // the second time there is nothing left to delete
		if err := s.Hypervisor.DeleteReplaced(t.Context(), c.ID, replaced); err != nil {
			t.Errorf("delete replaced: %v", err)
		}
	}
}

func (s *suite) wantPower(t *testing.T, c changedVM, want hypervisor.PowerState) {
	t.Helper()
	if got := s.find(t, c.InstanceUUID).PowerState; got != want {
		t.Errorf("the VM is %s, want %s", got, want)
	}
}

// sameReplaced compares disks. Until when they are kept is the hypervisor's to say where nobody else has.
func sameReplaced(a, b hypervisor.Replaced) bool {
	a.Until = b.Until
	return a == b
}

// wantKept checks which disks a VM remembers.
func (s *suite) wantKept(t *testing.T, c changedVM, want []hypervisor.Replaced) {
	t.Helper()
	if got, err := s.Hypervisor.KeptDisks(t.Context(), c.ID); err != nil || !slices.EqualFunc(got, want, sameReplaced) {
		t.Errorf("the VM remembers %+v, %v, want %+v", got, err, want)
	}
}

// wantInterrupted checks what others see of a restore that was interrupted.
func (s *suite) wantInterrupted(t *testing.T, c changedVM, want hypervisor.Interrupted) hypervisor.Interrupted {
	t.Helper()
	found, err := s.Hypervisor.InterruptedInPlace(t.Context(), c.ID)
	if err != nil || found == nil {
		t.Fatalf("interrupted: %+v, %v, want %+v", found, err, want)
	}
	want.Holder, want.Lease = want.RunID, found.Lease
	if found.Lease == "" || *found != want {
		t.Errorf("interrupted: %+v, want %+v", found, want)
	}
	spec := c.spec("run2")
	var interrupted *hypervisor.InterruptedError
	if _, err := s.Hypervisor.StartInPlace(t.Context(), spec); !errors.As(err, &interrupted) || interrupted.Interrupted != want {
		t.Errorf("start beside it: %v", err)
	}
	for what, edit := range map[string]func(*hypervisor.Interrupted){
		"another run":    func(i *hypervisor.Interrupted) { i.RunID = "run2" },
		"another holder": func(i *hypervisor.Interrupted) { i.Holder, i.Lease = "run2", "run2" },
		"renewed since":  func(i *hypervisor.Interrupted) { i.Lease += "0" },
	} {
		other := *found
		edit(&other)
		if _, _, _, err := s.Hypervisor.RecoverInPlace(t.Context(), c.ID, other, "run3"); !errors.As(err, &interrupted) {
			t.Errorf("recover %s: %v", what, err)
		}
	}
	return *found
}

// recovered checks that a recovered VM is left alone when it is recovered again.
func (s *suite) recovered(t *testing.T, c changedVM, found hypervisor.Interrupted) {
	t.Helper()
	before := s.find(t, c.InstanceUUID)
	vm, replaced, warnings, err := s.Hypervisor.RecoverInPlace(t.Context(), c.ID, found, "run3")
	if err != nil || len(warnings) > 0 || len(replaced) > 0 || vm.PowerState != before.PowerState || vm.Disks[0].Path != before.Disks[0].Path {
		t.Errorf("again: %+v, replaced %+v, %v", vm, replaced, err)
	}
}
