package vsphere

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func TestCheckRestore_refuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20, 4<<20)
	c := b.mustBackUp()
	first := c.config.Summary.Disks[0].Key
	ctx := t.Context()

	notAvailable := func(kind, name, lists string) func(error) bool {
		return func(err error) bool {
			var e *hypervisor.NotAvailableError
			return errors.As(err, &e) && e.Kind == kind && e.Name == name && slices.Contains(e.Available, lists)
		}
	}
	// change rewrites the captured configuration.
	change := func(fn func(*capture)) hypervisor.Config {
		captured, err := readCapture(c.config)
		if err != nil {
			t.Fatal(err)
		}
		fn(captured)
		if captured.Config, err = encodeConfig(captured.config); err != nil {
			t.Fatal(err)
		}
		config := c.config
		if config.Data, err = captured.encode(); err != nil {
			t.Fatal(err)
		}
		return config
	}
	for _, test := range []struct {
		name string
		spec hypervisor.RestoreSpec
		ok   func(error) bool
	}{
		{"BIOS UUID in use", hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal, Name: "other"}, func(err error) bool {
			var e *hypervisor.IdentityInUseError
			return errors.As(err, &e) && e.Kind == "BIOS UUID" && e.Value == b.vm.BIOSUUID && e.VM == b.vm.Path
		}},
		{"instance UUID in use", hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal, Name: "other",
			Config: change(func(c *capture) { c.config.Uuid = "00000000-0000-4000-8000-000000000000" })}, func(err error) bool {
			var e *hypervisor.IdentityInUseError
			return errors.As(err, &e) && e.Kind == "instance UUID" && e.VM == b.vm.Path
		}},
		{"name in use", hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy}, func(err error) bool {
			var e *hypervisor.NameInUseError
			return errors.As(err, &e) && e.Name == benchVM && e.Folder == "/DC0/vm/lab"
		}},
		{"folder", hypervisor.RestoreSpec{Folder: "nowhere"}, notAvailable("folder", "nowhere", "/DC0/vm/lab")},
		{"folder of hosts", hypervisor.RestoreSpec{Folder: "/DC0/host"}, notAvailable("folder", "/DC0/host", "/DC0/vm")},
		{"resource pool", hypervisor.RestoreSpec{ResourcePool: "nowhere"},
			notAvailable("resource pool", "nowhere", "/DC0/host/DC0_C0/Resources")},
		{"ambiguous resource pool", hypervisor.RestoreSpec{ResourcePool: "Resources"}, func(err error) bool {
			return strings.Contains(err.Error(), "ambiguous") && strings.Contains(err.Error(), "/DC0/host/DC0_H0/Resources")
		}},
		{"host", hypervisor.RestoreSpec{Host: "nowhere"}, notAvailable("host", "nowhere", "DC0_C0_H0")},
		{"host of another pool", hypervisor.RestoreSpec{Host: "DC0_H0", ResourcePool: "DC0_C0"}, notAvailable("host", "DC0_H0", "DC0_C0_H0")},
		{"datastore", hypervisor.RestoreSpec{Datastore: "nowhere"}, notAvailable("datastore", "nowhere", "LocalDS_0")},
		{"datastore of a disk", hypervisor.RestoreSpec{DiskDatastores: map[hypervisor.DiskKey]string{first: "nowhere"}},
			notAvailable("datastore", "nowhere", "LocalDS_0")},
		{"datastore of no disk", hypervisor.RestoreSpec{DiskDatastores: map[hypervisor.DiskKey]string{"7": "LocalDS_0"}},
			func(err error) bool { return strings.Contains(err.Error(), `"7"`) }},
		{"network", hypervisor.RestoreSpec{Networks: map[string]string{"DC0_DVPG0": "nowhere"}}, notAvailable("network", "nowhere", "VM Network")},
		{"mapped network that the VM lacks", hypervisor.RestoreSpec{Networks: map[string]string{"typo": "VM Network"}},
			notAvailable("network in the backup", "typo", "DC0_DVPG0")},
		{"space", hypervisor.RestoreSpec{Config: change(func(c *capture) {
			disk := orderedDisks(c.devices())[0]
			disk.CapacityInBytes, disk.CapacityInKB = 1<<50, 1<<40
			if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				backing.ThinProvisioned = types.NewBool(false)
			}
		})}, func(err error) bool {
			var e *hypervisor.InsufficientSpaceError
			return errors.As(err, &e) && e.Datastore == "LocalDS_0" && e.Need >= 1<<50 && e.Free > 0
		}},
		{"hardware version", hypervisor.RestoreSpec{Config: change(func(c *capture) { c.config.Version = "vmx-99" })}, func(err error) bool {
			var e *hypervisor.HardwareVersionError
			return errors.As(err, &e) && e.Version == "vmx-99" && slices.Contains(e.Supported, "vmx-19")
		}},
		{"another hypervisor's configuration", hypervisor.RestoreSpec{Config: hypervisor.Config{Format: "libvirt/1"}},
			func(err error) bool { return errors.Is(err, hypervisor.ErrConfigFormat) }},
		{"damaged configuration", hypervisor.RestoreSpec{Config: hypervisor.Config{Format: configFormat, Data: []byte("{")}},
			func(err error) bool { return errors.Is(err, hypervisor.ErrConfigFormat) }},
		{"identity", hypervisor.RestoreSpec{Identity: "twin"}, func(err error) bool { return strings.Contains(err.Error(), "twin") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := test.spec
			if spec.Identity == "" {
				spec.Identity = hypervisor.IdentityCopy
			}
			if spec.Name == "" && test.name != "name in use" {
				spec.Name = "other"
			}
			if spec.Config.Format == "" {
				spec.Config = c.config
			}
			if test.name == "space" {
				spec.Config.Summary.Disks = slices.Clone(c.config.Summary.Disks)
				spec.Config.Summary.Disks[0].Capacity = 1 << 50
			}
			spec.RunID = "run-1"
			_, err := b.client.CheckRestore(ctx, spec)
			if err == nil || !test.ok(err) {
				t.Errorf("CheckRestore: %v", err)
			}
			_, err = b.client.StartRestore(ctx, spec)
			if err == nil || !test.ok(err) {
				t.Errorf("StartRestore: %v", err)
			}
		})
	}
	if n := b.lab.Calls()["ImportVApp"]; n != 0 {
		t.Errorf("%d imports were started", n)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_copy(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20, 4<<20)
	c := b.mustBackUp()
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{
		Identity: hypervisor.IdentityCopy, Name: "web01-copy", Folder: "/DC0/vm", ResourcePool: "DC0_C0", Host: "DC0_C0_H1",
		Networks: map[string]string{"DC0_DVPG0": "VM Network"}, Disconnect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings %q", warnings)
	}
	if vm.Path != "/DC0/vm/web01-copy" || vm.BIOSUUID == b.vm.BIOSUUID || vm.InstanceUUID == b.vm.InstanceUUID {
		t.Errorf("got %+v", vm)
	}
	original, restored := b.status(benchVM), b.status("web01-copy")
	for i := range original.Disks {
		if original.Disks[i].UUID == restored.Disks[i].UUID || original.Disks[i].Controller != restored.Disks[i].Controller {
			t.Errorf("disk %+v is like %+v", restored.Disks[i], original.Disks[i])
		}
		b.sameBytes("web01-copy", i, b.raw[i])
	}
	if original.NICs[0].MAC == restored.NICs[0].MAC || restored.NICs[0].Network != "VM Network" || restored.Host != "/DC0/host/DC0_C0/DC0_C0_H1" {
		t.Errorf("adapter %+v of %s", restored.NICs[0], restored.Host)
	}
	if strings.Contains(string(restored.Config), `"startConnected":true`) || strings.Contains(string(restored.Config), markerKey) {
		t.Errorf("configuration %s", restored.Config)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_partOfTheDisks(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20, 6<<20)
	excluded := b.vm.Disks[0].Key
	c := b.mustBackUp(excluded)
	if len(c.disks) != 1 || b.lab.Calls()["GET /nfc"] != 1 {
		t.Errorf("%d disks, %d transfers", len(c.disks), b.lab.Calls()["GET /nfc"])
	}
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "part"})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "Hard disk 1 is not in the backup") ||
		!strings.Contains(warnings[1], "Hard disk 1 is left out of the boot order") {
		t.Errorf("warnings %q", warnings)
	}
	if len(vm.Disks) != 1 || vm.Disks[0].Address != b.vm.Disks[1].Address {
		t.Errorf("disks %+v", vm.Disks)
	}
	b.sameBytes("part", 0, b.raw[1])
}

