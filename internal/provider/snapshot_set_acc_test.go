package provider

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// setConfig is a set of web01, app01 and db01.
func setConfig(more string) string {
	return `
resource "vm_snapshot_set" "t" {
  name    = "before upgrade"
  members = [{ vm = "db01" }, { vm = "app01", order = 1 }, { vm = "web01", order = 1 }]
` + more + `
}
`
}

// tiers are the VMs of setConfig but web01, which every world has.
func tiers() []lab.VMSpec { return []lab.VMSpec{{Name: "app01"}, {Name: "db01"}} }

// snapshotsOf lists the names of the snapshots of VMs.
func (w *world) snapshotsOf(vms ...string) []string {
	var all []string
	for _, vm := range vms {
		for _, s := range w.vm(vm).Snapshots {
			all = append(all, vm+":"+s.Name)
		}
	}
	return all
}

func setAttribute(name string, check knownvalue.Check) statecheck.StateCheck {
	return statecheck.ExpectKnownValue("vm_snapshot_set.t", tfjsonpath.New(name), check)
}

// hasSnapshots checks which snapshots there are.
func (w *world) hasSnapshots(want ...string) func(*terraform.State) error {
	return func(*terraform.State) error {
		if got := w.snapshotsOf("db01", "app01", "web01"); !slices.Equal(got, want) {
			return fmt.Errorf("there are the snapshots %q, want %q", got, want)
		}
		return nil
	}
}

func TestSnapshotSetLifecycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	web01, db01 := w.vm("web01"), w.vm("db01")
	spelled := strings.NewReplacer(`"web01"`, `"`+web01.BIOSUUID+`"`, `"db01"`, `"`+db01.ID+`"`).Replace(setConfig(""))
	w.run(
		resource.TestStep{
			Config: setConfig(""),
			ConfigStateChecks: []statecheck.StateCheck{
				setAttribute("snapshot_ids", knownvalue.ListSizeExact(3)),
				setAttribute("snapshots", knownvalue.ListPartial(map[int]knownvalue.Check{
					0: knownvalue.ObjectPartial(map[string]knownvalue.Check{
						"vm_uuid": knownvalue.StringExact(db01.BIOSUUID), "vm_path": knownvalue.StringExact(w.path("db01")),
						"consistency": knownvalue.StringExact("crash"), "exists": knownvalue.Bool(true),
						"id": knownvalue.StringRegexp(regexp.MustCompile("^" + db01.InstanceUUID + "/snapshot-[0-9]+$")),
					}),
					2: knownvalue.ObjectPartial(map[string]knownvalue.Check{"vm_uuid": knownvalue.StringExact(web01.BIOSUUID)}),
				})),
				setAttribute("skew_seconds", knownvalue.NotNull()),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
			Check:            w.hasSnapshots("db01:before upgrade", "app01:before upgrade", "web01:before upgrade"),
		},
		// Another spelling of the same VMs is no change at all.
		resource.TestStep{Config: spelled, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()}},
		resource.TestStep{
			// So is to write what is the default, apart from the state.
			Config: strings.NewReplacer("before upgrade", "after", `{ vm = "db01" }`, `{ vm = "db01", order = 0 }`).Replace(
				setConfig("  description = \"a day\"\n  max_skew_seconds = 60\n  triggers = {}\n  quiesce = { mode = \"off\" }")),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot_set.t", plancheck.ResourceActionUpdate),
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: w.hasSnapshots("db01:after", "app01:after", "web01:after"),
		},
		// Somebody else's renaming is undone.
		resource.TestStep{
			PreConfig: func() {
				err := w.client().RenameSnapshot(t.Context(), hypervisor.VMID(web01.ID), w.current("web01"), "theirs", "theirs too")
				if err != nil {
					t.Fatal(err)
				}
			},
			Config: strings.Replace(setConfig("  description = \"a day\""), "before upgrade", "after", 1),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot_set.t", plancheck.ResourceActionUpdate),
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: w.hasSnapshots("db01:after", "app01:after", "web01:after"),
		},
		// A set that lost a snapshot is none: the rest goes, and a new one is taken.
		resource.TestStep{
			PreConfig: func() {
				err := w.client().RemoveSnapshot(t.Context(), hypervisor.VMID(db01.ID), w.current("db01"), hypervisor.RemoveOptions{})
				if err != nil {
					t.Fatal(err)
				}
			},
			Config: setConfig(""),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot_set.t", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: w.hasSnapshots("db01:before upgrade", "app01:before upgrade", "web01:before upgrade"),
		},
		resource.TestStep{
			Config: setConfig("  memory = true"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot_set.t", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				setAttribute("snapshots", knownvalue.ListPartial(map[int]knownvalue.Check{
					1: knownvalue.ObjectPartial(map[string]knownvalue.Check{"consistency": knownvalue.StringExact("memory")}),
				})),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

