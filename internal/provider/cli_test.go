package provider

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// envServe makes the test binary be the provider: Terraform starts it like the real one, as a process
// of its own with signals and logs of its own.
const envServe = "VM_TEST_SERVE"

// envPIDFile names a file to which a provider's process writes its ID: Terraform starts one after the other.
const envPIDFile = "VM_TEST_PID_FILE"

func writePID() error {
	return os.WriteFile(os.Getenv(envPIDFile), strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o600)
}

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
	cmd.Env = append(os.Environ(), envServe+"=1", envPIDFile+"="+filepath.Join(s.dir, "pid"), "TF_CLI_CONFIG_FILE="+filepath.Join(s.dir, "dev.tfrc"), "TF_IN_AUTOMATION=1",
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
