package backup_test

import (
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

// TestTake_privileges: a backup that the user may not take to its end isn't begun, and nothing is removed for it.
func TestTake_privileges(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	repo := openRepository(t)
	hv.Deny(hypervisor.ToBackUp)
	_, err := newManager(hv, repo).Take(t.Context(), backup.Request{VM: hypervisor.VMRef(vm.ID)})
	var missing *hypervisor.MissingPrivilegesError
	if !errors.As(err, &missing) || missing.Missing[0].Object != vm.Path {
		t.Errorf("got %v, want a *MissingPrivilegesError that names %s", err, vm.Path)
	}
	if n := hv.Seen(hypervisortest.BeforeOpenPointInTime) + hv.Seen(hypervisortest.BeforeRemoveSnapshot); n > 0 {
		t.Error("it was begun")
	}
	wantClean(t, hv, repo, 0)
}
