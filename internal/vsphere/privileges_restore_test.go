package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// TestPrivileges_restore walks a restore of a virtual machine with everything that needs a privilege.
func TestPrivileges_restore(t *testing.T) {
	t.Parallel()
	b, content := richBench(t, "web 1", pvscsiAndNVMe())
	c := b.mustBackUp()
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	const store = "/DC0/datastore/LocalDS_0"
	w := &walk{
		bench: b, operator: b.newOperator(), operations: []hypervisor.Operation{toRestore, hypervisor.ToPowerOn},
		holds: []condition{ifDisks, ifNetworks, ifOriginal, ifBootOrder, ifTracking, ifVApp, ifAttributes, ifTags, ifNVRAM, ifPolicies},
		places: map[target][]string{onServer: {"/"}, onFolder: {richFolder}, onNewVM: {richFolder}, onVM: {richFolder}, onPool: {richPool},
			onDatastore: {store}, onHome: {store}, onNetwork: {"/DC0/network/VM Network", "/DC0/network/DC0_DVPG0"}},
		unneeded: []string{deleteVM}, cleansUp: []string{powerOn, browse, manageFiles},
	}
	var made *hypervisor.VM
	w.do = func(client *Client) (warnings []string, err error) {
		other := *b
		other.client, made = client, nil
		made, warnings, err = other.restore(t.Context(), c, hypervisor.RestoreSpec{
			Identity: hypervisor.IdentityOriginal, Then: []hypervisor.Operation{hypervisor.ToPowerOn},
		})
		if err == nil {
			b.sameContent("web 1", content)
			err = client.PowerOn(t.Context(), made.ID)
		}
		return warnings, err
	}
	w.reset = func() {
		if made != nil {
			must(t, b.client.DestroyVM(t.Context(), made.ID))
		}
		labtest.AssertClean(t, b.lab)
	}
	w.run(t)
	// What the resource pool hands down to the virtual machine is as good as what its folder does.
	w.places[onNewVM], w.places[onVM] = []string{richPool}, []string{richPool}
	w.allow("", "")
	_, err := w.do(w.operator)
	must(t, err)
	w.reset()
}

// A restore needs no privilege that only cleaning up after its failure does. What stays then is named.
func TestPrivileges_restoreOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	c := b.mustBackUp()
	c.config.NVRAM = nil
	const store = "/DC0/datastore/LocalDS_0"
	folder := b.vm.Path[:strings.LastIndexByte(b.vm.Path, '/')]
	w := &walk{
		bench: b, operator: b.newOperator(), operations: []hypervisor.Operation{toRestore},
		holds: []condition{ifDisks, ifNetworks, ifBootOrder, ifAttributes, ifNoNVRAM},
		places: map[target][]string{onFolder: {folder}, onNewVM: {folder}, onPool: {"/DC0/host/DC0_C0/Resources"},
			onDatastore: {store}, onHome: {store}, onNetwork: {"/DC0/network/VM Network", "/DC0/network/DC0_DVPG0"}},
	}
	held := map[string][]string{}
	for _, g := range w.grants() {
		for _, path := range w.places[g.on] {
			if g.without == "" {
				held[path] = append(held[path], g.ids...)
			}
		}
	}
	for path, ids := range held {
		if slices.Contains(ids, deleteVM) || slices.Contains(ids, manageFiles) {
			t.Fatalf("%s: %v", path, ids)
		}
		must(t, b.lab.Grant(operatorName, path, ids...))
	}
	other := *b
	other.client = w.operator
	spec := hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy"}
	vm, _, err := other.restore(t.Context(), c, spec)
	must(t, err)
	must(t, b.client.DestroyVM(t.Context(), vm.ID))

	spec.Verify = func(context.Context, hypervisor.VMID) error { return errors.New("it fails") }
	_, _, err = other.restore(t.Context(), c, spec)
	var denied *hypervisor.PermissionError
	if !errors.As(err, &denied) || denied.Privilege != deleteVM || !strings.Contains(err.Error(), makingName("run-1")) {
		t.Errorf("a failed restore that can't clean up: %v", err)
	}
	// One that is only tried is removed in any case: that is found out before.
	before := w.inventory()
	spec.Then, spec.Isolated, spec.RunID = []hypervisor.Operation{hypervisor.ToDestroy}, true, "run-2"
	var missing *hypervisor.MissingPrivilegesError
	if _, _, err = other.restore(t.Context(), c, spec); !errors.As(err, &missing) || !strings.Contains(err.Error(), deleteVM) {
		t.Errorf("a rehearsal: %v", err)
	}
	if after := w.inventory(); after != before {
		t.Errorf("there is\n%s\nand was\n%s", after, before)
	}
	_, err = b.client.CleanUpRestores(t.Context(), func(hypervisor.Unfinished) bool { return true })
	must(t, err)
	labtest.AssertClean(t, b.lab)
}

