package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// envServe makes the test binary be the provider: Terraform starts it like the real one, as a process
// of its own with signals and logs of its own.
const envServe = "VM_TEST_SERVE"

// A workspace is a directory in which the CLI runs as a person would run it.
type workspace struct {
	w   *world
	dir string
}

func (w *world) workspace() *workspace {
	w.t.Helper()
	dir := w.t.TempDir()
	exe, err := os.Executable()
	if err == nil {
		err = os.Symlink(exe, filepath.Join(dir, "terraform-provider-vm"))
	}
	if err == nil {
		rc := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"terraform-vm/vm\" = %q\n  }\n  direct {}\n}\n", dir)
		err = os.WriteFile(filepath.Join(dir, "dev.tfrc"), []byte(rc), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &workspace{w: w, dir: dir}
}

// write replaces the configuration.
func (s *workspace) write(config string) {
	s.w.t.Helper()
	head := "terraform {\n  required_providers {\n    vm = {\n      source = \"terraform-vm/vm\"\n    }\n  }\n}\n"
	if strings.Contains(config, "required_providers") {
		head = ""
	}
	if err := os.WriteFile(filepath.Join(s.dir, "main.tf"), []byte(head+config), 0o600); err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *workspace) command(args ...string) *exec.Cmd {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	cmd := exec.CommandContext(s.w.t.Context(), os.Getenv("TF_ACC_TERRAFORM_PATH"), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), envServe+"=1", "TF_CLI_CONFIG_FILE="+filepath.Join(s.dir, "dev.tfrc"), "TF_IN_AUTOMATION=1",
		"TF_CLI_ARGS=-no-color")
	for name, value := range s.w.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// run runs a command to its end and returns all that it printed.
func (s *workspace) run(args ...string) (string, error) {
	s.w.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	return string(out), err
}

// must is run for what must succeed.
func (s *workspace) must(args ...string) string {
	s.w.t.Helper()
	out, err := s.run(args...)
	if err != nil {
		s.w.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TestInterrupt presses Ctrl-C in the middle of every phase: nothing is left behind, and the next
// apply succeeds.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		config string
		lose   bool // the VM is lost before
	}{
		"snapshot":             {method: "CreateSnapshot_Task", config: snapshotConfig},
		"backup's snapshot":    {method: "CreateSnapshot_Task", config: backupConfig},
		"backup's transfer":    {method: "GET /nfc", config: backupConfig},
		"restore's lease":      {method: "ImportVApp", config: restoreConfig, lose: true},
		"restore's transfer":   {method: "POST /nfc", config: restoreConfig, lose: true},
		"restore's completion": {method: "ReconfigVM_Task", config: restoreConfig, lose: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.workspace()
			vms := 1
			if c.lose {
				s.write(w.provider() + backupConfig)
				s.must("apply", "-auto-approve")
				w.destroyVM("web01")
				vms = 0
			}
			s.write(w.provider() + c.config)
			w.lab.Fault(lab.Fault{Method: c.method, Delay: 2 * time.Second}) // time for the signal to arrive
			out := s.interrupt(c.method)
			if w.lab.Calls()[c.method] == 0 && w.lab.Calls()["CreateSnapshotEx_Task"] == 0 {
				t.Errorf("%s was never called:\n%s", c.method, out)
			}
			if !strings.Contains(out, "nterrupt") {
				t.Errorf("nothing was interrupted:\n%s", out)
			}
			if c.config == snapshotConfig {
				s.must("destroy", "-auto-approve") // what was taken is in the state
			}
			labtest.AssertClean(t, w.lab)
			if n := len(w.lab.Status().VMs); n != vms && !strings.Contains(out, "Creation complete") {
				t.Errorf("%d VMs, want %d:\n%s", n, vms, out)
			}
			w.close()
			s.must("apply", "-auto-approve")
			if out := s.must("plan"); !strings.Contains(out, "No changes") {
				t.Errorf("the second plan isn't empty:\n%s", out)
			}
		})
	}
}

// interrupt applies, and sends Ctrl-C when a method of the lab is called.
func (s *workspace) interrupt(method string) string {
	t := s.w.t
	t.Helper()
	cmd := s.command("apply", "-auto-approve")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	called := make(chan struct{}, 1)
	for _, m := range []string{method, strings.Replace(method, "Snapshot_Task", "SnapshotEx_Task", 1)} {
		s.w.lab.OnCall(m, func(context.Context) {
			select {
			case called <- struct{}{}:
			default:
			}
		})
		defer s.w.lab.OnCall(m, nil)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case <-called:
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		err = <-ended
	case err = <-ended:
		t.Fatalf("it ended before %s: %v\n%s", method, err, out.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

// TestSecrets looks for passwords in everything that a person gets to see or keeps.
func TestSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + backupConfig + snapshotConfig)
	trace := filepath.Join(s.dir, "trace.log")
	w.setenv("TF_LOG", "TRACE")
	w.setenv("TF_LOG_PATH", trace)
	shown := s.must("plan", "-out=saved")
	shown += s.must("show", "-json", "saved")
	shown += s.must("apply", "saved")
	secrets := []string{w.lab.Password(), repositoryPassword}
	wrong := "wrong-" + secrets[0]
	w.setenv(envPassword, wrong)
	out, err := s.run("plan")
	if err == nil {
		t.Error("a wrong password is accepted")
	}
	if !strings.Contains(out, "Check vsphere.user and vsphere.password (VSPHERE_USER, VSPHERE_PASSWORD).") {
		t.Errorf("a wrong password gives:\n%s", out)
	}
	shown += out
	seen := map[string]string{"output": shown}
	for _, file := range []string{"terraform.tfstate", "trace.log", "saved"} {
		p, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		seen[file] = string(p)
	}
	if !strings.Contains(seen["trace.log"], "vm_backup") {
		t.Error("the trace holds nothing")
	}
	for where, text := range seen {
		for i, secret := range append(secrets, wrong) {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("secret %d is in the %s: …%s…", i, where, text[max(0, at-200):at])
			}
		}
	}
}
