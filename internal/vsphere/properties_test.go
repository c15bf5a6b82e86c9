package vsphere

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/pbm"
	pbmtypes "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A reading is all that the API says about a VM, by path, written without the code under test: devices by
// class, controller and unit, options by key.
type reading map[string]string

// read reads all properties of a VM, its tags and its attributes.
func (b *bench) read(ctx context.Context, id hypervisor.VMID) reading {
	b.Helper()
	var vm mo.VirtualMachine
	objects, err := retrieve(ctx, b.client.vim, types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: "VirtualMachine", All: types.NewBool(true)}},
		ObjectSet: []types.ObjectSpec{{Obj: vmRef(id)}},
	})
	must(b, err)
	must(b, load(objects, vmRef(id), &vm))
	out := reading{}
	w := walker{names: deviceSlots(vm.Config.Hardware.Device), visit: func(path string, v reflect.Value) { out[path] = fmt.Sprint(v) }}
	w.walk("", reflect.ValueOf(vm))
	var nics, disks []string
	for _, d := range vm.Config.Hardware.Device {
		switch d := d.(type) {
		case types.BaseVirtualEthernetCard:
			nics = append(nics, fmt.Sprintf("%T %s", d, d.GetVirtualEthernetCard().MacAddress))
		case *types.VirtualDisk:
			disks = append(disks, w.names[d.Key])
		}
	}
	out["order of adapters"], out["order of disks"] = strings.Join(nics, ", "), strings.Join(disks, ", ")
	client, err := b.client.rest(ctx)
	must(b, err)
	attached, err := tags.NewManager(client).GetAttachedTags(ctx, vm.Self)
	must(b, err)
	var names []string
	for _, t := range attached {
		names = append(names, t.ID+" "+t.Name)
	}
	slices.Sort(names)
	out["tags"] = strings.Join(names, ", ")
	b.readPolicies(ctx, vm.Self, w.names, out)
	line, err := b.client.ancestors(ctx, vm.Self)
	must(b, err)
	out["path"] = line.path()
	return out
}

// readPolicies reads the storage policies of the VM and its disks.
func (b *bench) readPolicies(ctx context.Context, vm types.ManagedObjectReference, names map[int32]string, out reading) {
	b.Helper()
	service, err := pbm.NewClient(ctx, b.client.vim)
	must(b, err)
	query := func(what, kind, key string) {
		ids, err := service.QueryAssociatedProfile(ctx, pbmtypes.PbmServerObjectRef{ObjectType: kind, Key: key})
		must(b, err)
		for _, id := range ids {
			name, err := service.GetProfileNameByID(ctx, id.UniqueId)
			must(b, err)
			out["storage policy of "+what] = name
		}
	}
	query("the VM", "virtualMachine", vm.Value)
	for key, name := range names {
		if strings.HasPrefix(name, "VirtualDisk@") {
			query(name, "virtualDiskId", fmt.Sprintf("%s:%d", vm.Value, key))
		}
	}
}

// deviceSlots names devices by where they are plugged in.
func deviceSlots(devices object.VirtualDeviceList) map[int32]string {
	names := map[int32]string{}
	for i, d := range devices {
		name := fmt.Sprintf("%T", d)
		dev := d.GetVirtualDevice()
		switch c := d.(type) {
		case types.BaseVirtualController:
			name += fmt.Sprintf("@%d", c.GetVirtualController().BusNumber)
		case *types.VirtualMachineVideoCard, *types.VirtualMachineVMCIDevice:
		default:
			parent, ok := devices.FindByKey(dev.ControllerKey).(types.BaseVirtualController)
			if ok && dev.UnitNumber != nil {
				name += fmt.Sprintf("@%T%d:%d", parent, parent.GetVirtualController().BusNumber, *dev.UnitNumber)
			} else {
				name += fmt.Sprintf("@%d", i)
			}
		}
		names[dev.Key] = strings.ReplaceAll(name, "*types.", "")
	}
	return names
}

// A walker visits the values of a tree of structures.
type walker struct {
	names map[int32]string // devices
	visit func(path string, v reflect.Value)
	unset func(path string) // may be nil
}

func (w *walker) walk(path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			w.walk(path, v.Elem())
		}
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		if v.Elem().Kind() == reflect.Pointer {
			w.visit(path+"._typeName", reflect.ValueOf(v.Elem().Type().Elem().Name()))
		}
		w.walk(path, v.Elem())
	case reflect.Struct:
		switch value := v.Interface().(type) {
		case time.Time, types.ManagedObjectReference:
			w.visit(path, v)
		case types.VirtualMachineBootOptionsBootableDiskDevice:
			w.visit(path, reflect.ValueOf(w.names[value.DeviceKey]))
		case types.VirtualMachineBootOptionsBootableEthernetDevice:
			w.visit(path, reflect.ValueOf(w.names[value.DeviceKey]))
		default:
			w.fields(path, v)
		}
	case reflect.Slice:
		for i := range v.Len() {
			w.walk(fmt.Sprintf("%s[%s]", path, w.element(v.Index(i), i)), v.Index(i))
		}
	default:
		w.visit(path, v)
	}
}

