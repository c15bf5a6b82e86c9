package vsphere

import (
	"bytes"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestRestore_everything reads all that the API says about a VM, backs the VM up, destroys it outright and
// restores it as the original. Nothing may differ then but what differences says.
func TestRestore_everything(t *testing.T) {
	t.Parallel()
	for name, controllers := range map[string][]types.BaseVirtualDevice{
		"PVSCSI and NVMe": pvscsiAndNVMe(), "LSI Logic SAS and SATA": lsiAndSATA(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const vmName = "web blue"
			b, content := richBench(t, vmName, controllers)
			before := b.read(t.Context(), b.vm.ID)
			c := b.mustBackUp()
			if len(c.config.Warnings) > 0 {
				t.Errorf("warnings of the capture: %q", c.config.Warnings)
			}
			labtest.AssertClean(t, b.lab)
			must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
			spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityOriginal}
			if warnings, err := b.client.CheckRestore(t.Context(), spec); err != nil || len(warnings) > 0 {
				t.Errorf("check: %q, %v", warnings, err)
			}
			restored, warnings, err := b.restore(t.Context(), c, spec)
			must(t, err)
			if len(warnings) > 0 {
				t.Errorf("warnings of the restore: %q", warnings)
			}
			if restored.Name != vmName || restored.PowerState != hypervisor.PoweredOff || restored.Path != b.vm.Path {
				t.Errorf("got %+v", restored)
			}
			after := b.read(t.Context(), restored.ID)
			for _, line := range differ(before, after, always) {
				t.Error(line)
			}
			sameToOthers(t, before, after)
			b.sameContent(vmName, content)
			b.sameNVRAM(restored, c.config.NVRAM)
			labtest.AssertClean(t, b.lab)
		})
	}
}

func (b *bench) sameNVRAM(vm *hypervisor.VM, want []byte) {
	b.Helper()
	var m mo.VirtualMachine
	must(b, b.client.properties(b.Context(), vmRef(vm.ID), []string{"config", "layoutEx"}, &m))
	got, err := b.client.readNVRAM(b.Context(), "/DC0", nvramFile(&m, m.Config))
	must(b, err)
	if len(want) == 0 || !bytes.Equal(got, want) {
		b.Errorf("NVRAM has %d bytes that differ from the %d captured", len(got), len(want))
	}
}

// status is what the lab says about a VM.
func (b *bench) status(name string) lab.VMStatus {
	b.Helper()
	for _, vm := range b.lab.Status().VMs {
		if vm.Name == name {
			return vm
		}
	}
	b.Fatalf("the lab has no VM %q", name)
	return lab.VMStatus{}
}
