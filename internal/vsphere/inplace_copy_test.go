package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const copyName = "copy"

// clone makes a full clone of the VM, which has whatever the VM says of itself.
func (b *inPlaceBench) clone() hypervisor.VMID {
	b.Helper()
	var vm mo.VirtualMachine
	must(b.T, b.client.properties(b.Context(), vmRef(b.vm.ID), []string{"parent"}, &vm))
	task, err := b.client.vm(b.vm.ID).Clone(b.Context(), object.NewFolder(b.client.vim, *vm.Parent), copyName,
		types.VirtualMachineCloneSpec{})
	must(b.T, err)
	must(b.T, task.Wait(b.Context()))
	found, err := b.client.FindVM(b.Context(), copyName)
	must(b.T, err)
	return found.ID
}

// named finds a death by its name.
func named(t *testing.T, name string) death {
	t.Helper()
	i := slices.IndexFunc(deaths, func(d death) bool { return d.name == name })
	if i < 0 {
		t.Fatalf("no death is called %q", name)
	}
	return deaths[i]
}

func (b *inPlaceBench) journalOf(id hypervisor.VMID) string {
	b.Helper()
	var vm mo.VirtualMachine
	must(b.T, b.client.properties(b.Context(), vmRef(id), []string{"config.extraConfig"}, &vm))
	return optionValue(vm.Config.ExtraConfig, journalKey)
}

// A copy of a VM that is being restored has the journal of that VM. Recovering the copy touches no file.
func TestInPlace_copied(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"destroy", "swap", "finish unsent"} { // in every phase with disks to lose
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			d := named(t, at)
			b, spec := newMortalBench(t, d)
			b.die(d, spec)
			id := b.clone()
			if b.journalOf(id) == "" {
				t.Fatal("the copy has no journal")
			}
			files := b.lab.Status().Files
			if found, err := b.client.InterruptedInPlace(t.Context(), id); err != nil || found != nil {
				t.Errorf("the copy's journal: %+v, %v", found, err)
			}
			if warnings, err := b.client.CheckInPlace(t.Context(), hypervisor.InPlaceSpec{VM: id, Config: spec.Config, PowerOff: true}); err != nil ||
				!strings.Contains(strings.Join(warnings, "\n"), "is a copy of") {
				t.Errorf("check: %q, %v", warnings, err)
			}
			_, kept, warnings, err := b.recover(t.Context(), id)
			if err != nil || len(kept) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "is a copy of") {
				t.Errorf("kept %+v, warnings %q, %v", kept, warnings, err)
			}
			if got := b.lab.Status().Files; len(got) != len(files) || b.journalOf(id) != "" {
				t.Errorf("files %+v, were %+v, journal %q", got, files, b.journalOf(id))
			}
			_, _, _, err = b.recover(t.Context(), b.vm.ID)
			must(t, err)
			want := b.after
			if d.swapped {
				want = b.before
			}
			b.sameContent("recovered", want)
		})
	}
}

// A restore into a copy begins although there is the journal of the other VM, and ends without one.
func TestInPlace_intoCopy(t *testing.T) {
	t.Parallel()
	d := named(t, "destroy")
	b, spec := newMortalBench(t, d)
	b.die(d, spec)
	id := b.clone()
	was := b.journalOf(b.vm.ID)
	spec.VM, spec.RunID, spec.PowerOff = id, "run-2", true
	out := b.mustInPlace(spec)
	for n := range b.before {
		if got := readLabDisk(t, b.lab, copyName, n); string(got) != string(b.before[n]) {
			t.Errorf("disk %d of the copy is not restored", n)
		}
	}
	must(t, b.client.DeleteReplaced(t.Context(), id, out.replaced))
	if b.journalOf(id) != "" || b.journalOf(b.vm.ID) != was {
		t.Errorf("journals %q and %q", b.journalOf(id), b.journalOf(b.vm.ID))
	}
	_, _, _, err := b.recover(t.Context(), b.vm.ID)
	must(t, err)
	b.sameContent("recovered", b.after)
}

