package restore_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// A copyWatcher is a hypervisor whose guests come up as told, and that shows the VMs in the making.
type copyWatcher struct {
	*hypervisortest.Fake
	spec  hypervisor.RestoreSpec
	guest func(f *hypervisortest.Fake, vm hypervisor.VMID) // when it is first looked at
	copy  hypervisor.VMID
}

func (w *copyWatcher) StartRestore(ctx context.Context, spec hypervisor.RestoreSpec) (hypervisor.Restore, error) {
	w.spec = spec
	return w.Fake.StartRestore(ctx, spec)
}

func (w *copyWatcher) WatchGuest(ctx context.Context, vm hypervisor.VMID, until func(hypervisor.Guest) bool) error {
	w.copy = vm
	if w.guest != nil {
		w.guest(w.Fake, vm)
	}
	return w.Fake.WatchGuest(ctx, vm, until)
}

func beats(f *hypervisortest.Fake, vm hypervisor.VMID) { f.SetGuest(vm, true, "") }

// rehearse rehearses the scene's backup on a hypervisor whose guests behave as told.
func (s *scene) rehearse(ctx context.Context, guest func(*hypervisortest.Fake, hypervisor.VMID), edit func(*restore.RehearseRequest)) (
	*copyWatcher, *restore.Rehearsal, error,
) {
	w := &copyWatcher{Fake: s.hv, guest: guest}
	r := restore.RehearseRequest{BackupID: s.id, Screenshot: true, Version: "1.2.3"}
	if edit != nil {
		edit(&r)
	}
	result, err := restore.New(w, s.repo, slog.New(slog.DiscardHandler), time.Now).Rehearse(ctx, r)
	return w, result, err
}

// kept is what the repository says of rehearsals of the scene's backup.
func (s *scene) kept(t *testing.T) []repository.Verification {
	t.Helper()
	all, err := s.repo.Verifications(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return all[s.id]
}

func TestRehearse(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	w, result, err := s.rehearse(t.Context(), func(f *hypervisortest.Fake, vm hypervisor.VMID) {
		beats(f, vm)
		if network, connected := f.Network(vm); connected || network != "net1" {
			t.Errorf("the copy is on %s, connected: %v", network, connected)
		}
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Heartbeat || !result.Recorded || result.Manifest.VM.Path != s.vm.Path || result.RestoredBytes == 0 || len(result.Warnings) > 0 {
		t.Errorf("%+v", result)
	}
	if _, err := png.DecodeConfig(bytes.NewReader(result.Screenshot)); err != nil {
		t.Errorf("the picture: %v", err)
	}
	if spec := w.spec; !spec.Isolated || !spec.Disconnect || spec.Identity != hypervisor.IdentityCopy ||
		!strings.HasPrefix(spec.Name, "tf-rehearsal-") || spec.RunID == "" {
		t.Errorf("%+v", spec)
	}
	s.wantClean(t, 1)
	s.wantDisks(t, s.vm.ID)
	if vm, err := s.hv.FindVM(t.Context(), "web"); err != nil || vm.PowerState != hypervisor.PoweredOn {
		t.Errorf("the original: %+v, %v", vm, err)
	}
	if n := s.hv.Seen(hypervisortest.AfterWriteDisk); n != 2 {
		t.Errorf("%d disks were written", n)
	}
	kept := s.kept(t)
	if len(kept) != 1 || !kept[0].OK || kept[0].Level != repository.VerifyRestore || kept[0].Version != "1.2.3" {
		t.Errorf("kept: %+v", kept)
	}
}

// A guest that doesn't come up is told, with a picture, and nothing is left.
func TestRehearse_noHeartbeat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guest   func(*hypervisortest.Fake, hypervisor.VMID)
		timeout time.Duration // zero: none that matters
		says    string
		shot    bool
	}{
		"it hangs": {nil, time.Millisecond, "no heartbeat within 1ms", true},
		"it stops": {func(f *hypervisortest.Fake, vm hypervisor.VMID) {
			f.Edit(vm, func(v *hypervisor.VM) { v.PowerState = hypervisor.PoweredOff })
		}, 0, "the virtual machine stopped", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOwnScene(t)
			_, result, err := s.rehearse(t.Context(), c.guest, func(r *restore.RehearseRequest) { r.GuestTimeout = c.timeout })
			if !errors.Is(err, restore.ErrNoHeartbeat) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), s.vm.Path) {
				t.Errorf("error %v", err)
			}
			if result == nil || result.Heartbeat || (result.Screenshot != nil) != c.shot || (len(result.Warnings) > 0) == c.shot {
				t.Errorf("%+v", result)
			}
			s.wantClean(t, 1)
			if kept := s.kept(t); len(kept) != 1 || kept[0].OK || kept[0].Level != repository.VerifyRestore ||
				!strings.Contains(strings.Join(kept[0].Problems, ""), c.says) {
				t.Errorf("kept: %+v", kept)
			}
		})
	}
}

