package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// Whatever fails until the VM runs again: it has its own disks and runs, nothing is left behind, and the next
// restore succeeds.
func TestRestoreInPlace_failures(t *testing.T) {
	t.Parallel()
	const begun = true // the error says what the VM is like
	for _, c := range []struct {
		fault hypervisortest.Fault
		begun bool
	}{
		{hypervisortest.Fault{At: hypervisortest.BeforeFindVM}, false},
		{hypervisortest.Fault{At: hypervisortest.BeforeInterruptedInPlace}, false},
		{hypervisortest.Fault{At: hypervisortest.BeforeSnapshots}, false},
		{hypervisortest.Fault{At: hypervisortest.BeforeCheckInPlace}, false},
		{hypervisortest.Fault{At: hypervisortest.BeforeStartInPlace}, false},
		{hypervisortest.Fault{At: hypervisortest.DuringStartInPlace}, false},
		{hypervisortest.Fault{At: hypervisortest.BeforeWriteDisk}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforeWriteDisk, Skip: 1}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringWriteDisk}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringWriteDisk, Skip: 3}, begun},
		{hypervisortest.Fault{At: hypervisortest.AfterWriteDisk}, begun},
		{hypervisortest.Fault{At: hypervisortest.AfterWriteDisk, Skip: 1}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforeSwap}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringSwap}, begun},
		{hypervisortest.Fault{At: hypervisortest.AfterSwap}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforeOpenPointInTime}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringOpenPointInTime}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforeOpenDisk}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforeOpenDisk, Skip: 1}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringRead}, begun},
		{hypervisortest.Fault{At: hypervisortest.DuringRead, Skip: 3}, begun},
		{hypervisortest.Fault{At: hypervisortest.BeforePowerOn}, begun},
	} {
		for _, how := range []string{"error", "cancel"} {
			t.Run(fmt.Sprintf("%s/%d/%s", c.fault.At, c.fault.Skip, how), func(t *testing.T) {
				t.Parallel()
				s, own := newChangedScene(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				fault, want := c.fault, errBroken
				if how == "cancel" {
					want = context.Canceled
					fault.Do = func(context.Context) { cancel() }
				} else {
					fault.Err = errBroken
				}
				s.hv.Fail(fault)
				r := s.inPlace()
				r.Verify = true
				result, err := s.m.Restore(ctx, r)
				if !errors.Is(err, want) || result != nil {
					t.Errorf("got %v, %v, want error %v", result, err, want)
				}
				var in *restore.InPlaceError
				if errors.As(err, &in) != c.begun {
					t.Errorf("the error says what the VM is like: %v, want %v: %v", in != nil, c.begun, err)
				}
				if in != nil && (in.Swapped || in.PowerState != hypervisor.PoweredOn || in.VM != s.vm.Path ||
					!strings.Contains(err.Error(), s.vm.Path+" has the disks that it had and is running")) {
					t.Errorf("%+v", in)
				}
				s.wantOwn(t, own, hypervisor.PoweredOn)
				if second := s.restoreInPlace(t, r, hypervisor.PoweredOn); len(second.Warnings) > 0 {
					t.Errorf("second attempt: warnings %q", second.Warnings)
				}
				s.wantTidy(t)
			})
		}
	}
}

// The VM can't be started: neither Terraform nor anybody else shall have to find out how to get it running.
func TestRestoreInPlace_notStarted(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Err: errBroken})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, restore.ErrNotStarted) || !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	s.wantOwn(t, own, hypervisor.PoweredOn)
}

// A VM that was off before stays off when its restore fails.
func TestRestoreInPlace_failsOff(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.PowerState, vm.GuestAgent = hypervisor.PoweredOff, false })
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.AfterSwap, Err: errBroken})
	_, err := s.m.Restore(t.Context(), s.inPlace())
	var in *restore.InPlaceError
	if !errors.As(err, &in) || in.PowerState != hypervisor.PoweredOff || !strings.Contains(err.Error(), "powered off") {
		t.Errorf("got error %v", err)
	}
	s.wantOwn(t, own, hypervisor.PoweredOff)
}

