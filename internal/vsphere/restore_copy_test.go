package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"golang.org/x/sync/errgroup"
)

// ownProperties are those that must be a copy's own.
func ownProperties(path string) bool {
	for _, end := range []string{".macAddress", ".backing.uuid"} {
		if strings.HasPrefix(path, "config.hardware.device[") && strings.HasSuffix(path, end) {
			return true
		}
	}
	return slices.Contains([]string{"config.uuid", "config.instanceUuid", "summary.config.uuid", "summary.config.instanceUuid"}, path)
}

// TestRestore_copyOfEverything restores a copy beside the running original, whose image was deleted meanwhile.
func TestRestore_copyOfEverything(t *testing.T) {
	t.Parallel()
	for name, disconnect := range map[string]bool{"disconnected": true, "connected": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, content := richBench(t, "web", pvscsiAndNVMe())
			before := b.read(t.Context(), b.vm.ID)
			c := b.mustBackUp()
			b.remove(richISO)
			spec := hypervisor.RestoreSpec{
				Config: c.config, Identity: hypervisor.IdentityCopy, Name: "web copy", Disconnect: disconnect,
				Networks: map[string]string{"VM Network": "DC0_DVPG0"},
			}
			const lost = "CD/DVD drive 1 had the image " + richISO + ", which isn't there; it is restored as an empty drive."
			if checked, err := b.client.CheckRestore(t.Context(), spec); err != nil || !slices.Equal(checked, []string{lost}) {
				t.Errorf("check: %q, %v", checked, err)
			}
			vm, warnings, err := b.restore(t.Context(), c, spec)
			must(t, err)
			if !slices.Equal(warnings, []string{lost}) {
				t.Errorf("warnings %q", warnings)
			}
			after := b.read(t.Context(), vm.ID)
			for _, line := range differ(before, after, always, asked, copied) {
				mapped := strings.HasPrefix(line, "config.hardware.device[VirtualVmxnet3@VirtualPCIController0:7].backing.")
				if !mapped && !strings.HasPrefix(line, "config.hardware.device[VirtualCdrom@") && !strings.HasPrefix(line, "path:") &&
					!strings.HasPrefix(line, "order of adapters:") {
					t.Error(line)
				}
			}
			own := 0
			for path := range before {
				if !ownProperties(path) {
					continue
				}
				own++
				if strings.EqualFold(before[path], after[path]) || after[path] == "" {
					t.Errorf("%s is the original's, %q", path, after[path])
				}
			}
			if own != 9 { // four UUIDs of the VM, three of disks, two addresses
				t.Errorf("%d properties are a copy's own", own)
			}
			for path, value := range after {
				if !disconnect || !strings.HasSuffix(path, ".connectable.startConnected") {
					continue
				}
				if strings.Contains(path, "Vmxnet3") || strings.Contains(path, "E1000e") {
					t.Errorf("%s is %s", path, value)
				}
			}
			const adapter = "config.hardware.device[VirtualVmxnet3@VirtualPCIController0:7]"
			if key := after[adapter+".backing.port.portgroupKey"]; key == "" {
				t.Error("the first adapter is not on the network that it is mapped to")
			}
			if start := after[adapter+".connectable.startConnected"]; !disconnect && start != "true" {
				t.Errorf("the first adapter connects at power-on: %q", start)
			}
			b.sameContent("web copy", content)
			b.sameContent("web", content)
			b.sameNVRAM(vm, c.config.NVRAM)
			labtest.AssertClean(t, b.lab)
		})
	}
}

// remove deletes a file of a datastore.
func (b *bench) remove(file string) {
	b.Helper()
	task, err := object.NewFileManager(b.client.vim).DeleteDatastoreFile(
		b.Context(), file, object.NewDatacenter(b.client.vim, b.path("/DC0")))
	must(b, err)
	_, err = b.client.waitTask(b.Context(), task)
	must(b, err)
}

// TestRestore_addressTaken has other VMs take the addresses that the original comes back with.
func TestRestore_addressTaken(t *testing.T) {
	t.Parallel()
	b, _ := richBench(t, "web", pvscsiAndNVMe())
	before := b.read(t.Context(), b.vm.ID)
	c := b.mustBackUp()
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	const manual, assigned = richMAC, "00:50:56:81:02:04"
	b.addWithAddress("thief", manual)
	b.addWithAddress("other", assigned)
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityOriginal}
	want := []string{
		"the MAC address " + manual + " of Network adapter 1 is in use by /DC0/vm/lab/thief; don't connect both to one network.",
		"the MAC address " + assigned + " of Network adapter 2 is in use by /DC0/vm/lab/other; don't connect both to one network.",
	}
	checked, err := b.client.CheckRestore(t.Context(), spec)
	slices.Sort(checked)
	if err != nil || !slices.Equal(checked, want) {
		t.Errorf("check: %q, %v, want %q", checked, err, want)
	}
	vm, warnings, err := b.restore(t.Context(), c, spec)
	must(t, err)
	after := b.read(t.Context(), vm.ID)
	for _, line := range differ(before, after, always) {
		if !strings.Contains(line, "VirtualE1000e") && !strings.HasPrefix(line, "order of adapters") {
			t.Error(line)
		}
	}
	// The server gives out another address instead of one of its own that is taken: that must be said, too.
	if !slices.ContainsFunc(warnings, func(w string) bool {
		return strings.Contains(w, "VirtualE1000e") && strings.Contains(w, "instead of "+assigned)
	}) {
		t.Errorf("warnings %q", warnings)
	}
	// A copy has addresses of its own, and nothing to warn of.
	spec.Identity, spec.Name = hypervisor.IdentityCopy, "copy"
	if checked, err := b.client.CheckRestore(t.Context(), spec); err != nil || len(checked) > 0 {
		t.Errorf("check of a copy: %q, %v", checked, err)
	}
}

