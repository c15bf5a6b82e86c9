package vsphere

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// alter changes much about a VM that is off: what an administrator might do, and undo with a restore.
func (b *bench) alter() {
	b.Helper()
	var vm mo.VirtualMachine
	must(b, b.client.properties(b.Context(), vmRef(b.vm.ID), []string{"config", "layoutEx"}, &vm))
	spec := types.VirtualMachineConfigSpec{
		NumCPUs: 2, MemoryMB: 256, Annotation: "changed", CpuHotAddEnabled: types.NewBool(false),
		MemoryAllocation: &types.ResourceAllocationInfo{Reservation: types.NewInt64(0)},
		ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "guestinfo.role", Value: "changed"}, &types.OptionValue{Key: "guestinfo.new", Value: "new"},
			&types.OptionValue{Key: "guestinfo.metadata", Value: ""},
		},
		BootOptions: &types.VirtualMachineBootOptions{
			BootDelay: 1, BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
				&types.VirtualMachineBootOptionsBootableCdromDevice{},
				&types.VirtualMachineBootOptionsBootableDiskDevice{
					DeviceKey: orderedDisks(vm.Config.Hardware.Device)[0].Key,
				},
			},
		},
		VAppConfig: &types.VmConfigSpec{Property: []types.VAppPropertySpec{{
			ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationEdit},
			Info:            b.property(&vm),
		}}},
	}
	for _, d := range vm.Config.Hardware.Device {
		switch d := d.(type) {
		case types.BaseVirtualEthernetCard:
			card := d.GetVirtualEthernetCard()
			card.Connectable.StartConnected = !card.Connectable.StartConnected
			if _, ok := card.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); !ok {
				card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{
					VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}}
			}
		case *types.VirtualDisk:
			d.StorageIOAllocation = &types.StorageIOAllocationInfo{Shares: &types.SharesInfo{Level: types.SharesLevelHigh}}
		default:
			continue
		}
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d})
	}
	b.reconfigure(vmRef(b.vm.ID), spec)
	must(b, b.client.writeNVRAM(b.Context(), "/DC0", nvramFile(&vm, vm.Config), []byte("other variables")))
}

// property is the VM's first vApp property that users may set, with another value.
func (b *bench) property(vm *mo.VirtualMachine) *types.VAppPropertyInfo {
	b.Helper()
	for _, p := range vm.Config.VAppConfig.GetVmConfigInfo().Property {
		if p.UserConfigurable != nil && *p.UserConfigurable && p.Type == "string" {
			p.Value = "changed"
			return &p
		}
	}
	b.Fatal("the VM has no such property")
	return nil
}

func TestInPlace_hardware(t *testing.T) {
	t.Parallel()
	const name = "web blue"
	b := &inPlaceBench{}
	b.bench, b.before = richBench(t, name, pvscsiAndNVMe())
	must(t, b.client.PowerOff(t.Context(), b.vm.ID))
	before := b.read(t.Context(), b.vm.ID)
	b.backup = b.mustBackUp()
	b.alter()
	altered := b.read(t.Context(), b.vm.ID)
	if d := differ(before, altered, always); len(d) < 10 {
		t.Fatalf("only so much was changed: %q", d)
	}

	// First without: the VM keeps what it is, its boot order too.
	out := b.mustInPlace(b.spec("run-0"))
	if d := differ(altered, b.read(t.Context(), b.vm.ID), always, asked); len(d) > 0 || len(out.warnings) > 0 {
		t.Errorf("changed without being asked: %q, warnings %q", d, out.warnings)
	}
	b.deleteReplaced(out.replaced)

	spec := b.spec("run-1")
	spec.Hardware = true
	warnings, err := b.client.CheckInPlace(t.Context(), spec)
	must(t, err)
	if text := strings.Join(warnings, " "); len(warnings) != 1 || !strings.Contains(text, "hardware.numCPU from 2 to 4") ||
		strings.Contains(text, "aGVsbG8=") {
		t.Errorf("warnings of the check: %q", warnings)
	}

	// There and back again.
	r, err := b.client.StartInPlace(t.Context(), spec)
	must(t, err)
	must(t, b.write(t.Context(), r, spec))
	_, _, warnings, err = r.Swap(t.Context())
	must(t, err)
	if len(warnings) > 0 {
		t.Errorf("warnings of the swap: %q", warnings)
	}
	for _, line := range differ(before, b.read(t.Context(), b.vm.ID), always, asked) {
		if !strings.Contains(line, journalKey) {
			t.Error(line)
		}
	}
	b.sameNVRAM(b.vm, b.backup.config.NVRAM)
	b.bench.sameContent(name, b.before)
	must(t, r.Back(t.Context()))
	must(t, r.Abort(t.Context()))
	if d := differ(altered, b.read(t.Context(), b.vm.ID), always, asked); len(d) > 0 {
		t.Errorf("not put back: %q", d)
	}
	b.sameNVRAM(b.vm, []byte("other variables"))
	labtest.AssertClean(t, b.lab)

	spec.RunID = "run-2"
	out = b.mustInPlace(spec)
	if d := differ(before, b.read(t.Context(), b.vm.ID), always, asked); len(d) > 0 || len(out.warnings) > 0 {
		t.Errorf("not brought back: %q, warnings %q", d, out.warnings)
	}
	b.sameNVRAM(b.vm, b.backup.config.NVRAM)
	b.deleteReplaced(out.replaced)
	labtest.AssertClean(t, b.lab)
	for _, f := range b.lab.Status().Files {
		if strings.Contains(f.Name, "before-restore") {
			t.Errorf("left behind: %s", f.Name)
		}
	}
}

