package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// A tierBench is a Fake with a set of its VMs, which have written since.
type tierBench struct {
	*testing.T
	hv   *hypervisortest.Fake
	m    *snapshot.Manager
	vms  []hypervisor.VM
	then [][]byte // disks in the snapshots
	now  [][]byte
	r    snapshot.SetRevertRequest
}

func newTierBench(t *testing.T, n int, memory bool) *tierBench {
	t.Helper()
	b := &tierBench{T: t}
	b.hv, b.vms = newTiers(t, n)
	b.m = newManager(b.hv)
	r := setOf(b.vms)
	r.Memory = memory
	for _, id := range takeSet(t, b.hv, r).IDs() {
		b.r.Members = append(b.r.Members, snapshot.RevertMember{MemberID: id})
	}
	for _, vm := range b.vms {
		b.then = append(b.then, b.hv.DiskBytes(vm.ID, 0))
		if err := b.hv.WriteDisk(vm.ID, 0, []byte("evil"), 512); err != nil {
			t.Fatal(err)
		}
		b.now = append(b.now, b.hv.DiskBytes(vm.ID, 0))
	}
	return b
}

// state is each VM's power state, and whether its disk is as in the snapshot.
func (b *tierBench) state() (states []hypervisor.PowerState, reverted []bool) {
	b.Helper()
	for i, vm := range b.vms {
		states = append(states, find(b.T, b.hv, vm).PowerState)
		disk := b.hv.DiskBytes(vm.ID, 0)
		reverted = append(reverted, bytes.Equal(disk, b.then[i]))
		if !reverted[i] && !bytes.Equal(disk, b.now[i]) {
			b.Errorf("the disk of %s is neither", vm.Name)
		}
	}
	return states, reverted
}

func (b *tierBench) wantReverted(want hypervisor.PowerState) {
	b.Helper()
	states, reverted := b.state()
	for i := range b.vms {
		if states[i] != want || !reverted[i] {
			b.Errorf("%s is %s, reverted: %t; want %s", b.vms[i].Name, states[i], reverted[i], want)
		}
	}
}

func TestRevertSet_power(t *testing.T) {
	t.Parallel()
	for _, memory := range []bool{false, true} {
		asSnapshot := hypervisor.PoweredOff
		if memory {
			asSnapshot = hypervisor.PoweredOn
		}
		for power, want := range map[snapshot.Power]hypervisor.PowerState{
			snapshot.AsSnapshot: asSnapshot, snapshot.On: hypervisor.PoweredOn, snapshot.Off: hypervisor.PoweredOff,
		} {
			t.Run(fmt.Sprintf("memory %t/%s", memory, power), func(t *testing.T) {
				t.Parallel()
				b := newTierBench(t, 3, memory)
				b.hv.Edit(b.vms[1].ID, func(vm *hypervisor.VM) { vm.PowerState, vm.CPUs = hypervisor.PoweredOff, 16 })
				b.r.Power = power
				got, err := b.m.RevertSet(t.Context(), b.r)
				if err != nil || len(got) != 3 {
					t.Fatalf("got %+v and %v", got, err)
				}
				b.wantReverted(want)
				for i, one := range got {
					if one.VM.ID != b.vms[i].ID || one.VM.PowerState != want || !one.Snapshot.Current || (len(one.Undone) > 0) != (i == 1) {
						t.Errorf("%+v", one)
					}
				}
			})
		}
	}
}

// TestRevertSet_memoryDropped has a hypervisor that can't keep a VM stopped and its memory too.
func TestRevertSet_memoryDropped(t *testing.T) {
	t.Parallel()
	for power, want := range map[snapshot.Power]hypervisor.PowerState{
		snapshot.AsSnapshot: hypervisor.PoweredOn, snapshot.On: hypervisor.PoweredOn, snapshot.Off: hypervisor.PoweredOff,
	} {
		b := newTierBench(t, 2, true)
		b.hv.StayDropsMemory = true
		b.hv.Edit(b.vms[1].ID, func(vm *hypervisor.VM) { vm.CPUs = 16 })
		b.r.Power = power
		got, err := b.m.RevertSet(t.Context(), b.r)
		if err != nil || len(got) != 2 || len(got[1].Undone) != 1 {
			t.Fatalf("got %+v and %v", got, err)
		}
		b.wantReverted(want)
		if n := b.hv.Seen(hypervisortest.BeforePowerOn); n > 0 {
			t.Errorf("%s: a VM was booted although the snapshot holds its memory", power)
		}
	}
}

