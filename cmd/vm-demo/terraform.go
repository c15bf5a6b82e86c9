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
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"
)

// A terraform is a working directory with the command that runs in it.
type terraform struct {
	program string
	dir     string
	env     []string
}

// newTerraform sets up a directory in which Terraform uses the provider that was built, without init.
func newTerraform(program, bin, dir string, l *lab, secret string) (*terraform, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	settings := filepath.Join(dir, "dev.tfrc")
	text := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"terraform-vm/vm\" = %q\n  }\n  direct {}\n}\n", bin)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return &terraform{program: program, dir: dir, env: append(os.Environ(),
		"TF_CLI_CONFIG_FILE="+settings, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0", "TF_LOG=", "TF_CLI_ARGS=",
		"TF_DATA_DIR="+filepath.Join(dir, ".terraform"), "TF_WORKSPACE=default",
		"VSPHERE_PASSWORD="+l.password, "VM_REPOSITORY_PASSWORD="+secret)}, nil
}

// A releaseSite is where Terraform is downloaded from. The zero value is HashiCorp's.
type releaseSite struct {
	url       string
	publicKey string // that its checksums are signed with, armored
}

// findTerraform finds terraform or tofu, or installs Terraform beside the built programs.
func findTerraform(ctx context.Context, bin string, site releaseSite) (string, error) {
	if program := find("terraform", "tofu"); program != "" {
		return program, nil
	}
	if program, err := exec.LookPath(filepath.Join(bin, "terraform")); err == nil {
		return program, nil
	}
	program, err := site.install(ctx, bin)
	if err != nil {
		return "", fmt.Errorf("neither terraform nor tofu is on PATH, and Terraform can't be installed: %w", err)
	}
	return program, nil
}

// install puts the latest Terraform into a directory, or leaves that as it was.
func (s releaseSite) install(ctx context.Context, bin string) (program string, err error) {
	constraints, err := version.NewConstraint(">= 1.8.0")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(bin, ".terraform-install-") // where a finished program only has to be renamed
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	latest := &releases.LatestVersion{
		Product: product.Terraform, InstallDir: dir, Constraints: constraints, ApiBaseURL: s.url, ArmoredPublicKey: s.publicKey,
	}
	installed, err := latest.Install(ctx)
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed) && failed.Op == "chmod":
		// hc-install drops errors of downloading and unpacking, and then misses the program.
		return "", fmt.Errorf("what was downloaded is incomplete, or not what the signed checksum is of: %w", err)
	case err != nil:
		return "", err
	}
	if _, err := versionOf(ctx, installed); err != nil {
		return "", fmt.Errorf("what was downloaded doesn't run: %w", err)
	}
	program = filepath.Join(bin, filepath.Base(installed))
	return program, os.Rename(installed, program)
}

// versionOf is what a terraform or tofu says of itself.
func versionOf(ctx context.Context, program string) (string, error) {
	cmd := command(ctx, program, "version")
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+os.DevNull, "CHECKPOINT_DISABLE=1")
	out, err := output(cmd)
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first), err
}

func (t *terraform) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := command(ctx, t.program, args...)
	cmd.Dir, cmd.Env = t.dir, t.env
	return cmd
}

// write replaces the configuration.
func (t *terraform) write(config ...string) error {
	return os.WriteFile(filepath.Join(t.dir, "main.tf"), []byte(strings.Join(config, "\n")), 0o600)
}

// apply brings about what is configured and decodes the outputs into values, which may be nil.
func (t *terraform) apply(ctx context.Context, values any) error {
	if _, err := output(t.command(ctx, "apply", "-auto-approve", "-no-color")); err != nil {
		return err
	}
	if values == nil {
		return nil
	}
	out, err := output(t.command(ctx, "output", "-json"))
	if err != nil {
		return err
	}
	var outputs map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(out, &outputs); err != nil {
		return err
	}
	all := make(map[string]json.RawMessage, len(outputs))
	for name, o := range outputs {
		all[name] = o.Value
	}
	joined, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return json.Unmarshal(joined, values)
}

// destroy destroys everything that is configured.
func (t *terraform) destroy(ctx context.Context) error {
	_, err := output(t.command(ctx, "destroy", "-auto-approve", "-no-color"))
	return err
}

// plansNothing fails when a plan has changes.
func (t *terraform) plansNothing(ctx context.Context) error {
	out, err := output(t.command(ctx, "plan", "-detailed-exitcode", "-no-color"))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 2 {
		return fmt.Errorf("a plan that should be empty has changes:\n%s", out)
	}
	return err
}

// Configurations. They go to main.tf one after the other.

func providerConfig(l *lab, repository string) string {
	return fmt.Sprintf(`terraform {
  required_providers {
    vm = { source = "terraform-vm/vm" }
  }
}

provider "vm" { # passwords: VSPHERE_PASSWORD, VM_REPOSITORY_PASSWORD
  vsphere = {
    server     = %q
    user       = %q
    thumbprint = %q
  }
  repository = { path = %q }
}
`, l.endpoint, l.user, l.fingerprint, repository)
}

func snapshotConfig(vm string) string {
	return fmt.Sprintf(`resource "vm_snapshot" "before_change" {
  vm          = %q
  name        = "before-change"
  description = "the state before the change"
}

output "snapshot" { value = vm_snapshot.before_change }
`, vm)
}

func backupConfig(vm string) string {
	return fmt.Sprintf(`resource "vm_backup" "before_change" {
  vm          = %q
  description = "the state before the change"
  on_destroy  = "delete" # a demonstration leaves nothing behind
}

output "backup" { value = vm_backup.before_change }
`, vm)
}

const restoreConfig = `resource "vm_restore" "web" {
  backup_id  = vm_backup.before_change.id
  power_on   = true
  on_destroy = "delete"
}

output "restore" { value = vm_restore.web }
`

const secondBackupConfig = `resource "vm_backup" "after_restore" {
  vm          = vm_restore.web.vm_instance_uuid
  description = "the same bytes again"
  on_destroy  = "delete"
}

output "second" { value = vm_backup.after_restore }
`

type snapshotOutput struct {
	ID          string `json:"id"`
	Consistency string `json:"consistency"`
	ChainDepth  int    `json:"chain_depth"`
}

type backupOutput struct {
	ID              string  `json:"id"`
	Consistency     string  `json:"consistency"`
	Transport       string  `json:"transport"`
	SizeBytes       int64   `json:"size_bytes"`
	ReadBytes       int64   `json:"read_bytes"`
	StoredBytes     int64   `json:"stored_bytes"`
	DurationSeconds float64 `json:"duration_seconds"`
	Disks           []struct {
		Label         string `json:"label"`
		CapacityBytes int64  `json:"capacity_bytes"`
		Digest        string `json:"digest"`
	} `json:"disks"`
}

type restoreOutput struct {
	VMID          string `json:"vm_id"`
	VMPath        string `json:"vm_path"`
	PowerState    string `json:"power_state"`
	RestoredBytes int64  `json:"restored_bytes"`
}
