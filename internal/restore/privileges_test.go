package restore_test

import (
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// TestRestore_privileges: a restore whose VM the user may not start, or not read back, isn't begun.
func TestRestore_privileges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit    func(r *restore.Request)
		lacks   hypervisor.Operation
		allowed bool
	}{
		"start":                 {lacks: hypervisor.ToPowerOn},
		"read back":             {lacks: hypervisor.ToBackUp, edit: func(r *restore.Request) { r.Verify = true }},
		"no need to start":      {lacks: hypervisor.ToPowerOn, edit: func(r *restore.Request) { r.Power = restore.PowerOff }, allowed: true},
		"no need to read back":  {lacks: hypervisor.ToBackUp, allowed: true},
		"no need of a snapshot": {lacks: hypervisor.ToSnapshot, allowed: true},
	} {
		for where, begun := range map[string]hypervisortest.Point{
			"new": hypervisortest.DuringStartRestore, "in place": hypervisortest.DuringStartInPlace,
		} {
			t.Run(name+"/"+where, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				r := restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Name: "copy", Identity: hypervisor.IdentityCopy}}
				if where == "in place" {
					r = s.inPlace()
				}
				if c.edit != nil {
					c.edit(&r)
				}
				s.hv.Deny(c.lacks)
				_, err := s.m.Restore(t.Context(), r)
				var missing *hypervisor.MissingPrivilegesError
				switch {
				case c.allowed && err != nil:
					t.Error(err)
				case !c.allowed && !errors.As(err, &missing):
					t.Errorf("got %v, want a *MissingPrivilegesError", err)
				case !c.allowed && s.hv.Seen(begun) > 0:
					t.Error("it was begun")
				case !c.allowed:
					s.wantTidy(t)
				}
			})
		}
	}
}
