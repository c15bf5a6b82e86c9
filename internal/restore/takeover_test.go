package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// elsewhere is a run on another machine, where nobody here can look for its process.
func elsewhere(t *testing.T) run.Run {
	t.Helper()
	r := run.Start(time.Now(), time.Time{})
	r.End()
	r.Space = run.Space{4, 7, 1, 1}
	return r
}

// A watched scene counts how often it is waited, and does something each time.
func (s *scene) watched(do func(n int) error) (waited *int) {
	waited = new(int)
	s.m.SetPause(func(context.Context, time.Duration) error {
		*waited++
		return do(*waited)
	})
	return waited
}

// A restore of another machine is taken over when nobody has renewed its lease for long enough, whatever it was
// at, and however long it might still take.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"one disk written", "stopped", "swapped", "verifying", "started"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			s, own := newChangedScene(t)
			other := elsewhere(t)
			s.interruptAt(t, stage, other)
			waited := s.watched(func(int) error { return nil })
			warnings, err := s.m.Check(t.Context(), s.inPlace())
			if err != nil || *waited > 0 || len(warnings) == 0 || !strings.Contains(warnings[0], other.Holder()) {
				t.Errorf("check: %q, %v, waited %d times", warnings, err, *waited)
			}
			result := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
			if *waited != restore.ObserveLooks || !strings.Contains(fmt.Sprint(result.Warnings), "no sign of life") ||
				!strings.Contains(fmt.Sprint(result.Warnings), other.Holder()) {
				t.Errorf("waited %d times, warnings %q", *waited, result.Warnings)
			}
			if stage != "one disk written" && stage != "stopped" {
				s.wantKept(t, result, own)
			}
			s.wantTidy(t)
		})
	}
}

// One that still is renewed goes on, and nobody gets in between.
func TestTakeOver_alive(t *testing.T) {
	t.Parallel()
	for name, sign := range map[string]func(*scene){
		"renewed":         func(s *scene) { s.hv.RenewInPlace(s.vm.ID) },
		"taken by anyone": func(s *scene) { s.hv.TakeInPlace(s.vm.ID, "somebody") },
	} {
		for _, at := range []int{1, restore.ObserveLooks} {
			s, own := newChangedScene(t)
			s.interruptAt(t, "one disk written", elsewhere(t))
			waited := s.watched(func(n int) error {
				if n == at {
					sign(s)
				}
				return nil
			})
			var busy *hypervisor.InterruptedError
			if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.As(err, &busy) || !strings.Contains(err.Error(), "under way") {
				t.Errorf("%s: got error %v", name, err)
			}
			if *waited != at || s.hv.Seen(hypervisortest.BeforeRecoverInPlace) > 0 || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) {
				t.Errorf("%s: waited %d times", name, *waited)
			}
		}
	}
}

// Time in which the lease could not be renewed, or nobody has looked, doesn't count.
func TestTakeOver_doesNotCount(t *testing.T) {
	t.Parallel()
	const at = restore.ObserveLooks - 1
	for name, disturb := range map[string]func(s *scene, n int){
		"busy": func(s *scene, n int) { s.hv.SetBusy(s.vm.ID, n == at) },
		"slow": func(s *scene, n int) {
			if n == at {
				late := time.Now().Add(time.Hour)
				s.m.SetNow(func() time.Time { return late })
			}
		},
	} {
		s, _ := newChangedScene(t)
		s.interruptAt(t, "one disk written", elsewhere(t))
		waited := s.watched(func(n int) error {
			disturb(s, n)
			return nil
		})
		s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
		if *waited != at+restore.ObserveLooks {
			t.Errorf("%s: waited %d times", name, *waited)
		}
		s.wantTidy(t)
	}
}

// It may end while somebody waits to see whether it does.
func TestTakeOver_endsMeanwhile(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.interruptAt(t, "stopped", elsewhere(t)) // the VM is off, which says nothing of what it was before
	s.watched(func(int) error {
		found, err := s.hv.InterruptedInPlace(t.Context(), s.vm.ID)
		if err == nil {
			_, _, _, err = s.hv.RecoverInPlace(t.Context(), s.vm.ID, *found, "somebody")
		}
		return err
	})
	result := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
	if strings.Contains(fmt.Sprint(result.Warnings), "killed") {
		t.Errorf("warnings %q", result.Warnings)
	}
	s.wantTidy(t)
}