// Whatever fails, and whenever the caller leaves, nothing is left behind, and the original is as it was.
func TestRehearse_fails(t *testing.T) {
	t.Parallel()
	for _, at := range []hypervisortest.Point{
		hypervisortest.BeforeCheckRestore, hypervisortest.BeforeStartRestore, hypervisortest.DuringStartRestore,
		hypervisortest.BeforeWriteDisk, hypervisortest.DuringWriteDisk, hypervisortest.AfterWriteDisk,
		hypervisortest.BeforeCommit, hypervisortest.BeforePowerOn, hypervisortest.BeforeWatchGuest,
		hypervisortest.DuringWatchGuest, hypervisortest.BeforeScreenshot,
	} {
		for _, how := range []string{"error", "cancel"} {
			t.Run(string(at)+" "+how, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				want, fault := errBroken, hypervisortest.Fault{At: at, Err: errBroken}
				if how == "cancel" {
					want, fault = context.Canceled, hypervisortest.Fault{At: at, Do: func(context.Context) { cancel() }}
				}
				s.hv.Fail(fault)
				guest := beats
				if at == hypervisortest.DuringWatchGuest {
					guest = nil
				}
				_, result, err := s.rehearse(ctx, guest, nil)
				switch {
				case at == hypervisortest.BeforeScreenshot && how == "error": // a picture is not what it is for
					if err != nil || !result.Heartbeat || !strings.Contains(strings.Join(result.Warnings, ""), errBroken.Error()) {
						t.Errorf("%+v, %v", result, err)
					}
				case !errors.Is(err, want):
					t.Errorf("error %v, want %v", err, want)
				case at == hypervisortest.BeforePowerOn && how == "error" && !errors.Is(err, restore.ErrNotStarted):
					t.Errorf("error %v", err)
				}
				s.wantClean(t, 1)
				s.wantDisks(t, s.vm.ID)
			})
		}
	}
}

// A copy that can't be removed is named, also when all else went well.
func TestRehearse_leftBehind(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeAbort, Err: errBroken})
	w, result, err := s.rehearse(t.Context(), beats, nil)
	var left *restore.LeftBehindError
	if !errors.As(err, &left) || left.VM != w.copy || !errors.Is(err, errBroken) || !result.Heartbeat {
		t.Errorf("%+v, %v", result, err)
	}
	if kept := s.kept(t); len(kept) != 1 || !kept[0].OK {
		t.Errorf("kept: %+v", kept)
	}
	// The next one removes it: its run is over.
	if _, result, err = s.rehearse(t.Context(), beats, nil); err != nil || len(result.Warnings) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	s.wantClean(t, 1)
}

// A backup that is damaged is found by trying to restore it, and that is kept.
func TestRehearse_damaged(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	packs, err := filepath.Glob(filepath.Join(s.dir, "p*", "*", "*.f"))
	if err != nil {
		t.Fatal(err)
	}
	size := func(file string) int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	slices.SortFunc(packs, func(a, b string) int { return int(size(b) - size(a)) })
	b, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(packs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, result, err := s.rehearse(t.Context(), beats, nil)
	if !errors.Is(err, repository.ErrDamaged) || result != nil {
		t.Errorf("%+v, %v", result, err)
	}
	if kept := s.kept(t); len(kept) != 1 || kept[0].OK || kept[0].Level != repository.VerifyData {
		t.Errorf("kept: %+v", kept)
	}
	s.wantClean(t, 1)
}

func TestRehearse_refused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var unavailable *hypervisor.NotAvailableError
	for name, c := range map[string]struct {
		edit func(*restore.RehearseRequest)
		ok   func(error) bool
	}{
		"datastore": {func(r *restore.RehearseRequest) { r.Datastore = "nothing" }, func(err error) bool { return errors.As(err, &unavailable) }},
		"folder":    {func(r *restore.RehearseRequest) { r.Folder = "nothing" }, func(err error) bool { return errors.As(err, &unavailable) }},
		"timeout": {func(r *restore.RehearseRequest) { r.GuestTimeout = -1 },
			func(err error) bool { return errors.Is(err, restore.ErrRequest) }},
		"backup": {func(r *restore.RehearseRequest) { r.BackupID = repository.ID(strings.Repeat("0", 32)) },
			func(err error) bool { return errors.Is(err, repository.ErrNotFound) }},
	} {
		if _, result, err := s.rehearse(t.Context(), beats, c.edit); !c.ok(err) || result != nil {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
		r := restore.RehearseRequest{BackupID: s.id}
		c.edit(&r)
		if _, err := s.m.CheckRehearsal(t.Context(), r); !c.ok(err) {
			t.Errorf("%s: check: %v", name, err)
		}
	}
	if warnings, err := s.m.CheckRehearsal(t.Context(), restore.RehearseRequest{BackupID: s.id}); err != nil || len(warnings) > 0 {
		t.Errorf("%q, %v", warnings, err)
	}
	s.hv.Deny(hypervisor.ToDestroy) // the copy could not be removed
	var missing *hypervisor.MissingPrivilegesError
	if _, result, err := s.rehearse(t.Context(), beats, nil); !errors.As(err, &missing) || result != nil {
		t.Errorf("without the privilege to destroy: %+v, %v", result, err)
	}
	s.wantClean(t, 1)
}