// TestRevertSet_order looks, whenever a VM is started, at the others: all are back, those of lower order run,
// those of higher order don't.
func TestRevertSet_order(t *testing.T) {
	t.Parallel()
	for _, memory := range []bool{false, true} {
		b := newTierBench(t, 4, memory)
		for i, order := range []int{3, 1, 2, 1} {
			b.r.Members[i].Order = order
		}
		b.r.Power = snapshot.On
		var mu sync.Mutex
		started := 0
		b.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Count: 4, Do: func(context.Context) {
			mu.Lock()
			defer mu.Unlock()
			states, reverted := b.state()
			on := hypervisor.PoweredOn
			if fmt.Sprint(reverted) != "[true true true true]" || (states[2] == on || states[0] == on) && (states[1] != on || states[3] != on) ||
				states[0] == on && states[2] != on || started == 2 && (states[1] != on || states[3] != on) || started == 3 && states[2] != on {
				t.Errorf("start %d: %v, reverted %v", started, states, reverted)
			}
			started++
		}})
		b.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRevertToSnapshot, Count: 4, Do: func(context.Context) {
			if states, _ := b.state(); slices.Contains(states, hypervisor.PoweredOn) {
				t.Errorf("a VM runs while others are reverted: %v", states)
			}
		}})
		if _, err := b.m.RevertSet(t.Context(), b.r); err != nil {
			t.Fatal(err)
		}
		b.wantReverted(hypervisor.PoweredOn)
	}
}

// TestRevertSet_started waits for the guests of one tier before the next is started, and starts none behind one
// that doesn't come up.
func TestRevertSet_started(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		b := newTierBench(t, 3, false)
		var mu sync.Mutex
		var told []string
		b.r.Power = snapshot.On
		for i := range b.r.Members {
			b.r.Members[i].Order = -i
		}
		b.r.Started = func(_ context.Context, vm *hypervisor.VM) (*hypervisor.VM, error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, vm.Name)
			if n := b.hv.Seen(hypervisortest.BeforePowerOn); n != len(told) {
				t.Errorf("%d VMs are started, %v are up", n, told)
			}
			vm.GuestIPAddress = "192.0.2.1"
			if fails && vm.Name == "vm1" {
				return vm, errBroken
			}
			return vm, nil
		}
		got, err := b.m.RevertSet(t.Context(), b.r)
		want := map[bool]string{false: "[vm2 vm1 vm0]", true: "[vm2 vm1]"}[fails]
		if fails != errors.Is(err, errBroken) || fmt.Sprint(told) != want || len(got) != 3 {
			t.Errorf("got %+v and %v; up: %v", got, err, told)
		}
		if !fails && got[1].VM.GuestIPAddress == "" {
			t.Errorf("got %+v", got[1].VM)
		}
		if states, _ := b.state(); fails && states[0] != hypervisor.PoweredOff {
			t.Errorf("vm0 is %s", states[0])
		}
	}
}

// TestRevertSet_failures has each member fail at each point. The error says of every VM what became of it, what
// is returned is so, and the next attempt succeeds.
func TestRevertSet_failures(t *testing.T) {
	t.Parallel()
	for _, point := range []hypervisortest.Point{
		hypervisortest.BeforeFindVM, hypervisortest.BeforeSnapshots, hypervisortest.BeforeRevertChanges, hypervisortest.BeforePowerOff,
		hypervisortest.BeforeRevertToSnapshot, hypervisortest.AfterRevertToSnapshot, hypervisortest.BeforePowerOn,
		hypervisortest.BeforeVMByInstanceUUID,
	} {
		for skip := range 3 {
			for _, cancelled := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d, cancelled %t", point, skip, cancelled), func(t *testing.T) {
					t.Parallel()
					b := newTierBench(t, 3, skip == 1)
					b.r.Power = snapshot.On
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					fault, want := hypervisortest.Fault{At: point, Skip: skip, Err: errBroken}, errBroken
					if cancelled {
						fault.Err, fault.Do, want = nil, func(context.Context) { cancel() }, context.Canceled
					}
					b.hv.Fail(fault)
					got, err := b.m.RevertSet(ctx, b.r)
					if !errors.Is(err, want) {
						t.Fatalf("got %v", err)
					}
					b.wantReport(got, err, b.hv.Seen(hypervisortest.BeforePowerOff) > 0)
					if got, err = b.m.RevertSet(t.Context(), b.r); err != nil || len(got) != 3 {
						t.Fatalf("second attempt: %v", err)
					}
					b.wantReverted(hypervisor.PoweredOn)
				})
			}
		}
	}
}

