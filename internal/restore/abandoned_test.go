package restore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// leave leaves a VM in the making, its disks written, as a run does that is killed then. finish makes it whole.
func (s *scene) leave(t *testing.T, r run.Run, identity hypervisor.Identity) (finish func() error) {
	t.Helper()
	ctx := t.Context()
	m, err := s.repo.Get(ctx, s.id)
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.repo.ReadFile(ctx, s.id, m.Config.File)
	if err != nil {
		t.Fatal(err)
	}
	killed := true
	config := hypervisor.Config{Format: m.Config.Format, Data: data}
	for _, d := range m.Disks {
		config.Summary.Disks = append(config.Summary.Disks, hypervisor.Disk{
			Key: hypervisor.DiskKey(d.Key), Label: d.Label, Capacity: d.Capacity, Datastore: d.Datastore, UUID: d.UUID,
		})
	}
	left, err := s.hv.StartRestore(ctx, hypervisor.RestoreSpec{
		Config: config, Identity: identity, Name: "left", RunID: r.Token(),
		Verify: func(context.Context, hypervisor.VMID) error {
			if killed {
				return errBroken
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Disks {
		if err := left.WriteDisk(ctx, hypervisor.DiskKey(d.Key), empty(d.Capacity)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := left.Commit(ctx); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	return func() error {
		killed = false
		_, _, err := left.Commit(context.WithoutCancel(ctx))
		return err
	}
}

// An empty disk is of some size.
type empty int64

func (e empty) Capacity() int64 { return int64(e) }

func (e empty) Extents(context.Context, func(int64, []byte) error) error { return nil }

var _ disk.Source = empty(0)

// rehearsals are the scene's, with a clock of their own, and guests that come up.
func (s *scene) rehearsals(pause func(context.Context, time.Duration) error) *restore.Manager {
	return s.rehearsalsAt(time.Now, pause)
}

func (s *scene) rehearsalsAt(now func() time.Time, pause func(context.Context, time.Duration) error) *restore.Manager {
	m := restore.New(&copyWatcher{Fake: s.hv, guest: beats}, s.repo, slog.New(slog.DiscardHandler), now)
	m.SetPause(pause)
	return m
}

// The copy of a rehearsal that was killed on another machine, where nobody here can look for its process, goes once it
// has given no sign of life for some minutes, and not before.
func TestCleanUp_elsewhere(t *testing.T) {
	t.Parallel()
	const removed = "which a restore left behind that was killed"
	for name, c := range map[string]struct {
		sign   func(s *scene, token string, finish func() error, look int) error
		waited int
		stays  bool // the copy
		says   string
	}{
		"silent": {
			func(*scene, string, func() error, int) error { return nil }, restore.ObserveLooks, false, removed},
		"renewed at once": {func(s *scene, token string, _ func() error, _ int) error {
			s.hv.RenewRestore(token)
			return nil
		}, 1, true, ""},
		"renewed at last": {func(s *scene, token string, _ func() error, look int) error {
			if look == restore.ObserveLooks {
				s.hv.RenewRestore(token)
			}
			return nil
		}, restore.ObserveLooks, true, ""},
		"finished meanwhile": {func(_ *scene, _ string, finish func() error, look int) error {
			if look == 2 {
				return finish()
			}
			return nil
		}, 2, true, ""},
		"can't be told": {func(s *scene, _ string, _ func() error, look int) error {
			if look == 3 {
				s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Err: errBroken})
			}
			return nil
		}, 3, true, "process 1 of another machine, boot or container). Whether it goes on was not clear yet"},
	} {
		for _, kind := range []string{"rehearsal", "restore"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				other := elsewhere(t)
				other.PID = 1
				finish, waited := s.leave(t, other, hypervisor.IdentityCopy), 0
				m := s.rehearsals(func(context.Context, time.Duration) error {
					waited++
					return c.sign(s, other.Token(), finish, waited)
				})
				var warnings []string
				if kind == "restore" {
					s.hv.Lose(s.vm.ID)
					result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id})
					if err != nil {
						t.Fatal(err)
					}
					warnings = result.Warnings
				} else {
					result, err := m.Rehearse(t.Context(), restore.RehearseRequest{BackupID: s.id})
					if err != nil {
						t.Fatal(err)
					}
					warnings = result.Warnings
				}
				_, err := s.hv.FindVM(t.Context(), "left")
				if stays := len(s.hv.Leftovers("")) > 0 || err == nil; stays != c.stays || waited != c.waited {
					t.Errorf("stays: %v, waited %d times", stays, waited)
				}
				if (c.says == "") != (len(warnings) == 0) || c.says != "" &&
					(len(warnings) != 1 || !strings.Contains(warnings[0], c.says) || !strings.Contains(warnings[0], "left")) {
					t.Errorf("warnings %q", warnings)
				}
			})
		}
	}
}

