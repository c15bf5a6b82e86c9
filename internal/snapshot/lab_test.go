package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// childVariable makes this test binary take a set of the VMs that it names, and do nothing else.
const childVariable = "TEST_SNAPSHOT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	if err := takeAsChild(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func takeAsChild(ctx context.Context) error {
	log := slog.New(slog.DiscardHandler)
	client, err := vsphere.Connect(ctx, vsphere.Config{
		Server: os.Getenv("TEST_SERVER"), User: os.Getenv("TEST_USER"),
		Password: secret.New(os.Getenv("TEST_PASSWORD")), Thumbprint: os.Getenv("TEST_THUMBPRINT"),
	}, log)
	if err != nil {
		return err
	}
	r := snapshot.SetRequest{Name: "killed"}
	for _, name := range strings.Split(os.Getenv(childVariable), ",") {
		r.Members = append(r.Members, snapshot.SetMember{VM: hypervisor.VMRef(name)})
	}
	_, err = snapshot.New(client, log, time.Now).TakeSet(ctx, r)
	return errors.Join(err, client.Close(ctx))
}

// A site is a lab with VMs vm0, vm1, …, and a manager that is connected to it.
type site struct {
	*testing.T
	lab    *lab.Lab
	client *vsphere.Client
	m      *snapshot.Manager
	names  []string
}

func newSite(t *testing.T, vms int) *site {
	t.Helper()
	s := &site{T: t, lab: labtest.Start(t, lab.Options{})}
	seeds := []string{labtest.RawDisk(t, 1<<20, 1), labtest.RawDisk(t, 2<<20, 2)}
	for i := range vms {
		s.names = append(s.names, fmt.Sprintf("vm%d", i))
		if err := s.lab.AddVM(t.Context(), lab.VMSpec{Name: s.names[i], Disks: seeds}); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	client, err := vsphere.Connect(t.Context(), vsphere.Config{
		Server: s.lab.URL().Host, User: s.lab.User(), Password: secret.New(s.lab.Password()), Thumbprint: s.lab.Fingerprint(),
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.WithoutCancel(t.Context())) }) // the lab ends with the test
	s.client, s.m = client, snapshot.New(client, log, time.Now)
	return s
}

