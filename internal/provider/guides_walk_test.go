package provider

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func walkQuickStart(g *guide) {
	g.begin()
	content := g.w.content("web01", 0)
	g.apply("main.tf")
	g.w.spoil("web01", 0)
	g.apply("main.tf", "restore.tf")
	g.holds("web01-copy", content)
	g.s.must("destroy", "-auto-approve")
	if n := len(g.w.lab.Status().VMs); n != 1 {
		g.t.Errorf("%d VMs are left", n)
	}
	labtest.AssertClean(g.t, g.w.lab)
}

func walkSnapshotAndRevert(g *guide) {
	g.begin(tiers()...)
	all := []string{"db01", "app01", "web01"}
	content := g.w.content("web01", 0)
	g.apply("snapshot.tf")
	g.w.spoil("web01", 0)
	g.apply("snapshot.tf", "revert.tf")
	g.holds("web01", content)
	g.running("web01")

	// The snapshot is as if taken by somebody else when Terraform doesn't know it.
	g.w.spoil("web01", 0)
	g.s.must("state", "rm", "vm_snapshot.before_upgrade", "vm_restore.back")
	g.apply("found.tf")
	g.holds("web01", content)
	if state := g.w.vm("web01").PowerState; state != "poweredOff" {
		g.t.Errorf("web01 is %s", state)
	}
	g.w.powerOn("web01")

	g.apply("tiers.tf")
	for _, vm := range all {
		g.w.spoil(vm, 0)
	}
	before := len(g.tasks())
	g.apply("tiers.tf", "tiers-revert.tf")
	for _, vm := range all {
		g.holds(vm, content)
	}
	g.running(all...)
	did := map[string][]string{}
	var order []string
	for _, task := range g.tasks()[before:] {
		order = append(order, task.Name)
		did[task.Name] = append(did[task.Name], task.Entity)
	}
	if order = slices.Compact(order); !slices.Equal(order, []string{"PowerOffVM_Task", "RevertToSnapshot_Task", "PowerOnVM_Task"}) {
		g.t.Errorf("the steps are %q", order)
	}
	if n := len(did["PowerOffVM_Task"]); n != len(all) || !slices.Equal(did["PowerOnVM_Task"], all) {
		g.t.Errorf("%d were stopped, started %q; want %q", n, did["PowerOnVM_Task"], all)
	}

	// Without the revert in it, the configuration changes nothing; without the set, the snapshots go.
	g.apply("tiers.tf")
	g.s.must("destroy", "-auto-approve")
	if left := g.w.snapshotsOf(all...); !slices.Equal(left, []string{"web01:before upgrade"}) {
		g.t.Errorf("left are %q", left)
	}
}

// tasks are all tasks that the lab ever had, in their order.
func (g *guide) tasks() []lab.TaskStatus {
	g.t.Helper()
	tasks := g.w.lab.Status().Tasks
	number := func(task lab.TaskStatus) int {
		n, err := strconv.Atoi(strings.TrimPrefix(task.ID, "task-"))
		if err != nil {
			g.t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(tasks, func(a, b lab.TaskStatus) int { return number(a) - number(b) })
	return tasks
}

func walkPipeline(g *guide) {
	g.begin()
	release := func(name string) {
		g.w.setenv("TF_VAR_release", name)
		g.write("main.tf", "check.tf")
	}
	deployed := func() bool { return strings.Contains(g.s.must("state", "list"), "terraform_data.deployment") }

	release("1")
	g.s.must("plan", "-input=false", "-out=plan")
	g.w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "ApplicationQuiesceFault"})
	g.s.refused([]string{"Unable to Take Backup", "could not be quiesced"}, "apply", "-input=false", "plan")
	if deployed() {
		g.t.Error("the release is deployed without a backup")
	}
	good := g.w.content("web01", 0)
	if out := g.apply("main.tf", "check.tf"); strings.Contains(out, "no backup of web01") || !deployed() {
		g.t.Errorf("after the backup:\n%s", out)
	}
	g.w.spoil("web01", 0)
	release("2")
	if out := g.s.must("apply", "-auto-approve"); !strings.Contains(out, "1 added, 1 changed, 1 destroyed") {
		g.t.Errorf("a new release:\n%s", out)
	}

	back := g.w.workspace()
	g.s = back
	g.w.setenv("TF_VAR_go_back_to", "1")
	g.apply("go-back.tf")
	g.holds("web01", good)
	g.running("web01")
	labtest.AssertClean(g.t, g.w.lab)
}

