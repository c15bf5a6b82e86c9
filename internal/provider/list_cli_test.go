package provider

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-version"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// lacks says why the CLI can't do what Terraform can from some version on; empty: it can. OpenTofu has versions of its own.
func (s *workspace) lacks(least, what string, tofu bool) string {
	s.w.t.Helper()
	if strings.HasPrefix(filepath.Base(os.Getenv("TF_ACC_TERRAFORM_PATH")), "tofu") {
		if tofu {
			return ""
		}
		return "OpenTofu has no " + what
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
	if v.Core().LessThan(version.Must(version.NewVersion(least))) {
		return fmt.Sprintf("Terraform %s has no %s: set TF_ACC_TERRAFORM_PATH to one of %s or later", v, what, least)
	}
	return ""
}

// needs skips a test that needs what the CLI lacks.
func (s *workspace) needs(least, what string, tofu bool) {
	s.w.t.Helper()
	if reason := s.lacks(least, what, tofu); reason != "" {
		s.w.t.Skip(reason)
	}
}

// query writes a query, runs it, and returns what was printed, and the configuration that was generated.
func (s *workspace) query(text string) (out, generated string) {
	s.w.t.Helper()
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

// walkAdopt imports what somebody else left: one, all of a VM, and all that a query finds.
func walkAdopt(g *guide) {
	g.begin(tiers()...)
	g.w.snapshot("web01", "before upgrade", "by hand")
	for _, name := range []string{"a", "b"} {
		g.w.snapshot("db01", name, "")
	}
	g.backUp("web01")
	adopted := func(out string, n int) {
		g.t.Helper()
		if !strings.Contains(out, fmt.Sprintf("%d imported, 0 added, 0 changed, 0 destroyed", n)) {
			g.t.Errorf("want %d imported and nothing else:\n%s", n, out)
		}
	}
	all := g.w.rpc().list("vm_backup", nil, 0, true)
	if len(all) != 1 {
		g.t.Fatalf("there are %q", names(all))
	}
	g.w.setenv("TF_VAR_backup_id", planned{attributes: all[0].resource}.text(g.t, "id"))
	adopted(g.apply("one.tf"), 2)
	g.s = g.w.workspace()
	adopted(g.apply("all.tf"), 2)

	g.s = g.w.workspace()
	if reason := g.s.lacks("1.14.0", "queries", false); reason != "" {
		g.t.Log(reason)
		return
	}
	g.s.write("provider \"vm\" {}\n")
	killed := run.Start(time.Now(), time.Now().Add(-time.Hour))
	killed.End()
	killed.Ticks++ // of a process of which this one has the ID by now
	name, description, err := killed.LabelSnapshot(run.BackupSnapshot, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	g.w.snapshot("app01", name, description)
	for _, query := range []struct {
		file  string
		finds int
	}{{"old.tfquery.hcl", 4}, {"left-behind.tfquery.hcl", 1}} {
		g.s.query(readFile(g.t, filepath.Join(g.dir, query.file)))
		adopted(g.s.must("apply", "-auto-approve"), query.finds)
		g.s.must("destroy", "-auto-approve")
	}
	labtest.AssertClean(g.t, g.w.lab)
}
