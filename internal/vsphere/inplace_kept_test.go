package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// What a VM remembers is its own: a copy has nothing of it, and disks that are gone are not told of.
func TestKeptDisks(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	r := b.started(b.spec("run-1"))
	_, replaced, _, err := r.Swap(t.Context())
	must(t, err)
	must(t, r.Finish(t.Context(), replaced))
	kept := func(id hypervisor.VMID, want []hypervisor.Replaced) {
		t.Helper()
		if got, err := b.client.KeptDisks(t.Context(), id); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s remembers %+v, %v, want %+v", id, got, err, want)
		}
	}
	kept(b.vm.ID, replaced)
	id := b.clone()
	kept(id, nil)
	must(t, b.client.ForgetKept(t.Context(), id, replaced))
	line, err := b.client.ancestors(t.Context(), vmRef(b.vm.ID))
	must(t, err)
	must(t, b.client.deleteDisks(t.Context(), line, []string{replaced[0].Path})) // by hand
	kept(b.vm.ID, replaced[1:])
	elsewhere := hypervisor.Replaced{Label: "Hard disk 3", Path: "[gone] web/web.vmdk"} // can't be told
	must(t, b.remembers(replaced[1], elsewhere))
	kept(b.vm.ID, []hypervisor.Replaced{replaced[1], elsewhere})
	b.deleteReplaced([]hypervisor.Replaced{replaced[1]})
	kept(b.vm.ID, []hypervisor.Replaced{elsewhere})
	must(t, b.client.ForgetKept(t.Context(), b.vm.ID, []hypervisor.Replaced{elsewhere}))
	var vm mo.VirtualMachine
	must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"config.extraConfig"}, &vm))
	if got := optionValue(vm.Config.ExtraConfig, keptKey); got != "" {
		t.Errorf("the VM still says %s", got)
	}
}

// Until when a disk is kept outlives the run that said so, whether it came to its end or not, and never gets earlier.
func TestKeptDisks_until(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	spec := b.spec("run-1")
	spec.Keep = 30 * 24 * time.Hour
	r := b.started(spec)
	_, _, _, err := r.Swap(t.Context())
	must(t, err)
	must(t, b.client.PowerOn(t.Context(), b.vm.ID))
	before := time.Now()
	r.Leave() // it is killed
	found, err := b.client.InterruptedInPlace(t.Context(), b.vm.ID)
	must(t, err)
	_, replaced, _, err := b.client.RecoverInPlace(t.Context(), b.vm.ID, *found, "run-2")
	must(t, err)
	if len(replaced) != 1 || replaced[0].Until.Before(before.Add(spec.Keep-time.Minute)) {
		t.Fatalf("%+v", replaced)
	}
	for name, until := range map[string]time.Time{"earlier": replaced[0].Until.Add(-time.Hour), "later": replaced[0].Until.Add(time.Hour)} {
		told := slices.Clone(replaced)
		told[0].Until = until
		must(t, b.client.setOptions(t.Context(), b.vm.ID, func(vm *mo.VirtualMachine) ([]types.BaseOptionValue, error) {
			option, err := b.client.remember(t.Context(), vm, told)
			return []types.BaseOptionValue{option}, err
		}))
		got, err := b.client.KeptDisks(t.Context(), b.vm.ID)
		if err != nil || len(got) != 1 || got[0].Until.Before(replaced[0].Until) || got[0].Until.Before(until) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// remembers makes the VM remember these disks and no others.
func (b *inPlaceBench) remembers(disks ...hypervisor.Replaced) error {
	b.Helper()
	vm, err := b.client.readTarget(b.Context(), b.vm.ID)
	must(b.T, err)
	text, err := encodeKept(vm, disks)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: keptKey, Value: text}}})
	return err
}

// A list that can't be read is said to be so, and is in nobody's way.
func TestKeptDisks_unreadable(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: keptKey, Value: "by hand"}}})
	if _, err := b.client.KeptDisks(t.Context(), b.vm.ID); err == nil || !strings.Contains(err.Error(), keptKey) {
		t.Errorf("got %v", err)
	}
	if err := b.client.ForgetKept(t.Context(), b.vm.ID, []hypervisor.Replaced{{Path: "p"}}); err == nil {
		t.Error("what can't be read was forgotten")
	}
	r := b.started(b.spec("run-1"))
	_, replaced, _, err := r.Swap(t.Context())
	must(t, err)
	must(t, r.Finish(t.Context(), replaced))
	if got, err := b.client.KeptDisks(t.Context(), b.vm.ID); err != nil || !slices.Equal(got, replaced) {
		t.Errorf("got %+v, %v", got, err)
	}
	b.deleteReplaced(replaced)
	b.untouched()
}

func TestEncodeKept_bounded(t *testing.T) {
	t.Parallel()
	vm := &mo.VirtualMachine{Config: &types.VirtualMachineConfigInfo{InstanceUuid: "i"}}
	var disks []hypervisor.Replaced
	for n := range 1000 {
		disks = append(disks, hypervisor.Replaced{Label: fmt.Sprint(n), Path: strings.Repeat("p", 100)})
	}
	text, err := encodeKept(vm, disks)
	must(t, err)
	kept, err := decodeKept(text)
	must(t, err)
	if n := len(kept.Disks); len(text) > maxJournal || n < 100 || kept.Disks[n-1].Label != "999" || kept.Disks[0].Label != fmt.Sprint(1000-n) {
		t.Errorf("%d disks in %d bytes", n, len(text))
	}
	if text, err := encodeKept(vm, nil); text != "" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}

func FuzzKept(f *testing.F) {
	f.Add(`{"version":1,"vm":"vm-1","instance":"i","disks":[{"label":"l","path":"[a] b.vmdk","now":"[a] c.vmdk"}]}`)
	f.Add(`{"version":1,"vm":"vm-1","instance":"i","disks":[{"path":"[a] b.vmdk","until":"2026-03-04T05:06:07Z"}]}`)
	f.Add(`{"version":2}`)
	f.Add(`null`)
	f.Add(strings.Repeat(" ", maxJournal+1))
	vm := &mo.VirtualMachine{Config: &types.VirtualMachineConfigInfo{}}
	f.Fuzz(func(t *testing.T, text string) {
		kept, err := decodeKept(text)
		if err != nil {
			return
		}
		var disks []hypervisor.Replaced
		for _, d := range kept.Disks {
			disks = append(disks, hypervisor.Replaced(d))
		}
		again, err := encodeKept(vm, disks)
		if err != nil || again == "" {
			return
		}
		if _, err := decodeKept(again); err != nil {
			t.Errorf("%q became %q: %v", text, again, err)
		}
	})
}