func walkRecreate(g *guide) {
	const machines = 10
	vms := make([]lab.VMSpec, machines)
	for i := range vms {
		vms[i] = lab.VMSpec{Name: fmt.Sprintf("student%02d", i+1), Disks: []string{labtest.RawDisk(g.t, 2<<20, uint64(100+i))}}
	}
	g.begin(vms...)
	content := map[string][]byte{}
	for _, vm := range vms {
		content[vm.Name] = g.w.content(vm.Name, 0)
	}
	g.apply("backup.tf")
	for _, vm := range vms {
		g.w.destroyVM(vm.Name)
	}
	g.s = g.w.workspace()
	same := func() {
		g.t.Helper()
		for _, vm := range vms {
			g.holds(vm.Name, content[vm.Name])
			g.running(vm.Name)
		}
	}
	g.apply("rebuild.tf")
	same()
	for _, vm := range vms {
		g.w.spoil(vm.Name, 0)
	}
	g.s.must("destroy", "-auto-approve")
	if n := len(g.w.lab.Status().VMs); n != 1 {
		g.t.Errorf("after the end of the course %d VMs are left", n)
	}
	g.s.must("apply", "-auto-approve")
	same()

	g.s = g.w.workspace()
	g.apply("clones.tf")
	uuids := map[string]bool{}
	for i := range machines {
		name := fmt.Sprintf("clone%02d", i+1)
		g.holds(name, content["student01"])
		uuids[g.w.vm(name).BIOSUUID] = true
	}
	if len(uuids) != machines {
		g.t.Errorf("the copies have %d UUIDs", len(uuids))
	}
	labtest.AssertClean(g.t, g.w.lab)
}

func walkLostVM(g *guide) {
	g.begin()
	before, content := g.w.vm("web01"), g.w.content("web01", 0)
	g.backUp("web01")
	same := func() {
		g.t.Helper()
		if err := g.w.sameVM(before, [][]byte{content}); err != nil {
			g.t.Error(err)
		}
	}
	// Whoever manages the VM knows what data.vm_machine reads.
	manager := g.w.workspace()
	manager.write("data \"vm_machine\" \"web01\" {\n  vm = \"" + before.BIOSUUID + "\"\n}\n" +
		"resource \"terraform_data\" \"web01\" {\n  input = [for name in [\"uuid\", \"instance_uuid\", \"path\", \"cpus\", \"memory_bytes\"] : data.vm_machine.web01[name]]\n}\n")
	manager.must("apply", "-auto-approve")

	g.write("restore.tf", "check.tf")
	g.s.refused([]string{"Unable to Plan Restore", "UUID", "in use by", "web01"}, "plan")
	g.w.destroyVM("web01")
	if out := g.apply("restore.tf", "check.tf"); says(out, "Check block assertion failed") || says(out, "Reservations") {
		g.t.Errorf("restoring warns:\n%s", out)
	}
	same()
	if out := manager.must("plan"); !strings.Contains(out, "No changes") {
		g.t.Errorf("the plan of the configuration that manages it:\n%s", out)
	}
	g.s.must("destroy", "-auto-approve")
	same()

	g.w.destroyVM("web01")
	g.s = g.w.workspace()
	g.w.setenv("TF_VAR_datastore", "LocalDS_0")
	g.w.setenv("TF_VAR_network_map", `{"VM Network" = "DC0_DVPG0"}`)
	g.apply("elsewhere.tf")
	before.NICs = g.w.vm("web01").NICs
	if n := before.NICs[0].Network; !strings.Contains(n, "DC0_DVPG0") {
		g.t.Errorf("it is on the network %s", n)
	}
	same()
	labtest.AssertClean(g.t, g.w.lab)
}

func walkCompare(g *guide) {
	g.begin(lab.VMSpec{Name: "db01", Disks: []string{labtest.RawDisk(g.t, 2<<20, 2), labtest.RawDisk(g.t, 3<<20, 3)}})
	then, data := g.w.content("web01", 0), g.w.content("db01", 1)
	g.backUp("web01", "db01")
	g.w.spoil("web01", 0)
	original, now := g.w.vm("web01"), g.w.content("web01", 0)
	g.w.setenv("TF_VAR_isolated_network", "DC0_DVPG0")
	g.apply("main.tf")
	g.holds("web01-look", then)
	g.running("web01-look")
	look := g.w.vm("web01-look")
	if look.BIOSUUID == original.BIOSUUID || look.NICs[0].MAC == original.NICs[0].MAC || look.NICs[0].Network == original.NICs[0].Network {
		g.t.Errorf("the copy is %+v, the original %+v", look, original)
	}
	var config types.VirtualMachineConfigInfo
	if err := types.NewJSONDecoder(bytes.NewReader(look.Config)).Decode(&config); err != nil {
		g.t.Fatal(err)
	}
	for _, device := range config.Hardware.Device {
		nic, ok := device.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		if c := nic.GetVirtualEthernetCard().Connectable; c == nil || c.StartConnected || c.Connected {
			g.t.Errorf("the copy's adapter is connected: %+v", c)
		}
	}
	g.s.must("destroy", "-auto-approve")
	g.apply("one-disk.tf")
	g.holds("db01-data-of-last-night", data)
	g.s.must("destroy", "-auto-approve")
	if err := g.w.sameVM(original, [][]byte{now}); err != nil {
		g.t.Errorf("the original was touched: %v", err)
	}
	if n := len(g.w.lab.Status().VMs); n != 2 {
		g.t.Errorf("%d VMs are left", n)
	}
	labtest.AssertClean(g.t, g.w.lab)
}