// disks reads all disks of all VMs as their guests see them.
func (s *site) disks() (all [][]byte) {
	s.Helper()
	for _, name := range s.names {
		for n, size := range []int{1 << 20, 2 << 20} {
			p := make([]byte, size)
			if err := s.lab.ReadDisk(name, n, 0, p); err != nil {
				s.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

func (s *site) write(text string) {
	s.Helper()
	for i, name := range s.names {
		for n := range 2 {
			if err := s.lab.WriteDisk(name, n, 4096, []byte(fmt.Sprint(text, i, n))); err != nil {
				s.Fatal(err)
			}
		}
	}
}

func (s *site) request() snapshot.SetRequest {
	r := snapshot.SetRequest{Name: "release 4.2", Description: "größer\nkleiner"}
	for _, name := range s.names {
		r.Members = append(r.Members, snapshot.SetMember{VM: hypervisor.VMRef(name)})
	}
	return r
}

func (s *site) wantStates(want string) {
	s.Helper()
	for _, vm := range s.lab.Status().VMs {
		if vm.PowerState != want {
			s.Errorf("%s is %s, want %s", vm.Name, vm.PowerState, want)
		}
	}
}

func equal(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestLab_revert reverts a VM with and without memory, into every power state, and compares bytes.
func TestLab_revert(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	ids := map[bool]hypervisor.SnapshotID{}
	want := map[bool][][]byte{}
	for _, memory := range []bool{true, false} {
		s.write(fmt.Sprint("memory ", memory))
		taken, err := s.m.Take(t.Context(), snapshot.Request{VM: "vm0", Name: "a", Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		ids[memory], want[memory] = taken.Snapshot.ID, s.disks()
	}
	for _, c := range []struct {
		memory bool
		power  snapshot.Power
		want   string
	}{
		{false, snapshot.AsSnapshot, "poweredOff"}, {true, snapshot.AsSnapshot, "poweredOn"}, {false, snapshot.On, "poweredOn"},
		{true, snapshot.Off, "poweredOff"}, {true, snapshot.On, "poweredOn"}, {false, snapshot.Off, "poweredOff"},
	} {
		s.write("evil")
		got, err := s.m.Revert(t.Context(), snapshot.RevertRequest{Snapshot: ids[c.memory], Power: c.power})
		if err != nil || !equal(s.disks(), want[c.memory]) || len(got.Undone) > 0 {
			t.Errorf("%+v: got %+v and %v; bytes as in the snapshot: %t", c, got, err, equal(s.disks(), want[c.memory]))
		}
		s.wantStates(c.want)
	}
	vm, err := s.client.VMOfSnapshot(t.Context(), ids[true])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.m.Remove(t.Context(), vm.InstanceUUID, ids[true], hypervisor.RemoveOptions{Children: true}); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, s.lab)
}

// TestLab_set takes a set of as many VMs as there can be, reverts it as one, with a failure in the middle and
// then again, and removes it.
func TestLab_set(t *testing.T) {
	t.Parallel()
	s := newSite(t, snapshot.MaxSetMembers)
	s.write("good")
	want := s.disks()
	r := s.request()
	r.MaxSkew = time.Minute
	set, err := s.m.TakeSet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Members) != len(s.names) || set.Skew > set.Spread || len(set.Warnings) > 0 {
		t.Errorf("skew %s, spread %s, warnings %q", set.Skew, set.Spread, set.Warnings)
	}
	t.Logf("%d snapshots, skew %s, spread %s", len(set.Members), set.Skew, set.Spread)
	s.write("evil")
	revert := snapshot.SetRevertRequest{Power: snapshot.On}
	for i, id := range set.IDs() {
		revert.Members = append(revert.Members, snapshot.RevertMember{MemberID: id, Order: i % 3})
	}
	s.lab.Fault(lab.Fault{Method: "RevertToSnapshot_Task", Fault: "InvalidState", After: 10, Count: 2})
	got, err := s.m.RevertSet(t.Context(), revert)
	if err == nil || len(got) != len(s.names)-2 || strings.Count(err.Error(), "is not reverted and is powered off now") != 2 {
		t.Errorf("%d reverted, %v", len(got), err)
	}
	s.wantStates("poweredOff")
	if got, err = s.m.RevertSet(t.Context(), revert); err != nil || len(got) != len(s.names) || !equal(s.disks(), want) {
		t.Errorf("second attempt: %d reverted, %v; bytes as in the snapshots: %t", len(got), err, equal(s.disks(), want))
	}
	s.wantStates("poweredOn")
	if err := s.m.RemoveSet(t.Context(), set.IDs(), hypervisor.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !equal(s.disks(), want) {
		t.Error("removing the set changed disks")
	}
	labtest.AssertClean(t, s.lab)
}

// TestLab_setFails has members fail in the ways of a server. The set is taken, or nothing of it is left.
func TestLab_setFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault lab.Fault
		taken bool
	}{
		{fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "ApplicationQuiesceFault"}},
		{fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace", After: 1}},
		{fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "call:NoPermission", After: 2}},
		{fault: lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "drop", After: 1}},
		{fault: lab.Fault{Method: "RenameSnapshot", Fault: "call:NoPermission", After: 1}},
		{fault: lab.Fault{Method: "CreateSnapshotEx_Task", Fault: "lost", After: 1}, taken: true},
		{fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "TaskInProgress", After: 1}, taken: true},
		{fault: lab.Fault{Method: "RenameSnapshot", Fault: "lost", After: 1}, taken: true},
	} {
		t.Run(c.fault.Method+" "+c.fault.Fault, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 3)
			want := s.disks()
			s.lab.Fault(c.fault)
			set, err := s.m.TakeSet(t.Context(), s.request())
			if (set != nil) != c.taken || (err == nil) != c.taken {
				t.Fatalf("got %+v and %v", set, err)
			}
			if c.taken {
				if err := s.m.RemoveSet(t.Context(), set.IDs(), hypervisor.RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
			s.wantStates("poweredOn")
			if !equal(s.disks(), want) {
				t.Error("disks changed")
			}
			labtest.AssertClean(t, s.lab)
		})
	}
}

func TestLab_setCancelled(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"CreateSnapshotEx_Task", "RenameSnapshot"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 3)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var calls atomic.Int32
			s.lab.OnCall(method, func(context.Context) {
				if calls.Add(1) == 2 {
					cancel()
				}
			})
			set, err := s.m.TakeSet(ctx, s.request())
			if set != nil && err == nil { // all were asked before the first heard of it: the set is complete
				err = errors.Join(context.Canceled, s.m.RemoveSet(t.Context(), set.IDs(), hypervisor.RemoveOptions{}))
				set = nil
			}
			if set != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("got %+v and %v", set, err)
			}
			labtest.AssertClean(t, s.lab)
		})
	}
}

