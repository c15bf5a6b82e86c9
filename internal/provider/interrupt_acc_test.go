package provider

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// loseIt takes a backup of web01 and destroys the VM.
func (s *workspace) loseIt() {
	s.w.t.Helper()
	s.write(s.w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	s.w.destroyVM("web01")
}

// committing is, in place of a method, the moment at which a repository's first data is written: with a disk
// this small that is when the backup is committed.
const committing = "commit"

// TestInterrupt presses Ctrl-C in the middle of every phase: nothing is left behind, and the next
// apply succeeds.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		config string
		lose   bool // the VM is lost before
		stays  bool // the VM is complete by then, and stays
		due    bool // the disks that were replaced are left to the next apply
	}{
		"snapshot":             {method: "CreateSnapshot_Task", config: snapshotConfig},
		"backup's snapshot":    {method: "CreateSnapshot_Task", config: backupConfig},
		"backup's reading":     {method: "GET /nfc", config: backupConfig},
		"backup's transfer":    {method: "GET /nfc", config: backupConfig},
		"backup's commit":      {method: committing, config: backupConfig},
		"backup's clean-up":    {method: "RemoveSnapshot_Task", config: backupConfig},
		"restore's lease":      {method: "ImportVApp", config: restoreConfig, lose: true},
		"restore's transfer":   {method: "POST /nfc", config: restoreConfig, lose: true},
		"restore's lease, end": {method: "HttpNfcLeaseComplete", config: restoreConfig, lose: true},
		"restore's firmware":   {method: "PUT /folder", config: restoreConfig, lose: true},
		"restore's completion": {method: "ReconfigVM_Task", config: restoreConfig, lose: true},
		"restore's start":      {method: "PowerOnVM_Task", config: restoreConfig, lose: true, stays: true},
		"in place, journal":    {method: "ReconfigVM_Task", config: inPlaceConfig("", "")},
		"in place, transfer":   {method: "POST /nfc", config: inPlaceConfig("", "")},
		"in place, shutdown":   {method: "ShutdownGuest", config: inPlaceConfig("", "")},
		"in place, start":      {method: "PowerOnVM_Task", config: inPlaceConfig("", ""), due: true},
		"revert":               {method: "RevertToSnapshot_Task", config: snapshotConfig + revertConfig},
		"set":                  {method: "CreateSnapshot_Task", config: setConfig("")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tiers()...)
			s := w.workspace()
			vms := 3
			if c.lose {
				s.loseIt()
			}
			if c.lose && !c.stays {
				vms = 2
			}
			s.write(w.providerFor(c.method) + c.config)
			if c.method != committing {
				w.lab.Fault(lab.Fault{Method: c.method, Delay: time.Second}) // time for the provider to hear of it
			}
			out := s.interrupt(c.method)
			if !strings.Contains(out, "nterrupt") {
				t.Errorf("nothing was interrupted:\n%s", out)
			}
			s.consistent()
			if strings.Contains(c.config, "vm_snapshot") {
				s.must("destroy", "-auto-approve") // what was taken is in the state
			}
			if c.due {
				s.recovers()
			}
			labtest.AssertClean(t, w.lab)
			if n := len(w.lab.Status().VMs); n != vms && !strings.Contains(out, "Creation complete") {
				t.Errorf("%d VMs, want %d:\n%s", n, vms, out)
			}
			s.recovers()
		})
	}
}

// providerFor is a provider block with which a call is made.
func (w *world) providerFor(call string) string {
	if call == "GET /nfc" || call == "ExportSnapshot" {
		return w.reading("export")
	}
	return w.provider()
}

// consistent compares the backups in the repository with those in the state.
func (s *workspace) consistent() {
	t := s.w.t
	t.Helper()
	want := strings.Count(s.must("state", "list"), "vm_backup.")
	repo, err := repository.Open(t.Context(), repository.Config{Path: s.w.repo, Password: secret.New(repositoryPassword)})
	if errors.Is(err, repository.ErrNoRepository) && want == 0 {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	points, err := repo.List(t.Context(), repository.Filter{})
	if err := errors.Join(err, repo.Close(t.Context())); err != nil || len(points) != want {
		t.Errorf("the repository lists %d backups, %v; %d are in the state", len(points), err, want)
	}
}

// recovers applies: that succeeds, and leaves nothing to do.
func (s *workspace) recovers() {
	t := s.w.t
	t.Helper()
	s.must("apply", "-auto-approve")
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the second plan isn't empty:\n%s", out)
	}
	s.consistent()
}

// A transcript is what a command prints.
type transcript struct {
	mu       sync.Mutex
	text     bytes.Buffer
	stopping chan struct{} // closed when Terraform says that it stops what it is at
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const stops = "Stopping operation"
	before := bytes.Contains(o.text.Bytes(), []byte(stops))
	n, err := o.text.Write(p)
	if !before && bytes.Contains(o.text.Bytes(), []byte(stops)) {
		close(o.stopping)
	}
	return n, err
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// reached returns a channel that holds a value as soon as a method of the lab is called, or a backup is
// committed. The call, or the one that comes after the commit, waits for release.
func (s *workspace) reached(method string, release <-chan struct{}) <-chan struct{} {
	reached := make(chan struct{}, 1)
	hit := func() {
		select {
		case reached <- struct{}{}:
		default:
		}
	}
	if method == committing {
		s.w.lab.OnCall("RemoveSnapshot_Task", func(context.Context) { <-release })
		go s.awaitPack(release, hit)
		return reached
	}
	for _, m := range []string{method, strings.Replace(method, "Snapshot_Task", "SnapshotEx_Task", 1)} {
		s.w.lab.OnCall(m, func(context.Context) {
			hit()
			<-release
		})
	}
	return reached
}

// awaitPack waits until there is data in the repository.
func (s *workspace) awaitPack(release <-chan struct{}, hit func()) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if packs, _ := filepath.Glob(filepath.Join(s.w.repo, "p*")); len(packs) > 0 { // the pattern is valid
			hit()
			return
		}
		select {
		case <-tick.C:
		case <-release:
			return
		}
	}
}