func walkInPlace(g *guide) {
	g.begin(lab.VMSpec{Name: "db01", Disks: []string{labtest.RawDisk(g.t, 2<<20, 2), labtest.RawDisk(g.t, 3<<20, 3)}})
	content, data := g.w.content("web01", 0), g.w.content("db01", 1)
	g.backUp("web01", "db01")
	for _, vm := range []string{"web01", "db01"} {
		g.w.spoil(vm, 0)
	}
	g.w.spoil("db01", 1)
	before, system := g.w.vm("web01"), g.w.content("db01", 0)
	replaced := before.Disks[0].File
	if out := g.apply("main.tf"); !says(out, "replaced_disks", filepath.Base(replaced)) {
		g.t.Errorf("the output doesn't name %s:\n%s", replaced, out)
	}
	if err := g.w.sameVM(before, [][]byte{content}); err != nil {
		g.t.Error(err)
	}
	if !g.w.has(replaced) {
		g.t.Errorf("%s isn't kept", replaced)
	}
	// What the guide says of getting rid of them before they are due.
	config := readFile(g.t, filepath.Join(g.dir, "main.tf"))
	g.s.write(strings.Replace(config, `"72h"`, `"1s"`, 1))
	g.s.must("apply", "-auto-approve")
	g.s.must("apply", "-auto-approve")
	if g.w.has(replaced) {
		g.t.Errorf("%s is still there", replaced)
	}
	g.s = g.w.workspace()
	g.apply("one-disk.tf")
	g.holds("db01", system, data)
	g.running("db01")
	labtest.AssertClean(g.t, g.w.lab)
}

func walkDisaster(g *guide) {
	g.begin()
	before, content := g.w.vm("web01"), g.w.content("web01", 0)
	g.apply("backup.tf")

	away := labtest.Start(g.t, lab.Options{})
	site := fmt.Sprintf(`{
  server = %q, user = %q, thumbprint = %q,
  folder = "/DC0/vm/lab", resource_pool = "DC0_C0/Resources", datastore = "LocalDS_0",
  network_map = { "VM Network" = "DC0_DVPG0" }
}`, away.URL().Host, away.User(), away.Fingerprint())
	g.w.setenv("TF_VAR_recovery_site", site)
	g.w.setenv("TF_VAR_recovery_password", away.Password())
	if err := g.w.lab.Close(); err != nil { // the main site is gone
		g.t.Fatal(err)
	}
	g.apply("backup.tf", "recover.tf")

	status := away.Status()
	if len(status.VMs) != 1 {
		g.t.Fatalf("the recovery site has %+v", status.VMs)
	}
	vm := status.VMs[0]
	if vm.BIOSUUID != before.BIOSUUID || vm.Folder != "/DC0/vm/lab" || vm.PowerState != "poweredOn" ||
		!strings.Contains(vm.NICs[0].Network, "DC0_DVPG0") || vm.NICs[0].MAC != before.NICs[0].MAC ||
		fmt.Sprint(vm.Tags, vm.CustomAttributes) != fmt.Sprint(before.Tags, before.CustomAttributes) {
		g.t.Errorf("the recovered VM is %+v, was %+v", vm, before)
	}
	got := make([]byte, len(content))
	if err := away.ReadDisk("web01", 0, 0, got); err != nil || !bytes.Equal(got, content) {
		g.t.Errorf("the recovered disk has other bytes: %v", err)
	}
	labtest.AssertClean(g.t, away)
	if state := readFile(g.t, filepath.Join(g.s.dir, "terraform.tfstate")); strings.Contains(state, away.Password()) {
		g.t.Error("the state holds the password")
	}
}
