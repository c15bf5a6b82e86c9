package provider

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestBadInput goes through what people get wrong. Each is an error of the plan, so that nothing is
// created.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func(prepare func(), config, want string) resource.TestStep {
		return resource.TestStep{PreConfig: prepare, Config: config, PlanOnly: true, ExpectError: regexp.MustCompile(want)}
	}
	set := func(name, value string) func() { return func() { w.setenv(name, value) } }
	dead := deadAddress(t)
	w.runAs(
		refused(nil, "provider \"vm\" {}\n"+snapshotConfig,
			`(?s)Unable to Plan Snapshot.*`+regexp.QuoteMeta(w.lab.Fingerprint()[:20])+`.*vsphere\.thumbprint`),
		refused(set(envServer, ""), "provider \"vm\" {}\n"+snapshotConfig,
			`(?s)No\s+hypervisor\s+is\s+configured.*Add vsphere = { … } to the provider block`),
		refused(set(envServer, dead), w.provider()+snapshotConfig, `(?s)can't\s+be\s+reached.*Check vsphere\.server`),
		refused(func() { w.setenv(envServer, w.lab.URL().Host); w.setenv(envUser, "nobody@vsphere.local") },
			w.provider()+snapshotConfig, `(?s)login\s+refused.*VSPHERE_USER`),
		refused(set(envUser, w.lab.User()), w.provider()+`
resource "vm_snapshot" "s" {
  vm   = "4205a8a0-ffff-4fff-8fff-ffffffffffff"
  name = "s"
}
`, `(?s)Unable to Plan Snapshot.*no\s+virtual\s+machine.*Check the reference`),
		refused(nil, w.provider()+`
data "vm_machine" "m" {
  vm = "web99"
}
`, `(?s)Unable to Read Virtual Machine.*No\s+virtual\s+machine\s+"web99"`),
		refused(set(envRepositoryPath, ""), "provider \"vm\" {\n  vsphere = {\n    thumbprint = \""+w.lab.Fingerprint()+"\"\n  }\n}\n"+backupConfig,
			`(?s)No\s+repository\s+is\s+configured.*VM_REPOSITORY_PATH`),
	)
	labtest.AssertClean(t, w.lab)
}

func TestBadRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func(prepare func(), want string) resource.TestStep {
		return resource.TestStep{PreConfig: prepare, Config: backupConfig, ExpectError: regexp.MustCompile(want)}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	unplanned := func(path, want string) resource.TestStep {
		step := refused(func() { w.setenv(envRepositoryPath, path) }, `(?s)Unable to Plan Backup.*`+want+`.*repository\.path`)
		step.PlanOnly = true
		return step
	}
	w.run(
		unplanned(filepath.Join(w.repo, "nowhere", "deep"), `parent\s+directory.*nowhere`),
		unplanned(file, `not\s+a\s+directory`),
		unplanned(filepath.Join(file, "below"), `not\s+a\s+directory`),
		unplanned(foreign, `thesis\.tex`),
		resource.TestStep{PreConfig: func() { w.setenv(envRepositoryPath, w.repo) }, Config: backupConfig},
		refused(func() { w.setenv(envRepositoryPassword, "not the password") },
			`(?s)wrong\s+repository\s+password.*VM_REPOSITORY_PASSWORD`),
		resource.TestStep{
			PreConfig: func() { w.setenv(envRepositoryPassword, repositoryPassword) },
			Config:    backupConfig, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
	)
	labtest.AssertClean(t, w.lab)
}

// deadAddress is an address on which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
