package vsphere

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// permissionsGuide is the page with the table of all grants.
const permissionsGuide = "../../templates/guides/permissions.md"

// guideOperations are the operations in the order of the guide.
var guideOperations = []hypervisor.Operation{
	hypervisor.ToSnapshot, hypervisor.ToRenameSnapshot, hypervisor.ToRemoveSnapshot, hypervisor.ToRevert, hypervisor.ToConsolidate,
	hypervisor.ToPowerOn, hypervisor.ToPowerOff, hypervisor.ToScreenshot, hypervisor.ToBackUp,
	toRestore, toRestoreInPlace, toDeleteReplaced, hypervisor.ToDestroy,
}

// guideTable is the guide's table of grants.
func guideTable() string {
	var b strings.Builder
	b.WriteString("| to | on the | privileges | needed | without them |\n| --- | --- | --- | --- | --- |\n")
	for _, operation := range guideOperations {
		for i, g := range grants[operation] {
			title, when, without := string(operation), string(g.when), g.without
			if i > 0 {
				title = ""
			}
			if when == "" {
				when = "always"
			}
			if without == "" {
				without = "the operation is refused"
			}
			fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s |\n", title, g.on, strings.Join(g.ids, "`, `"), when, without)
		}
	}
	return b.String()
}

// TestPermissionsGuide compares the guide with the table that the pre-flight uses.
func TestPermissionsGuide(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(permissionsGuide)
	if err != nil {
		t.Fatal(err)
	}
	if want := guideTable(); !strings.Contains(string(page), "\n"+want+"\n") {
		t.Errorf("%s has another table; it should be\n%s\nCorrect it, and run make generate", permissionsGuide, want)
	}
	if len(guideOperations) != len(grants) {
		t.Errorf("the guide has %d operations of %d", len(guideOperations), len(grants))
	}
}
