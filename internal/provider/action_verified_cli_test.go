package provider

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

const verifiedActions = `
resource "vm_backup" "web01" {
  vm = "web01"
  lifecycle {
    action_trigger {
      events  = [after_create]
      actions = [action.vm_backup_verify.web01, action.vm_restore_test.web01]
    }
  }
}
action "vm_backup_verify" "web01" {
  config {
    backup_id = vm_backup.web01.id
  }
}
action "vm_restore_test" "web01" {
  config {
    backup_id       = vm_backup.web01.id
    screenshot_file = "web01.png"
  }
}
`

// TestActionsVerifyWithCLI verifies a backup and tries it out in the very apply that takes it, and looks at its health
// afterwards.
func TestActionsVerifyWithCLI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := w.content("web01", 0)
	s := w.workspace()
	s.needs("1.14.0", "actions", false)
	w.lab.SetGuestBoot(copies, lab.GuestComesUp)
	s.write(w.provider() + verifiedActions)
	out := s.must("apply", "-auto-approve")
	for _, want := range []string{"as it was backed up (", "can be restored: ", "Actions: 2 invoked"} {
		if !strings.Contains(out, want) {
			t.Errorf("the apply doesn't say %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "web01.png")); err != nil {
		t.Error(err)
	}
	w.wantOnly(content)
	s.write(w.provider() + verifiedActions + `
data "vm_backup_health" "web01" {
  vm               = "web01"
  max_age          = "1h"
  min_verification = "restore"
}
check "web01" {
  assert {
    condition     = data.vm_backup_health.web01.ok
    error_message = data.vm_backup_health.web01.reason
  }
}
`)
	if out := s.must("plan", "-detailed-exitcode"); strings.Contains(out, "assertion failed") {
		t.Errorf("the plan says:\n%s", out)
	}
}

// TestActionRestoreTestSignalled kills the provider while the copy runs, and the next test removes the copy. And it
// interrupts one, as Ctrl-C does: that removes its copy itself.
func TestActionRestoreTestSignalled(t *testing.T) {
	t.Parallel()
	const method, invoke = "CreateScreenshot_Task", "-invoke=action.vm_restore_test.web01"
	w := newWorld(t)
	content := w.content("web01", 0)
	w.takeBackup("web01")
	s := w.workspace()
	s.needs("1.14.0", "actions", false)
	w.lab.SetGuestBoot(copies, lab.GuestComesUp)
	s.write(w.provider() + `
action "vm_restore_test" "web01" {
  config {
    vm              = "web01"
    screenshot_file = "web01.png"
  }
}
`)
	for name, c := range map[string]struct {
		fault lab.Fault
		end   func() string
	}{
		"killed":      {lab.Fault{Method: method, Fault: "hang"}, func() string { return s.signal(method, s.killProvider, false, invoke) }},
		"interrupted": {lab.Fault{Method: method, Delay: 5 * time.Second}, func() string { return s.interrupt(method, invoke) }},
	} {
		w.lab.Fault(c.fault)
		out := c.end()
		left := len(w.lab.Status().VMs) - 1
		if strings.Contains(out, "can be restored: ") || name == "killed" && left != 1 || name == "interrupted" && left != 0 {
			t.Errorf("%s: %d copies are left:\n%s", name, left, out)
		}
		if next := s.must("apply", "-auto-approve", invoke); !strings.Contains(next, "can be restored: ") {
			t.Errorf("%s: the next one says:\n%s", name, next)
		}
		w.wantOnly(content)
	}
}
