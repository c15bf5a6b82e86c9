package vsphere

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestRestore_otherServer captures a VM on one vCenter and restores it on another, which has nothing of what
// the VM refers to but by name.
func TestRestore_otherServer(t *testing.T) {
	t.Parallel()
	home, content := richBench(t, "web", pvscsiAndNVMe())
	before := home.read(t.Context(), home.vm.ID)
	c := home.mustBackUp()

	away := &bench{T: t, lab: labtest.Start(t, lab.Options{})}
	away.client = dial(t, labConfig(away.lab))
	away.renameAway()
	away.addDatastore("san")
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityOriginal, Datastore: "ssd"}

	// Each name that means nothing there is an error that lists what there is.
	for _, step := range []struct {
		kind, name, lists string
		answer            func()
	}{
		{"folder", richFolder, "/DC0/vm/recovered", func() { spec.Folder = "recovered" }},
		{"resource pool", richPool, "/DC0/host/DC0_C0/Resources", func() { spec.ResourcePool = "DC0_C0" }},
		{"datastore", "ssd", "san", func() { spec.Datastore = "san" }},
		{"network", "VM Network", "LAN", func() { spec.Networks = map[string]string{"VM Network": "LAN"} }},
		{"network", "DC0_DVPG0", "Switch B/prod", func() { spec.Networks["DC0_DVPG0"] = "Switch B/prod" }},
	} {
		_, err := away.client.CheckRestore(t.Context(), spec)
		var missing *hypervisor.NotAvailableError
		if !errors.As(err, &missing) || missing.Kind != step.kind || missing.Name != step.name ||
			!slices.Contains(missing.Available, step.lists) {
			t.Fatalf("%s: %v, want that there is no %q, but %q", step.kind, err, step.name, step.lists)
		}
		step.answer()
	}
	named := func(warnings []string, want ...string) {
		t.Helper()
		if len(warnings) != len(want) {
			t.Errorf("warnings %q, want %q", warnings, want)
			return
		}
		for i, text := range want {
			if !strings.Contains(warnings[i], text) {
				t.Errorf("warning %q, want %q", warnings[i], text)
			}
		}
	}
	const otherStore = `"vSAN Default Storage Policy" of the VM's own files is not restored: it was on datastore "LocalDS_0" and goes to "san"`
	const noPolicy = `the storage policy "gold" of Hard disk 2 doesn't exist here`
	image := "CD/DVD drive 1 had the image " + richISO
	checked, err := away.client.CheckRestore(t.Context(), spec)
	must(t, err)
	named(checked, `tag "owner-1" of category "owner" doesn't exist`, `tag "tier-1" of category "tier" doesn't exist`,
		`custom attribute "contact" doesn't exist`, `custom attribute "cost centre" doesn't exist`,
		otherStore, noPolicy, image)

	away.labelAway()
	vm, warnings, err := away.restore(t.Context(), c, spec)
	must(t, err)
	named(warnings, `tag "owner-1" of category "owner" doesn't exist`, `custom attribute "contact" doesn't exist`, otherStore, noPolicy, image)
	if vm.Path != "/DC0/vm/recovered/web" || vm.BIOSUUID != richUUID {
		t.Errorf("restored %+v", vm)
	}
	got := away.status("web")
	if !slices.Equal(got.Tags, []string{"tier/tier-1"}) || len(got.CustomAttributes) != 1 ||
		got.CustomAttributes["cost centre"] != "value of cost centre" {
		t.Errorf("tags %q, attributes %q", got.Tags, got.CustomAttributes)
	}
	after := away.read(t.Context(), vm.ID)
	for _, line := range differ(before, after, always, asked) {
		if !strings.HasPrefix(line, "config.hardware.device[VirtualCdrom@") && !aboutLabels(line) {
			t.Error(line)
		}
	}
	away.connected(after)
	away.sameContent("web", content)
	away.sameNVRAM(vm, c.config.NVRAM)
	labtest.AssertClean(t, away.lab)
}

func aboutLabels(line string) bool {
	for _, name := range []string{"tags:", "path:", "customValue[", "availableField[", "value[", "summary.customValue[", "storage policy of "} {
		if strings.HasPrefix(line, name) {
			return true
		}
	}
	return false
}

// renameAway gives what every lab has other names.
func (b *bench) renameAway() {
	b.Helper()
	for path, name := range map[string]string{
		"/DC0/network/VM Network": "LAN", "/DC0/network/DVS0": "old switch", "/DC0/network/DC0_DVPG0": "old prod",
	} {
		// The simulator renames nothing of the kind for a client.
		sim := b.lab.Model().Service.Context
		network := sim.Map.Get(b.path(path))
		sim.WithLock(network, func() { sim.Update(network, []types.PropertyChange{{Name: "name", Val: name}}) })
	}
	b.addSwitch()
	_, err := object.NewFolder(b.client.vim, b.path("/DC0/vm")).CreateFolder(b.Context(), "recovered")
	must(b, err)
}

