package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// Runs that were killed at each stage: the next restore goes on from there.
func TestRestoreInPlace_afterKill(t *testing.T) {
	t.Parallel()
	for stage, swapped := range map[string]bool{
		"nothing written": false, "one disk written": false, "stopped": false, "swapped": true, "verifying": true, "started": true,
	} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			s, own := newChangedScene(t)
			dead := deadRun(t)
			s.interruptAt(t, stage, dead)
			s.wantPower(t, stage == "nothing written" || stage == "one disk written" || stage == "started")
			warnings, err := s.m.Check(t.Context(), s.inPlace())
			if err != nil || len(warnings) == 0 || !strings.Contains(warnings[0], "was killed") {
				t.Errorf("check: %q, %v", warnings, err)
			}
			result := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
			if (len(result.Replaced) > 0) != swapped || (len(result.Warnings) == 2) != swapped ||
				strings.Contains(result.Warnings[0], "finished") != swapped {
				t.Errorf("replaced %v, warnings %q", result.Replaced, result.Warnings)
			}
			if (stage == "stopped") != strings.Contains(result.Warnings[0], "started, also if somebody") {
				t.Errorf("warnings %q", result.Warnings)
			}
			if swapped {
				s.wantKept(t, result, own)
			}
			s.wantTidy(t)
		})
	}
}

// wantKept makes sure that a restore has kept, for a day, the disks that another one had replaced, own, and nothing
// else: nobody has seen yet how that went. It deletes them.
func (s *scene) wantKept(t *testing.T, result *restore.Result, own [][]byte) {
	t.Helper()
	if len(result.Replaced) != len(own) || !result.ReplacedUntil.Equal(result.CompletedAt.Add(24*time.Hour)) {
		t.Fatalf("%v are kept until %s, completed at %s", result.Replaced, result.ReplacedUntil, result.CompletedAt)
	}
	for i, d := range result.Replaced {
		if !bytes.Equal(s.hv.LooseDisk(d.Path), own[i]) || d.Path != s.vm.Disks[i].Path || !strings.Contains(fmt.Sprint(result.Warnings), d.Path) {
			t.Errorf("replaced %+v, warnings %q", d, result.Warnings)
		}
	}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
		t.Error(err)
	}
	s.wantTidy(t)
}

func (s *scene) wantPower(t *testing.T, on bool) {
	t.Helper()
	vm, err := s.hv.FindVM(t.Context(), "web")
	if err != nil || (vm.PowerState == hypervisor.PoweredOn) != on {
		t.Fatalf("%+v, %v", vm, err)
	}
}

// interruptAt leaves the VM as a run does that is killed at a stage.
func (s *scene) interruptAt(t *testing.T, stage string, r run.Run) {
	t.Helper()
	m, err := s.repo.Get(t.Context(), s.id)
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.repo.ReadFile(t.Context(), s.id, m.Config.File)
	if err != nil {
		t.Fatal(err)
	}
	config := hypervisor.Config{Format: m.Config.Format, Data: data, Summary: s.vm}
	half, err := s.hv.StartInPlace(t.Context(), hypervisor.InPlaceSpec{VM: s.vm.ID, Config: config, RunID: r.Token()})
	if err != nil {
		t.Fatal(err)
	}
	if stage == "nothing written" {
		return
	}
	for i, d := range s.vm.Disks {
		if i > 0 && stage == "one disk written" {
			return
		}
		if err := half.WriteDisk(t.Context(), d.Key, zeros(d.Capacity)); err != nil {
			t.Fatal(err)
		}
	}
	if stage == "stopped" {
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringSwap, Err: errBroken})
	}
	if _, _, _, err := half.Swap(t.Context()); (err != nil) != (stage == "stopped") {
		t.Fatal(err)
	}
	switch stage {
	case "verifying":
		name, description, err := r.LabelSnapshot(run.VerifySnapshot, time.Now())
		if err == nil {
			_, err = s.hv.CreateSnapshot(t.Context(), s.vm.ID, hypervisor.SnapshotSpec{Name: name, Description: description})
		}
		if err != nil {
			t.Fatal(err)
		}
	case "started":
		if err := s.hv.PowerOn(t.Context(), s.vm.ID); err != nil {
			t.Fatal(err)
		}
		s.hv.SetGuest(s.vm.ID, true, "")
	}
}