// What the server refuses to bring back is named, and the rest is brought back.
func TestInPlace_hardwareRefused(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 4<<20)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
		Annotation: "changed", ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "guestinfo.new", Value: "new"}},
	})
	spec := b.spec("run-1")
	spec.Hardware = true
	// All of it at once, and after the journal the first part.
	b.lab.Fault(reconfig(hardwareChange, "InvalidVmConfig"))
	b.lab.Fault(reconfig(hardwareChange+1, "InvalidVmConfig")) // of those that the first doesn't hit
	out := b.mustInPlace(spec)
	if text := strings.Join(out.warnings, "\n"); !strings.Contains(text, "could not be brought back") {
		t.Errorf("warnings %q", out.warnings)
	}
	b.sameContent("restored", b.before)
	b.deleteReplaced(out.replaced)
	b.untouched()
}

func TestJournal_refused(t *testing.T) {
	t.Parallel()
	whole := &journal{Version: journalVersion, Run: "run", bearer: bearer{VM: "vm-1"}, Phase: phaseStop, Disks: []journalDisk{{Slot: "s", Own: "a", Restored: "b"}}}
	text, err := whole.encode()
	must(t, err)
	if got, err := decodeJournal(text); err != nil || got.Run != "run" || got.Phase != phaseStop {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, change := range []func(*journal){
		func(j *journal) { j.Version++ }, func(j *journal) { j.Run = "" }, func(j *journal) { j.VM = "" }, func(j *journal) { j.Phase = "later" },
		func(j *journal) { j.Disks = nil }, func(j *journal) { j.Disks[0].Restored = "a" }, func(j *journal) { j.Disks[0].Slot = "" },
	} {
		broken := whole.as(whole.Phase)
		change(broken)
		text, err := broken.encode()
		must(t, err)
		if got, err := decodeJournal(text); err == nil {
			t.Errorf("%s was read as %+v", text, got)
		}
	}
	large := whole.as(phaseUpload)
	for n := range 400 {
		large.Disks = append(large.Disks, journalDisk{Slot: fmt.Sprint(n), Own: strings.Repeat("a", 100), Restored: strings.Repeat("b", 100)})
	}
	if _, err := large.encode(); err == nil {
		t.Error("a journal without a limit was written")
	}
	if _, err := decodeJournal(strings.Repeat(" ", maxJournal+1)); err == nil {
		t.Error("a journal without a limit was read")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(`{"version":1,"step":3,"run":"r","vm":"vm-1","instance":"i","phase":"swapped","disks":[{"label":"l","slot":"s","own":"a","restored":"b"}]}`)
	f.Add(`{"version":1}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := decodeJournal(text)
		if err != nil {
			return
		}
		again, err := j.encode()
		if err != nil {
			return // escapes make it longer than what is allowed
		}
		if _, err := decodeJournal(again); err != nil {
			t.Errorf("%q became %q: %v", text, again, err)
		}
	})
}

func TestIsOther(t *testing.T) {
	t.Parallel()
	config := func(instance, bios string) *types.VirtualMachineConfigInfo {
		return &types.VirtualMachineConfigInfo{InstanceUuid: instance, Uuid: bios}
	}
	for _, tt := range []struct {
		a, b *types.VirtualMachineConfigInfo
		want bool
	}{
		{config("i", "b"), config("I", "b"), false},
		{config("i", "b"), config("i", "other"), false},
		{config("i", "b"), config("other", "b"), true}, // a clone made by hand
		{config("", ""), config("", ""), true},
	} {
		if got := isOther(tt.a, tt.b); got != tt.want {
			t.Errorf("%+v and %+v: %v", tt.a, tt.b, got)
		}
	}
}
