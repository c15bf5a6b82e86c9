package restore_test

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

func TestRestore_failures(t *testing.T) {
	t.Parallel()
	for _, fault := range []hypervisortest.Fault{
		{At: hypervisortest.BeforeCheckRestore},
		{At: hypervisortest.BeforeStartRestore},
		{At: hypervisortest.DuringStartRestore},
		{At: hypervisortest.BeforeWriteDisk},
		{At: hypervisortest.BeforeWriteDisk, Skip: 1},
		{At: hypervisortest.DuringWriteDisk},
		{At: hypervisortest.DuringWriteDisk, Skip: 3},
		{At: hypervisortest.AfterWriteDisk},
		{At: hypervisortest.AfterWriteDisk, Skip: 1},
		{At: hypervisortest.BeforeCommit},
		{At: hypervisortest.AfterCommit},
	} {
		for _, how := range []string{"error", "cancel"} {
			t.Run(string(fault.At)+"/"+how, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				s.hv.Lose(s.vm.ID)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				fault, want := fault, errBroken
				if how == "cancel" {
					want = context.Canceled
					fault.Do = func(context.Context) { cancel() }
				} else {
					fault.Err = errBroken
				}
				s.hv.Fail(fault)
				if result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id}); !errors.Is(err, want) || result != nil {
					t.Errorf("got %v, %v, want error %v", result, err, want)
				}
				s.wantClean(t, 0)
				result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
				if err != nil {
					t.Fatalf("second attempt: %v", err)
				}
				s.wantDisks(t, result.VM.ID)
				s.wantClean(t, 1)
			})
		}
	}
}

// The VM is complete when it can't be started: it stays, and the caller gets to know it.
func TestRestore_powerOnFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "cancel"} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		ctx, cancel := context.WithCancel(t.Context())
		want := errBroken
		fault := hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Err: errBroken}
		if how == "cancel" {
			want = context.Canceled
			fault.Do, fault.Err = func(context.Context) { cancel() }, nil
		}
		s.hv.Fail(fault)
		result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id})
		cancel()
		if !errors.Is(err, want) || result == nil || result.VM.InstanceUUID != s.vm.InstanceUUID || result.VM.PowerState != hypervisor.PoweredOff {
			t.Fatalf("%s: got %+v, %v", how, result, err)
		}
		s.wantClean(t, 1)
		s.wantDisks(t, result.VM.ID)
	}
}

// The VM runs, and only the answer was lost or came too late: that is no failure, or a caller would
// take down what runs.
func TestRestore_powerOnSucceedsLate(t *testing.T) {
	t.Parallel()
	for name, powerErr := range map[string]error{"error": hypervisor.ErrLost, "cancel": context.Canceled} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		ctx, cancel := context.WithCancel(t.Context())
		hv := lateHypervisor{Fake: s.hv, err: powerErr}
		if name == "cancel" {
			hv.cancel = cancel
		}
		result, err := restore.New(hv, s.repo, slog.New(slog.DiscardHandler), time.Now).
			Restore(ctx, restore.Request{BackupID: s.id})
		cancel()
		if err != nil || result.VM.PowerState != hypervisor.PoweredOn {
			t.Fatalf("%s: got %+v, %v", name, result, err)
		}
		s.wantClean(t, 1)
	}
}

// A lateHypervisor starts VMs and says that it failed.
type lateHypervisor struct {
	*hypervisortest.Fake
	err    error
	cancel context.CancelFunc // nil: the caller's context goes on
}

func (h lateHypervisor) PowerOn(ctx context.Context, vm hypervisor.VMID) error {
	if err := h.Fake.PowerOn(ctx, vm); err != nil {
		return err
	}
	if h.cancel != nil {
		h.cancel()
	}
	return h.err
}

// Started, but reading it back fails.
func TestRestore_readBackFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID, Err: errBroken})
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil {
		t.Fatal(err)
	}
	if result.VM.PowerState != hypervisor.PoweredOn || len(result.Warnings) != 1 {
		t.Errorf("%s, warnings %q", result.VM.PowerState, result.Warnings)
	}
}

// What Abort can't remove is named, and the next restore removes it.
func TestRestore_abortFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCommit, Err: hypervisor.ErrLost})
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeAbort, Err: errBroken})
	_, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if !errors.Is(err, hypervisor.ErrLost) || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "stays behind") {
		t.Errorf("got error %v", err)
	}
	if left := s.hv.Leftovers(""); len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], s.vm.Path) {
		t.Errorf("warnings %q", result.Warnings)
	}
	s.wantClean(t, 1)
}

// deadRun is a run of this host whose process is gone.
func deadRun(t *testing.T) run.Run {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("needs the command true of the package coreutils")
	}
	dead := run.Start(time.Now(), time.Time{})
	dead.End()
	dead.PID = cmd.ProcessState.Pid()
	return dead
}