func (w *walker) fields(path string, v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			w.walk(path, v.Field(i))
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		if v.Field(i).IsZero() {
			if w.unset != nil {
				w.unset(full)
			}
			continue
		}
		w.walk(full, v.Field(i))
	}
}

// element is what an element of a list is called.
func (w *walker) element(v reflect.Value, i int) string {
	switch e := v.Interface().(type) {
	case types.BaseVirtualDevice:
		return w.names[e.GetVirtualDevice().Key]
	case types.BaseOptionValue:
		return e.GetOptionValue().Key
	case types.BaseCustomFieldValue:
		return fmt.Sprint(e.GetCustomFieldValue().Key)
	case types.CustomFieldDef:
		return fmt.Sprint(e.Key)
	}
	return fmt.Sprint(i)
}

var brackets = regexp.MustCompile(`\[[^\]]*\]`)

// mayDifferOn says on which occasion a property may differ, "" if on none.
func mayDifferOn(path string) occasion {
	bare := brackets.ReplaceAllString(path, "[]")
	kind := ""
	if m := brackets.FindString(path); strings.HasPrefix(path, "config.hardware.device[") {
		kind, _, _ = strings.Cut(strings.Trim(m, "[]"), "@")
	}
	for p := bare; p != ""; {
		for _, candidate := range []string{p, strings.Replace(p, "device[]", "device["+kind+"]", 1)} {
			if when, ok := mayDiffer[candidate]; ok {
				return when
			}
		}
		p = p[:max(0, strings.LastIndexAny(p, ".["))]
	}
	return ""
}

// differ lists the properties that two readings don't have in common, but for those that may differ on one
// of the occasions.
func differ(before, after reading, occasions ...occasion) (out []string) {
	excused := func(path string) bool {
		if key, ok := strings.CutPrefix(path, "config.extraConfig["); ok {
			key, _, _ = strings.Cut(key, "]")
			return transientKey(key)
		}
		return slices.Contains(occasions, mayDifferOn(path))
	}
	for path, value := range before {
		if after[path] != value && !excused(path) {
			out = append(out, fmt.Sprintf("%s: %q before, %q after", path, value, after[path]))
		}
	}
	for path, value := range after {
		if _, ok := before[path]; !ok && !excused(path) {
			out = append(out, fmt.Sprintf("%s: new, %q", path, value))
		}
	}
	slices.Sort(out)
	return out
}

// unsetInTests are the properties that the VMs of these tests don't have, and why that proves nothing less.
var unsetInTests = map[string]string{
	"config.datastoreUrl":                     "follows config.files, and the lab doesn't say it",
	"config.extensionCompatibilityConstraint": "is copied as it is, and its content is not public",
	"config.latencySensitivity.sensitivity":   "is said of a level that servers don't take any more",
	"config.template":                         "templates have no snapshots and are refused",
}

// TestRich_setsEverything keeps the VM of these tests up with the API: what it doesn't set could get lost
// without a test that fails.
func TestRich_setsEverything(t *testing.T) {
	t.Parallel()
	unset := map[string]bool{}
	set := map[string]bool{}
	for _, controllers := range [][]types.BaseVirtualDevice{pvscsiAndNVMe(), lsiAndSATA()} {
		b, _ := richBench(t, "web", controllers)
		var vm mo.VirtualMachine
		must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"config"}, &vm))
		w := walker{
			names: deviceSlots(vm.Config.Hardware.Device),
			visit: func(path string, _ reflect.Value) {
				for p := brackets.ReplaceAllString(path, "[]"); p != ""; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
					set[p] = true
				}
			},
			unset: func(path string) { unset[path] = true },
		}
		w.walk("config", reflect.ValueOf(*vm.Config))
	}
	missing := map[string]string{}
	for path := range unset {
		bare := brackets.ReplaceAllString(path, "[]")
		if !set[bare] && unsetInTests[bare] == "" && mayDifferOn(path) != always {
			missing[bare] = path
		}
	}
	for _, bare := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("no VM of the tests has %s, for example %s", bare, missing[bare])
	}
	for bare := range unsetInTests {
		if set[bare] {
			t.Errorf("a VM of the tests has %s", bare)
		}
	}
}
