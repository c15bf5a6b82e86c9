package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// Nobody meets an isolated copy: it is connected to nothing and can't be, and has none of the labels by which others
// choose VMs. It may be tried while it is in the making.
func TestRestore_isolated(t *testing.T) {
	t.Parallel()
	b, content := richBench(t, "web", pvscsiAndNVMe())
	c := b.mustBackUp()
	b.renameAway() // no network of the captured names is there
	before := b.read(t.Context(), b.vm.ID)
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityCopy, Name: "web copy", Disconnect: true}
	var unavailable *hypervisor.NotAvailableError
	if _, err := b.client.CheckRestore(t.Context(), spec); !errors.As(err, &unavailable) || unavailable.Kind != "network" {
		t.Errorf("not isolated: %v", err)
	}
	over := errors.New("over")
	var copied reading
	spec.Isolated = true
	spec.Verify = func(ctx context.Context, vm hypervisor.VMID) error {
		must(t, b.client.PowerOn(ctx, vm))
		copied = b.read(ctx, vm)
		return over
	}
	if _, warnings, err := b.restore(t.Context(), c, spec); !errors.Is(err, over) || len(warnings) > 0 {
		t.Fatalf("%q, %v", warnings, err)
	}
	devices := map[string]bool{}
	for path, value := range copied {
		device, property, ok := strings.Cut(path, ".connectable.")
		if !ok || !slices.ContainsFunc([]string{"Vmxnet3", "E1000e", "SerialPort"}, func(kind string) bool { return strings.Contains(device, kind) }) {
			continue
		}
		devices[device] = true
		if slices.Contains([]string{"connected", "startConnected", "allowGuestControl"}, property) && value != "false" {
			t.Errorf("%s is %s", path, value)
		}
	}
	if len(devices) != 3 {
		t.Errorf("of %d devices it is known how they are connected: %v", len(devices), devices)
	}
	if copied["runtime.powerState"] != "poweredOn" || copied["tags"] != "" || copied["config.uuid"] == before["config.uuid"] {
		t.Errorf("power state %s, tags %q, UUID %s", copied["runtime.powerState"], copied["tags"], copied["config.uuid"])
	}
	for path, value := range copied {
		if strings.HasPrefix(path, "customValue[") {
			t.Errorf("%s is %s", path, value)
		}
	}
	for _, line := range differ(before, b.read(t.Context(), b.vm.ID), always) {
		t.Error("the original: " + line)
	}
	b.sameContent("web", content)
	labtest.AssertClean(t, b.lab)
}
