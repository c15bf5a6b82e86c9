package provider

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// everythingConfig takes a snapshot and a backup of a virtual machine, and restores a copy of it that is read back.
const everythingConfig = snapshotConfig + `
resource "vm_backup" "b" {
  vm         = "web01"
  depends_on = [vm_snapshot.s]
}
resource "vm_restore" "copy" {
  backup_id = vm_backup.b.id
  verify    = true
  new_vm = {
    name     = "web01-copy"
    identity = "copy"
  }
}
`

// story is what a log of the operations in everythingConfig tells, in this order: the beginning of each line, and the
// fields that it has.
var story = []struct{ line, fields string }{
	{"logged in", "server user"},
	{"the user has all privileges for it", ""},
	{"task ended", "operation duration"},
	{"snapshot taken", "vm snapshot id consistency duration"},
	{"repository opened", "id duration"},
	{"taking a temporary snapshot", "vm snapshot"},
	{"the point in time is open", "quiesced disks duration"},
	{"lease opened", "items"},
	{"disk copied", "disk capacity_bytes transport transport_reason read_bytes data_bytes stored_bytes duration"},
	{"committing the backup", "vm"},
	{"backup taken", "id read_bytes stored_bytes duration"},
	{"lease ended", ""},
	{"the temporary snapshot is removed", "duration"},
	{"creating the VM", "vm backup"},
	{"the VM is created", "id duration"},
	{"disk written", "disk capacity_bytes written_bytes duration"},
	{"all disks are written", "vm"},
	{"reading the restored disks back", "vm"},
	{"VM restored", "vm backup duration"},
	{"VM started", "vm duration"},
	{"snapshot removed", "vm id duration"},
}

// provided are the lines of a log that the provider wrote itself.
var provided = regexp.MustCompile(`(?m)^\S+ \[(?:DEBUG|INFO|WARN|ERROR)\] +provider\S*: (.*@module=vm .*)$`)

// TestLog does everything with a log at its most talkative and distinctive secrets everywhere. None of them is in
// anything that a person gets to see or keeps, nor in the arguments of a process, and the log tells the story.
func TestLog(t *testing.T) {
	t.Parallel()
	w, _ := newS3World(t)
	s := w.workspace()
	s.write(w.in(inS3) + everythingConfig)
	var mu sync.Mutex
	arguments := ""
	w.lab.OnCall("ExportSnapshot", func(context.Context) {
		mu.Lock()
		defer mu.Unlock()
		arguments += processArguments(t)
	})
	trace := filepath.Join(s.dir, "trace.log")
	for name, value := range map[string]string{"TF_LOG": "TRACE", "TF_LOG_PATH": trace} {
		w.setenv(name, value)
	}
	shown := s.must("plan", "-out=saved")
	shown += s.must("show", "-json", "saved")
	shown += s.must("apply", "saved")
	shown += s.must("show", "-json")
	state := readFile(t, filepath.Join(s.dir, "terraform.tfstate"))
	shown += s.must("destroy", "-auto-approve")
	password := w.lab.Password()
	wrong := "wrong-" + password
	w.setenv(envPassword, wrong)
	out, err := s.run("plan")
	if err == nil {
		t.Error("a wrong password is accepted")
	}
	if !strings.Contains(out, "Check vsphere.user and vsphere.password (VSPHERE_USER, VSPHERE_PASSWORD).") {
		t.Errorf("a wrong password gives:\n%s", out)
	}
	log := readFile(t, trace)
	mu.Lock()
	defer mu.Unlock()
	seen := map[string]string{
		"output": shown + out, "log": log, "state": state, "process arguments": arguments,
		"saved plan": readFile(t, filepath.Join(s.dir, "saved")), "backup of the state": readFile(t, filepath.Join(s.dir, "terraform.tfstate.backup")),
	}
	if len(arguments) == 0 {
		t.Error("no process was seen")
	}
	handed := w.lab.Secrets()
	if len(handed) < 4 { // sessions with two APIs, and the tickets of two leases
		t.Errorf("the lab gave out only %d secrets", len(handed))
	}
	secrets := append(handed, password, wrong, repositoryPassword, storagetest.S3SecretKey)
	for where, text := range seen {
		for i, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("secret %d of %d is in the %s: …%s…", i, len(secrets), where, text[max(0, at-200):at])
			}
		}
	}
	var lines []string
	for _, match := range provided.FindAllStringSubmatch(log, -1) {
		lines = append(lines, match[1])
	}
	tells(t, lines)
}

// tells checks that a log tells the story.
func tells(t *testing.T, lines []string) {
	t.Helper()
	from := 0
	for _, event := range story {
		at := slices.IndexFunc(lines[from:], func(line string) bool { return strings.HasPrefix(line, event.line) })
		if at < 0 {
			t.Errorf("the log doesn't tell %q in its place:\n%s", event.line, strings.Join(lines[from:], "\n"))
			return
		}
		line := lines[from+at]
		for _, field := range strings.Fields(event.fields) {
			if !strings.Contains(line, " "+field+"=") {
				t.Errorf("%q has no %s: %s", event.line, field, line)
			}
			if strings.HasSuffix(field, "_bytes") && !regexp.MustCompile(" "+field+"=[0-9]+ ").MatchString(line) {
				t.Errorf("%q has %s in a form that nobody can read: %s", event.line, field, line)
			}
		}
		from += at + 1
	}
}

// processArguments are the arguments of all processes that this test's user can see.
func processArguments(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		return fmt.Sprint("no /proc here: ", err)
	}
	var all strings.Builder
	for _, file := range files {
		if p, err := os.ReadFile(file); err == nil { // one that has ended has none
			all.Write(p)
			all.WriteByte('\n')
		}
	}
	return all.String()
}
