package provider

import (
	"fmt"
	"regexp"
	"testing"
	"time"

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

const snapshotConfig = `
resource "vm_snapshot" "s" {
  vm   = "web01"
  name = "before upgrade"
}
`

func known(attribute string, check knownvalue.Check) statecheck.StateCheck {
	return statecheck.ExpectKnownValue("vm_snapshot.s", tfjsonpath.New(attribute), check)
}

func TestSnapshotLifecycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web01 := w.vm("web01")
	renamed := `
resource "vm_snapshot" "s" {
  vm          = "` + web01.BIOSUUID + `"
  name        = "after 100% upgrade/1"
  description = "kept for a day"
  max_age     = "24h"
  on_destroy  = { consolidate = true }
  timeouts {
    create = "10m"
  }
}
`
	w.run(
		resource.TestStep{
			Config: snapshotConfig,
			ConfigStateChecks: []statecheck.StateCheck{
				known("name", knownvalue.StringExact("before upgrade")),
				known("description", knownvalue.Null()),
				known("memory", knownvalue.Bool(false)),
				known("consistency", knownvalue.StringExact("crash")),
				known("power_state", knownvalue.StringExact("powered_off")),
				known("path", knownvalue.StringExact("before upgrade")),
				known("chain_depth", knownvalue.Int64Exact(1)),
				known("is_current", knownvalue.Bool(true)),
				known("parent_id", knownvalue.Null()),
				known("vm_uuid", knownvalue.StringExact(web01.BIOSUUID)),
				known("vm_instance_uuid", knownvalue.StringExact(web01.InstanceUUID)),
				known("id", knownvalue.StringRegexp(regexp.MustCompile("^"+web01.InstanceUUID+"/snapshot-[0-9]+$"))),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		},
		// Another spelling of the same VM is no change at all.
		resource.TestStep{
			Config: `
resource "vm_snapshot" "s" {
  vm   = "` + w.path("web01") + `"
  name = "before upgrade"
}
`,
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
		resource.TestStep{
			Config: renamed,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionUpdate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				known("name", knownvalue.StringExact("after 100% upgrade/1")),
				known("description", knownvalue.StringExact("kept for a day")),
			},
			Check: func(*terraform.State) error {
				got := w.vm("web01").Snapshots
				if len(got) != 1 || got[0].Description != "kept for a day" {
					return fmt.Errorf("the lab has %+v", got)
				}
				return nil
			},
		},
		// Data-bearing arguments take a new one.
		resource.TestStep{
			Config: `
resource "vm_snapshot" "s" {
  vm       = "web01"
  name     = "again"
  memory   = true
  triggers = { release = "2" }
}
`,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionDestroyBeforeCreate),
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{
				known("consistency", knownvalue.StringExact("memory")),
				known("power_state", knownvalue.StringExact("powered_on")),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hv := w.client()
	web01 := w.vm("web01")
	id, err := hv.CreateSnapshot(t.Context(), hypervisor.VMID(web01.ID), hypervisor.SnapshotSpec{
		Name: "by hand", Description: "somebody's", Memory: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	config := `
resource "vm_snapshot" "s" {
  vm          = "web01"
  name        = "by hand"
  description = "somebody's"
  memory      = true
}
`
	steps := []resource.TestStep{{
		Config: config + fmt.Sprintf("import {\n  to = vm_snapshot.s\n  id = %q\n}\n", web01.InstanceUUID+"/"+string(id)),
		ConfigPlanChecks: resource.ConfigPlanChecks{
			PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionNoop),
			PostApplyPostRefresh: emptyPlan(),
		},
	}}
	for _, form := range []string{
		"web01/" + string(id), "web01:by hand", w.path("web01") + ":by hand", web01.BIOSUUID + ":by hand", web01.ID + "/" + string(id),
	} {
		steps = append(steps, resource.TestStep{
			Config: config, ResourceName: "vm_snapshot.s", ImportState: true, ImportStateId: form,
			ImportStateVerify: true, ImportStateVerifyIgnore: []string{"vm"},
		})
	}
	steps = append(steps, resource.TestStep{
		Config: config, ResourceName: "vm_snapshot.s", ImportState: true, ImportStateId: "web01:nothing",
		ExpectError: regexp.MustCompile(`(?s)There is no snapshot "web01:nothing".*<vm>/<snapshot ID>`),
	})
	// What can't be read back is taken over from the configuration without a new snapshot.
	steps = append(steps, resource.TestStep{
		Config: config[:len(config)-2] + "  triggers = { release = \"1\" }\n}\n",
		ConfigPlanChecks: resource.ConfigPlanChecks{
			PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionUpdate),
			PostApplyPostRefresh: emptyPlan(),
		},
	}, resource.TestStep{
		Config:             config[:len(config)-2] + "  triggers = { release = \"2\" }\n}\n",
		PlanOnly:           true,
		ExpectNonEmptyPlan: true,
		ConfigPlanChecks: resource.ConfigPlanChecks{
			PostApplyPreRefresh: actionPlan("vm_snapshot.s", plancheck.ResourceActionDestroyBeforeCreate),
		},
	})
	w.run(steps...)
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hv := w.client()
	ctx := t.Context()
	vmID := hypervisor.VMID(w.vm("web01").ID)
	only := func() hypervisor.SnapshotID {
		s := w.vm("web01").Snapshots
		if len(s) != 1 {
			t.Fatalf("%d snapshots, want 1", len(s))
		}
		return hypervisor.SnapshotID(s[0].ID)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.run(
		resource.TestStep{Config: snapshotConfig},
		resource.TestStep{
			PreConfig: func() { must(hv.RenameSnapshot(ctx, vmID, only(), "somebody else's name", "")) },
			Config:    snapshotConfig,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             actionPlan("vm_snapshot.s", plancheck.ResourceActionUpdate),
				PostApplyPostRefresh: emptyPlan(),
			},
		},
		// Gone, with another snapshot left: looked up by ID, never by name.
		resource.TestStep{
			PreConfig: func() {
				old := only()
				_, err := hv.CreateSnapshot(ctx, vmID, hypervisor.SnapshotSpec{Name: "before upgrade"})
				must(err)
				must(hv.RemoveSnapshot(ctx, vmID, old, hypervisor.RemoveOptions{}))
			},
			Config: snapshotConfig,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: actionPlan("vm_snapshot.s", plancheck.ResourceActionCreate),
			},
			ConfigStateChecks: []statecheck.StateCheck{known("chain_depth", knownvalue.Int64Exact(2))},
		},
		// The VM itself is gone.
		resource.TestStep{
			PreConfig:          func() { must(hv.DestroyVM(ctx, vmID)) },
			RefreshState:       true,
			ExpectNonEmptyPlan: true,
			RefreshPlanChecks: resource.RefreshPlanChecks{
				PostRefresh: actionPlan("vm_snapshot.s", plancheck.ResourceActionCreate),
			},
		},
	)
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(
		resource.TestStep{Config: snapshotConfig[:len(snapshotConfig)-2] + "  on_destroy = { action = \"keep\" }\n}\n"},
		resource.TestStep{Config: "locals { nothing = true }\n", Check: func(*terraform.State) error {
			if n := len(w.vm("web01").Snapshots); n != 1 {
				return fmt.Errorf("%d snapshots are left, want 1", n)
			}
			return nil
		}},
	)
}

func TestSnapshotChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(resource.TestStep{
		Config: `
resource "vm_snapshot" "base" {
  vm   = "web01"
  name = "base"
}
resource "vm_snapshot" "s" {
  vm   = vm_snapshot.base.vm_uuid
  name = "upper"
}
data "vm_snapshots" "all" {
  vm         = "web01"
  depends_on = [vm_snapshot.s]
}
`,
		ConfigStateChecks: []statecheck.StateCheck{
			known("path", knownvalue.StringExact("base/upper")),
			known("chain_depth", knownvalue.Int64Exact(2)),
			statecheck.ExpectKnownValue("data.vm_snapshots.all", tfjsonpath.New("snapshots"), knownvalue.ListPartial(map[int]knownvalue.Check{
				0: knownvalue.ObjectPartial(map[string]knownvalue.Check{"path": knownvalue.StringExact("base"), "is_current": knownvalue.Bool(false)}),
				1: knownvalue.ObjectPartial(map[string]knownvalue.Check{"path": knownvalue.StringExact("base/upper"), "is_current": knownvalue.Bool(true)}),
			})),
		},
	})
	labtest.AssertClean(t, w.lab)
}

func TestManySnapshots(t *testing.T) {
	t.Parallel()
	others := []lab.VMSpec{{Name: "app01"}, {Name: "db01"}, {Name: "cache01"}, {Name: "mail01"}}
	w := newWorld(t, others...)
	w.run(resource.TestStep{
		Config: `
locals {
  vms = ["web01", "app01", "db01", "cache01", "mail01"]
}
resource "vm_snapshot" "s" {
  count = 20
  vm    = local.vms[count.index % 5]
  name  = "snapshot ${count.index}"
}
`,
		ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		Check: func(*terraform.State) error {
			n := 0
			for _, vm := range w.lab.Status().VMs {
				n += len(vm.Snapshots)
			}
			if n != 20 {
				return fmt.Errorf("%d snapshots, want 20", n)
			}
			return nil
		},
	})
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotQuiesce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "mute", ToolsNotRunning: true})
	quiesced := func(vm, mode string) string {
		return fmt.Sprintf("resource \"vm_snapshot\" \"s\" {\n  vm = %q\n  name = \"q\"\n  quiesce = { mode = %q }\n}\n", vm, mode)
	}
	w.run(
		resource.TestStep{
			Config:            quiesced("web01", "required"),
			ConfigStateChecks: []statecheck.StateCheck{known("consistency", knownvalue.StringExact("filesystem"))},
		},
		resource.TestStep{
			Config:      quiesced("mute", "required"),
			ExpectError: regexp.MustCompile(`Unable to (Plan|Take) Snapshot`),
		},
		resource.TestStep{
			Config:            quiesced("mute", "preferred"),
			ConfigStateChecks: []statecheck.StateCheck{known("consistency", knownvalue.StringExact("crash"))},
		},
		resource.TestStep{
			PreConfig: func() {
				w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: "FilesystemQuiesceFault"})
			},
			Config:      quiesced("web01", "required"),
			ExpectError: regexp.MustCompile(`(?s)Unable to Take Snapshot.*No\s+snapshot\s+was\s+left\s+behind`),
		},
		resource.TestStep{Config: quiesced("web01", "required")},
	)
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	short := snapshotConfig[:len(snapshotConfig)-2] + "  timeouts {\n    create = \"6s\"\n  }\n}\n"
	w.run(
		resource.TestStep{
			PreConfig:   func() { w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: time.Minute}) },
			Config:      short,
			ExpectError: regexp.MustCompile(`Unable to Take Snapshot`),
		},
		resource.TestStep{Config: snapshotConfig},
	)
	labtest.AssertClean(t, w.lab)
}

func TestSnapshotOfAnotherServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newWorld(t)
	w.runAs(
		resource.TestStep{Config: w.provider() + snapshotConfig},
		// What isn't there on another server is not gone.
		resource.TestStep{
			PreConfig:   func() { w.setenv(envServer, other.lab.URL().Host); w.setenv(envPassword, other.lab.Password()) },
			Config:      other.provider() + snapshotConfig,
			ExpectError: regexp.MustCompile(`(?s)Unable to Read Snapshot.*configured for\s+another\s+server`),
		},
		resource.TestStep{
			PreConfig:        func() { w.setenv(envServer, w.lab.URL().Host); w.setenv(envPassword, w.lab.Password()) },
			Config:           w.provider() + snapshotConfig,
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
		},
	)
	labtest.AssertClean(t, w.lab)
}