// Whose a journal is when the VM's identity doesn't quite fit.
func TestOwnJournal(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	id := b.clone()
	var vm, other mo.VirtualMachine
	must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), targetProperties, &vm))
	must(t, b.client.properties(t.Context(), vmRef(id), targetProperties, &other))
	if vm.Config.InstanceUuid == other.Config.InstanceUuid {
		t.Fatal("the copy has the same instance UUID")
	}
	for name, tt := range map[string]struct {
		vm       hypervisor.VMID
		instance string
		own      bool
	}{
		"own":                         {b.vm.ID, strings.ToUpper(vm.Config.InstanceUuid), true},
		"registered anew":             {"vm-4711", vm.Config.InstanceUuid, true},
		"registered elsewhere":        {id, vm.Config.InstanceUuid, true},
		"copied":                      {id, other.Config.InstanceUuid, false},
		"copied, the original gone":   {"vm-4711", other.Config.InstanceUuid, false},
		"same reference, another one": {b.vm.ID, other.Config.InstanceUuid, false},
	} {
		j := &journal{Version: journalVersion, Run: "run-1", Phase: phaseStop, bearer: bearer{tt.vm, tt.instance},
			Disks: []journalDisk{{Slot: "s", Own: "a", Restored: "b"}}}
		text, err := j.encode()
		must(t, err)
		vm.Config.ExtraConfig = []types.BaseOptionValue{&types.OptionValue{Key: journalKey, Value: text}}
		own, foreign, err := b.client.ownJournal(t.Context(), &vm)
		if err != nil || (own != nil) != tt.own || (foreign != nil) == tt.own {
			t.Errorf("%s: own %+v, foreign %+v, %v", name, own, foreign, err)
		}
	}
	// The files of a VM were copied, identity and all: the copy is the one with another reference.
	j := &journal{Version: journalVersion, Run: "run-1", Phase: phaseStop, bearer: bearer{b.vm.ID, vm.Config.InstanceUuid},
		Disks: []journalDisk{{Slot: "s", Own: "a", Restored: "b"}}}
	text, err := j.encode()
	must(t, err)
	other.Config.InstanceUuid = vm.Config.InstanceUuid
	other.Config.ExtraConfig = []types.BaseOptionValue{&types.OptionValue{Key: journalKey, Value: text}}
	if own, foreign, err := b.client.ownJournal(t.Context(), &other); err != nil || own != nil || foreign == nil {
		t.Errorf("own %+v, foreign %+v, %v", own, foreign, err)
	}
}

// give attaches a disk to a VM that has none at its second place.
func (b *inPlaceBench) give(id hypervisor.VMID, file string) {
	b.Helper()
	var vm mo.VirtualMachine
	must(b.T, b.client.properties(b.Context(), vmRef(id), []string{"config.hardware"}, &vm))
	var files []string
	for _, d := range orderedDisks(vm.Config.Hardware.Device) {
		files = append(files, describeBacking(d.Backing).fileName)
	}
	must(b.T, b.client.detachDisks(b.Context(), vmRef(id), files[1:]))
	b.reconfigure(vmRef(id), reattach(file))
}

// A file that another VM has is neither deleted nor given to a second VM, whatever a journal says.
func TestInPlace_filesOfOthers(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	id := b.clone()
	r, err := b.client.StartInPlace(t.Context(), b.spec("run-1"))
	must(t, err)
	must(t, b.write(t.Context(), r, b.spec("run-1")))
	_, replaced, _, err := r.Swap(t.Context())
	must(t, err)
	b.give(id, replaced[1].Path)
	if err := r.Back(t.Context()); err == nil || !strings.Contains(err.Error(), "in use by "+copyName) {
		t.Errorf("back: %v", err)
	}
	b.sameContent("not put back", b.before)
	if err := b.client.DeleteReplaced(t.Context(), b.vm.ID, replaced[1:]); err == nil || !strings.Contains(err.Error(), "in use by "+copyName) {
		t.Errorf("delete: %v", err)
	}
	if got := readLabDisk(t, b.lab, copyName, 1); string(got) != string(b.after[1]) {
		t.Error("the other VM's disk is not what it was")
	}
}

// The same for a restored disk that another VM has got: it is named, and all else undone.
func TestInPlace_restoredOfOthers(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	id := b.clone()
	r := b.started(b.spec("run-1"))
	file := r.plan.disks[1].path
	b.lab.OnCall("Destroy_Task", func(context.Context) { b.give(id, file) })
	if _, _, _, err := r.Swap(t.Context()); err == nil || !strings.Contains(err.Error(), "in use by "+copyName) {
		t.Errorf("swap: %v", err)
	}
	if err := r.Abort(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("abort: %v", err)
	}
	b.sameContent("undone", b.after)
	if b.power() != "poweredOn" || b.journalOf(b.vm.ID) != "" {
		t.Errorf("the VM is %s, its journal %q", b.power(), b.journalOf(b.vm.ID))
	}
	if got := readLabDisk(t, b.lab, copyName, 1); string(got) != string(b.before[1]) {
		t.Error("the other VM's disk is not what it was")
	}
}

