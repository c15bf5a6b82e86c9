package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

var errBroken = errors.New("broken on purpose")

func newManager(hv snapshot.Hypervisor) *snapshot.Manager {
	return snapshot.New(hv, slog.New(slog.DiscardHandler), time.Now)
}

// newVM makes a Fake with one running VM of one disk.
func newVM(t *testing.T) (*hypervisortest.Fake, hypervisor.VM) {
	t.Helper()
	hv := hypervisortest.NewFake(t)
	return hv, hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{make([]byte, 1<<20)}})
}

func snapshots(t *testing.T, hv hypervisor.Snapshotter, vm hypervisor.VM) []hypervisor.Snapshot {
	t.Helper()
	all, err := hv.Snapshots(context.WithoutCancel(t.Context()), vm.ID)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTake_consistency(t *testing.T) {
	t.Parallel()
	type request = snapshot.Request
	const required, preferred = quiesce.Required, quiesce.Preferred
	for name, c := range map[string]struct {
		edit     func(hv *hypervisortest.Fake, vm *hypervisor.VM)
		request  request
		want     quiesce.Consistency
		warnings []string // a part of each
		err      error
	}{
		"nothing asked":        {request: request{}, want: quiesce.Crash},
		"memory":               {request: request{Memory: true}, want: quiesce.Memory},
		"quiesced":             {request: request{Quiesce: quiesce.Policy{Mode: required}}, want: quiesce.FileSystem},
		"quiesced, preferred":  {request: request{Quiesce: quiesce.Policy{Mode: preferred}}, want: quiesce.FileSystem},
		"shut down":            {request: request{ShutDown: true}, want: quiesce.Application},
		"shut down, quiescing": {request: request{ShutDown: true, Quiesce: quiesce.Policy{Mode: required}}, want: quiesce.Application},
		"application": {
			edit:    func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceApplication = true },
			request: request{Quiesce: quiesce.Policy{Mode: required}}, want: quiesce.Application,
		},
		"found powered off":            {edit: off, request: request{}, want: quiesce.Crash},
		"found powered off, shut down": {edit: off, request: request{ShutDown: true}, want: quiesce.Crash},
		"memory of a VM that is off": {
			edit: off, request: request{Memory: true}, want: quiesce.Crash, warnings: []string{"no memory"},
		},
		"quiescing required of a VM that is off": {
			edit: off, request: request{Quiesce: quiesce.Policy{Mode: required}}, err: hypervisor.ErrQuiesce,
		},
		"quiescing preferred of a VM that is off": {
			edit: off, request: request{Quiesce: quiesce.Policy{Mode: preferred}}, want: quiesce.Crash, warnings: []string{"powered off"},
		},
		"quiescing required without agent": {
			edit: noAgent, request: request{Quiesce: quiesce.Policy{Mode: required}}, err: hypervisor.ErrGuestAgent,
		},
		"quiescing preferred without agent": {
			edit: noAgent, request: request{Quiesce: quiesce.Policy{Mode: preferred}}, want: quiesce.Crash, warnings: []string{"guest agent"},
		},
		"shut down without agent": {edit: noAgent, request: request{ShutDown: true}, err: hypervisor.ErrGuestAgent},
		"quiescing required and ignored": {
			edit:    func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceIgnored = true },
			request: request{Quiesce: quiesce.Policy{Mode: required}}, err: hypervisor.ErrQuiesce,
		},
		"quiescing preferred and ignored": {
			edit:    func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceIgnored = true },
			request: request{Quiesce: quiesce.Policy{Mode: preferred}}, want: quiesce.Crash, warnings: []string{"was not"},
		},
		"quiescing required and failed": {
			edit: quiesceFails, request: request{Quiesce: quiesce.Policy{Mode: required}}, err: hypervisor.ErrQuiesce,
		},
		"quiescing preferred and failed": {
			edit: quiesceFails, request: request{Quiesce: quiesce.Policy{Mode: preferred}}, want: quiesce.Crash, warnings: []string{"not quiesced"},
		},
		"suspended, shut down": {
			edit:    func(_ *hypervisortest.Fake, vm *hypervisor.VM) { vm.PowerState = hypervisor.Suspended },
			request: request{ShutDown: true}, err: snapshot.ErrRequest,
		},
		"memory and quiescing": {request: request{Memory: true, Quiesce: quiesce.Policy{Mode: preferred}}, err: snapshot.ErrRequest},
		"memory and shut down": {request: request{Memory: true, ShutDown: true}, err: snapshot.ErrRequest},
		"unknown mode":         {request: request{Quiesce: quiesce.Policy{Mode: "maybe"}}, err: quiesce.ErrPolicy},
		"negative timeout":     {request: request{Quiesce: quiesce.Policy{Timeout: -1}}, err: snapshot.ErrRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			if c.edit != nil {
				hv.Edit(vm.ID, func(v *hypervisor.VM) { c.edit(hv, v) })
			}
			before := find(t, hv, vm).PowerState
			c.request.VM, c.request.Name = "web", "s"
			taken, err := newManager(hv).Take(t.Context(), c.request)
			if got := find(t, hv, vm).PowerState; got != before {
				t.Errorf("the VM is %s, but was %s", got, before)
			}
			if c.err != nil {
				if !errors.Is(err, c.err) || taken != nil {
					t.Errorf("got %v and error %v, want error %v", taken, err, c.err)
				}
				if left := snapshots(t, hv, vm); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if taken.Consistency != c.want {
				t.Errorf("consistency %q, want %q", taken.Consistency, c.want)
			}
			wantWarnings(t, taken.Warnings, c.warnings...)
		})
	}
}