// interrupt applies, and presses Ctrl-C when a method of the lab is called.
func (s *workspace) interrupt(method string, options ...string) string {
	return s.signal(method, func(cmd *exec.Cmd) error { return cmd.Process.Signal(os.Interrupt) }, true, options...)
}

// signal applies, and does something to the command when a method of the lab is called. That call waits until it is
// done and, if Terraform stops what it is at then, until that is so.
func (s *workspace) signal(method string, send func(*exec.Cmd) error, stops bool, options ...string) string {
	t := s.w.t
	t.Helper()
	cmd := s.command(append([]string{"apply", "-auto-approve"}, options...)...)
	out := &transcript{stopping: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	reached := s.reached(method, hold)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case <-reached:
	case err = <-ended:
		t.Fatalf("it ended before %s: %v\n%s", method, err, out)
	}
	if err := send(cmd); err != nil {
		t.Error(err)
	}
	if stops {
		select {
		case <-out.stopping:
		case err = <-ended:
			t.Fatalf("it ended without being stopped: %v\n%s", err, out)
		}
	}
	release()
	err = <-ended
	s.w.lab.OnCall(method, nil)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

// killProvider kills the provider's process.
func (s *workspace) killProvider(*exec.Cmd) error {
	text, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// TestKill kills the provider's process, which can't clean up then: the next apply does.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		config string
		lose   bool
		keeps  string // a disk that the killed restore replaced: no restore but its own deletes it
	}{
		"backup":             {method: "GET /folder", config: backupConfig},
		"export":             {method: "GET /nfc", config: backupConfig},
		"restore":            {method: "POST /nfc", config: restoreConfig, lose: true},
		"in place, transfer": {method: "POST /nfc", config: inPlaceConfig("", "")},
		"in place, start":    {method: "PowerOnVM_Task", config: inPlaceConfig("", ""), keeps: "[LocalDS_0] web01/web01.vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.workspace()
			if c.lose {
				s.loseIt()
			}
			s.write(w.providerFor(c.method) + c.config)
			files := len(w.lab.Status().Files)
			w.lab.Fault(lab.Fault{Method: c.method, Fault: "hang"})
			out := s.signal(c.method, func(cmd *exec.Cmd) error {
				err := s.killProvider(cmd)
				if status := w.lab.Status(); len(status.Leases) == 0 && len(status.Files) == files {
					t.Error("nothing was left behind: it was killed too early or too late")
				}
				return err
			}, false)
			if !says(out, "Error:", "plugin") {
				t.Errorf("the provider wasn't killed:\n%s", out)
			}
			labtest.ExpireWhenRefused(w.lab)
			s.consistent()
			s.recovers()
			if c.keeps != "" {
				if out := s.must("show"); !strings.Contains(out, c.keeps) {
					t.Errorf("the state doesn't tell of %s:\n%s", c.keeps, out)
				}
				err := w.client().DeleteReplaced(t.Context(), hypervisor.VMID(w.vm("web01").ID), []hypervisor.Replaced{{Path: c.keeps}})
				if err != nil {
					t.Error(err)
				}
			}
			labtest.AssertClean(t, w.lab)
			if vms := w.lab.Status().VMs; len(vms) != 1 || vms[0].Name != "web01" {
				t.Errorf("%d VMs, the first is %s", len(vms), vms[0].Name)
			}
		})
	}
}

// TestLostConnection breaks connections in the middle: nothing is left behind, and the next apply succeeds.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault lab.Fault
		lose  bool
		words []string
	}{
		"export":        {lab.Fault{Method: "GET /nfc", Fault: "drop"}, false, []string{"Unable to Take Backup", "connection lost", "Apply again"}},
		"export, cut":   {lab.Fault{Method: "GET /nfc", Fault: "truncate"}, false, []string{"Unable to Take Backup"}},
		"export, lease": {lab.Fault{Method: "ExportSnapshot", Fault: "lost"}, false, []string{"Unable to Take Backup"}},
		"import":        {lab.Fault{Method: "POST /nfc", Fault: "drop"}, true, []string{"Unable to Restore Virtual Machine", "connection lost", "Apply again"}},
		"import, lease": {lab.Fault{Method: "ImportVApp", Fault: "lost"}, true, []string{"Unable to Restore Virtual Machine"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.workspace()
			config, vms := backupConfig, 1
			if c.lose {
				s.loseIt()
				config, vms = restoreConfig, 0
			}
			s.write(w.providerFor(c.fault.Method) + config)
			w.fault(c.fault)
			s.refused(c.words, "apply", "-auto-approve")
			s.consistent()
			labtest.AssertClean(t, w.lab)
			if n := len(w.lab.Status().VMs); n != vms {
				t.Errorf("%d VMs, want %d", n, vms)
			}
			s.recovers()
			labtest.AssertClean(t, w.lab)
		})
	}
}