func TestLab_setSkew(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: 300 * time.Millisecond, After: 1}) // takes its time, no more
	r := s.request()
	r.Members[1].Order, r.MaxSkew = 1, 200*time.Millisecond
	if set, err := s.m.TakeSet(t.Context(), r); set != nil || !errors.Is(err, snapshot.ErrSkew) {
		t.Errorf("got %+v and %v", set, err)
	}
	labtest.AssertClean(t, s.lab)
}

// kill takes a set of all VMs in another process, and kills that at the n-th call of a method, when those
// before have done what they do, of which done tells. Later ones never reach the server.
func (s *site) kill(method string, n int, done func(left lab.SnapshotStatus) bool) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(s.names, ","), "TEST_SERVER="+s.lab.URL().Host,
		"TEST_USER="+s.lab.User(), "TEST_PASSWORD="+s.lab.Password(), "TEST_THUMBPRINT="+s.lab.Fingerprint())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	reached, killed := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	s.lab.OnCall(method, func(ctx context.Context) {
		at := int(calls.Add(1))
		if at < n {
			return
		}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for at == n && ctx.Err() == nil && s.count(done) < n-1 {
			<-tick.C
		}
		if at == n {
			close(reached)
		}
		<-killed
		panic(http.ErrAbortHandler)
	})
	defer func() {
		close(killed)
		s.lab.OnCall(method, nil)
	}()
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-reached:
	case err := <-ended:
		s.Fatalf("the child ended before call %d of %s: %v: %s", n, method, err, stderr.String())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
	<-ended
}

// count is how many snapshots there are of which something is so.
func (s *site) count(is func(left lab.SnapshotStatus) bool) (n int) {
	for _, vm := range s.lab.Status().VMs {
		for _, left := range vm.Snapshots {
			if is(left) {
				n++
			}
		}
	}
	return n
}

// TestLab_setKilled kills the process that takes a set, in the middle of taking and in the middle of marking it
// as complete. The next set, also of other VMs, removes what was left behind from all.
func TestLab_setKilled(t *testing.T) {
	t.Parallel()
	unfinished := func(left lab.SnapshotStatus) bool { return strings.Contains(left.Description, `"run"`) }
	for method, done := range map[string]func(left lab.SnapshotStatus) bool{
		"CreateSnapshotEx_Task": unfinished,
		"RenameSnapshot":        func(left lab.SnapshotStatus) bool { return !unfinished(left) },
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4)
			want := s.disks()
			s.kill(method, 3, done)
			all := s.count(func(lab.SnapshotStatus) bool { return true })
			if want := map[string]int{"CreateSnapshotEx_Task": 2, "RenameSnapshot": 4}[method]; all != want || s.count(unfinished) != 2 {
				t.Fatalf("%d snapshots are left behind, %d of them say so", all, s.count(unfinished))
			}
			var on string
			for _, vm := range s.lab.Status().VMs {
				if len(vm.Snapshots) > 0 && unfinished(vm.Snapshots[0]) {
					on = vm.Name
				}
			}
			r := s.request()
			r.Members = []snapshot.SetMember{{VM: hypervisor.VMRef(on)}}
			_, warnings, err := s.m.CheckSet(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			wantWarnings(t, warnings, "is removed first")
			set, err := s.m.TakeSet(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			wantWarnings(t, set.Warnings, "removed the incomplete set of snapshots")
			if err := s.m.RemoveSet(t.Context(), set.IDs(), hypervisor.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			if !equal(s.disks(), want) {
				t.Error("disks changed")
			}
			labtest.AssertClean(t, s.lab)
		})
	}
}
