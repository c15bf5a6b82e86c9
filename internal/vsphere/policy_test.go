package vsphere

import (
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestRestore_policyRefused has the server refuse the storage policies: the VM is whole without them.
func TestRestore_policyRefused(t *testing.T) {
	t.Parallel()
	b, content := richBench(t, "web", pvscsiAndNVMe())
	before := b.read(t.Context(), b.vm.ID)
	c := b.mustBackUp()
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	// The first change of the VM completes its hardware, the second attaches policies.
	b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidState", After: 1, Count: 1})
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
	must(t, err)
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "the storage policies of the VM and its disks are not restored: ") {
		t.Errorf("warnings %q", warnings)
	}
	for _, line := range differ(before, b.read(t.Context(), vm.ID), always) {
		if !strings.HasPrefix(line, "storage policy of ") {
			t.Error(line)
		}
	}
	b.sameContent("web", content)
	labtest.AssertClean(t, b.lab)
}

// TestCapturePolicies reads policies by name, each with what it is attached to.
func TestCapturePolicies(t *testing.T) {
	t.Parallel()
	b, _ := richBench(t, "web", pvscsiAndNVMe())
	captured, err := readCapture(b.mustBackUp().config)
	must(t, err)
	if len(captured.StoragePolicies) != 2 || captured.StoragePolicies[homeKey] != "vSAN Default Storage Policy" {
		t.Errorf("policies %q", captured.StoragePolicies)
	}
	for key, name := range captured.StoragePolicies {
		if key != homeKey && (name != goldPolicy || deviceLabel(captured.devices().FindByKey(key)) != "Hard disk 2") {
			t.Errorf("policy of device %d is %q", key, name)
		}
	}
}