// addSwitch gives all hosts a port group "prod" of a switch "Switch B".
func (b *bench) addSwitch() {
	b.Helper()
	ctx, vim := b.Context(), b.client.vim
	hosts, err := b.client.list(ctx, "HostSystem", "name")
	must(b, err)
	var members types.DVSConfigSpec
	for ref := range hosts {
		members.Host = append(members.Host, types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "add", Host: ref})
	}
	wait := func(task *object.Task, err error) *types.TaskInfo {
		b.Helper()
		must(b, err)
		info, err := b.client.waitTask(ctx, task)
		must(b, err)
		return info
	}
	info := wait(object.NewFolder(vim, b.path("/DC0/network")).CreateDVS(ctx, types.DVSCreateSpec{
		ConfigSpec: &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{Name: "Switch B"}}}))
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		b.Fatalf("result %v", info.Result)
	}
	wait(object.NewDistributedVirtualSwitch(vim, ref).Reconfigure(ctx, &members))
	wait(object.NewDistributedVirtualSwitch(vim, ref).AddPortgroup(ctx, []types.DVPortgroupConfigSpec{
		{Name: "prod", Type: "earlyBinding", NumPorts: 8}}))
}

// labelAway makes one of the tags and one of the custom attributes that the VM has at home.
func (b *bench) labelAway() {
	b.Helper()
	client, err := b.client.rest(b.Context())
	must(b, err)
	manager := tags.NewManager(client)
	category, err := manager.CreateCategory(b.Context(), &tags.Category{
		Name: "tier", Cardinality: "SINGLE", AssociableTypes: []string{"VirtualMachine"}})
	must(b, err)
	_, err = manager.CreateTag(b.Context(), &tags.Tag{Name: "tier-1", CategoryID: category})
	must(b, err)
	fields, err := object.GetCustomFieldsManager(b.client.vim)
	must(b, err)
	for _, name := range []string{"something else", "cost centre"} { // so that keys differ from those at home
		_, err = fields.Add(b.Context(), name, "VirtualMachine", nil, nil)
		must(b, err)
	}
}

// connected compares the adapters with the networks of this lab.
func (b *bench) connected(r reading) {
	b.Helper()
	groups, err := b.client.list(b.Context(), "DistributedVirtualPortgroup", "key", "name", "config.distributedVirtualSwitch")
	must(b, err)
	var portgroup mo.DistributedVirtualPortgroup
	for ref := range groups {
		if portgroup.Name != "prod" {
			portgroup = mo.DistributedVirtualPortgroup{}
			must(b, load(groups, ref, &portgroup))
		}
	}
	var dvs mo.DistributedVirtualSwitch
	must(b, b.client.properties(b.Context(), *portgroup.Config.DistributedVirtualSwitch, []string{"name", "uuid"}, &dvs))
	const first = "config.hardware.device[VirtualVmxnet3@VirtualPCIController0:7].backing."
	const second = "config.hardware.device[VirtualE1000e@VirtualPCIController0:8].backing.port."
	for path, want := range map[string]string{
		first + "deviceName": "LAN", second + "portgroupKey": portgroup.Key, second + "switchUuid": dvs.Uuid,
	} {
		if r[path] != want || want == "" {
			b.Errorf("%s is %q, want %q", path, r[path], want)
		}
	}
}

// TestRestore_toESXi captures a VM on a vCenter and restores it on a single host, which knows neither tags nor
// custom attributes nor storage policies.
func TestRestore_toESXi(t *testing.T) {
	t.Parallel()
	home, content := richBench(t, "web", lsiAndSATA())
	before := home.read(t.Context(), home.vm.ID)
	c := home.mustBackUp()
	host := &bench{T: t, lab: labtest.Start(t, lab.Options{ESX: true})}
	host.client = dial(t, labConfig(host.lab))
	vm, warnings, err := host.restore(t.Context(), c, hypervisor.RestoreSpec{
		Identity: hypervisor.IdentityOriginal, Folder: "/ha-datacenter/vm", ResourcePool: "Resources",
		Networks: map[string]string{"DC0_DVPG0": "VM Network"},
	})
	must(t, err)
	want := []string{"2 tags are not restored", "2 custom attributes are not restored", `"vSAN Default Storage Policy"`,
		`"gold" of Hard disk 2`, "CD/DVD drive 1 had the image"}
	for i, w := range warnings {
		if i >= len(want) || !strings.Contains(w, want[i]) {
			t.Errorf("warning %q", w)
		}
	}
	if len(warnings) < len(want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
	if vm.BIOSUUID != richUUID || vm.InstanceUUID != home.vm.InstanceUUID {
		t.Errorf("restored %+v", vm)
	}
	var props mo.VirtualMachine
	must(t, host.client.properties(t.Context(), vmRef(vm.ID), []string{"config"}, &props))
	after := reading{}
	w := walker{
		names: deviceSlots(props.Config.Hardware.Device),
		visit: func(path string, v reflect.Value) { after[path] = fmt.Sprint(v) },
	}
	w.walk("config", reflect.ValueOf(*props.Config))
	for path := range before {
		if !strings.HasPrefix(path, "config.") {
			delete(before, path)
		}
	}
	for _, line := range differ(before, after, always, asked) {
		if !strings.HasPrefix(line, "config.hardware.device[VirtualCdrom@") {
			t.Error(line)
		}
	}
	host.sameContent("web", content)
	labtest.AssertClean(t, host.lab)
}