// Snapshots that a linked clone is based on are not removed.
func TestInPlace_linkedClone(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	_, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "base"})
	must(t, err)
	id := b.clone()
	spec := b.spec("run-1")
	spec.RemoveSnapshots = true
	if _, err := b.client.CheckInPlace(t.Context(), spec); err != nil {
		t.Errorf("beside a full clone: %v", err)
	}
	var base string
	b.lab.OnCall("ShutdownGuest", func(context.Context) { // it comes at the last moment
		b.lab.OnCall("ShutdownGuest", nil)
		base = b.link(id)
	})
	_, err = b.inPlace(t.Context(), spec)
	if !errors.Is(err, hypervisor.ErrSnapshotsInTheWay) || !strings.Contains(err.Error(), copyName) || !strings.Contains(err.Error(), base) {
		t.Errorf("swap: %v", err)
	}
	b.sameContent("undone", b.after)
	if b.power() != "poweredOn" || len(b.status(benchVM).Snapshots) != 1 {
		t.Errorf("the VM is %s, with the snapshots %+v", b.power(), b.status(benchVM).Snapshots)
	}
	if _, err := b.client.CheckInPlace(t.Context(), spec); !errors.Is(err, hypervisor.ErrSnapshotsInTheWay) || !strings.Contains(err.Error(), copyName) {
		t.Errorf("check: %v", err)
	}
}

// link makes the server say that a VM is based on the first disk of the other, and returns its file.
func (b *inPlaceBench) link(id hypervisor.VMID) string {
	b.Helper()
	vm, err := b.client.readTarget(b.Context(), b.vm.ID)
	must(b.T, err)
	file := baseFile(orderedDisks(vm.Config.Hardware.Device)[0].Backing)
	editVM(b.T, b.lab, id, func(vm *simulator.VirtualMachine) {
		layout := *vm.LayoutEx
		layout.File = append(slices.Clone(layout.File), types.VirtualMachineFileLayoutExFileInfo{
			Name: file, Type: string(types.VirtualMachineFileLayoutExFileTypeDiskDescriptor),
		})
		vm.LayoutEx = &layout
	})
	return file
}

// A VM whose configuration the server doesn't have may use any disk.
func TestFileUsers_unknown(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	id := b.clone()
	line, err := b.client.ancestors(t.Context(), vmRef(b.vm.ID))
	must(t, err)
	if _, err := b.client.usersOf(t.Context(), line, []string{b.vm.Disks[0].Path, "[renamed] web/web.vmdk"}); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("on a datastore that isn't there: %v", err)
	}
	own, free := b.vm.Disks[0].Path, b.vm.Disks[0].Path+".vmdk"
	users, err := b.client.usersOf(t.Context(), line, []string{own})
	must(t, err)
	if users.inUse(own) == "" || users.inUse(free) != "" || users.otherThan(vmRef(b.vm.ID), own) != "" {
		t.Errorf("users %+v", users)
	}
	undo := editVM(t, b.lab, id, func(vm *simulator.VirtualMachine) { vm.Config = nil })
	defer undo()
	users, err = b.client.usersOf(t.Context(), line, []string{own})
	must(t, err)
	target, err := b.client.readTarget(t.Context(), b.vm.ID)
	must(t, err)
	err = b.client.refuseLinked(t.Context(), target, line)
	if !errors.Is(err, hypervisor.ErrSnapshotsInTheWay) || !strings.Contains(err.Error(), copyName) {
		t.Errorf("snapshots that %s may be based on: %v", copyName, err)
	}
	if reason := users.inUse(free); !strings.Contains(reason, copyName) {
		t.Errorf("a disk that %s may have is %q", copyName, reason)
	}
	if err := b.client.DeleteReplaced(t.Context(), b.vm.ID, []hypervisor.Replaced{{Path: free}}); err == nil || !strings.Contains(err.Error(), copyName) {
		t.Errorf("delete: %v", err)
	}
}
