package provider

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// TestGone has a VM that isn't found: what depends on it leaves the state, by a refresh or by a removal, only if
// the server itself says that it is gone.
func TestGone(t *testing.T) {
	t.Parallel()
	states := map[string]map[string]any{
		"vm_snapshot": snapshotState(map[string]any{"server": "server-1"}),
		"vm_snapshot_set": {
			"id": "5f0c3a1b9d2e4786", "server": "server-1", "name": "s", "members": []any{map[string]any{"vm": "web01"}},
			"snapshots": []any{map[string]any{"id": nobodysUUID + "/snapshot-9", "exists": true}},
		},
		"vm_restore": {
			"backup_id": "a", "on_destroy": "delete", "id": nobodysUUID, "vm_instance_uuid": nobodysUUID, "vm_id": "vm-9",
			"server": "server-1", "start_failed": false,
		},
	}
	for name, c := range map[string]struct {
		exist error
		want  string
	}{
		"gone":         {errGone, ""},
		"not visible":  {nil, "out of reach"},
		"not answered": {&hypervisor.PermissionError{Privilege: "System.Read", Object: "vm-9"}, "System.Read is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRPC(t, &fakeHypervisor{exist: c.exist}, nil)
			noErrors(t, r.configure(vsphereBlock()))
			for resource, prior := range states {
				typ := r.schema.ResourceSchemas[resource].ValueType()
				state := r.dynamic(r.value(typ, prior))
				read, err := r.server.ReadResource(t.Context(), &tfprotov6.ReadResourceRequest{TypeName: resource, CurrentState: state})
				if err != nil {
					t.Fatal(err)
				}
				expect(t, read.Diagnostics, tfprotov6.DiagnosticSeverityError, c.want)
				if left := r.undynamic(typ, read.NewState).IsNull(); left != (c.want == "") {
					t.Errorf("%s: a refresh drops it: %v", resource, left)
				}
				none := r.dynamic(tftypes.NewValue(typ, nil))
				removed, err := r.server.ApplyResourceChange(t.Context(), &tfprotov6.ApplyResourceChangeRequest{
					TypeName: resource, PriorState: state, PlannedState: none, Config: none,
				})
				if err != nil {
					t.Fatal(err)
				}
				expect(t, removed.Diagnostics, tfprotov6.DiagnosticSeverityError, c.want)
				if left := r.undynamic(typ, removed.NewState).IsNull(); left != (c.want == "") {
					t.Errorf("%s: its removal drops it: %v", resource, left)
				}
			}
		})
	}
}
