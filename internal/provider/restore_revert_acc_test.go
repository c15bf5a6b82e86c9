package provider

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

const revertConfig = `
resource "vm_restore" "r" {
  snapshot_id = vm_snapshot.s.id
}
`

// withMemory is a snapshot of web01 with its memory.
const withMemory = `
resource "vm_snapshot" "s" {
  vm     = "web01"
  name   = "before upgrade"
  memory = true
}
`

func TestRevert(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web01, content := w.vm("web01"), w.content("web01", 0)
	is := func(name string, check knownvalue.Check) statecheck.StateCheck {
		return attribute("vm_restore.r", name, check)
	}
	again := revertConfig[:len(revertConfig)-2] + "  triggers = { again = \"1\" }\n  power_on = false\n}\n"
	w.run(
		resource.TestStep{Config: withMemory},
		resource.TestStep{
			PreConfig: func() { w.spoil("web01", 0) },
			Config:    withMemory + revertConfig,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_restore.r", plancheck.ResourceActionCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				is("vm_uuid", knownvalue.StringExact(web01.BIOSUUID)), is("vm_id", knownvalue.StringExact(web01.ID)),
				is("power_state", knownvalue.StringExact("powered_on")), is("on_destroy", knownvalue.StringExact("keep")),
				is("disks", knownvalue.ListSizeExact(0)), is("reverted", knownvalue.ListExact([]knownvalue.Check{
					knownvalue.ObjectPartial(map[string]knownvalue.Check{"vm_path": knownvalue.StringExact(w.path("web01"))}),
				})),
			},
			Check: func(*terraform.State) error { return w.holds("web01", 0, content) },
		},
		// To start it later is a change in place; what happens in the guest is none.
		resource.TestStep{
			PreConfig:        func() { w.spoil("web01", 0) },
			Config:           withMemory + again,
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: actionPlan("vm_restore.r", plancheck.ResourceActionDestroyBeforeCreate), PostApplyPostRefresh: emptyPlan()},
			ConfigStateChecks: []statecheck.StateCheck{
				is("power_state", knownvalue.StringExact("powered_off")), // memory that is held is dropped
			},
			Check: func(*terraform.State) error { return w.holds("web01", 0, content) },
		},
		resource.TestStep{
			PreConfig:        func() { w.spoil("web01", 0) },
			Config:           withMemory + strings.Replace(again, "power_on = false", "power_on = true", 1),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: actionPlan("vm_restore.r", plancheck.ResourceActionUpdate), PostApplyPostRefresh: emptyPlan()},
			ConfigStateChecks: []statecheck.StateCheck{
				is("power_state", knownvalue.StringExact("powered_on")),
			},
			Check: func(*terraform.State) error {
				if bytes.Equal(w.content("web01", 0), content) {
					return fmt.Errorf("the VM was reverted, not started")
				}
				return nil
			},
		},
	)
	if vm := w.vm("web01"); vm.ID != web01.ID {
		t.Errorf("after destroying the revert the VM is %s, was %s", vm.ID, web01.ID)
	}
	labtest.AssertClean(t, w.lab)
}

// TestRevertIsHistory takes the snapshot away once a VM was reverted to it, and then the VM.
func TestRevertIsHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	s.write(w.provider() + snapshotConfig)
	s.must("apply", "-auto-approve")
	id := s.id("vm_snapshot.s")
	s.must("state", "rm", "vm_snapshot.s")
	config := w.provider() + "resource \"vm_restore\" \"r\" {\n  snapshot_id = \"" + id + "\"\n}\n"
	s.write(config)
	if out := s.must("plan"); !says(out, "Revert Loses What Was Done Since", w.path("web01"), "before upgrade", "is powered on: the revert stops it at once") {
		t.Errorf("the plan doesn't say what is lost:\n%s", out)
	}
	s.must("apply", "-auto-approve")
	if vm := w.vm("web01"); vm.PowerState != "poweredOff" { // the snapshot has no memory
		t.Errorf("the VM is %s", vm.PowerState)
	}
	err := w.client().RemoveSnapshot(t.Context(), hypervisor.VMID(w.vm("web01").ID), w.current("web01"), hypervisor.RemoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("a snapshot that is gone is a reason to plan something:\n%s", out)
	}
	w.destroyVM("web01")
	if out := s.must("plan"); !says(out, "Virtual Machine Is Gone", "that can't be done again") {
		t.Errorf("the plan doesn't say that the VM is gone:\n%s", out)
	}
	s.must("destroy", "-auto-approve")
	if out := s.must("state", "list"); out != "" {
		t.Errorf("in the state is:\n%s", out)
	}
	s.refused([]string{"Unable to Plan Revert", "no virtual machine"}, "plan")
}

