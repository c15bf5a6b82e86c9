package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

const (
	providerName = "terraform-provider-vm"
	// runProgram and usageFile make this program run another one with its own arguments, and tell it
	// where to write what that cost. Terraform takes it for the provider so. It stands before govc too: by
	// the system's books a process is as large as the one that started it, and this one is small then.
	runProgram = "BENCH_RUN"
	usageFile  = "BENCH_USAGE"
)

// A usage is what a process cost.
type usage struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakBytes  int64   `json:"peak_bytes"` // largest resident set

	LabSeconds  float64 `json:"lab_cpu_seconds,omitempty"` // what the lab spent meanwhile, of processor time
	IdleSeconds float64 `json:"idle_seconds,omitempty"`    // that all processors together had nothing to do

	// TerraformSeconds is what Terraform itself spent, of processor time.
	TerraformSeconds float64 `json:"terraform_cpu_seconds,omitempty"`

	// SettleSeconds, a part of Seconds, is how long it took afterwards until what was written was on the disk.
	SettleSeconds float64 `json:"settle_seconds,omitempty"`
}

// settle waits until all files at or below a path are on the disk, which is what a backup is for, and counts that
// to what it took. It takes next to nothing where the writer has seen to it itself.
func (u *usage) settle(path string) error {
	start := time.Now()
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(file.Sync(), file.Close())
	})
	took := time.Since(start).Seconds()
	u.SettleSeconds += took
	u.Seconds += took
	return err
}

// costOf is what a process that has ended cost, by the system's books.
func costOf(state *os.ProcessState, took time.Duration) usage {
	u := usage{Seconds: took.Seconds(), CPUSeconds: (state.UserTime() + state.SystemTime()).Seconds()}
	if r, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.PeakBytes = int64(r.Maxrss)
		if runtime.GOOS != "darwin" {
			u.PeakBytes *= 1024
		}
	}
	return u
}