// addWithAddress adds a VM to the lab that has a MAC address set by hand.
func (b *bench) addWithAddress(name, mac string) {
	b.Helper()
	must(b, b.lab.AddVM(b.Context(), lab.VMSpec{Name: name, PoweredOff: true}))
	vm := object.NewVirtualMachine(b.client.vim, b.path("/DC0/vm/lab/"+name))
	devices, err := vm.Device(b.Context())
	must(b, err)
	for _, d := range devices {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			card.GetVirtualEthernetCard().MacAddress, card.GetVirtualEthernetCard().AddressType = strings.ToUpper(mac), "manual"
			must(b, vm.EditDevice(b.Context(), d))
		}
	}
}

// TestRestore_manyCopies builds ten copies of one backup at the same time.
func TestRestore_manyCopies(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20, 2<<20)
	c := b.mustBackUp()
	const copies = 10
	vms := make([]*hypervisor.VM, copies)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range copies {
		group.Go(func() error {
			vm, warnings, err := b.restore(ctx, c, hypervisor.RestoreSpec{
				Identity: hypervisor.IdentityCopy, Name: fmt.Sprintf("copy-%d", i), Disconnect: true, RunID: fmt.Sprintf("run-%d", i)})
			if err == nil && len(warnings) > 0 {
				err = fmt.Errorf("copy %d: warnings %q", i, warnings)
			}
			vms[i] = vm
			return err
		})
	}
	must(t, group.Wait())
	seen := map[string]string{}
	claim := func(owner, what string) {
		if other := seen[what]; other != "" || what == "" {
			t.Errorf("%s and %s have the same %q", other, owner, what)
		}
		seen[what] = owner
	}
	for _, vm := range append([]*hypervisor.VM{b.vm}, vms...) {
		claim(vm.Name, vm.BIOSUUID)
		claim(vm.Name, vm.InstanceUUID)
		for _, d := range vm.Disks {
			claim(vm.Name, d.UUID)
			claim(vm.Name, d.Path)
		}
		for i, raw := range b.raw {
			b.sameBytes(vm.Name, i, raw)
		}
		for _, nic := range b.status(vm.Name).NICs {
			claim(vm.Name, nic.MAC)
		}
	}
	labtest.AssertClean(t, b.lab)
}

// TestRestore_manyVMs backs ten VMs up, destroys them all and restores them at the same time.
func TestRestore_manyVMs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const count = 10
	var before []reading
	backups := make([]*copyOfVM, count)
	raw := make([]string, count)
	for i := range count {
		name := fmt.Sprintf("tier-%d", i)
		raw[i] = labtest.RawDisk(t, 3<<20, uint64(i)+100)
		must(t, b.lab.AddVM(t.Context(), lab.VMSpec{Name: name, Disks: []string{raw[i]}}))
		vm, err := b.client.FindVM(t.Context(), hypervisor.VMRef(name))
		must(t, err)
		b.vm = vm
		backups[i] = b.mustBackUp()
		before = append(before, b.read(t.Context(), vm.ID))
		must(t, b.client.DestroyVM(t.Context(), vm.ID))
	}
	vms := make([]*hypervisor.VM, count)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range count {
		group.Go(func() error {
			vm, warnings, err := b.restore(ctx, backups[i], hypervisor.RestoreSpec{
				Identity: hypervisor.IdentityOriginal, RunID: fmt.Sprintf("run-%d", i)})
			if err == nil && len(warnings) > 0 {
				err = fmt.Errorf("VM %d: warnings %q", i, warnings)
			}
			vms[i] = vm
			return err
		})
	}
	must(t, group.Wait())
	for i, vm := range vms {
		for _, line := range differ(before[i], b.read(t.Context(), vm.ID), always) {
			t.Errorf("%s: %s", vm.Name, line)
		}
		b.sameBytes(vm.Name, 0, raw[i])
	}
	labtest.AssertClean(t, b.lab)
}
