package provider

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/vmware/govmomi/simulator"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// inPlaceConfig restores a backup of web01 into a VM that exists.
func inPlaceConfig(inPlace, more string) string {
	return backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  in_place  = {` + inPlace + `}
` + more + `
}
`
}

// spoil writes to a disk as a guest does when something goes wrong in it.
func (w *world) spoil(vm string, disk int) {
	w.t.Helper()
	if err := w.lab.WriteDisk(vm, disk, 1<<20, bytes.Repeat([]byte("spoiled "), 16<<10)); err != nil {
		w.t.Fatal(err)
	}
}

// holds checks that a disk of a VM has some content.
func (w *world) holds(vm string, disk int, want []byte) error {
	if got := w.content(vm, disk); !bytes.Equal(got, want) {
		return fmt.Errorf("disk %d of %s has other bytes than it should", disk, vm)
	}
	return nil
}

// has reports whether a datastore has a file.
func (w *world) has(file string) bool {
	return slices.ContainsFunc(w.lab.Status().Files, func(f lab.FileStatus) bool { return f.Name == file })
}

func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before, content := w.vm("web01"), w.content("web01", 0)
	inPlace := []plancheck.PlanCheck{plancheck.ExpectResourceAction("vm_restore.r", plancheck.ResourceActionDestroyBeforeCreate)}
	w.run(
		resource.TestStep{Config: backupConfig},
		resource.TestStep{
			PreConfig: func() { w.spoil("web01", 0) },
			Config:    inPlaceConfig("", "  verify = true\n  wait_for_guest = {}"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "vm_uuid", knownvalue.StringExact(before.BIOSUUID)),
				attribute("vm_restore.r", "vm_id", knownvalue.StringExact(before.ID)),
				attribute("vm_restore.r", "on_destroy", knownvalue.StringExact("keep")),
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_on")),
				attribute("vm_restore.r", "verified", knownvalue.Bool(true)),
				attribute("vm_restore.r", "replaced_disks", knownvalue.ListSizeExact(0)),
				attribute("vm_restore.r", "replaced_disks_until", knownvalue.Null()),
				attribute("vm_restore.r", "guest_ip_addresses", knownvalue.ListSizeExact(1)),
			},
			Check: func(*terraform.State) error {
				now := w.vm("web01")
				if now.ID != before.ID || now.PowerState != "poweredOn" || now.Disks[0].UUID != before.Disks[0].UUID {
					return fmt.Errorf("the VM is %+v, was %+v", now, before)
				}
				return w.holds("web01", 0, content)
			},
		},
		// How the disks are exchanged is no reason to do it again, nor is another way to write the same VM.
		resource.TestStep{
			Config:           inPlaceConfig(`vm = "web01"`+"\n"+`power_off = true`, ""),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: actionPlan("vm_restore.r", plancheck.ResourceActionUpdate), PostApplyPostRefresh: emptyPlan()},
		},
		resource.TestStep{
			Config:           inPlaceConfig(`vm = "`+before.BIOSUUID+`"`+"\n"+`power_off = true`, ""),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
		// A trigger restores once more.
		resource.TestStep{
			PreConfig:        func() { w.spoil("web01", 0) },
			Config:           inPlaceConfig("", "  triggers = { again = \"1\" }\n  power_on = false\n  verify = true"),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: inPlace, PostApplyPostRefresh: emptyPlan()},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "power_state", knownvalue.StringExact("powered_off")),
			},
			Check: func(*terraform.State) error { return w.holds("web01", 0, content) },
		},
	)
	labtest.AssertClean(t, w.lab)
	if now := w.vm("web01").ID; now != before.ID {
		t.Errorf("after destroying the restore the VM is %s, was %s", now, before.ID)
	}
}

// TestReplacedDisks keeps what a restore in place took out of a VM until it is due, and no plan deletes it behind
// anybody's back.
func TestReplacedDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	keep := func(time string) { s.write(w.provider() + inPlaceConfig(`keep_replaced_disks = "`+time+`"`, "")) }
	w.spoil("web01", 0)
	first := w.vm("web01").Disks[0].File
	keep("72h")
	s.must("apply", "-auto-approve")
	if !w.has(first) || w.vm("web01").Disks[0].File == first {
		t.Fatalf("the VM is on %s, the disk %s is there: %v", w.vm("web01").Disks[0].File, first, w.has(first))
	}
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the second plan isn't empty:\n%s", out)
	}
	keep("1ms")
	if out := s.must("plan"); !says(out, "0 to add, 1 to change, 0 to destroy") || !says(out, "Replaced Disks Are Due", first) {
		t.Errorf("the plan doesn't show that the disk is due:\n%s", out)
	}
	w.lab.Fault(lab.Fault{Method: "DeleteVirtualDisk_Task", Fault: "NoPermission"})
	s.refused([]string{"Unable to Delete Replaced Disks", "still in the state"}, "apply", "-auto-approve")
	s.must("apply", "-auto-approve")
	if w.has(first) {
		t.Errorf("%s is still there", first)
	}
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the plan after that isn't empty:\n%s", out)
	}
	labtest.AssertClean(t, w.lab)

	// Destroyed before it is due, it stays.
	second := w.vm("web01").Disks[0].File
	keep("72h")
	s.must("apply", "-auto-approve", "-replace=vm_restore.r")
	if out := s.must("destroy", "-auto-approve"); !says(out, "Replaced Disks Stay", second) {
		t.Errorf("destroy doesn't say what stays:\n%s", out)
	}
	if !w.has(second) {
		t.Errorf("%s is gone", second)
	}

	// Lost together with the VM, it is named, and nothing keeps the rest from being destroyed.
	keep("72h")
	s.must("apply", "-auto-approve")
	w.destroyVM("web01")
	if out := s.must("plan"); !says(out, "Virtual Machine Is Gone") || !says(out, "Replaced Disks Stay", "The virtual machine is gone") {
		t.Errorf("the plan doesn't say what is lost:\n%s", out)
	}
	s.must("destroy", "-auto-approve")
	if out := s.must("state", "list"); out != "" {
		t.Errorf("in the state is:\n%s", out)
	}
}

// TestReplacedDisksDue destroys when replaced disks are due, which no plan shows: they stay, and are named.
func TestReplacedDisksDue(t *testing.T) {
	t.Parallel()
	w, r, id := backedUp(t)
	first := w.vm("web01").Disks[0].File
	m := r.apply(t.Context(), "vm_restore", map[string]any{"backup_id": id, "in_place": map[string]any{"keep_replaced_disks": "1ms"}})
	noErrors(t, m.diagnostics)
	if !w.has(first) {
		t.Fatalf("%s isn't kept", first)
	}
	expect(t, r.destroy(t.Context(), "vm_restore", m), tfprotov6.DiagnosticSeverityWarning, "Replaced Disks Stay: ")
	if !w.has(first) {
		t.Errorf("%s is gone", first)
	}
	if vm := w.vm("web01"); vm.PowerState != "poweredOn" {
		t.Errorf("the VM is %s", vm.PowerState)
	}
}

// TestReplacedDisksLost loses the state of a restore that keeps disks, as when the provider is killed before Terraform
// has written it. Whether that is so, the next restore can't tell: it leaves them alone for as long as they are to be kept,
// and has them in its own state after that. Once that was read back nobody else gets them.
func TestReplacedDisksLost(t *testing.T) {
	t.Parallel()
	w, r, id := backedUp(t)
	restore := func(keep string) made {
		t.Helper()
		m := r.apply(t.Context(), "vm_restore", map[string]any{"backup_id": id, "in_place": map[string]any{"keep_replaced_disks": keep, "power_off": true}})
		noErrors(t, m.diagnostics)
		return m
	}
	remembers := func() (options string) {
		w.inside("web01", func(_ *simulator.Context, vm *simulator.VirtualMachine) {
			for _, o := range vm.Config.ExtraConfig {
				if v := o.GetOptionValue(); strings.HasPrefix(v.Key, "terraform.") {
					options += fmt.Sprintln(v.Key, v.Value)
				}
			}
		})
		return options
	}
	kept := w.vm("web01").Disks[0].File
	restore("72h") // nobody hears of
	first := w.vm("web01").Disks[0].File
	due := restore("1ms")
	expect(t, due.diagnostics, tfprotov6.DiagnosticSeverityWarning, kept+" (kept until ")
	if state := due.state.String(); strings.Contains(state, kept) || !strings.Contains(state, first) {
		t.Errorf("the state has other disks than those that were replaced: %s", state)
	}
	second := w.vm("web01").Disks[0].File
	m := restore("72h")
	expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityWarning, first)
	if state := m.state.String(); !strings.Contains(state, first) || !strings.Contains(state, second) || strings.Contains(state, kept) {
		t.Errorf("the state has not all disks that nobody else keeps: %s", state)
	}
	if got := remembers(); !strings.Contains(got, kept) || !strings.Contains(got, first) || !strings.Contains(got, second) {
		t.Errorf("the VM remembers %q", got)
	}
	w.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "NoPermission"}) // that it may not forget is no error
	for range 2 {
		read, err := r.server.ReadResource(t.Context(), &tfprotov6.ReadResourceRequest{TypeName: "vm_restore", CurrentState: r.dynamic(m.state)})
		if err != nil {
			t.Fatal(err)
		}
		noErrors(t, read.Diagnostics)
		if !r.undynamic(m.state.Type(), read.NewState).Equal(m.state) {
			t.Error("reading it changed the state")
		}
	}
	if got := remembers(); !strings.Contains(got, kept) || strings.Contains(got, `"path":"`+first) || strings.Contains(got, `"path":"`+second) {
		t.Errorf("the VM still remembers %q", got)
	}
	if !w.has(kept) || !w.has(first) || !w.has(second) {
		t.Errorf("%s is there: %v, %s: %v", first, w.has(first), second, w.has(second))
	}
}

// TestRestoreInPlaceRefused goes through what is known before anything is touched.
func TestRestoreInPlaceRefused(t *testing.T) {
	t.Parallel()
	w, r, id := backedUp(t,
		lab.VMSpec{Name: "other"}, lab.VMSpec{Name: "mute", ToolsNotRunning: true},
		lab.VMSpec{Name: "small", Disks: []string{labtest.RawDisk(t, 1<<20, 3)}}, lab.VMSpec{Name: "snapped"})
	noErrors(t, r.apply(t.Context(), "vm_snapshot", map[string]any{"vm": "snapped", "name": "x"}).diagnostics)
	into := func(vm string, more map[string]any) map[string]any {
		inPlace := map[string]any{"vm": vm, "allow_other_vm": true}
		for name, v := range more {
			inPlace[name] = v
		}
		return map[string]any{"backup_id": id, "in_place": inPlace}
	}
	for name, c := range map[string]struct {
		config  map[string]any
		wantErr string
	}{
		"another VM":        {into("other", map[string]any{"allow_other_vm": nil}), `[AttributeName("in_place").AttributeName("allow_other_vm")] Unable to Plan Restore: `},
		"another VM, meant": {config: into("other", nil)},
		"no such VM":        {into(nobodysUUID, nil), `[AttributeName("in_place").AttributeName("vm")] Unable to Plan Restore: `},
		"no guest agent":    {into("mute", nil), `[AttributeName("in_place").AttributeName("power_off")] Unable to Plan Restore: `},
		"hard, if it must":  {config: into("mute", map[string]any{"power_off": true})},
		"snapshots":         {into("snapped", nil), `[AttributeName("in_place").AttributeName("remove_snapshots")] Unable to Plan Restore: `},
		"without snapshots": {config: into("snapped", map[string]any{"remove_snapshots": true})},
		"no such disk":      {map[string]any{"backup_id": id, "in_place": map[string]any{}, "only_disks": []any{"scsi0:9"}}, `the backup holds no disk "scsi0:9"; it holds: "Hard disk 1" (scsi0:0)`},
		"no such backup":    {map[string]any{"backup_id": "0123456789abcdef0123456789abcdef", "in_place": map[string]any{}}, `[AttributeName("backup_id")] Unable to Plan Restore: `},
	} {
		t.Run(name, func(t *testing.T) {
			noErrors(t, r.validate("vm_restore", c.config))
			p := r.plan("vm_restore", nil, c.config, "")
			expect(t, p.diagnostics, tfprotov6.DiagnosticSeverityError, c.wantErr)
		})
	}
	if calls := w.lab.Calls(); calls["ReconfigVM_Task"]+calls["ImportVApp"] != 0 {
		t.Errorf("planning called %v", calls)
	}
}

// TestRestoreSomeDisks restores one of two disks, in place and into a new VM.
func TestRestoreSomeDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01", Disks: []string{labtest.RawDisk(t, 4<<20, 7), labtest.RawDisk(t, 3<<20, 8)}})
	r := w.rpc()
	b := r.apply(t.Context(), "vm_backup", map[string]any{"vm": "db01"})
	noErrors(t, b.diagnostics)
	data := w.content("db01", 1)
	w.spoil("db01", 0)
	w.spoil("db01", 1)
	system := w.content("db01", 0)
	config := map[string]any{
		"backup_id": b.attributes(t).text(t, "id"), "only_disks": []any{"Hard disk 2"}, "verify": true,
	}
	config["new_vm"] = map[string]any{"name": "look", "identity": "copy"}
	noErrors(t, r.apply(t.Context(), "vm_restore", config).diagnostics)
	if n := len(w.vm("look").Disks); n != 1 {
		t.Errorf("the copy has %d disks", n)
	}
	if err := w.holds("look", 0, data); err != nil {
		t.Error(err)
	}
	delete(config, "new_vm")
	config["in_place"] = map[string]any{}
	noErrors(t, r.apply(t.Context(), "vm_restore", config).diagnostics)
	for disk, want := range [][]byte{system, data} {
		if err := w.holds("db01", disk, want); err != nil {
			t.Error(err)
		}
	}
	labtest.AssertClean(t, w.lab)
}

// TestRestoreIntoAnother restores into a VM that isn't the one that was backed up, by the places of its disks.
func TestRestoreIntoAnother(t *testing.T) {
	t.Parallel()
	w, r, id := backedUp(t, lab.VMSpec{Name: "other", Disks: []string{labtest.RawDisk(t, 8<<20, 9)}})
	before := w.vm("other")
	m := r.apply(t.Context(), "vm_restore", map[string]any{
		"backup_id": id, "in_place": map[string]any{"vm": "other", "allow_other_vm": true, "hardware": "keep"},
	})
	noErrors(t, m.diagnostics)
	if err := w.holds("other", 0, w.content("web01", 0)); err != nil {
		t.Error(err)
	}
	if now := w.vm("other"); now.BIOSUUID != before.BIOSUUID || now.InstanceUUID != before.InstanceUUID || now.NICs[0].MAC != before.NICs[0].MAC {
		t.Errorf("its identity was %+v, is %+v", before, now)
	}
	labtest.AssertClean(t, w.lab)
}
