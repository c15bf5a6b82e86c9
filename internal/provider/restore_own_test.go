package provider

import (
	"errors"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A disk of which the server says neither UUID nor path is not taken for a restored one of which it said one of them.
func TestCheckDisks_nameless(t *testing.T) {
	t.Parallel()
	values := map[string]attr.Value{}
	for name, kind := range restoreDiskTypes {
		if kind == types.Int64Type {
			values[name] = types.Int64Value(1)
			continue
		}
		values[name] = types.StringValue("")
	}
	values["path"] = types.StringValue("[ds] web/web.vmdk")
	disk, diags := types.ObjectValue(restoreDiskTypes, values)
	if diags.HasError() {
		t.Fatal(diags)
	}
	m := &restoreModel{Disks: types.ListValueMust(types.ObjectType{AttrTypes: restoreDiskTypes}, []attr.Value{disk})}
	own := hypervisor.Disk{Label: "Hard disk 1", Path: "[ds] web/web.vmdk"}
	if err := m.checkDisks(&hypervisor.VM{Disks: []hypervisor.Disk{own}}); err != nil {
		t.Errorf("its own disk: %v", err)
	}
	nameless := hypervisor.Disk{Label: "Hard disk 2"}
	if err := m.checkDisks(&hypervisor.VM{Disks: []hypervisor.Disk{own, nameless}}); !errors.Is(err, errOtherDisks) {
		t.Errorf("a disk that says nothing of itself: %v", err)
	}
}
