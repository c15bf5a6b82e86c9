package provider

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// retained is a vm_backup of web01 with a name, for the nth time.
func retained(name string, n int, retention string) string {
	return fmt.Sprintf(`
resource "vm_backup" %q {
  vm       = "web01"
  triggers = { again = "%d" }
  %s
}
`, name, n, retention)
}

// backups are the IDs of what is in the repository, newest first.
func (w *world) backups() []repository.ID {
	w.t.Helper()
	points := w.points()
	ids := make([]repository.ID, len(points))
	for i, p := range points {
		ids[i] = p.ID
	}
	return ids
}

func (w *world) wantBackups(n int) resource.TestCheckFunc {
	return func(*terraform.State) error {
		if ids := w.backups(); len(ids) != n {
			return fmt.Errorf("there are %d backups, want %d: %v", len(ids), n, ids)
		}
		return nil
	}
}

// Every new backup of a resource removes those that no rule keeps; nothing is planned because of it.
func TestBackupRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep2 := "retention = { keep_last = 2 }"
	pruned := func(n int) []statecheck.StateCheck {
		return []statecheck.StateCheck{
			attribute("vm_backup.b", "pruned_ids", knownvalue.ListSizeExact(n)),
			attribute("vm_backup.b", "superseded", knownvalue.Bool(false)),
		}
	}
	settled := resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()}
	w.run(
		resource.TestStep{Config: retained("b", 0, ""), ConfigStateChecks: pruned(0), Check: w.wantBackups(1)}, // pinned
		resource.TestStep{
			Config: retained("b", 0, keep2), Check: w.wantBackups(1), ConfigStateChecks: pruned(0),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: actionPlan("vm_backup.b", plancheck.ResourceActionUpdate), PostApplyPostRefresh: emptyPlan(),
			},
		},
		resource.TestStep{Config: retained("b", 1, keep2), ConfigStateChecks: pruned(0), Check: w.wantBackups(2)},
		resource.TestStep{Config: retained("b", 2, keep2), ConfigStateChecks: pruned(0), Check: w.wantBackups(3), ConfigPlanChecks: settled},
		resource.TestStep{Config: retained("b", 3, keep2), ConfigStateChecks: pruned(1), Check: w.wantBackups(3), ConfigPlanChecks: settled},
		resource.TestStep{Config: retained("b", 4, "retention = { keep_daily = 7 }"), ConfigStateChecks: pruned(2), Check: w.wantBackups(2), ConfigPlanChecks: settled},
		resource.TestStep{
			Config:       retained("b", 4, "retention = { keep_daily = 7 }"),
			ResourceName: "vm_backup.b", ImportState: true, ImportStateVerify: true,
			ImportStateVerifyIgnore: []string{"vm", "triggers", "retention", "pruned_ids"},
		},
		resource.TestStep{Config: retained("b", 5, ""), ConfigStateChecks: pruned(0), Check: w.wantBackups(3), ConfigPlanChecks: settled},
	)
	labtest.AssertClean(t, w.lab)
	w.maintained()
}

// maintained checks that the repository was maintained, for which nobody had to ask.
func (w *world) maintained() {
	t := w.t
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{Path: w.repo, Password: secret.New(repositoryPassword)})
	if err != nil {
		t.Fatal(err)
	}
	result, err := repo.Maintain(t.Context(), repository.MaintainOptions{})
	if err := errors.Join(err, repo.Close(t.Context())); err != nil || result.Ran {
		t.Errorf("maintenance was still due: %+v, %v", result, err)
	}
}

// Two resources keep backups of the same VM. What one removes of the other is no reason for a new backup; what
// somebody deleted is.
func TestBackupSuperseded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep := "retention = { keep_last = 1 }"
	both := retained("a", 0, keep) + "\n" + retained("b", 1, keep+"\n  depends_on = [vm_backup.a]")
	w.run(
		resource.TestStep{
			Config: both, Check: w.wantBackups(1),
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_backup.a", "superseded", knownvalue.Bool(false)),
				attribute("vm_backup.b", "pruned_ids", knownvalue.ListSizeExact(1)),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		},
		resource.TestStep{
			Config: both, Check: w.wantBackups(1),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: emptyPlan()},
			ConfigStateChecks: []statecheck.StateCheck{
				attribute("vm_backup.a", "superseded", knownvalue.Bool(true)),
				attribute("vm_backup.b", "superseded", knownvalue.Bool(false)),
			},
		},
		// The newest was not removed by any retention.
		resource.TestStep{
			PreConfig: func() { w.deleteBackup(w.backups()[0]) },
			Config:    both, Check: w.wantBackups(1),
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		},
		// Without retention, what is gone is taken again.
		resource.TestStep{
			Config: retained("a", 0, "") + retained("b", 1, keep), Check: w.wantBackups(2),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply: []plancheck.PlanCheck{
					plancheck.ExpectResourceAction("vm_backup.a", plancheck.ResourceActionDestroyBeforeCreate),
					plancheck.ExpectResourceAction("vm_backup.b", plancheck.ResourceActionNoop),
				},
				PostApplyPostRefresh: emptyPlan(),
			},
			ConfigStateChecks: []statecheck.StateCheck{attribute("vm_backup.a", "superseded", knownvalue.Bool(false))},
		},
	)
}