// TestRevertRefused goes through what is known before anything is touched.
func TestRevertRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "other"})
	r := w.rpc()
	s := r.apply(t.Context(), "vm_snapshot", map[string]any{"vm": "web01", "name": "x"})
	noErrors(t, s.diagnostics)
	id := s.attributes(t).text(t, "id")
	_, own := splitSnapshotKey(id)
	web01, other := w.vm("web01").InstanceUUID, w.vm("other").InstanceUUID
	for name, c := range map[string]struct{ id, want string }{
		"known":        {id: id},
		"no such VM":   {nobodysUUID + "/" + string(own), `[AttributeName("snapshot_id")] Unable to Plan Revert: `},
		"gone":         {web01 + "/snapshot-999", `[AttributeName("snapshot_id")] Unable to Plan Revert: `},
		"of another":   {other + "/" + string(own), w.path("web01")},
		"not an ID":    {"web01", `[AttributeName("snapshot_id")] Invalid Snapshot ID: `},
		"not a UUID":   {"web01/" + string(own), `[AttributeName("snapshot_id")] Invalid Snapshot ID: `},
		"no snapshot":  {web01 + "/", `[AttributeName("snapshot_id")] Invalid Snapshot ID: `},
		"several, one": {id: id},
	} {
		t.Run(name, func(t *testing.T) {
			config := map[string]any{"snapshot_id": c.id}
			d := r.validate("vm_restore", config)
			if show(d, tfprotov6.DiagnosticSeverityError) == "" {
				d = r.plan("vm_restore", nil, config, "").diagnostics
			}
			expect(t, d, tfprotov6.DiagnosticSeverityError, c.want)
		})
	}
	if n := w.lab.Calls()["RevertToSnapshot_Task"]; n != 0 {
		t.Errorf("planning reverted %d times", n)
	}
}

// TestRevertSet reverts three tiers as one thing, and starts them in the order of the set.
func TestRevertSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	names := []string{"db01", "app01", "web01"}
	before := map[string][]byte{}
	for _, name := range names {
		before[name] = w.content(name, 0)
	}
	revert := `
resource "vm_restore" "r" {
  snapshot_ids   = vm_snapshot_set.t.snapshot_ids
  power_on       = true
  wait_for_guest = {}
}
`
	w.run(
		resource.TestStep{Config: setConfig("")},
		resource.TestStep{
			PreConfig: func() {
				for _, name := range names {
					w.spoil(name, 0)
				}
			},
			Config:           setConfig("") + revert,
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_restore.r", "vm_id", knownvalue.Null()),
				attribute("vm_restore.r", "reverted", knownvalue.ListPartial(map[int]knownvalue.Check{
					0: knownvalue.ObjectPartial(map[string]knownvalue.Check{
						"vm_id": knownvalue.StringExact(w.vm("db01").ID), "power_state": knownvalue.StringExact("powered_on"),
						"guest_ip_address": knownvalue.StringRegexp(regexp.MustCompile(`^192\.0\.2\.`)),
					}),
					2: knownvalue.ObjectPartial(map[string]knownvalue.Check{"vm_id": knownvalue.StringExact(w.vm("web01").ID)}),
				})),
			},
			Check: func(*terraform.State) error {
				for _, name := range names {
					if err := w.holds(name, 0, before[name]); err != nil {
						return err
					}
				}
				var started []string
				for _, task := range w.lab.Status().Tasks {
					if strings.Contains(task.Name, "PowerOnVM") {
						started = append(started, task.Entity)
					}
				}
				if got, want := strings.Join(started, " "), "db01 app01 web01"; got != want {
					return fmt.Errorf("started: %s, want %s", got, want)
				}
				return nil
			},
		},
		// Of a set that was reverted, those that are left are no reason to revert them again.
		resource.TestStep{
			PreConfig:          func() { w.destroyVM("app01") },
			Config:             strings.Replace(setConfig(""), `{ vm = "app01", order = 1 },`, "", 1) + revert,
			PlanOnly:           true,
			ExpectNonEmptyPlan: true,
		},
	)
}

// TestRevertFails fails in the middle: what is reverted is in the state, tainted, and the next apply reverts again.
func TestRevertFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault lab.Fault
		kept  bool // it was reverted
	}{
		"the revert":         {fault: lab.Fault{Method: "RevertToSnapshot_Task", Fault: "InvalidState"}},
		"the revert, denied": {fault: lab.Fault{Method: "RevertToSnapshot_Task", Fault: "NoPermission"}},
		"the start":          {fault: lab.Fault{Method: "PowerOnVM_Task", Fault: "InsufficientResourcesFault"}, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.rpc()
			s := r.apply(t.Context(), "vm_snapshot", map[string]any{"vm": "web01", "name": "x"})
			noErrors(t, s.diagnostics)
			content := w.content("web01", 0)
			w.spoil("web01", 0)
			config := map[string]any{"snapshot_id": s.attributes(t).text(t, "id"), "power_on": true}
			w.lab.Fault(c.fault)
			m := r.apply(t.Context(), "vm_restore", config)
			if !m.failed() || m.state.IsNull() == c.kept {
				t.Errorf("failed is %v, the state is there: %v\n%s", m.failed(), !m.state.IsNull(), show(m.diagnostics, tfprotov6.DiagnosticSeverityError))
			}
			noErrors(t, r.apply(t.Context(), "vm_restore", config).diagnostics)
			if err := w.holds("web01", 0, content); err != nil {
				t.Error(err)
			}
			if vm := w.vm("web01"); vm.PowerState != "poweredOn" {
				t.Errorf("the VM is %s", vm.PowerState)
			}
		})
	}
}

