package provider

import (
	"fmt"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestRefreshCalls counts what a refresh asks of the server: that doesn't grow with the number of resources.
func TestRefreshCalls(t *testing.T) {
	t.Parallel()
	const vms, snapshots = 60, 120
	var more []lab.VMSpec
	for i := range vms {
		more = append(more, lab.VMSpec{Name: fmt.Sprintf("vm%d", i)})
	}
	w := newWorld(t, more...)
	s := w.workspace()
	s.write(w.provider() + fmt.Sprintf(`
resource "vm_snapshot" "s" {
  count = %d
  vm    = "vm${count.index %% %d}"
  name  = "s${count.index}"
}
`, snapshots, vms))
	s.must("apply", "-auto-approve")
	before := w.lab.Calls()
	if out := s.must("plan"); !strings.Contains(out, "No changes") {
		t.Errorf("the second plan isn't empty:\n%s", out)
	}
	sum := 0
	var calls []string
	for method, n := range w.lab.Calls() {
		if n -= before[method]; n > 0 {
			sum += n
			calls = append(calls, fmt.Sprintf("%s %d", method, n))
		}
	}
	// However many there are.
	if sum > 20 {
		t.Errorf("%d calls to refresh %d snapshots: %s", sum, snapshots, strings.Join(calls, ", "))
	}
	t.Logf("%d calls to refresh %d snapshots: %s", sum, snapshots, strings.Join(calls, ", "))
}
