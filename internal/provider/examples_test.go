package provider

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// TestExamples applies every example of the documentation as it is written, with the provider
// configured from the environment.
func TestExamples(t *testing.T) {
	t.Parallel()
	const root = "../../examples"
	files, err := filepath.Glob(filepath.Join(root, "*", "*", "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Glob(filepath.Join(root, "*", "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, top...)
	if len(files) < 10 {
		t.Fatalf("only %d examples in %s", len(files), root)
	}
	for _, file := range files {
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(filepath.ToSlash(name), "guides/") {
			continue // TestGuides follows the guides
		}
		if strings.HasPrefix(filepath.ToSlash(name), "actions/") {
			continue // TestActionExamples invokes them
		}
		t.Run(filepath.ToSlash(name), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tiers()...)
			w.setenv(envAllowUnverifiedSSL, "true")
			s := w.workspace()
			if strings.Contains(name, "identity") {
				s.needs("1.12.0", "import by identity", true)
			}
			config := readFile(t, file)
			switch filepath.ToSlash(name) {
			case "resources/vm_snapshot/import-by-string-id.tf", "resources/vm_snapshot/import-by-identity.tf",
				"data-sources/vm_snapshot/data-source.tf":
				id, err := w.client().CreateSnapshot(t.Context(), hypervisor.VMID(w.vm("web01").ID), hypervisor.SnapshotSpec{
					Name: "before upgrade", Quiesce: &hypervisor.Quiesce{},
				})
				if err != nil {
					t.Fatal(err)
				}
				config = strings.ReplaceAll(config, "snapshot-12", string(id))
				config = strings.ReplaceAll(config, web01Instance, w.vm("web01").InstanceUUID)
				if strings.HasPrefix(name, "resources") {
					config += readFile(t, filepath.Join(filepath.Dir(file), "resource.tf"))
				}
			case "resources/vm_snapshot_set/import-by-string-id.tf", "resources/vm_snapshot_set/import-by-identity.tf":
				example, id := forget(t, s, filepath.Join(filepath.Dir(file), "resource.tf"), "vm_snapshot_set.before_upgrade", "id")
				config = strings.ReplaceAll(config, "5f0c3a1b9d2e4786", id) + example
			case "resources/vm_restore/import-by-string-id.tf", "resources/vm_restore/import-by-identity.tf":
				example, id := forget(t, s, filepath.Join(filepath.Dir(file), "resource.tf"), "vm_restore.rehearsal", "backup_id")
				config = strings.ReplaceAll(config, "61a9e2d1bf3f6c5b0f1a7c9f4e1d2c3b", id) + example
				config = strings.ReplaceAll(config, web01Instance, w.vm("web01-rehearsal").InstanceUUID)
			case "resources/vm_backup/import-by-string-id.tf", "resources/vm_backup/import-by-identity.tf":
				id := exampleBackup(t, s)
				config = regexp.MustCompile(`[0-9a-f]{32}`).ReplaceAllLiteralString(config, id)
				config += readFile(t, filepath.Join(filepath.Dir(file), "resource.tf"))
			case "data-sources/vm_backup/data-source.tf", "data-sources/vm_backups/data-source.tf", "data-sources/vm_backup_retention/data-source.tf",
				"data-sources/vm_backup_health/data-source.tf":
				exampleBackup(t, s)
			}
			s.write(config)
			out := s.must("apply", "-auto-approve")
			if strings.Contains(name, "import") && !strings.Contains(out, "1 imported, 0 added") {
				t.Errorf("nothing was imported:\n%s", out)
			}
			if out := s.must("plan", "-detailed-exitcode"); !strings.Contains(out, "No changes") {
				t.Errorf("the second plan isn't empty:\n%s", out)
			}
			if strings.Contains(config, `variable "revert"`) {
				s.must("apply", "-auto-approve", "-var=revert=true")
				if out := s.must("plan", "-detailed-exitcode", "-var=revert=true"); !strings.Contains(out, "No changes") {
					t.Errorf("the plan after the revert isn't empty:\n%s", out)
				}
			}
			s.must("destroy", "-auto-approve")
		})
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	p, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// forget applies an example and forgets a resource of it, so that what it made is there and in no state. It returns
// the example, and an attribute of the resource.
func forget(t *testing.T, s *workspace, file, address, attribute string) (config, value string) {
	t.Helper()
	config = readFile(t, file)
	s.write(config + "output \"attribute\" {\n  value = " + address + "." + attribute + "\n}\n")
	s.must("apply", "-auto-approve")
	value = s.must("output", "-raw", "attribute")
	s.must("state", "rm", address)
	return config, value
}

// exampleBackup takes the backup of the example for vm_backup and forgets it, so that it is only in the
// repository. It returns its ID.
func exampleBackup(t *testing.T, s *workspace) string {
	t.Helper()
	s.write(readFile(t, "../../examples/resources/vm_backup/resource.tf") + "output \"id\" {\n  value = vm_backup.web01.id\n}\n")
	s.must("apply", "-auto-approve")
	id := regexp.MustCompile(`[0-9a-f]{32}`).FindString(s.must("output", "-raw", "id"))
	s.must("destroy", "-auto-approve")
	return id
}