func TestRestore_cleansUp(t *testing.T) {
	t.Parallel()
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	dead := deadRun(t)
	for name, c := range map[string]struct {
		runID string
		gone  bool
	}{
		"killed": {dead.Token(), true},
		"living": {living.Token(), false},
		"other":  {"something else", false},
		"none":   {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			m, err := s.repo.Get(t.Context(), s.id)
			if err != nil {
				t.Fatal(err)
			}
			data, err := s.repo.ReadFile(t.Context(), s.id, m.Config.File)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.hv.StartRestore(t.Context(), hypervisor.RestoreSpec{
				Config:   hypervisor.Config{Format: m.Config.Format, Data: data},
				Identity: hypervisor.IdentityCopy, Name: "half", RunID: c.runID,
			}); err != nil {
				t.Fatal(err)
			}
			s.hv.Lose(s.vm.ID)
			result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
			if err != nil {
				t.Fatal(err)
			}
			if gone := len(s.hv.Leftovers("")) == 0; gone != c.gone || (len(result.Warnings) == 1) != c.gone {
				t.Errorf("gone: %v, warnings %q", gone, result.Warnings)
			}
		})
	}
}

// What a killed restore left behind has the identity that the plan of the next one asks for.
func TestRestore_deadInTheWay(t *testing.T) {
	t.Parallel()
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	dead := deadRun(t)
	for name, c := range map[string]struct {
		run    run.Run
		refuse bool
	}{"dead": {dead, false}, "living": {living, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.hv.Lose(s.vm.ID)
			m, err := s.repo.Get(t.Context(), s.id)
			if err != nil {
				t.Fatal(err)
			}
			data, err := s.repo.ReadFile(t.Context(), s.id, m.Config.File)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.hv.StartRestore(t.Context(), hypervisor.RestoreSpec{
				Config:   hypervisor.Config{Format: m.Config.Format, Data: data},
				Identity: hypervisor.IdentityOriginal, RunID: c.run.Token(),
			}); err != nil {
				t.Fatal(err)
			}
			// The server holds it still.
			s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Err: errBroken})
			warnings, checkErr := s.m.Check(t.Context(), restore.Request{BackupID: s.id})
			result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
			if c.refuse {
				var inUse *hypervisor.IdentityInUseError
				if !errors.As(checkErr, &inUse) || !errors.As(err, &inUse) {
					t.Errorf("check: %v; restore: %v", checkErr, err)
				}
				return
			}
			if checkErr != nil || len(warnings) != 1 || !strings.Contains(warnings[0], s.vm.Path) {
				t.Errorf("check: %q, %v", warnings, checkErr)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.wantDisks(t, result.VM.ID)
			s.wantClean(t, 1)
		})
	}
}

func TestRestore_cleanUpFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Err: errBroken})
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], errBroken.Error()) {
		t.Errorf("got %+v, %v", result, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Do: func(context.Context) { cancel() }})
	if _, err := s.m.Restore(ctx, restore.Request{BackupID: s.id}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A repository that lost or changed a disk's data must not make a VM.
func TestRestore_damaged(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.hv.Lose(s.vm.ID)
	s.damage(t)
	// Opened anew: what was read before is in a cache.
	m := restore.New(s.hv, openRepository(t, s.dir), slog.New(slog.DiscardHandler), time.Now)
	if result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id}); !errors.Is(err, repository.ErrDamaged) || result != nil {
		t.Errorf("got %+v, %v", result, err)
	}
	s.wantClean(t, 0)
}

// Writers that swallow what the source says, or don't read it to its end, don't get a VM started.
func TestRestore_writerLies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		read func(ctx context.Context, src disk.Source)
		says string
	}{
		"reads nothing": {func(context.Context, disk.Source) {}, "not read to its end"},
		"swallows the error": {func(ctx context.Context, src disk.Source) {
			_ = src.Extents(ctx, func(int64, []byte) error { return errBroken })
		}, errBroken.Error()},
	} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		m := restore.New(lyingHypervisor{s.hv, c.read}, s.repo, slog.New(slog.DiscardHandler), time.Now)
		result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id})
		if err == nil || result != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %+v, %v", name, result, err)
		}
		s.wantClean(t, 0)
	}
}

type lyingHypervisor struct {
	*hypervisortest.Fake
	read func(ctx context.Context, src disk.Source)
}

func (h lyingHypervisor) StartRestore(ctx context.Context, spec hypervisor.RestoreSpec) (hypervisor.Restore, error) {
	r, err := h.Fake.StartRestore(ctx, spec)
	return lyingRestore{r, h.read}, err
}

// A lyingRestore writes zeros and says that it wrote the disk.
type lyingRestore struct {
	hypervisor.Restore
	read func(ctx context.Context, src disk.Source)
}

func (r lyingRestore) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	r.read(ctx, src)
	return r.Restore.WriteDisk(ctx, key, zeros(src.Capacity()))
}

// zeros is an empty disk of a capacity.
type zeros int64

func (z zeros) Capacity() int64 { return int64(z) }

func (zeros) Extents(context.Context, func(int64, []byte) error) error { return nil }