// wantReport checks that an error of RevertSet, and what it returns, say what is so.
func (b *tierBench) wantReport(got []snapshot.Reverted, err error, begun bool) {
	b.Helper()
	states, reverted := b.state()
	said := map[hypervisor.VMID]hypervisor.PowerState{}
	for _, one := range got {
		said[one.VM.ID] = one.VM.PowerState
	}
	all := true
	for i, vm := range b.vms {
		state, ok := said[vm.ID]
		if ok != reverted[i] || ok && state != states[i] {
			b.Errorf("%s is %s, reverted %t; said: %s, %t", vm.Name, states[i], reverted[i], state, ok)
		}
		if !begun && (states[i] != hypervisor.PoweredOn || reverted[i]) {
			b.Errorf("%s was touched although not all could be checked", vm.Name)
		}
		line := fmt.Sprintf("%s is not reverted and is %s now", vm.Path, strings.ReplaceAll(string(states[i]), "_", " "))
		if reverted[i] {
			line = strings.Replace(line, "not reverted", "reverted", 1)
		}
		if begun && !strings.Contains(err.Error(), line) {
			b.Errorf("the error doesn't say %q: %v", line, err)
		}
		all = all && reverted[i]
	}
	switch some := slices.Contains(reverted, true); {
	case begun && some && !all && b.hv.Seen(hypervisortest.BeforePowerOn) > 0:
		b.Error("a VM was started although not all are reverted")
	case begun && !some && (slices.Contains(states, hypervisor.PoweredOff) || !strings.Contains(err.Error(), "started again")):
		b.Errorf("none is reverted, and they are %v: %v", states, err)
	}
}

// TestRevertSet_notStartedAgain starts those again that ran, in their order, and names those that don't start.
func TestRevertSet_notStartedAgain(t *testing.T) {
	t.Parallel()
	b := newTierBench(t, 4, false)
	b.hv.Edit(b.vms[3].ID, func(vm *hypervisor.VM) { vm.PowerState = hypervisor.PoweredOff })
	for i, order := range []int{3, 2, 1, 0} {
		b.r.Members[i].Order = order
	}
	b.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeRevertToSnapshot, Count: 4, Err: errBroken})
	b.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Skip: 1, Err: hypervisor.ErrLost})
	got, err := b.m.RevertSet(t.Context(), b.r)
	if len(got) > 0 || !errors.Is(err, errBroken) || !errors.Is(err, hypervisor.ErrLost) ||
		!strings.Contains(err.Error(), "except: "+b.vms[1].Path) {
		t.Errorf("got %+v, %v", got, err)
	}
	on, off := hypervisor.PoweredOn, hypervisor.PoweredOff
	if states, _ := b.state(); !slices.Equal(states, []hypervisor.PowerState{on, off, on, off}) {
		t.Errorf("the VMs are %v", states)
	}
}

func TestRevertSet_refused(t *testing.T) {
	t.Parallel()
	b := newTierBench(t, 2, false)
	members := b.r.Members
	for name, r := range map[string]snapshot.SetRevertRequest{
		"nobody":         {},
		"twice":          {Members: []snapshot.RevertMember{members[0], members[1], members[0]}},
		"unknown power":  {Members: members, Power: "maybe"},
		"without a name": {Members: []snapshot.RevertMember{members[0], {MemberID: snapshot.MemberID{VM: members[1].VM}}}},
	} {
		if got, err := b.m.RevertSet(t.Context(), r); got != nil || !errors.Is(err, snapshot.ErrRequest) {
			t.Errorf("%s: got %v and %v", name, got, err)
		}
	}
	if states, reverted := b.state(); fmt.Sprint(states, reverted) != "[powered_on powered_on] [false false]" {
		t.Errorf("%v, %v", states, reverted)
	}
}
