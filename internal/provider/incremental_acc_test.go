package provider

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// diskAttribute checks an attribute of the first disk of the backup.
func diskAttribute(name string, check knownvalue.Check) statecheck.StateCheck {
	return statecheck.ExpectKnownValue("vm_backup.b", tfjsonpath.New("disks").AtSliceIndex(0).AtMapKey(name), check)
}

// TestIncrementalBackup takes backups of a VM whose changes are tracked, by either transport: only what
// changed is read, and every backup is complete.
func TestIncrementalBackup(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"datastore", "export"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			const capacity = 40 << 20
			w := newWorld(t, lab.VMSpec{
				Name: "db01", Disks: []string{labtest.RawDisk(t, capacity, 4)}, ChangeTracking: true,
			})
			config := func(number int, more string) string {
				return w.reading(transport) + fmt.Sprintf(`
resource "vm_backup" "b" {
  vm       = "db01"
  triggers = { number = "%d" }
%s
}
`, number, more)
			}
			write := func(offset int64, p string) func() {
				return func() {
					if err := w.lab.WriteDisk("db01", 0, offset, []byte(p)); err != nil {
						t.Fatal(err)
					}
				}
			}
			first := statecheck.CompareValue(firstIsSecond{})
			remember := func(of string) statecheck.StateCheck {
				return first.AddStateValue("vm_backup.b", tfjsonpath.New(of))
			}
			incremental := []statecheck.StateCheck{
				attribute("vm_backup.b", "incremental", knownvalue.Bool(true)),
				attribute("vm_backup.b", "transport", knownvalue.StringExact(transport)),
				diskAttribute("incremental", knownvalue.Bool(true)),
				diskAttribute("changed_bytes", knownvalue.Int64Exact(2<<20)),
			}
			w.runAs(
				resource.TestStep{Config: config(1, ""), ConfigStateChecks: []statecheck.StateCheck{
					attribute("vm_backup.b", "incremental", knownvalue.Bool(false)),
					diskAttribute("incremental", knownvalue.Bool(false)),
					diskAttribute("transport", knownvalue.StringExact(transport)),
					diskAttribute("transport_reason", knownvalue.StringExact("")),
					remember("id"),
				}},
				resource.TestStep{
					PreConfig:         write(5<<20-3, "across the border of two chunks"),
					Config:            config(2, ""),
					ConfigStateChecks: append([]statecheck.StateCheck{remember("parent_id")}, incremental...),
				},
				// How much is read is no part of a backup.
				resource.TestStep{
					Config:            config(2, "mode = \"full\"\n full_every = 0\n verify = \"sample\"\n change_tracking = \"ignore\""),
					ConfigPlanChecks:  resource.ConfigPlanChecks{PreApply: actionPlan("vm_backup.b", plancheck.ResourceActionUpdate)},
					ConfigStateChecks: incremental,
				},
				resource.TestStep{
					PreConfig: write(20<<20-1, "ab"),
					Config:    config(3, `verify = "sample"`),
					ConfigStateChecks: append([]statecheck.StateCheck{
						diskAttribute("read_bytes", knownvalue.Int64Func(func(n int64) error {
							// A stream doesn't hold what is empty, which a part of the sample may be.
							if n <= 2<<20 && transport == "datastore" {
								return fmt.Errorf("%d bytes were read: no sample", n)
							}
							return nil
						})),
					}, incremental...),
				},
				resource.TestStep{
					PreConfig: write(30<<20, "c"),
					Config:    config(4, `mode = "full"`),
					ConfigStateChecks: []statecheck.StateCheck{
						attribute("vm_backup.b", "incremental", knownvalue.Bool(false)),
						attribute("vm_backup.b", "parent_id", knownvalue.Null()),
					},
				},
				resource.TestStep{
					PreConfig: write(1<<20-1, "dd"),
					Config:    config(5, ""),
					ConfigStateChecks: append([]statecheck.StateCheck{
						diskAttribute("capacity_bytes", knownvalue.Int64Exact(capacity)),
					}, incremental...),
				},
				resource.TestStep{
					PreConfig: func() { write(2<<20, "after the backup")() },
					Config: config(5, "") + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  new_vm    = { name = "copy", identity = "copy" }
}
`,
					Check: func(*terraform.State) error {
						want := w.content("db01", 0)
						got := w.content("copy", 0)
						copy(want[2<<20:], got[2<<20:2<<20+len("after the backup")])
						if !bytes.Equal(got, want) {
							return fmt.Errorf("the restored disk isn't as it was")
						}
						labtest.AssertClean(t, w.lab)
						return nil
					},
				},
			)
		})
	}
}

// firstIsSecond compares the first two values that a check is given.
type firstIsSecond struct{}

func (firstIsSecond) CompareValues(values ...any) error {
	if len(values) == 2 && values[0] != values[1] {
		return fmt.Errorf("%v is not %v", values[1], values[0])
	}
	return nil
}

// TestChangeTracking switches change tracking on, if it is asked to.
func TestChangeTracking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := func(number int, tracking string) string {
		return w.provider() + fmt.Sprintf(`
resource "vm_backup" "b" {
  vm              = "web01"
  triggers        = { number = "%d" }
  change_tracking = %q
}

data "vm_machine" "m" {
  vm         = "web01"
  depends_on = [vm_backup.b]
}
`, number, tracking)
	}
	tracked := func(on, incremental bool) []statecheck.StateCheck {
		return []statecheck.StateCheck{
			attribute("data.vm_machine.m", "change_tracking", knownvalue.Bool(on)),
			attribute("vm_backup.b", "incremental", knownvalue.Bool(incremental)),
		}
	}
	w.runAs(
		resource.TestStep{Config: config(1, "use"), ConfigStateChecks: tracked(false, false)},
		resource.TestStep{Config: config(2, "use"), ConfigStateChecks: tracked(false, false)},
		resource.TestStep{Config: config(3, "enable"), ConfigStateChecks: tracked(true, false)},
		resource.TestStep{Config: config(4, "use"), ConfigStateChecks: tracked(true, true)},
		resource.TestStep{Config: config(5, "ignore"), ConfigStateChecks: tracked(true, false)},
		resource.TestStep{Config: config(6, "use"), ConfigStateChecks: tracked(true, true)},
	)
}