// The VM's own disks can't be put back: they are not lost, and the next restore goes on from there.
func TestRestoreInPlace_noWayBack(t *testing.T) {
	t.Parallel()
	for _, at := range []hypervisortest.Point{
		hypervisortest.BeforeBack, hypervisortest.BeforePowerOff, hypervisortest.BeforeSnapshots,
	} {
		s, own := newChangedScene(t)
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.AfterSwap, Err: hypervisor.ErrLost})
		fault := hypervisortest.Fault{At: at, Err: errBroken}
		if at == hypervisortest.BeforeSnapshots {
			fault.Skip = 1
		}
		s.hv.Fail(fault)
		result, err := s.m.Restore(t.Context(), s.inPlace())
		var in *restore.InPlaceError
		if result != nil || !errors.Is(err, hypervisor.ErrLost) || !errors.Is(err, errBroken) || !errors.As(err, &in) {
			t.Fatalf("%s: got %v, %v", at, result, err)
		}
		if !in.Swapped || in.PowerState != hypervisor.PoweredOff || !strings.Contains(err.Error(), "has the restored disks and is powered off") {
			t.Errorf("%s: %+v", at, in)
		}
		s.wantDisks(t, s.vm.ID)
		if loose := s.hv.LooseDisk(s.vm.Disks[0].Path); !bytes.Equal(loose, own[0]) {
			t.Errorf("%s: the VM's own disk is lost", at)
		}
		second := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
		if len(second.Warnings) != 2 {
			t.Errorf("%s: warnings %q", at, second.Warnings)
		}
		s.wantKept(t, second, own)
	}
}

// The snapshot that the verification needs stays behind: the disks can't be put back before it is gone.
func TestRestoreInPlace_verificationStays(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeClose, Err: errBroken})
	r := s.inPlace()
	r.Verify = true
	if _, err := s.m.Restore(t.Context(), r); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	s.wantOwn(t, own, hypervisor.PoweredOn)
}

func TestRestoreInPlace_abortFails(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeSwap, Err: hypervisor.ErrLost})
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeAbort, Err: errBroken})
	_, err := s.m.Restore(t.Context(), s.inPlace())
	if !errors.Is(err, hypervisor.ErrLost) || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "not all of the restore could be undone") {
		t.Errorf("got error %v", err)
	}
	if len(s.hv.Leftovers("")) != 1 || len(s.hv.LooseDisks()) != 2 {
		t.Errorf("left behind: %v, %v", s.hv.Leftovers(""), s.hv.LooseDisks())
	}
	s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
	s.wantTidy(t)
}

// Once the VM runs, the restore stands. What could not be tidied up is said.
func TestRestoreInPlace_endFails(t *testing.T) {
	t.Parallel()
	for _, at := range []hypervisortest.Point{
		hypervisortest.BeforeDeleteReplaced, hypervisortest.BeforeFinish, hypervisortest.BeforeVMByInstanceUUID,
	} {
		s, _ := newChangedScene(t)
		s.hv.Fail(hypervisortest.Fault{At: at, Err: errBroken})
		result := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
		if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], errBroken.Error()) {
			t.Errorf("%s: warnings %q", at, result.Warnings)
		}
		switch at {
		case hypervisortest.BeforeDeleteReplaced:
			if len(result.Replaced) != 2 || !result.ReplacedUntil.Equal(result.CompletedAt) || !strings.Contains(result.Warnings[0], s.vm.Disks[1].Path) {
				t.Errorf("%s: %+v, warnings %q", at, result.Replaced, result.Warnings)
			}
			if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
				t.Error(err)
			}
		case hypervisortest.BeforeFinish: // the next restore recovers
			s.hv.SetGuest(s.vm.ID, true, "")
			if _, err := s.m.Restore(t.Context(), s.inPlace()); err != nil {
				t.Error(err)
			}
		}
		s.wantTidy(t)
	}
}

func TestRestoreInPlace_recoveryFails(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRecoverInPlace, Err: errBroken})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	s.wantKept(t, s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn), own)
}

// Data that was damaged in the repository doesn't reach the VM, which runs on.
func TestRestoreInPlace_damaged(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.damage(t)
	m := restore.New(s.hv, openRepository(t, s.dir), slog.New(slog.DiscardHandler), time.Now)
	if result, err := m.Restore(t.Context(), s.inPlace()); !errors.Is(err, repository.ErrDamaged) || result != nil {
		t.Errorf("got %+v, %v", result, err)
	}
	if s.hv.Seen(hypervisortest.BeforeSwap) > 0 {
		t.Error("the VM was stopped")
	}
	s.wantOwn(t, s.disks, hypervisor.PoweredOn)
}

// damage changes bytes of the data in the repository.
func (s *scene) damage(t *testing.T) {
	t.Helper()
	packs := 0
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		// Data is in files below directories that are named p….
		if err != nil || d.IsDir() || !strings.HasPrefix(strings.TrimPrefix(path, s.dir), "/p") {
			return err
		}
		packs++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := len(b) / 4; i < len(b)*3/4; i += 97 {
			b[i] ^= 0x55
		}
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || packs == 0 {
		t.Fatalf("%d packs, %v", packs, err)
	}
}