// Time in which the lease could not be renewed, or nobody looked, doesn't count.
func TestCleanUp_doesNotCount(t *testing.T) {
	t.Parallel()
	const at = restore.ObserveLooks - 1
	for _, name := range []string{"busy", "slow"} {
		s := newScene(t)
		other := elsewhere(t)
		s.leave(t, other, hypervisor.IdentityCopy)
		waited := 0
		var late atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
		m := s.rehearsalsAt(now, func(context.Context, time.Duration) error {
			waited++
			switch {
			case name == "slow" && waited == at:
				late.Store(int64(time.Hour))
			case name == "busy":
				s.hv.SetBusyRestore(other.Token(), waited == at)
			}
			return nil
		})
		result, err := m.Rehearse(t.Context(), restore.RehearseRequest{BackupID: s.id})
		if err != nil || len(result.Warnings) != 1 || waited != at+restore.ObserveLooks {
			t.Errorf("%s: %+v, %v, waited %d times", name, result, err, waited)
		}
		s.wantClean(t, 1)
	}
}

// What has the identity that is asked for is waited for, if it may be gone then.
func TestCleanUp_elsewhereInTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		alive bool
		ahead time.Duration // of the other machine's clock; a year: its run is over by this one's
	}{{false, 0}, {true, 0}, {false, year}, {true, year}} {
		alive := c.alive
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		other := elsewhere(t)
		s.leave(t, other, hypervisor.IdentityOriginal)
		now := func() time.Time { return time.Now().Add(c.ahead) }
		m := s.rehearsalsAt(now, func(context.Context, time.Duration) error {
			if alive {
				s.hv.RenewRestore(other.Token())
			}
			return nil
		})
		// Whether it will be, the plan can't tell.
		if warnings, err := m.Check(t.Context(), restore.Request{BackupID: s.id}); err != nil || len(warnings) != 1 {
			t.Errorf("check: %q, %v", warnings, err)
		}
		result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id})
		var inUse *hypervisor.IdentityInUseError
		switch {
		case alive && !errors.As(err, &inUse):
			t.Errorf("while the other goes on, %s behind: %v", c.ahead, err)
		case !alive && (err != nil || len(result.Warnings) != 1):
			t.Errorf("%s: %+v, %v", c.ahead, result, err)
		}
	}
}

const year = 365 * 24 * time.Hour

// Who leaves while a VM is watched is told of it. The restore is over by then.
func TestCleanUp_left(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.leave(t, elsewhere(t), hypervisor.IdentityCopy)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := make(chan struct{})
	m := s.rehearsals(func(ctx context.Context, _ time.Duration) error {
		<-started
		cancel()
		return ctx.Err()
	})
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Do: func(context.Context) { close(started) }, Err: errBroken})
	result, err := m.Restore(ctx, restore.Request{BackupID: s.id, Power: restore.PowerOn})
	if !errors.Is(err, restore.ErrNotStarted) || result == nil || !strings.Contains(fmt.Sprint(result.Warnings), "was not clear yet") {
		t.Errorf("%+v, %v", result, err)
	}
}