func TestRestore_directoryTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	// The name is free in another folder, the directory isn't.
	vm, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Folder: "/DC0/vm"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "[LocalDS_0] web01_1/web01.vmdk"; vm.Disks[0].Path != want {
		t.Errorf("disk is %s, want %s", vm.Disks[0].Path, want)
	}
	if _, err := b.client.FindVM(t.Context(), hypervisor.VMRef(b.vm.ID)); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestCleanUpRestores(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	ctx := t.Context()
	// Two runs were killed after their uploads: their leases are gone, the VMs in the making stay.
	for _, run := range []string{"dead", "alive"} {
		spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityCopy, Name: run, RunID: run}
		r, err := b.client.StartRestore(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		made, ok := r.(*restore)
		if !ok {
			t.Fatalf("a restore is %T", r)
		}
		for key, d := range c.disks {
			if err := r.WriteDisk(ctx, key, d); err != nil {
				t.Fatal(err)
			}
		}
		if err := made.lease.complete(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// A VM of somebody else only has such a name.
	_, _, err := b.restore(ctx, c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: makingName("foreign")})
	if err != nil {
		t.Fatal(err)
	}
	removed, err := b.client.CleanUpRestores(ctx, func(u hypervisor.Unfinished) bool { return u.RunID != "alive" })
	if err != nil || !slices.Equal(removed, []string{"tf-restore-dead"}) {
		t.Errorf("removed %q, %v", removed, err)
	}
	var names []string
	for _, vm := range b.lab.Status().VMs {
		names = append(names, vm.Name)
	}
	slices.Sort(names)
	if want := []string{"tf-restore-alive", "tf-restore-foreign", benchVM}; !slices.Equal(names, want) {
		t.Errorf("VMs %q, want %q", names, want)
	}
	labtest.AssertClean(t, b.lab)
}

func TestDestroyVM(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	b.lab.Fault(lab.Fault{Method: "Destroy_Task", Fault: "TaskInProgress"})
	for range 2 { // the second time it is gone already
		if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.lab.Status().VMs); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_severalDatastores(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20, 4<<20)
	c := b.mustBackUp()
	b.addDatastore("second")
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{
		Identity: hypervisor.IdentityCopy, Name: "spread", DiskDatastores: map[hypervisor.DiskKey]string{c.config.Summary.Disks[1].Key: "second"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 || vm.Disks[0].Datastore != "LocalDS_0" || vm.Disks[1].Datastore != "second" {
		t.Errorf("disks %+v, warnings %q", vm.Disks, warnings)
	}
	for i, raw := range b.raw {
		b.sameBytes("spread", i, raw)
	}
	labtest.AssertClean(t, b.lab)
}

// addDatastore gives all hosts another datastore.
func (b *bench) addDatastore(name string) {
	b.Helper()
	hosts, err := b.client.list(b.Context(), "HostSystem", "name")
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for ref := range hosts {
		system, err := object.NewHostSystem(b.client.vim, ref).ConfigManager().DatastoreSystem(b.Context())
		if err == nil {
			_, err = system.CreateLocalDatastore(b.Context(), name, dir)
		}
		if err != nil && !strings.Contains(err.Error(), "exists") {
			b.Fatal(err)
		}
	}
}

func TestChooseNetwork(t *testing.T) {
	t.Parallel()
	network := func(kind, sw, name string) targetNetwork {
		return targetNetwork{capturedNetwork: capturedNetwork{Kind: kind, Switch: sw, Name: name}}
	}
	available := []targetNetwork{
		network(standardNetwork, "", "prod"), network(distributedNetwork, "dvs1", "prod"), network(distributedNetwork, "dvs2", "prod"),
		network(distributedNetwork, "dvs1", "test"), network(distributedNetwork, "dvs2", "test"),
	}
	for _, test := range []struct {
		wanted   string
		captured targetNetwork
		want     string // label; "" for an error
		err      string
	}{
		{"prod", network(standardNetwork, "", "x"), "prod", ""},
		{"prod", network(distributedNetwork, "dvs2", "x"), "dvs2/prod", ""},
		{"dvs1/prod", network(standardNetwork, "", "x"), "dvs1/prod", ""},
		{"test", network(distributedNetwork, "dvs1", "x"), "dvs1/test", ""},
		{"test", network(distributedNetwork, "dvs3", "x"), "", "ambiguous"},
		{"none", network(standardNetwork, "", "x"), "", "dvs1/prod, dvs1/test, dvs2/prod, dvs2/test, prod"},
	} {
		got, err := chooseNetwork(available, test.wanted, test.captured.capturedNetwork)
		switch {
		case test.want == "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s: got %v", test.wanted, err)
		case test.want != "" && (err != nil || got.label() != test.want):
			t.Errorf("%s: got %s, %v, want %s", test.wanted, got.label(), err, test.want)
		}
	}
}

func TestRestore_specialNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	root, err := b.client.findPath(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := object.NewFolder(b.client.vim, *root).CreateFolder(t.Context(), "50% off"); err != nil {
		t.Fatal(err)
	}
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{
		Identity: hypervisor.IdentityCopy, Folder: "50% off", Name: "web/100%"})
	if err != nil {
		t.Fatal(err)
	}
	if vm.Name != "web/100%" || len(warnings) > 0 {
		t.Errorf("got %+v, warnings %q", vm, warnings)
	}
	b.sameBytes(escapeName(vm.Name), 0, b.raw[0])
	if err := b.client.DestroyVM(t.Context(), vm.ID); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}
