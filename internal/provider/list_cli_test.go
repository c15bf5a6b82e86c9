package provider

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-version"
)

// needs skips a test where the CLI is older than a version of Terraform, or another program that has not got what the
// version brought.
func (s *workspace) needs(least, what string, tofu bool) {
	s.w.t.Helper()
	isTofu := strings.HasPrefix(filepath.Base(os.Getenv("TF_ACC_TERRAFORM_PATH")), "tofu")
	if isTofu && !tofu {
		s.w.t.Skip("OpenTofu has no " + what)
	}
	var is struct {
		Version string `json:"terraform_version"`
	}
	if err := json.Unmarshal([]byte(s.must("version", "-json")), &is); err != nil {
		s.w.t.Fatal(err)
	}
	v, err := version.NewVersion(is.Version)
	if err != nil {
		s.w.t.Fatal(err)
	}
	if v.Core().LessThan(version.Must(version.NewVersion(least))) && !isTofu {
		s.w.t.Skipf("Terraform %s has no %s: set TF_ACC_TERRAFORM_PATH to one of %s or later", v, what, least)
	}
}

// query writes a query, runs it, and returns what was printed, and the configuration that was generated.
func (s *workspace) query(text string) (out, generated string) {
	s.w.t.Helper()
	s.needs("1.14.0", "queries", false)
	file := filepath.Join(s.dir, "generated.tf")
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		s.w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "all.tfquery.hcl"), []byte(text), 0o600); err != nil {
		s.w.t.Fatal(err)
	}
	out = s.must("query", "-generate-config-out=generated.tf")
	p, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		s.w.t.Fatal(err)
	}
	return out, string(p)
}

// TestQuery finds snapshots and backups, and imports them with the configuration that Terraform generates.
func TestQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	s := w.workspace()
	s.needs("1.14.0", "queries", false)
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	s.must("state", "rm", "vm_backup.b")
	w.snapshot("web01", "nightly-1", "")
	w.snapshot("web01", "before upgrade", "by ${hand}\nand \"quoted\"")
	w.snapshot("app01", "nightly-2", "")
	s.write(w.provider())
	out, generated := s.query("list \"vm_snapshot\" \"all\" {\n  provider = vm\n}\nlist \"vm_backup\" \"all\" {\n  provider = vm\n}\n")
	if n := strings.Count(generated, "import {"); n != 4 {
		t.Errorf("%d results, want 4:\n%s\n%s", n, out, generated)
	}
	if out := s.must("plan"); !strings.Contains(out, "Plan: 4 to import, 0 to add, 0 to change, 0 to destroy.") {
		t.Errorf("the generated configuration doesn't import as it is:\n%s\n%s", generated, out)
	}
	s.must("apply", "-auto-approve")
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the plan after the import isn't empty:\n%s", out)
	}
}

// TestQueryExamples runs the queries of the documentation as they are written.
func TestQueryExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/list-resources/*/*.tfquery.hcl")
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	w := newWorld(t)
	w.setenv(envAllowUnverifiedSSL, "true")
	s := w.workspace()
	s.needs("1.14.0", "queries", false)
	exampleBackup(t, s)
	s.write("provider \"vm\" {}\n")
	w.snapshot("web01", "before upgrade", "")
	for _, file := range files {
		out, generated := s.query(readFile(t, file))
		if strings.Contains(file, "snapshot") != strings.Contains(generated, "vm_snapshot.before_upgrade_0") {
			t.Errorf("%s finds:\n%s\n%s", file, out, generated)
		}
	}
}