func off(_ *hypervisortest.Fake, vm *hypervisor.VM) {
	vm.PowerState, vm.GuestAgent = hypervisor.PoweredOff, false
}

func noAgent(_ *hypervisortest.Fake, vm *hypervisor.VM) { vm.GuestAgent = false }

func quiesceFails(hv *hypervisortest.Fake, _ *hypervisor.VM) {
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCreateSnapshot, Err: hypervisor.ErrQuiesce})
}

func wantWarnings(t *testing.T, got []string, parts ...string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Fatalf("warnings %q, want %d", got, len(parts))
	}
	for i, part := range parts {
		if !strings.Contains(got[i], part) {
			t.Errorf("warning %q doesn't speak of %q", got[i], part)
		}
	}
}

func find(t *testing.T, hv hypervisor.Finder, vm hypervisor.VM) *hypervisor.VM {
	t.Helper()
	v, err := hv.VMByInstanceUUID(context.WithoutCancel(t.Context()), vm.InstanceUUID)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTake_obstacles(t *testing.T) {
	t.Parallel()
	independent := hypervisor.Obstacle{
		Kind: hypervisor.ObstacleIndependent, Device: "Hard disk 2", Disk: "2001", Reason: "it is independent.", Remedy: "Change its mode.",
	}
	blocking := hypervisor.Obstacle{
		Kind: hypervisor.ObstaclePhysicalRDM, Device: "Hard disk 3", Reason: "it is a physical RDM.", Remedy: "Remove it.", BlocksSnapshot: true,
	}
	for name, c := range map[string]struct {
		obstacles []hypervisor.Obstacle
		request   snapshot.Request
		state     hypervisor.PowerState
		refused   string
		warning   string
	}{
		"independent":              {obstacles: []hypervisor.Obstacle{independent}, warning: "Hard disk 2"},
		"independent, with memory": {obstacles: []hypervisor.Obstacle{independent}, request: snapshot.Request{Memory: true}, refused: "Hard disk 2"},
		"blocking":                 {obstacles: []hypervisor.Obstacle{independent, blocking}, refused: "Hard disk 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			hv.Edit(vm.ID, func(v *hypervisor.VM) { v.Obstacles = c.obstacles })
			c.request.VM, c.request.Name = "web", "s"
			taken, err := newManager(hv).Take(t.Context(), c.request)
			if c.refused != "" {
				var obstacle *hypervisor.ObstacleError
				if !errors.As(err, &obstacle) || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got error %v, want an obstacle that names %q", err, c.refused)
				}
				if hv.Seen(hypervisortest.BeforeCreateSnapshot) > 0 {
					t.Error("the hypervisor was asked nevertheless")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantWarnings(t, taken.Warnings, c.warning)
		})
	}
}

func TestTake_chain(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	m := newManager(hv)
	for depth := 1; depth <= hypervisor.MaxSnapshotDepth; depth++ {
		taken, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: fmt.Sprint(depth)})
		if err != nil {
			t.Fatal(err)
		}
		if taken.Snapshot.Depth != depth || (len(taken.Warnings) > 0) != (depth > snapshot.WarnDepth) {
			t.Errorf("depth %d: %d, warnings %q", depth, taken.Snapshot.Depth, taken.Warnings)
		}
	}
	created := hv.Seen(hypervisortest.BeforeCreateSnapshot)
	_, err := m.Take(t.Context(), snapshot.Request{VM: "web", Name: "one too many"})
	if !errors.Is(err, hypervisor.ErrTooManySnapshots) || hv.Seen(hypervisortest.BeforeCreateSnapshot) != created {
		t.Errorf("got error %v, want %v before anything is created", err, hypervisor.ErrTooManySnapshots)
	}
	if _, warnings, err := m.Check(t.Context(), snapshot.Request{VM: "web", Name: "x"}); !errors.Is(err, hypervisor.ErrTooManySnapshots) {
		t.Errorf("check: %v, %v", warnings, err)
	}
	if n := len(snapshots(t, hv, vm)); n != hypervisor.MaxSnapshotDepth {
		t.Errorf("%d snapshots", n)
	}
}