// book runs a program and books what it cost.
func book(program string) int {
	cmd := exec.CommandContext(context.Background(), program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), runProgram+"=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	line, err := json.Marshal(costOf(cmd.ProcessState, time.Since(start)))
	if err != nil {
		return 1
	}
	file, err := os.OpenFile(os.Getenv(usageFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	_, err = file.Write(append(line, '\n'))
	if errors.Join(err, file.Close()) != nil {
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// A terraform is a working directory that uses the provider through this program.
type terraform struct {
	program, dir string
	header       string // of every configuration
	env          []string
	usage        string
}

// terraform makes a working directory for a lab. The transport is that by which disks are read; empty: the
// provider chooses.
func (b *bench) terraform(dir string, l *lab.Lab, transport string) (*terraform, error) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		if program, err = exec.LookPath("tofu"); err != nil {
			return nil, errors.New("neither terraform nor tofu is on PATH")
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		return nil, err
	}
	if err := os.Symlink(self, filepath.Join(plugins, providerName)); err != nil {
		return nil, err
	}
	settings := filepath.Join(dir, "dev.tfrc")
	text := fmt.Sprintf("provider_installation {\n  dev_overrides { \"terraform-vm/vm\" = %q }\n  direct {}\n}\n", plugins)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		return nil, err
	}
	t := &terraform{program: program, dir: dir, usage: filepath.Join(dir, "usage"), header: header(dir, l, transport)}
	t.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+settings, "CHECKPOINT_DISABLE=1", "TF_INPUT=0",
		runProgram+"="+b.provider, usageFile+"="+t.usage, "VSPHERE_SERVER="+l.URL().Host, "VSPHERE_USER="+l.User(),
		"VSPHERE_PASSWORD="+l.Password(), "VM_REPOSITORY_PASSWORD="+password)
	t.env = append(t.env, b.profiling(filepath.Base(dir))...)
	return t, nil
}

// run runs a command of Terraform. It returns how long that took, and what all processes of the provider
// that it started cost: the sum of their time and the peak of the largest.
func (t *terraform) run(ctx context.Context, args ...string) (usage, error) {
	if err := os.RemoveAll(t.usage); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(ctx, t.program, append(args, "-no-color")...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir, cmd.Env = t.dir, t.env
	u, err := beside(cmd, t.usage)
	if err != nil {
		return usage{}, fmt.Errorf("terraform %s: %w", args[0], err)
	}
	// The system's books of a process include those whose end it waited for.
	u.TerraformSeconds = costOf(cmd.ProcessState, 0).CPUSeconds - u.CPUSeconds
	return u, nil
}

// beside runs a command that uses the lab in this process. It returns how long that took, what was booked, and
// what this process spent meanwhile.
func beside(cmd *exec.Cmd, books string) (usage, error) {
	start, before := time.Now(), spent()
	u, err := alone(cmd, books, start)
	u.LabSeconds = (spent() - before).Seconds()
	return u, err
}

// alone runs a command. It returns how long that took since start, what was booked, and how long processors
// were idle meanwhile.
func alone(cmd *exec.Cmd, books string, start time.Time) (usage, error) {
	before := idle()
	if out, err := cmd.CombinedOutput(); err != nil {
		return usage{}, fmt.Errorf("%w\n%s", err, out)
	}
	took, waited := time.Since(start), idle()-before
	u, err := booked(books, took)
	u.IdleSeconds = waited
	return u, err
}

// idle is how long processors had nothing to do since the system started, in seconds of all of them together;
// zero where the system doesn't say. To wait for a disk is to be idle.
func idle() float64 {
	text, err := os.ReadFile("/proc/uptime") // proc_uptime(5)
	if err != nil {
		return 0
	}
	var up, idle float64
	if n, err := fmt.Sscan(string(text), &up, &idle); n != 2 || err != nil {
		return 0
	}
	return idle
}

// spent is the processor time that this process has used.
func spent() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil { // never fails
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// booked is what the processes cost that are in the books: the sum of their time and the peak of the
// largest, and the time that passed.
func booked(path string, took time.Duration) (usage, error) {
	total := usage{Seconds: took.Seconds()}
	lines, err := os.ReadFile(path)
	if err != nil {
		return usage{}, err
	}
	for line := range strings.Lines(string(lines)) {
		var u usage
		if err := json.Unmarshal([]byte(line), &u); err != nil {
			return usage{}, err
		}
		total.CPUSeconds += u.CPUSeconds
		total.PeakBytes = max(total.PeakBytes, u.PeakBytes)
	}
	return total, nil
}

// header is what every configuration begins with.
func header(dir string, l *lab.Lab, transport string) string {
	transports := ""
	if transport != "" {
		transports = fmt.Sprintf(", transports = [%q]", transport)
	}
	return fmt.Sprintf(`terraform {
  required_providers {
    vm = { source = "terraform-vm/vm" }
  }
}
provider "vm" {
  vsphere    = { thumbprint = %q%s }
  repository = { path = %q }
}
`, l.Fingerprint(), transports, (&terraform{dir: dir}).repository())
}

// repository is where the provider keeps restore points.
func (t *terraform) repository() string { return filepath.Join(t.dir, "repository") }

// write replaces the configuration.
func (t *terraform) write(config string) error {
	return os.WriteFile(filepath.Join(t.dir, "main.tf"), []byte(t.header+config), 0o600)
}

// apply replaces the configuration and brings it about.
func (t *terraform) apply(ctx context.Context, config string) (usage, error) {
	if err := t.write(config); err != nil {
		return usage{}, err
	}
	return t.run(ctx, "apply", "-auto-approve")
}

// attribute reads a number from the state.
func (t *terraform) attribute(resource, name string) (float64, error) {
	b, err := os.ReadFile(filepath.Join(t.dir, "terraform.tfstate"))
	if err != nil {
		return 0, err
	}
	var state struct {
		Resources []struct {
			Type      string `json:"type"`
			Instances []struct {
				Attributes map[string]any `json:"attributes"`
			} `json:"instances"`
		} `json:"resources"`
	}
	if err := json.Unmarshal(b, &state); err != nil {
		return 0, err
	}
	for _, r := range state.Resources {
		if r.Type != resource {
			continue
		}
		for _, i := range r.Instances {
			if number, ok := i.Attributes[name].(float64); ok {
				return number, nil
			}
		}
	}
	return 0, fmt.Errorf("the state has no number %s of a %s", name, resource)
}

// govc runs this program as govc, and returns what that cost. home is a directory for its files.
func govc(ctx context.Context, l *lab.Lab, home string, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	books := home + ".usage"
	if err := os.RemoveAll(books); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), runProgram+"="+self, usageFile+"="+books, asGovc+"=1", "GOVC_URL="+l.URL().String(),
		"GOVC_USERNAME="+l.User(), "GOVC_PASSWORD="+l.Password(), "GOVC_INSECURE=1", "GOVMOMI_HOME="+home)
	u, err := beside(cmd, books)
	if err != nil {
		return usage{}, fmt.Errorf("govc %s: %w", strings.Join(args, " "), err)
	}
	return u, nil
}
