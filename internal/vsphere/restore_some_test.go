package vsphere

import (
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestRestore_someDisks restores one of three disks into a new VM. The VM boots from one that it doesn't get.
func TestRestore_someDisks(t *testing.T) {
	t.Parallel()
	b, content := richBench(t, "web", pvscsiAndNVMe())
	before := b.read(t.Context(), b.vm.ID)
	c := b.mustBackUp()
	all := c.config.Summary.Disks
	const unbootable = "Hard disk 3 is left out of the boot order: the restored VM doesn't have it."
	spec := hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityCopy, Name: "part", Disks: []hypervisor.DiskKey{all[1].Key}}
	if warnings, err := b.client.CheckRestore(t.Context(), spec); err != nil || !slices.Equal(warnings, []string{unbootable}) {
		t.Errorf("check of a copy: %q, %v", warnings, err)
	}
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	spec.Identity, spec.Name = hypervisor.IdentityOriginal, ""
	part := *c
	part.disks = map[hypervisor.DiskKey]*memoryDisk{all[1].Key: c.disks[all[1].Key]}
	vm, warnings, err := b.restore(t.Context(), &part, spec)
	must(t, err)
	const without = " is not among the disks to restore: the VM comes back as the original without it."
	if want := []string{"Hard disk 1" + without, "Hard disk 3" + without, unbootable}; !slices.Equal(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
	if len(vm.Disks) != 1 || vm.Disks[0].Address != all[1].Address || vm.Disks[0].UUID != all[1].UUID {
		t.Errorf("disks %+v", vm.Disks)
	}
	after := b.read(t.Context(), vm.ID)
	for _, line := range differ(before, after, always) {
		if !strings.HasPrefix(line, "config.hardware.device[VirtualDisk@ParaVirtualSCSIController1:0]") &&
			!strings.HasPrefix(line, "config.hardware.device[VirtualDisk@VirtualNVMEController2:1]") &&
			!strings.HasPrefix(line, "config.bootOptions.bootOrder[") && !strings.HasPrefix(line, "order of disks:") &&
			!strings.HasPrefix(line, "summary.config.numVirtualDisks:") {
			t.Error(line)
		}
	}
	const nic, cd = "VirtualE1000e@VirtualPCIController0:8", "VirtualMachineBootOptionsBootableCdromDevice"
	first, second := after["config.bootOptions.bootOrder[0]"], after["config.bootOptions.bootOrder[1]._typeName"]
	if first != nic || second != cd || after["config.bootOptions.bootOrder[2]"] != "" {
		t.Errorf("boots from %q, then %q", first, second)
	}
	b.sameContent("web", content[1:2])
	labtest.AssertClean(t, b.lab)
}
