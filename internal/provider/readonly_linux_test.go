package provider

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestReadOnlyRepository restores from a repository that can't be written, and doesn't back up to it.
func TestReadOnlyRepository(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skip("mounting a tmpfs needs CAP_SYS_ADMIN: run the tests as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t)
	w.setenv(envRepositoryPath, filepath.Join(dir, "backups"))
	s := w.workspace()
	s.write(w.provider() + backupConfig)
	s.must("apply", "-auto-approve")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	words := []string{"Unable to Take Backup", "repository can't be written", "Allow the user who runs Terraform to write"}
	s.write(w.provider() + backupConfig + "resource \"vm_backup\" \"other\" {\n  vm = \"web01\"\n}\n")
	s.refused(words, "apply", "-auto-approve")
	w.destroyVM("web01")
	s.write(w.provider() + restoreConfig)
	s.must("apply", "-auto-approve")
	w.setenv(envRepositoryPath, filepath.Join(dir, "others"))
	s.write(w.provider() + "resource \"vm_backup\" \"other\" {\n  vm = \"web01\"\n}\n")
	s.must("state", "rm", "vm_restore.r", "vm_backup.b")
	s.refused(words, "apply", "-auto-approve")
	labtest.AssertClean(t, w.lab)
}
