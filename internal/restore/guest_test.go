package restore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// A guest comes up step by step. What is waited for decides when that is over.
func TestRestore_waitForGuest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wait  restore.WaitForGuest
		steps int // that are waited for
	}{
		"all":     {restore.WaitForGuest{Timeout: time.Minute}, 4},
		"both":    {restore.WaitForGuest{Agent: true, Address: true}, 4},
		"agent":   {restore.WaitForGuest{Agent: true}, 1},
		"address": {restore.WaitForGuest{Address: true}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.hv.Lose(s.vm.ID)
			for i, address := range []string{"", "127.0.0.1", "169.254.7.7", "192.0.2.7"} {
				if i < c.steps {
					s.hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringWatchGuest, Do: func(ctx context.Context) {
						vm, err := s.hv.FindVM(ctx, "web")
						if err != nil {
							t.Error(err)
							return
						}
						s.hv.SetGuest(vm.ID, true, address)
					}})
				}
			}
			result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id, WaitForGuest: &c.wait})
			if err != nil {
				t.Fatal(err)
			}
			if n := s.hv.Seen(hypervisortest.DuringWatchGuest); n != c.steps {
				t.Errorf("waited %d times, want %d", n, c.steps)
			}
			if !result.VM.GuestAgent || c.steps == 4 && result.VM.GuestIPAddress != "192.0.2.7" || len(result.Warnings) > 0 {
				t.Errorf("%+v, warnings %q", result.VM, result.Warnings)
			}
		})
	}
}

// What becomes of a guest doesn't change that the VM is restored.
func TestRestore_guestNotReady(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout time.Duration
		fault   func(s *scene, cancel func()) hypervisortest.Fault
		is      error
		says    string
	}{
		"in time": {timeout: time.Millisecond, says: "gives no sign of life, and it reports no address"},
		"caller leaves": {fault: func(_ *scene, cancel func()) hypervisortest.Fault {
			return hypervisortest.Fault{At: hypervisortest.DuringWatchGuest, Do: func(context.Context) { cancel() }}
		}, is: context.Canceled},
		"can't be watched": {fault: func(*scene, func()) hypervisortest.Fault {
			return hypervisortest.Fault{At: hypervisortest.BeforeWatchGuest, Err: errBroken}
		}, is: errBroken},
		"stops": {fault: func(s *scene, _ func()) hypervisortest.Fault {
			return hypervisortest.Fault{At: hypervisortest.DuringWatchGuest, Do: func(ctx context.Context) {
				if vm, err := s.hv.FindVM(ctx, "web"); err == nil {
					_ = s.hv.PowerOff(ctx, vm.ID)
				}
			}}
		}, says: "the virtual machine stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, inPlace := range []bool{false, true} {
				s, own := newChangedScene(t)
				r := s.inPlace()
				if !inPlace {
					s.hv.Lose(s.vm.ID)
					r.InPlace = nil
				}
				ctx, cancel := context.WithCancel(t.Context())
				if c.fault != nil {
					s.hv.Fail(c.fault(s, cancel))
				}
				r.WaitForGuest = &restore.WaitForGuest{Timeout: c.timeout}
				result, err := s.m.Restore(ctx, r)
				cancel()
				if !errors.Is(err, restore.ErrGuest) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || result == nil {
					t.Fatalf("got %+v, %v", result, err)
				}
				if off := name == "stops"; off != (result.VM.PowerState == hypervisor.PoweredOff) {
					t.Errorf("the VM is %s", result.VM.PowerState)
				}
				s.wantDisks(t, result.VM.ID)
				if !inPlace {
					continue
				}
				// The disks that the VM had are worth keeping.
				if len(result.Replaced) != 2 || string(s.hv.LooseDisk(result.Replaced[1].Path)) != string(own[1]) ||
					!result.ReplacedUntil.Equal(result.CompletedAt) || !strings.Contains(err.Error(), result.Replaced[1].Path) {
					t.Errorf("replaced %+v: %v", result.Replaced, err)
				}
				if left := s.hv.Leftovers(""); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}

// A VM that is not started has no guest to wait for.
func TestRestore_guestStaysOff(t *testing.T) {
	t.Parallel()
	for _, inPlace := range []bool{false, true} {
		s, _ := newChangedScene(t)
		s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.PowerState = hypervisor.PoweredOff })
		r := s.inPlace()
		if !inPlace {
			off, err := backup.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now, "1").Take(t.Context(), backup.Request{VM: "web"})
			if err != nil {
				t.Fatal(err)
			}
			r = restore.Request{BackupID: off.ID, NewVM: &restore.NewVM{Name: "copy", Identity: hypervisor.IdentityCopy}}
		}
		r.WaitForGuest = &restore.WaitForGuest{}
		result, err := s.m.Restore(t.Context(), r)
		if err != nil || len(result.Warnings) == 0 || !strings.Contains(result.Warnings[0], "was not waited for") {
			t.Fatalf("got %+v, %v", result, err)
		}
		// In place, nothing showed that the restored disks are good: the others are kept, and named.
		kept := len(result.Warnings) == 2 && strings.Contains(result.Warnings[1], "neither started nor verified")
		if kept != inPlace || (len(result.Replaced) > 0) != inPlace {
			t.Errorf("in place %t: replaced %v, warnings %q", inPlace, result.Replaced, result.Warnings)
		}
	}
}