// The disks that a killed run replaced are kept where they are to be, and named where the next one fails.
func TestRestoreInPlace_afterKillKeeps(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCheckInPlace, Err: errBroken})
	_, err := s.m.Restore(t.Context(), s.inPlace())
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), s.vm.Disks[0].Path) || !strings.Contains(err.Error(), s.vm.Disks[1].Path) {
		t.Errorf("the disks that were replaced are not named: %v", err)
	}
	if loose := s.hv.LooseDisks(); len(loose) != 2 {
		t.Errorf("loose disks %v", loose)
	}
	s.wantPower(t, true)
	s, _ = newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeWriteDisk, Err: errBroken})
	if _, err = s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "and is running") {
		t.Errorf("got error %v", err)
	}
	s.wantPower(t, true) // nobody would know any more that it ran before the killed restore stopped it

	s, _ = newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeStartInPlace, Err: errBroken})
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Err: hypervisor.ErrLost})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) || !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("got error %v", err)
	}
	s.wantPower(t, false)

	s, own := newChangedScene(t)
	s.interruptAt(t, "swapped", deadRun(t))
	r := s.inPlace()
	r.InPlace.KeepReplacedDisks = time.Hour
	result := s.restoreInPlace(t, r, hypervisor.PoweredOn)
	if !result.ReplacedUntil.Equal(result.CompletedAt.Add(24 * time.Hour)) {
		t.Errorf("kept until %s, completed at %s", result.ReplacedUntil, result.CompletedAt)
	}
	if len(result.Replaced) != 4 || !bytes.Equal(s.hv.LooseDisk(result.Replaced[0].Path), own[0]) {
		t.Errorf("replaced %+v", result.Replaced)
	}
}

// A guest that was started again has to come up before it can be asked to shut down.
func TestRestoreInPlace_afterKillBoots(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"stopped", "started"} {
		s, own := newChangedScene(t)
		s.interruptAt(t, stage, deadRun(t))
		boots := func(context.Context) { s.hv.SetGuest(s.vm.ID, false, "") }
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeWatchGuest, Do: boots})
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringWatchGuest, Do: func(context.Context) { s.hv.SetGuest(s.vm.ID, true, "") }})
		if result := s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn); stage == "started" {
			s.wantKept(t, result, own)
		}
		s.wantTidy(t)

		// One that can't be watched is an obstacle only if it doesn't come up.
		s, _ = newChangedScene(t)
		s.interruptAt(t, stage, deadRun(t))
		s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeWatchGuest, Err: errBroken})
		s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
	}
}

// While another run lives, nobody gets in between.
func TestRestoreInPlace_underWay(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	s.interruptAt(t, "one disk written", living)
	loose := s.hv.LooseDisks()
	var busy *hypervisor.InterruptedError
	if _, err := s.m.Check(t.Context(), s.inPlace()); !errors.As(err, &busy) {
		t.Errorf("check: %v", err)
	}
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.As(err, &busy) || !strings.Contains(err.Error(), "under way ("+living.Holder()+")") {
		t.Errorf("restore: %v", err)
	}
	if now := s.hv.LooseDisks(); !slices.Equal(now, loose) || len(s.hv.Leftovers("")) != 1 || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) {
		t.Errorf("disks %v, were %v", now, loose)
	}
}

// A temporary snapshot that a killed backup left is in nobody's way.
func TestRestoreInPlace_temporarySnapshot(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	name, description, err := deadRun(t).LabelSnapshot(backup.SnapshotPrefix, time.Now())
	if err == nil {
		_, err = s.hv.CreateSnapshot(t.Context(), s.vm.ID, hypervisor.SnapshotSpec{Name: name, Description: description})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Check(t.Context(), s.inPlace()); err != nil {
		t.Errorf("check: %v", err)
	}
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Err: errBroken})
	if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	s.restoreInPlace(t, s.inPlace(), hypervisor.PoweredOn)
	s.wantTidy(t)
}

// That snapshots may be removed is not said of the one that a backup reads from right now.
func TestRestoreInPlace_backupUnderWay(t *testing.T) {
	t.Parallel()
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	name, description, err := living.LabelSnapshot(backup.SnapshotPrefix, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []hypervisortest.Point{hypervisortest.BeforeFindVM, hypervisortest.AfterWriteDisk} {
		s, own := newChangedScene(t)
		s.hv.Fail(hypervisortest.Fault{At: at, Do: func(ctx context.Context) {
			if _, err := s.hv.CreateSnapshot(ctx, s.vm.ID, hypervisor.SnapshotSpec{Name: name, Description: description}); err != nil {
				t.Error(err)
			}
		}})
		r := s.inPlace()
		r.InPlace.RemoveSnapshots = true
		if _, err := s.m.Restore(t.Context(), r); !errors.Is(err, restore.ErrReadFrom) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got error %v", at, err)
		}
		snapshots, err := s.hv.Snapshots(t.Context(), s.vm.ID)
		if err != nil || len(snapshots) != 1 || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) || len(s.hv.LooseDisks()) > 0 {
			t.Errorf("%s: snapshots %+v, %v; disks %v", at, snapshots, err, s.hv.LooseDisks())
		}
	}
}
