package vsphere

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// TestRecent_calls reads many VMs: how many there are makes no difference to the number of calls.
func TestRecent_calls(t *testing.T) {
	t.Parallel()
	const n = 3 * manyAsked
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("vm%02d", i))
	}
	l, c := labWith(t, names...)
	refs, err := c.listing.get(t.Context())
	if err != nil || len(refs) != n {
		t.Fatalf("%d VMs, %v", len(refs), err)
	}
	ctx := hypervisor.Recent(t.Context(), time.Hour)
	before := l.Calls()["RetrievePropertiesEx"]
	for range 2 {
		for ref := range refs {
			vm, err := c.vmByRef(ctx, ref)
			if err != nil || string(vm.ID) != ref.Value || vm.Path == "" {
				t.Fatalf("got %+v, %v", vm, err)
			}
		}
	}
	// Those that were read one by one before there were many, the list, and all of them.
	if calls := l.Calls()["RetrievePropertiesEx"] - before; calls != manyAsked-1+2 {
		t.Errorf("%d calls for %d VMs, want %d", calls, n, manyAsked-1+2)
	}
}

// TestRecent_few reads few VMs, again and again: each is asked for once.
func TestRecent_few(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01", "web02")
	ctx := hypervisor.Recent(t.Context(), time.Hour)
	vms := []*hypervisor.VM{find(t, c, "web01"), find(t, c, "web02")}
	before := l.Calls()["RetrievePropertiesEx"]
	for range 5 {
		for _, vm := range vms {
			got, err := c.vmByID(ctx, vm.ID)
			if err != nil || got.Path != vm.Path {
				t.Fatalf("got %+v, %v", got, err)
			}
		}
	}
	if calls := l.Calls()["RetrievePropertiesEx"] - before; calls != len(vms) {
		t.Errorf("%d calls for %d VMs", calls, len(vms))
	}
	// What is gone is nobody's answer, and a small age is heeded.
	if err := c.DestroyVM(t.Context(), vms[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.vmByID(ctx, vms[0].ID); !vmGone(err) {
		t.Errorf("got %v for a VM that is gone", err)
	}
	before = l.Calls()["RetrievePropertiesEx"]
	for range 2 {
		if _, err := c.vmByID(hypervisor.Recent(t.Context(), time.Nanosecond), vms[1].ID); err != nil {
			t.Fatal(err)
		}
	}
	if calls := l.Calls()["RetrievePropertiesEx"] - before; calls != 2 {
		t.Errorf("%d calls, want 2", calls)
	}
}

// TestRecent_change changes something through the connection: nobody reads what was before.
func TestRecent_change(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 2 * manyAsked {
		names = append(names, fmt.Sprintf("vm%02d", i))
	}
	l, c := labWith(t, names...)
	ctx := hypervisor.Recent(t.Context(), time.Hour)
	vm := find(t, c, "vm00")
	readAll := func() {
		t.Helper()
		for _, name := range names {
			if _, err := c.Snapshots(ctx, find(t, c, hypervisor.VMRef(name)).ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	readAll()
	id, err := c.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Snapshots(ctx, vm.ID); err != nil || len(list) != 1 {
		t.Errorf("after the snapshot was taken: %v, %v", list, err)
	}
	if err := c.RenameSnapshot(t.Context(), vm.ID, id, "renamed", ""); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Snapshots(ctx, vm.ID); err != nil || len(list) != 1 || list[0].Name != "renamed" {
		t.Errorf("after it was renamed: %v, %v", list, err)
	}
	before := l.Calls()["RetrievePropertiesEx"]
	readAll()
	if calls := l.Calls()["RetrievePropertiesEx"] - before; calls > 2*len(names)+3 {
		t.Errorf("%d calls although nothing changed since", calls)
	}
	// What others change is seen when the answer would be too old, and at once by who says nothing of age.
	if _, err := dial(t, labConfig(l)).CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	for want, snapshots := range map[int]func() ([]hypervisor.Snapshot, error){
		1: func() ([]hypervisor.Snapshot, error) { return c.Snapshots(ctx, vm.ID) },
		2: func() ([]hypervisor.Snapshot, error) { return c.Snapshots(t.Context(), vm.ID) },
	} {
		if list, err := snapshots(); err != nil || len(list) != want {
			t.Errorf("%d snapshots, %v; want %d", len(list), err, want)
		}
	}
	if list, err := c.Snapshots(hypervisor.Recent(t.Context(), time.Nanosecond), vm.ID); err != nil || len(list) != 2 {
		t.Errorf("with a small age: %v, %v", list, err)
	}
}

// TestRecent_largeInventory has far more VMs than are asked for: they are not read.
func TestRecent_largeInventory(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int]bool{manyAsked - 1: false, manyAsked: false, 1000: true} {
		o := newOverview(listOf(manyAsked*worthIt + 1))
		refs, err := o.all(t.Context(), asked)
		if err != nil || (refs != nil) != want {
			t.Errorf("%d asked for: %d refs, %v", asked, len(refs), err)
		}
	}
}

func listOf(n int) func(context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	return func(context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error) {
		list := make(map[types.ManagedObjectReference]types.ObjectContent, n)
		for i := range n {
			list[types.ManagedObjectReference{Type: "VirtualMachine", Value: fmt.Sprint("vm-", i)}] = types.ObjectContent{}
		}
		return list, nil
	}
}

// TestRecent_parallel reads and changes at the same time.
func TestRecent_parallel(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range manyAsked + 4 {
		names = append(names, fmt.Sprintf("vm%02d", i))
	}
	_, c := labWith(t, names...)
	ctx := hypervisor.Recent(t.Context(), time.Hour)
	var wg sync.WaitGroup
	for _, name := range names {
		vm := find(t, c, hypervisor.VMRef(name))
		wg.Go(func() {
			for i := range 3 {
				if _, err := c.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "s"}); err != nil {
					t.Error(err)
				}
				if list, err := c.Snapshots(ctx, vm.ID); err != nil || len(list) != i+1 {
					t.Errorf("%s: %d snapshots, %v; want %d", vm.Name, len(list), err, i+1)
				}
			}
		})
	}
	wg.Wait()
}