// TestPrivileges_inPlace walks a restore into a virtual machine that runs and has a snapshot.
func TestPrivileges_inPlace(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 2<<20, 1<<20)
	const store, pool = "/DC0/datastore/LocalDS_0", "/DC0/host/DC0_C0/Resources"
	folder := b.vm.Path[:strings.LastIndexByte(b.vm.Path, '/')]
	w := &walk{
		bench: b.bench, operator: b.newOperator(), operations: []hypervisor.Operation{toRestoreInPlace, hypervisor.ToPowerOn},
		holds: []condition{ifRunning, ifSnapshots, ifHardware},
		places: map[target][]string{onVM: {b.vm.Path}, onFolder: {folder}, onNewVM: {folder}, onPool: {pool}, onDatastore: {store},
			onHome: {store}, onNetwork: {"/DC0/network/VM Network"}},
	}
	// What fails only when the disks are swapped comes after the removal of the snapshots.
	w.cleansUp = []string{deleteVM, browse, powerOn, addDisk, removeDisk}
	w.unneeded = []string{manageFiles} // but to write the NVRAM, and to delete disks
	var out outcome
	run := 0
	w.do = func(client *Client) (warnings []string, err error) {
		other, in := *b.bench, *b
		other.client, in.bench = client, &other
		run++
		spec := b.spec(fmt.Sprintf("run-%d", run))
		spec.RemoveSnapshots, spec.PowerOff, spec.Hardware, spec.Then = true, true, true, []hypervisor.Operation{hypervisor.ToPowerOn}
		out, err = in.inPlace(t.Context(), spec)
		if err == nil {
			b.sameContent("after the restore", b.before)
			err = client.PowerOn(t.Context(), b.vm.ID)
		}
		return out.warnings, err
	}
	w.reset = func() {
		ctx, id := t.Context(), b.vm.ID
		left, err := b.client.InterruptedInPlace(ctx, id)
		must(t, err)
		if left != nil {
			_, out.replaced, _, err = b.recover(ctx, id)
			must(t, err)
		}
		_, err = b.client.CleanUpRestores(ctx, func(hypervisor.Unfinished) bool { return true })
		must(t, err)
		must(t, b.client.PowerOff(ctx, id))
		must(t, b.client.DeleteReplaced(ctx, id, out.replaced))
		b.removeSnapshots()
		b.changeHardware()
		must(t, b.client.PowerOn(ctx, id))
		_, err = b.client.CreateSnapshot(ctx, id, hypervisor.SnapshotSpec{Name: "s"})
		must(t, err)
		out = outcome{}
	}
	w.reset()
	w.run(t)
}

// changeHardware changes one setting of each kind.
func (b *bench) changeHardware() {
	b.Helper()
	devices, err := b.client.vm(b.vm.ID).Device(b.Context())
	must(b, err)
	spec := types.VirtualMachineConfigSpec{
		NumCPUs: 1, MemoryMB: 256, Annotation: "changed", CpuHotAddEnabled: types.NewBool(true),
		MemoryAllocation: &types.ResourceAllocationInfo{Reservation: types.NewInt64(0), Limit: types.NewInt64(512)},
	}
	for _, d := range devices {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			c := card.GetVirtualEthernetCard().Connectable
			c.StartConnected = false
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d})
		}
	}
	b.reconfigure(vmRef(b.vm.ID), spec)
}

// deny logs a user in who may do everything but an operation.
func deny(t *testing.T, l *lab.Lab, operation hypervisor.Operation) *Client {
	t.Helper()
	var all []string
	for _, list := range grants {
		for _, g := range list {
			all = append(all, g.ids...)
		}
	}
	all = slices.DeleteFunc(all, func(id string) bool {
		return slices.ContainsFunc(grants[operation], func(g grant) bool { return g.without == "" && slices.Contains(g.ids, id) })
	})
	name := strings.ReplaceAll(string(operation), " ", "-") + "@vsphere.local"
	must(t, l.AddUser(lab.UserSpec{Name: name, Password: "denied", Privileges: all}))
	config := labConfig(l)
	config.User, config.Password = name, secret.New("denied")
	return dial(t, config)
}