// current is the current snapshot of a VM.
func (w *world) current(vm string) hypervisor.SnapshotID {
	w.t.Helper()
	for _, s := range w.vm(vm).Snapshots {
		if s.Current {
			return hypervisor.SnapshotID(s.ID)
		}
	}
	w.t.Fatalf("%s has no snapshot", vm)
	return ""
}

func TestSnapshotSetImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	kept := setConfig("  on_destroy = { action = \"keep\" }")
	imported := func(id string) string {
		return setConfig("") + fmt.Sprintf("import {\n  to = vm_snapshot_set.t\n  id = %q\n}\n", id)
	}
	w.run(
		resource.TestStep{Config: kept},
		resource.TestStep{Config: kept, Destroy: true},
		resource.TestStep{
			Config: imported("db01:nothing"), PlanOnly: true,
			ExpectError: regexp.MustCompile(`(?s)Unable to Import Snapshot Set.*no\s+snapshot\s+"db01:nothing".*<vm>:<path`),
		},
		resource.TestStep{
			Config: imported("app01:before upgrade"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot_set.t", plancheck.ResourceActionUpdate), // of what isn't known: the order
				PostApplyPostRefresh: emptyPlan(),
			},
			Check: w.hasSnapshots("db01:before upgrade", "app01:before upgrade", "web01:before upgrade"),
		},
	)
	labtest.AssertClean(t, w.lab)
}

// TestSnapshotSetImportIncomplete names the members that an import can't find.
func TestSnapshotSetImportIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	s := w.workspace()
	s.write(w.provider() + setConfig("  on_destroy = { action = \"keep\" }"))
	s.must("apply", "-auto-approve")
	s.must("destroy", "-auto-approve")
	lost := w.vm("app01").ID
	w.destroyVM("app01")
	out := s.must("import", "vm_snapshot_set.t", "db01:before upgrade")
	if !says(out, "Snapshot Set Is Incomplete", "taken of 3 virtual machines", lost) {
		t.Errorf("the import doesn't say what is missing:\n%s", out)
	}
}

// TestSnapshotSetRefused goes through what is known before anything is taken.
func TestSnapshotSetRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, append(tiers(), lab.VMSpec{Name: "mute", ToolsNotRunning: true})...)
	refused := func(config, want string) resource.TestStep {
		return resource.TestStep{Config: config, PlanOnly: true, ExpectError: regexp.MustCompile(want)}
	}
	w.run(
		refused(strings.Replace(setConfig(""), `"app01"`, `"`+w.vm("web01").BIOSUUID+`"`, 1), `(?s)Unable to Plan Snapshot Set.*named\s+twice`),
		refused(strings.Replace(setConfig(""), `"app01"`, `"`+nobodysUUID+`"`, 1), `(?s)Unable to Plan Snapshot Set.*no\s+virtual\s+machine`),
		refused(setConfig("  memory = true\n  quiesce = { mode = \"required\" }"), `Conflicting Arguments`),
		refused(strings.Replace(setConfig("  memory = true"), `"app01"`, `"app01", quiesce = { mode = "preferred" }`, 1), `(?s)Conflicting Arguments`),
		refused(strings.Replace(setConfig(""), `"app01"`, `"mute", quiesce = { mode = "required" }`, 1), `(?s)Unable to Plan Snapshot Set.*quiesce`),
		refused(setConfig("  on_destroy = { action = \"keep\", remove_children = true }"), `Conflicting Arguments`),
		refused("resource \"vm_snapshot_set\" \"t\" {\n  name = \"x\"\n  members = []\n}\n", `at\s+least\s+1`),
	)
	labtest.AssertClean(t, w.lab)
}

// TestSnapshotSetAllOrNone fails in the middle of taking a set: nothing is left, and the next apply takes it.
func TestSnapshotSetAllOrNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tiers()...)
	s := w.workspace()
	s.write(w.provider() + setConfig(""))
	w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace", After: 2})
	s.refused([]string{"Unable to Take Snapshot Set", "not enough space"}, "apply", "-auto-approve")
	labtest.AssertClean(t, w.lab)
	s.write(w.provider() + setConfig("  max_skew_seconds = 0.001"))
	w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: 1500 * 1e6, After: 2})
	s.refused([]string{"Unable to Take Snapshot Set", "too far apart", "max_skew_seconds"}, "apply", "-auto-approve")
	labtest.AssertClean(t, w.lab)
	s.write(w.provider() + setConfig(""))
	s.recovers()
	if got := w.snapshotsOf("db01", "app01", "web01"); len(got) != 3 {
		t.Errorf("there are %q", got)
	}
	w.lab.Fault(lab.Fault{Method: "RemoveSnapshot_Task", Fault: "NoPermission", After: 1})
	s.refused([]string{"Unable to Remove Snapshot Set", "still in the state"}, "destroy", "-auto-approve")
	s.must("destroy", "-auto-approve")
	labtest.AssertClean(t, w.lab)
}