// Who doesn't want to wait any longer changes nothing.
func TestTakeOver_givenUp(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hypervisortest.Fault{
		"cancelled":   {At: hypervisortest.BeforeInterruptedInPlace, Skip: 1, Err: context.Canceled},
		"unreachable": {At: hypervisortest.BeforeInterruptedInPlace, Skip: 2, Err: errBroken},
		"found late":  {At: hypervisortest.BeforeRecoverInPlace, Err: errBroken},
	} {
		s, own := newChangedScene(t)
		s.interruptAt(t, "one disk written", elsewhere(t))
		s.watched(func(int) error { return nil })
		s.hv.Fail(fault)
		if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, fault.Err) {
			t.Errorf("%s: got error %v", name, err)
		}
		if len(s.hv.Leftovers("")) != 1 || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) {
			t.Errorf("%s: left %v", name, s.hv.Leftovers(""))
		}
	}
	s, _ := newChangedScene(t)
	s.interruptAt(t, "one disk written", elsewhere(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := restore.New(foundThen{s.hv, cancel}, s.repo, slog.New(slog.DiscardHandler), time.Now) // with its own way to wait
	var busy *hypervisor.InterruptedError
	if _, err := m.Restore(ctx, s.inPlace()); !errors.Is(err, context.Canceled) || !errors.As(err, &busy) {
		t.Errorf("got error %v", err)
	}
}

// foundThen does something when a journal was read.
type foundThen struct {
	*hypervisortest.Fake
	then func()
}

func (h foundThen) InterruptedInPlace(ctx context.Context, id hypervisor.VMID) (*hypervisor.Interrupted, error) {
	found, err := h.Fake.InterruptedInPlace(ctx, id)
	h.then()
	return found, err
}

// A restore that was taken for dead, because it was paused, and taken over stops where it is. What becomes of the
// VM, and of the disks, is the other's.
func TestTakeOver_stops(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]hypervisortest.Point{
		"writing":           hypervisortest.AfterWriteDisk,
		"about to stop":     hypervisortest.BeforeSwap,
		"about to swap":     hypervisortest.DuringSwap,
		"swapped":           hypervisortest.AfterSwap,
		"verifying":         hypervisortest.BeforeClose,
		"about to finish":   hypervisortest.BeforeFinish,
		"waiting for guest": hypervisortest.BeforeWatchGuest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newChangedScene(t)
			r := s.inPlace()
			r.Verify = true
			if at == hypervisortest.BeforeWatchGuest {
				r.WaitForGuest = &restore.WaitForGuest{}
			}
			started := at == hypervisortest.BeforeFinish || at == hypervisortest.BeforeWatchGuest
			var loose []string
			s.hv.Fail(hypervisortest.Fault{At: at, Do: func(context.Context) {
				s.hv.TakeInPlace(s.vm.ID, "another")
				s.hv.SetGuest(s.vm.ID, true, "192.0.2.1")
				loose = s.hv.LooseDisks()
			}})
			result, err := s.m.Restore(t.Context(), r)
			if started {
				if err != nil || len(result.Replaced) > 0 || !strings.Contains(fmt.Sprint(result.Warnings), hypervisor.ErrTakenOver.Error()) {
					t.Errorf("got %+v, %v", result, err)
				}
			} else if result != nil || !errors.Is(err, hypervisor.ErrTakenOver) {
				t.Errorf("got %+v, %v", result, err)
			}
			if n := s.hv.Seen(hypervisortest.BeforePowerOn) + s.hv.Seen(hypervisortest.BeforePowerOff); !started && n > 0 {
				t.Errorf("the VM was switched %d times", n)
			}
			if now := s.hv.LooseDisks(); len(now) != len(loose) {
				t.Errorf("disks %v, were %v", now, loose)
			}
			if found, err := s.hv.InterruptedInPlace(t.Context(), s.vm.ID); err != nil || found == nil || found.Holder != "another" {
				t.Errorf("found %+v, %v", found, err)
			}
		})
	}
}

// While nobody can tell whose the VM is, it isn't switched off: another may have it running by now.
func TestTakeOver_unknown(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Err: errBroken, Do: func(context.Context) {
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeHolds, Count: 2, Err: errBroken})
	}})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	if n := s.hv.Seen(hypervisortest.BeforePowerOff); n > 0 {
		t.Errorf("the VM was switched off %d times", n)
	}
	if found, err := s.hv.InterruptedInPlace(t.Context(), s.vm.ID); err != nil || found == nil {
		t.Errorf("the next restore finds %+v, %v", found, err)
	}
}

// Whoever finishes a killed restore, and is overtaken then, leaves the VM to who has it.
func TestTakeOver_leaves(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeStartInPlace, Err: &hypervisor.InterruptedError{VM: "web"}})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); err == nil {
		t.Error("no error")
	}
	s.wantPower(t, false)

	// What else fails then leaves it running, if it was.
	s, own := newChangedScene(t)
	s.interruptAt(t, "verifying", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Err: errBroken})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), s.vm.Disks[0].Path) {
		t.Errorf("got error %v", err)
	}
	s.wantPower(t, true)
	r := s.inPlace()
	r.InPlace.PowerOff = true
	s.wantKept(t, s.restoreInPlace(t, r, hypervisor.PoweredOn), own)

	// So does one that is killed in turn.
	s, _ = newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeStartInPlace, Do: func(ctx context.Context) {
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.AfterWriteDisk, Do: func(context.Context) {
			if found, err := s.hv.InterruptedInPlace(ctx, s.vm.ID); err != nil || !found.Stopped {
				t.Errorf("nobody would know that it ran: %+v, %v", found, err)
			}
		}})
	}})
	s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
}