// What exists must come back to the caller, whatever goes wrong behind it.
func TestTake_failures(t *testing.T) {
	t.Parallel()
	quiesced := quiesce.Policy{Mode: quiesce.Required}
	for name, c := range map[string]struct {
		request snapshot.Request
		fault   hypervisortest.Fault
		ignore  bool // quiescing
		exists  bool // the snapshot, afterwards, and in what Take returns
		off     bool // the VM stays off, because starting it is what failed
	}{
		"find":                        {fault: hypervisortest.Fault{At: hypervisortest.BeforeFindVM}},
		"list":                        {fault: hypervisortest.Fault{At: hypervisortest.BeforeSnapshots}},
		"create":                      {fault: hypervisortest.Fault{At: hypervisortest.BeforeCreateSnapshot}},
		"created with error":          {fault: hypervisortest.Fault{At: hypervisortest.AfterCreateSnapshot}, exists: true},
		"read back":                   {fault: hypervisortest.Fault{At: hypervisortest.BeforeSnapshots, Skip: 1}, exists: true},
		"remove again":                {request: snapshot.Request{Quiesce: quiesced}, ignore: true, fault: hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot}, exists: true},
		"shut down":                   {request: snapshot.Request{ShutDown: true}, fault: hypervisortest.Fault{At: hypervisortest.BeforeShutDownGuest}},
		"shut down, create":           {request: snapshot.Request{ShutDown: true}, fault: hypervisortest.Fault{At: hypervisortest.BeforeCreateSnapshot}},
		"shut down, created":          {request: snapshot.Request{ShutDown: true}, fault: hypervisortest.Fault{At: hypervisortest.AfterCreateSnapshot}, exists: true},
		"shut down and never started": {request: snapshot.Request{ShutDown: true}, fault: hypervisortest.Fault{At: hypervisortest.BeforePowerOn}, exists: true, off: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			hv.QuiesceIgnored = c.ignore
			c.fault.Err = errBroken
			hv.Fail(c.fault)
			c.request.VM, c.request.Name, c.request.Description = "web", "s", "d"
			taken, err := newManager(hv).Take(t.Context(), c.request)
			if !errors.Is(err, errBroken) {
				t.Fatalf("got error %v, want %v", err, errBroken)
			}
			left := snapshots(t, hv, vm)
			if c.exists != (taken != nil) || c.exists != (len(left) == 1) {
				t.Fatalf("returned %v, snapshots %v, want one: %v", taken, left, c.exists)
			}
			if c.exists && (taken.Snapshot.ID != left[0].ID || taken.Snapshot.Name != "s" || taken.VM.InstanceUUID != vm.InstanceUUID) {
				t.Errorf("returned %+v, but there is %+v", taken, left[0])
			}
			if got := find(t, hv, vm).PowerState; (got == hypervisor.PoweredOff) != c.off {
				t.Errorf("the VM is %s", got)
			}
			if taken, err := newManager(hv).Take(t.Context(), snapshot.Request{VM: "web", Name: "again"}); err != nil || taken == nil {
				t.Errorf("second attempt: %v, %v", taken, err)
			}
		})
	}
}

func TestTake_cancelled(t *testing.T) {
	t.Parallel()
	for _, point := range []hypervisortest.Point{
		hypervisortest.BeforeFindVM, hypervisortest.BeforeSnapshots, hypervisortest.BeforeShutDownGuest, hypervisortest.DuringShutDownGuest,
		hypervisortest.BeforeCreateSnapshot, hypervisortest.AfterCreateSnapshot,
	} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hv.Fail(hypervisortest.Fault{At: point, Do: func(context.Context) { cancel() }})
			taken, err := newManager(hv).Take(ctx, snapshot.Request{VM: "web", Name: "s", ShutDown: true})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v", err)
			}
			left := snapshots(t, hv, vm)
			if exists := point == hypervisortest.AfterCreateSnapshot; (taken != nil) != exists || (len(left) == 1) != exists {
				t.Errorf("returned %v, snapshots %v", taken, left)
			}
			if taken != nil && (taken.Snapshot.Depth != 1 || taken.Consistency != quiesce.Application) {
				t.Errorf("returned %+v: it was not read", taken)
			}
			if got := find(t, hv, vm).PowerState; got != hypervisor.PoweredOn {
				t.Errorf("the VM is %s", got)
			}
		})
	}
}

// A guest that was not told to shut down isn't told when all is undone.
func TestTake_notShutDown(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeShutDownGuest, Err: errBroken})
	if _, err := newManager(hv).Take(t.Context(), snapshot.Request{VM: "web", Name: "s", ShutDown: true}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if asked, started := hv.Seen(hypervisortest.BeforeShutDownGuest), hv.Seen(hypervisortest.BeforePowerOn); asked != 1 || started != 0 {
		t.Errorf("the guest was asked %d times, the VM started %d times", asked, started)
	}
	if got := find(t, hv, vm).PowerState; got != hypervisor.PoweredOn {
		t.Errorf("the VM is %s", got)
	}
}

// A guest that was told to shut down may do so after nobody waits for it any more.
func TestTake_shutsDownLate(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringShutDownGuest, Err: errBroken})
	if _, err := newManager(hv).Take(t.Context(), snapshot.Request{VM: "web", Name: "s", ShutDown: true}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if hv.Seen(hypervisortest.BeforeShutDownGuest) != 2 {
		t.Error("nobody waited for the guest to shut down")
	}
	if got := find(t, hv, vm).PowerState; got != hypervisor.PoweredOn {
		t.Errorf("the VM is %s", got)
	}
}
