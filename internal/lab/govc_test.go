package lab_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/cli/datastore"
	_ "github.com/vmware/govmomi/cli/device"
	_ "github.com/vmware/govmomi/cli/vm"
	_ "github.com/vmware/govmomi/cli/vm/snapshot"
)

// asGovc makes the test binary be govc.
const asGovc = "LAB_TEST_AS_GOVC"

func TestMain(m *testing.M) {
	if os.Getenv(asGovc) != "" {
		os.Exit(cli.Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// govc runs govc against the lab and returns what it prints.
func (e *env) govc(args ...string) string {
	e.t.Helper()
	cmd := exec.CommandContext(e.ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asGovc+"=1", "GOVC_URL="+e.URL().String(), "GOVC_USERNAME="+e.User(),
		"GOVC_PASSWORD="+e.Password(), "GOVC_INSECURE=1", "GOVMOMI_HOME="+e.t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("govc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestGovcAgrees(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.snapshot("one")
	e.snapshot("two")
	vm := e.status("web01")
	has := func(output string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(output, w) {
				t.Errorf("no %q in\n%s", w, output)
			}
		}
	}
	has(e.govc("vm.info", "-e", "web01"), vm.BIOSUUID, vm.PowerState, "Ubuntu Linux (64-bit)", "2 vCPU(s)", "2048MB", "guestinfo.role", "/DC0/vm/lab/web01")
	has(e.govc("snapshot.tree", "-vm", "web01", "-C"), "two")
	has(e.govc("snapshot.tree", "-vm", "web01", "-i", "-f"), "["+vm.Snapshots[0].ID+"]  one", "["+vm.Snapshots[1].ID+"]  one/two")
	info := e.govc("device.info", "-vm", "web01")
	for _, d := range vm.Disks {
		has(info, d.Label, d.File, d.Chain[1])
	}
	for _, n := range vm.NICs {
		has(info, n.MAC, n.Label)
	}
	list := e.govc("datastore.ls", "-ds", "LocalDS_0", "web01")
	for _, f := range e.Status().Files {
		has(list, f.Name[strings.LastIndexByte(f.Name, '/')+1:])
	}
	if got, want := len(strings.Fields(list)), len(e.Status().Files); got != want {
		t.Errorf("govc lists %d files, the lab has %d:\n%s", got, want, list)
	}
	e.govc("snapshot.revert", "-vm", "web01", "one")
	e.govc("vm.power", "-on", "web01")
	e.govc("vm.change", "-vm", "web01", "-annotation", "by govc")
	e.govc("snapshot.remove", "-vm", "web01", "*")
	e.govc("vm.clone", "-vm", "web01", "-on=false", "-pool", "DC0_C0/Resources", "web02")
	e.govc("vm.destroy", "web01")
	if got := e.Status(); len(got.VMs) != 1 || got.VMs[0].Name != "web02" {
		t.Errorf("%+v", got.VMs)
	}
}