// TestBackupBack has a backup in the repository that the state has for superseded, as when a copy of the repository was put
// back: it is there, and to write no retention any more doesn't replace it.
func TestBackupBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.workspace()
	config := func(retention string) string {
		return w.provider() + "resource \"vm_backup\" \"b\" {\n  vm = \"web01\"\n  on_destroy = \"delete\"\n" + retention + "}\n"
	}
	s.write(config("  retention = { keep_last = 1 }\n"))
	s.must("apply", "-auto-approve")
	state := s.must("state", "pull")
	changed := regexp.MustCompile(`"superseded": *false`).ReplaceAllString(state, `"superseded": true`)
	if changed == state {
		t.Fatalf("the state doesn't say whether the backup is superseded:\n%s", state)
	}
	file := filepath.Join(s.dir, "changed.json")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must("state", "push", "-force", file)
	s.write(config(""))
	if out := s.must("plan"); !strings.Contains(out, "1 to change, 0 to destroy") {
		t.Errorf("a backup that is there is replaced:\n%s", out)
	}
}

// deleteBackup deletes a backup behind Terraform's back.
func (w *world) deleteBackup(id repository.ID) {
	t := w.t
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{Path: w.repo, Password: secret.New(repositoryPassword)})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The data source says what a backup would remove, and removes nothing.
func TestBackupRetentionDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep9 := "retention = { keep_last = 9 }"
	dry := func(arguments string) string {
		return fmt.Sprintf(`
data "vm_backup_retention" "d" {
  vm        = %q
  retention = { keep_last = 1 }
  %s
}
`, w.vm("web01").ID, arguments)
	}
	const address = "data.vm_backup_retention.d"
	w.run(
		resource.TestStep{Config: retained("b", 0, "")}, // pinned
		resource.TestStep{Config: retained("b", 1, keep9)},
		resource.TestStep{Config: retained("b", 2, keep9)},
		resource.TestStep{
			Config: retained("b", 2, keep9) + dry(""), Check: w.wantBackups(3),
			ConfigStateChecks: []statecheck.StateCheck{
				attribute(address, "backups", knownvalue.ListPartial(map[int]knownvalue.Check{
					0: knownvalue.ObjectPartial(map[string]knownvalue.Check{"keep": knownvalue.Bool(true), "reasons": knownvalue.StringExact("newest,last")}),
					1: knownvalue.ObjectPartial(map[string]knownvalue.Check{"keep": knownvalue.Bool(false), "reasons": knownvalue.StringExact("")}),
					2: knownvalue.ObjectPartial(map[string]knownvalue.Check{"keep": knownvalue.Bool(true), "reasons": knownvalue.StringExact("pinned")}),
				})),
				attribute(address, "prune_ids", knownvalue.ListSizeExact(1)),
				attribute(address, "freed_bytes", knownvalue.Null()),
				attribute(address, "freed_after_hours", knownvalue.Int64Exact(48)),
			},
		},
		resource.TestStep{
			Config: retained("b", 2, keep9) + dry("measure_space = true"), Check: w.wantBackups(3),
			ConfigStateChecks: []statecheck.StateCheck{
				// All three have the same disk: nothing but what describes them would come back.
				attribute(address, "freed_bytes", knownvalue.Int64Func(func(n int64) error {
					if n <= 0 || n > 1<<20 {
						return fmt.Errorf("%d bytes", n)
					}
					return nil
				})),
			},
			ConfigPlanChecks: resource.ConfigPlanChecks{PostApplyPostRefresh: emptyPlan()},
		},
	)
}

func TestBackupRetentionArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for argument, want := range map[string]string{
		"retention = {}":                `(?s)Retention Without a Rule.*keep_yearly`,
		"retention = { keep_last = 0 }": `(?s)must be between 1 and`,
	} {
		w.run(resource.TestStep{Config: retained("b", 0, argument), ExpectError: regexp.MustCompile(want)})
	}
}