// TestRestoreConflicts goes through arguments that contradict each other.
func TestRestoreConflicts(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, nil)
	const snapshot = web01Instance + "/snapshot-7"
	for name, c := range map[string]struct {
		config map[string]any
		want   string
	}{
		"no source":             {map[string]any{}, "Exactly one of these attributes must be configured"},
		"two sources":           {map[string]any{"backup_id": "a", "snapshot_id": snapshot}, "Exactly one of these attributes must be configured"},
		"one source, unknown":   {config: map[string]any{"backup_id": unknown{}}},
		"two targets":           {map[string]any{"backup_id": "a", "new_vm": map[string]any{}, "in_place": map[string]any{}}, "These attributes cannot be configured together"},
		"revert and new_vm":     {map[string]any{"snapshot_id": snapshot, "new_vm": map[string]any{}}, `[AttributeName("new_vm")] Conflicting Arguments: `},
		"revert and in_place":   {map[string]any{"snapshot_id": snapshot, "in_place": map[string]any{}}, `[AttributeName("in_place")] Conflicting Arguments: `},
		"revert and only_disks": {map[string]any{"snapshot_id": snapshot, "only_disks": []any{"a"}}, `[AttributeName("only_disks")] Conflicting Arguments: `},
		"revert and verify":     {map[string]any{"snapshot_id": snapshot, "verify": true}, `[AttributeName("verify")] Conflicting Arguments: `},
		"revert and delete":     {map[string]any{"snapshot_id": snapshot, "on_destroy": "delete"}, `[AttributeName("on_destroy")] Conflicting Arguments: `},
		"in_place and delete":   {map[string]any{"backup_id": "a", "in_place": map[string]any{}, "on_destroy": "delete"}, `[AttributeName("on_destroy")] Conflicting Arguments: `},
		"in_place and keep":     {config: map[string]any{"backup_id": "a", "in_place": map[string]any{}, "on_destroy": "keep"}},
		"any VM without one":    {map[string]any{"backup_id": "a", "in_place": map[string]any{"allow_other_vm": true}}, `[AttributeName("in_place").AttributeName("allow_other_vm")] Conflicting Arguments: `},
		"wait, but off":         {map[string]any{"backup_id": "a", "power_on": false, "wait_for_guest": map[string]any{}}, `[AttributeName("wait_for_guest")] Conflicting Arguments: `},
		"wait for nothing":      {map[string]any{"backup_id": "a", "wait_for_guest": map[string]any{"agent": false}}, `[AttributeName("wait_for_guest")] Conflicting Arguments: `},
		"wait for one":          {config: map[string]any{"backup_id": "a", "wait_for_guest": map[string]any{"agent": false, "address": true}}},
		"no disks":              {map[string]any{"backup_id": "a", "only_disks": []any{}}, "at least 1"},
		"bad duration":          {map[string]any{"backup_id": "a", "in_place": map[string]any{"keep_replaced_disks": "3 days"}}, `[AttributeName("in_place").AttributeName("keep_replaced_disks")] Invalid Duration: `},
		"twice the same":        {map[string]any{"snapshot_ids": []any{snapshot, snapshot}}, "duplicate"},
		"no snapshots":          {map[string]any{"snapshot_ids": []any{}}, "at least 1"},
		"no such hardware":      {map[string]any{"backup_id": "a", "in_place": map[string]any{"hardware": "some"}}, "value must be one of"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, r.validate("vm_restore", c.config), tfprotov6.DiagnosticSeverityError, c.want)
		})
	}
}

// TestRevertUndoes shows in the plan, and keeps in the state, what a revert undoes in the configuration.
func TestRevertUndoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	s := r.apply(t.Context(), "vm_snapshot", map[string]any{"vm": "web01", "name": "x"})
	noErrors(t, s.diagnostics)
	w.inside("web01", func(sim *simulator.Context, vm *simulator.VirtualMachine) {
		sim.Update(vm, []types.PropertyChange{{Name: "config.annotation", Val: "grown since"}})
	})
	m := r.apply(t.Context(), "vm_restore", map[string]any{"snapshot_id": s.attributes(t).text(t, "id")})
	noErrors(t, m.diagnostics)
	for _, want := range []string{"Revert Loses What Was Done Since", "Revert Changed Configuration", "The annotation goes back"} {
		expect(t, m.diagnostics, tfprotov6.DiagnosticSeverityWarning, want)
	}
	if state := m.state.String(); !strings.Contains(state, "The annotation goes back") {
		t.Errorf("the state doesn't hold what was undone: %s", state)
	}
}
