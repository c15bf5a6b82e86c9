package vsphere

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// sessionKiller returns a function that ends all sessions with a lab but its own, as a server does that
// restarts or runs out of patience.
func sessionKiller(t *testing.T, l *lab.Lab) (end func()) {
	t.Helper()
	killer := dial(t, labConfig(l))
	manager := *killer.vim.ServiceContent.SessionManager
	return func() {
		var m mo.SessionManager
		if err := killer.properties(t.Context(), manager, []string{"sessionList", "currentSession"}, &m); err != nil {
			t.Error(err)
			return
		}
		req := types.TerminateSession{This: manager}
		for _, s := range m.SessionList {
			if s.Key != m.CurrentSession.Key {
				req.SessionId = append(req.SessionId, s.Key)
			}
		}
		if _, err := methods.TerminateSession(t.Context(), killer.vim, &req); err != nil {
			t.Error(err)
		}
	}
}

func TestSession_renewed(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	end := sessionKiller(t, l)
	for range 2 {
		end()
		before := l.Calls()["Login"]
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := c.FindVM(t.Context(), "web01"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := l.Calls()["Login"] - before; n != 1 {
			t.Errorf("logged in %d times for all who noticed, want once", n)
		}
	}
}

// TestSession_refusedOnce ends a session whose user may not log in any more. One attempt is what a
// server gets to see, since it locks accounts after a few.
func TestSession_refusedOnce(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	end := sessionKiller(t, l)
	before := l.Calls()["Login"]
	l.Fault(lab.Fault{Method: "Login", Fault: "InvalidLogin", Count: 1})
	end()
	for range 3 {
		if _, err := c.FindVM(t.Context(), "web01"); !errors.Is(err, hypervisor.ErrLogin) {
			t.Errorf("got %v, want ErrLogin", err)
		}
	}
	if n := l.Calls()["Login"] - before; n != 1 {
		t.Errorf("tried %d times, want once", n)
	}
}

// TestSession_faultOfALiveSession has the server complain about a session that is in order.
func TestSession_faultOfALiveSession(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	before := l.Calls()["Login"]
	l.Fault(lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "call:NotAuthenticated", Count: 1})
	if _, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if n := l.Calls()["Login"] - before; n != 0 {
		t.Errorf("logged in %d times on a live session", n)
	}
}

func TestSession_keptAlive(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{})
	alive := make(chan struct{})
	var once sync.Once
	l.OnCall("CurrentTime", func(context.Context) { once.Do(func() { close(alive) }) })
	config := labConfig(l)
	config.KeepAlive = 10 * time.Millisecond
	dial(t, config)
	select {
	case <-alive:
	case <-time.After(time.Minute):
		t.Fatal("nothing keeps an idle session alive")
	}
}

func TestClient_logsOut(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{})
	before := len(l.Status().Sessions)
	c, err := Connect(t.Context(), labConfig(l), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := l.Status().Sessions; len(after) != before {
		t.Errorf("sessions are left behind: %+v", after)
	}
}

func TestRoundTripper_repeatsReads(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"drop", "503", "call:HostCommunication"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: fault, Count: 3})
			if _, err := c.Snapshots(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("not for ever", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		before := l.Calls()["RetrievePropertiesEx"]
		l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "503", Count: readAttempts})
		if _, err := c.Snapshots(t.Context(), vm); err == nil || !strings.Contains(err.Error(), "503") {
			t.Fatalf("got %v, want the server's answer", err)
		}
		if n := l.Calls()["RetrievePropertiesEx"] - before; n != readAttempts {
			t.Errorf("tried %d times, want %d", n, readAttempts)
		}
	})
}

// TestRoundTripper_neverRepeatsChanges counts what a server gets to see of a call whose answer was lost.
func TestRoundTripper_neverRepeatsChanges(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	l.Fault(lab.Fault{Method: "PowerOffVM_Task", Fault: "drop", Count: 1})
	_, err := c.vm(find(t, c, "web01").ID).PowerOff(t.Context())
	if err == nil || !isAmbiguous(err) {
		t.Fatalf("got %v, want a broken connection", err)
	}
	if n := l.Calls()["PowerOffVM_Task"]; n != 1 {
		t.Errorf("the server saw %d calls, want one", n)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-1"}
	for _, tt := range []struct {
		req    soap.HasFault
		method string
		reads  bool
	}{
		{&methods.RetrievePropertiesExBody{Req: &types.RetrievePropertiesEx{This: ref}}, "RetrievePropertiesEx", true},
		{&methods.FindAllByUuidBody{Req: &types.FindAllByUuid{This: ref}}, "FindAllByUuid", true},
		{&methods.CreateSnapshotEx_TaskBody{Req: &types.CreateSnapshotEx_Task{This: ref}}, "CreateSnapshotEx_Task", false},
		{&methods.CheckVmConfig_TaskBody{Req: &types.CheckVmConfig_Task{This: ref}}, "CheckVmConfig_Task", false},
		{&methods.RenameSnapshotBody{Req: &types.RenameSnapshot{This: ref}}, "RenameSnapshot", false},
		{&methods.LoginBody{Req: &types.Login{This: ref}}, "Login", false},
	} {
		method, this := describe(tt.req)
		if method != tt.method || this != ref || onlyReads(method) != tt.reads {
			t.Errorf("got %s of %v, reads %t; want %s, %t", method, this, onlyReads(method), tt.method, tt.reads)
		}
	}
	if method, this := describe(&methods.CurrentTimeBody{}); method != "CurrentTime" || this != (types.ManagedObjectReference{}) {
		t.Errorf("got %s of %v", method, this)
	}
}

// TestClient_Close_deadline has a server that answers nothing any more, and somebody who waits for it.
func TestClient_Close_deadline(t *testing.T) {
	t.Parallel()
	const attempts = 3 // a machine that is busy may take as long once
	for range attempts {
		if took := closeInVain(t); took < closeWatcherTimeout {
			return
		}
	}
	t.Error("Close goes on after its deadline") // that is what it takes without one
}

// closeInVain measures how long closing takes.
func closeInVain(t *testing.T) (took time.Duration) {
	t.Helper()
	l := labtest.Start(t, lab.Options{})
	if err := l.AddVM(t.Context(), lab.VMSpec{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(t.Context(), labConfig(l), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	vm := find(t, c, "web01")
	asked := make(chan struct{})
	var once sync.Once
	l.OnCall("WaitForUpdatesEx", func(context.Context) { once.Do(func() { close(asked) }) })
	ended := make(chan error, 1)
	go func() {
		ended <- c.watcher.watch(t.Context(), vmRef(vm.ID), []string{"name"}, func(string, any) bool { return false })
	}()
	<-asked
	if err := c.restSession.take(t.Context()); err != nil { // as if somebody were logging in
		t.Fatal(err)
	}
	for _, method := range []string{"CancelWaitForUpdates", "Logout"} {
		l.OnCall(method, func(ctx context.Context) { <-ctx.Done() })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = c.Close(ctx)
	took = time.Since(start)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Errorf("got %v for who waited, want %v", err, errClosed)
	}
	return took
}

// TestClient_Close_cancelled closes for somebody who was cancelled before his deadline.
func TestClient_Close_cancelled(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{})
	before := len(l.Status().Sessions)
	c, err := Connect(t.Context(), labConfig(l), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cancel()
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if after := l.Status().Sessions; len(after) != before {
		t.Errorf("sessions are left behind: %+v", after)
	}
}
