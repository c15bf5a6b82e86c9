package lab_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	_ "github.com/vmware/govmomi/cli/export"
	_ "github.com/vmware/govmomi/cli/importx"
)

// tryGovc runs govc where it is to fail.
func (e *env) tryGovc(args ...string) (string, error) {
	e.t.Helper()
	cmd := exec.CommandContext(e.ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asGovc+"=1", "GOVC_URL="+e.URL().String(), "GOVC_USERNAME="+e.User(),
		"GOVC_PASSWORD="+e.Password(), "GOVC_INSECURE=1", "GOVMOMI_HOME="+e.t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// govc's own export and import, from one VM to another.
func TestGovcExportsAndImports(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{
		Name: "web01", Disks: []string{labtest.RawDisk(t, 3*mib, 1), labtest.RawDisk(t, 2*mib, 2)}, PoweredOff: true,
	}}})
	dir := t.TempDir()
	e.govc("export.ovf", "-vm", "web01", "-sha", "256", "-i", dir)
	ovf := filepath.Join(dir, "web01", "web01.ovf")
	if nvram, err := filepath.Glob(filepath.Join(dir, "web01", "*.nvram")); err != nil || len(nvram) != 1 {
		t.Errorf("NVRAM: %v, %v", nvram, err)
	}
	e.govc("import.ovf", "-m=false", "-pool", "DC0_C0/Resources", "-ds", "LocalDS_0", "-name", "copy", ovf)
	for i, capacity := range []int64{3 * mib, 2 * mib} {
		if !bytes.Equal(e.content("copy", i, capacity), e.content("web01", i, capacity)) {
			t.Errorf("disk %d of the copy differs", i)
		}
	}
	labtest.AssertClean(t, e.Lab)

	// A damaged file is refused, and nothing stays.
	file := filepath.Join(dir, "web01", "disk-1.vmdk")
	if _, err := os.Stat(file); err != nil {
		file = filepath.Join(dir, "web01", "web01-disk-1.vmdk")
	}
	e.must(os.Truncate(file, fileSize(t, file)-2048))
	if out, err := e.tryGovc("import.ovf", "-pool", "DC0_C0/Resources", "-ds", "LocalDS_0", "-name", "bad", ovf); err == nil {
		t.Errorf("a truncated disk was imported: %s", out)
	}
	for _, vm := range e.Status().VMs {
		if vm.Name == "bad" {
			t.Error("a failed import left its VM")
		}
	}
	labtest.AssertClean(t, e.Lab)
}