// What a restore keeps, and maybe nobody has heard of because its process was killed before Terraform wrote its state,
// is left alone by the next one until its time is over, and is in its result then.
func TestKeptDisks(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	once, keeps := s.inPlace(), s.inPlace()
	once.InPlace.PowerOff, keeps.InPlace.PowerOff = true, true
	keeps.InPlace.KeepReplacedDisks = 30 * 24 * time.Hour
	lost := s.restoreInPlace(t, keeps, hypervisor.PoweredOn)
	if len(lost.Replaced) != len(own) || !lost.ReplacedUntil.Equal(lost.CompletedAt.Add(30*24*time.Hour)) {
		t.Errorf("kept %+v until %s at first", lost.Replaced, lost.ReplacedUntil)
	}
	brief := keeps
	brief.InPlace = &restore.InPlace{PowerOff: true, KeepReplacedDisks: time.Hour}
	for name, r := range map[string]restore.Request{"deletes": once, "keeps": brief} {
		result := s.restoreInPlace(t, r, hypervisor.PoweredOn)
		for _, d := range result.Replaced {
			if slices.ContainsFunc(lost.Replaced, func(l hypervisor.Replaced) bool { return l.Path == d.Path }) {
				t.Errorf("one that %s also has %s", name, d.Path)
			}
		}
		warnings := fmt.Sprint(result.Warnings)
		if !strings.Contains(warnings, lost.Replaced[0].Path+" (kept until "+lost.ReplacedUntil.Format(time.RFC3339)) {
			t.Errorf("one that %s says %s", name, warnings)
		}
		if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
			t.Error(err)
		}
	}
	s.m.SetNow(func() time.Time { return lost.ReplacedUntil })
	result := s.restoreInPlace(t, once, hypervisor.PoweredOn)
	s.wantKept(t, result, own)
	s.m.SetNow(time.Now)
	// They are deleted, and so forgotten.
	if result := s.restoreInPlace(t, once, hypervisor.PoweredOn); len(result.Replaced) > 0 || len(result.Warnings) > 0 {
		t.Errorf("kept %+v, warnings %q", result.Replaced, result.Warnings)
	}
	// Who has heard of them says so.
	result = s.restoreInPlace(t, keeps, hypervisor.PoweredOn)
	if err := s.hv.ForgetKept(t.Context(), s.vm.ID, result.Replaced); err != nil {
		t.Error(err)
	}
	if again := s.restoreInPlace(t, once, hypervisor.PoweredOn); len(again.Replaced) > 0 {
		t.Errorf("kept %+v", again.Replaced)
	}
	// That it can't be read which there are stops nobody.
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeKeptDisks, Err: errBroken})
	if result := s.restoreInPlace(t, once, hypervisor.PoweredOn); len(result.Warnings) != 1 {
		t.Errorf("warnings %q", result.Warnings)
	}
}

// The same with a server: another machine's run is cut off after it has replaced the disks, with hours left to run.
func TestTakeOver_lab(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := restore.Request{BackupID: s.take(t), InPlace: &restore.InPlace{VM: "web"}, Verify: true}
	own := s.change(t)
	m, err := s.repo.Get(t.Context(), r.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.repo.ReadFile(t.Context(), r.BackupID, m.Config.File)
	if err != nil {
		t.Fatal(err)
	}
	config := hypervisor.Config{Format: m.Config.Format, Data: data, Summary: *s.vm}
	other := elsewhere(t)
	half, err := connect(t, s.lab).StartInPlace(t.Context(), hypervisor.InPlaceSpec{VM: s.vm.ID, Config: config, RunID: other.Token()})
	if err != nil {
		t.Fatal(err)
	}
	defer half.Leave()
	for _, d := range s.vm.Disks {
		if err := half.WriteDisk(t.Context(), d.Key, zeros(d.Capacity)); err != nil {
			t.Fatal(err)
		}
	}
	_, replaced, _, err := half.Swap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	s.m.SetPause(func(context.Context, time.Duration) error {
		waited++
		return nil
	})
	result, err := s.m.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	same := slices.EqualFunc(result.Replaced, replaced, func(got, want hypervisor.Replaced) bool {
		want.Until = got.Until
		return got == want
	})
	if waited < restore.ObserveLooks || !strings.Contains(fmt.Sprint(result.Warnings), other.Holder()) || !same {
		t.Errorf("waited %d times, warnings %q, kept %+v", waited, result.Warnings, result.Replaced)
	}
	for n, b := range s.content(t) {
		if !bytes.Equal(b, s.raw[n]) || bytes.Equal(b, own[n]) {
			t.Errorf("disk %d has other bytes", n)
		}
	}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
		t.Error(err)
	}
	s.wantVM(t, s.raw)
}
