package provider

import (
	"regexp"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestSnapshotDataSource finds one of three snapshots, two of which have the same name.
func TestSnapshotDataSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "none"})
	web01 := w.vm("web01")
	var ids []string
	for _, name := range []string{"base", "twin", "twin"} {
		id, err := w.client().CreateSnapshot(t.Context(), hypervisor.VMID(web01.ID), hypervisor.SnapshotSpec{Name: name, Description: "by hand"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(id))
	}
	config := func(vm, more string) string {
		return "data \"vm_snapshot\" \"s\" {\n  vm = \"" + vm + "\"\n  " + more + "\n}\n"
	}
	is := func(want string) []statecheck.StateCheck {
		return []statecheck.StateCheck{
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("id"), knownvalue.StringExact(web01.InstanceUUID+"/"+want)),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("description"), knownvalue.StringExact("by hand")),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("vm_uuid"), knownvalue.StringExact(web01.BIOSUUID)),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("consistency"), knownvalue.StringExact("crash")),
		}
	}
	w.run(
		resource.TestStep{Config: config("web01", `name = "base"`), ConfigStateChecks: is(ids[0])},
		resource.TestStep{Config: config(w.path("web01"), `path = "base/twin"`), ConfigStateChecks: append(is(ids[1]),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("parent_id"), knownvalue.StringExact(web01.InstanceUUID+"/"+ids[0])),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("chain_depth"), knownvalue.Int64Exact(2)),
			statecheck.ExpectKnownValue("data.vm_snapshot.s", tfjsonpath.New("is_current"), knownvalue.Bool(false)),
		)},
		resource.TestStep{Config: config("web01", `id = "`+ids[1]+`"`), ConfigStateChecks: is(ids[1])},
		resource.TestStep{Config: config("web01", `id = "`+web01.InstanceUUID+"/"+ids[0]+`"`), ConfigStateChecks: is(ids[0])},
		resource.TestStep{Config: config("web01", "name = \"twin\"\n  newest = true"), ConfigStateChecks: is(ids[2])},
		resource.TestStep{Config: config("web01", "newest = true"), ConfigStateChecks: is(ids[2])},
		resource.TestStep{
			Config: config("web01", `name = "twin"`),
			ExpectError: regexp.MustCompile(`(?s)Unable to Find Snapshot.*2\s+snapshots\s+of\s+` + w.path("web01") + `\s+match.*` +
				ids[1] + `.*` + ids[2] + `.*newest = true`),
		},
		resource.TestStep{
			Config:      config("web01", "name = \"base\"\n  path = \"base/twin\""),
			ExpectError: regexp.MustCompile(`(?s)No\s+snapshot.*matches.*There\s+is:.*` + ids[0] + `.*` + ids[1] + `.*` + ids[2]),
		},
		resource.TestStep{Config: config("none", `newest = true`), ExpectError: regexp.MustCompile(w.path("none") + `\s+has\s+no\s+snapshots\s+at\s+all`)},
		resource.TestStep{Config: config("web99", `newest = true`), ExpectError: regexp.MustCompile(`no\s+virtual\s+machine\s+"web99"`)},
	)
}
