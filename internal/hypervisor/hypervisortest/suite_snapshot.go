package hypervisortest

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var findTests = []suiteTest{
	{"find/every form of reference", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.vm(t, "vm2")
		for _, ref := range []hypervisor.VMRef{
			hypervisor.VMRef(vm.ID), hypervisor.VMRef(vm.BIOSUUID), upper(hypervisor.VMRef(vm.BIOSUUID)),
			hypervisor.VMRef(vm.InstanceUUID), upper(hypervisor.VMRef(vm.InstanceUUID)), hypervisor.VMRef(vm.Path), "vm1",
		} {
			got, err := s.Hypervisor.FindVM(t.Context(), ref)
			if err != nil || got.InstanceUUID != vm.InstanceUUID {
				t.Errorf("%s: got %+v, %v", ref, got, err)
			}
		}
		if got := s.find(t, vm.InstanceUUID); got.ID != vm.ID {
			t.Errorf("by instance UUID: %+v", got)
		}
	}},
	{"find/what is known of a VM", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		server, err := s.Hypervisor.Server(t.Context())
		if err != nil || server == "" || vm.Server != server {
			t.Errorf("server %q of the VM, %q of the connection, %v", vm.Server, server, err)
		}
		if vm.Name != "vm1" || vm.PowerState != hypervisor.PoweredOn || !vm.GuestAgent || len(vm.Obstacles) > 0 || vm.Template {
			t.Errorf("got %+v", vm)
		}
		if len(vm.Disks) != len(capacities) {
			t.Fatalf("%d disks", len(vm.Disks))
		}
		keys := map[hypervisor.DiskKey]bool{}
		for n, d := range vm.Disks {
			keys[d.Key] = true
			if d.Capacity != int64(capacities[n]) || d.Label == "" || d.Address == "" || d.Datastore == "" || d.Path == "" {
				t.Errorf("disk %d: %+v", n, d)
			}
		}
		if len(keys) != len(capacities) {
			t.Errorf("keys %v", keys)
		}
	}},
	{"find/none", func(t *testing.T, s *suite) {
		for _, ref := range []hypervisor.VMRef{"nothing", "/nowhere/nothing", "vm-4711", "11111111-2222-3333-4444-555555555555"} {
			_, err := s.Hypervisor.FindVM(t.Context(), ref)
			wantNotFound(t, string(ref), err)
		}
		_, err := s.Hypervisor.VMByInstanceUUID(t.Context(), "11111111-2222-3333-4444-555555555555")
		wantNotFound(t, "by instance UUID", err)
		_, err = s.Hypervisor.IdentifyVM(t.Context(), "11111111-2222-3333-4444-555555555555")
		wantNotFound(t, "identified by instance UUID", err)
	}},
	{"find/identity", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		for _, uuid := range []string{vm.InstanceUUID, strings.ToUpper(vm.InstanceUUID)} {
			got, err := s.Hypervisor.IdentifyVM(t.Context(), uuid)
			if err != nil || *got != vm.Identity() {
				t.Errorf("%s: got %+v and %v, want %+v", uuid, got, err, vm.Identity())
			}
		}
	}},
	{"find/existence", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		id := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"}).ID
		exists := func(want bool) {
			t.Helper()
			if got, err := s.Hypervisor.VMExists(t.Context(), vm.ID); err != nil || got != want {
				t.Errorf("VM: got %t and %v, want %t", got, err, want)
			}
		}
		snapshotExists := func(want bool) {
			t.Helper()
			if got, err := s.Hypervisor.SnapshotExists(t.Context(), id); err != nil || got != want {
				t.Errorf("snapshot: got %t and %v, want %t", got, err, want)
			}
		}
		exists(true)
		snapshotExists(true)
		if err := s.Hypervisor.RemoveSnapshot(t.Context(), vm.ID, id, hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		snapshotExists(false)
		id = s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "b"}).ID
		s.destroy(t, vm.ID)
		exists(false)
		snapshotExists(false)
	}},
	{"find/several", func(t *testing.T, s *suite) {
		if s.AddTwin == nil {
			t.Skip("the server can't hold two VMs of one name")
		}
		s.vm(t, "vm1")
		s.AddTwin(t, "vm1")
		_, err := s.Hypervisor.FindVM(t.Context(), "vm1")
		var ambiguous *hypervisor.AmbiguousVMError
		if !errors.As(err, &ambiguous) || len(ambiguous.Matches) != 2 {
			t.Errorf("got error %v", err)
		}
	}},
}

var snapshotTests = []suiteTest{
	{"snapshot/of all VMs", func(t *testing.T, s *suite) {
		b, none, a := s.vm(t, "b"), s.vm(t, "none"), s.vm(t, "a")
		s.snapshot(t, b, hypervisor.SnapshotSpec{Name: "first", Description: "d"})
		s.snapshot(t, b, hypervisor.SnapshotSpec{Name: "second"})
		s.snapshot(t, a, hypervisor.SnapshotSpec{Name: "first"})
		folder := path.Dir(none.Path)
		for _, below := range []string{"", folder} {
			var names []string
			for one, err := range s.Hypervisor.SnapshotsBelow(t.Context(), below) {
				if err != nil || one.Err != nil {
					t.Fatal(err, one.Err)
				}
				vm, err := s.Hypervisor.FindVM(t.Context(), hypervisor.VMRef(one.VM.ID))
				if err != nil || !reflect.DeepEqual(*vm, one.VM) {
					t.Errorf("got %+v, want %+v, %v", one.VM, vm, err)
				}
				list, err := s.Hypervisor.Snapshots(t.Context(), vm.ID)
				if err != nil || !reflect.DeepEqual(list, one.Snapshots) {
					t.Errorf("%s: got %+v, want %+v, %v", vm.Name, one.Snapshots, list, err)
				}
				names = append(names, vm.Name)
			}
			if want := []string{"a", "b"}; !slices.Equal(names, want) {
				t.Errorf("below %q: got %q, want %q", below, names, want)
			}
		}
		for first, err := range s.Hypervisor.SnapshotsBelow(t.Context(), "") {
			if err != nil || first.VM.Name != "a" {
				t.Errorf("the first is %+v, %v", first.VM, err)
			}
			break // nothing more is wanted
		}
		n := 0
		for _, err := range s.Hypervisor.SnapshotsBelow(t.Context(), "/nowhere/at all") {
			var missing *hypervisor.NotAvailableError
			if !errors.As(err, &missing) || !slices.Contains(missing.Available, folder) {
				t.Errorf("an unknown folder gives %v", err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("an unknown folder gives %d results", n)
		}
	}},
	{"snapshot/tree", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a", Description: "first"})
		b := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "b"})
		c := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "c"})
		if a.Name != "a" || a.Description != "first" || a.Depth != 1 || a.Parent != "" || a.CreatedAt.IsZero() || a.Memory || a.Quiesced {
			t.Errorf("a: %+v", a)
		}
		if c.Depth != 3 || c.Parent != b.ID || c.Path != "a/b/c" || !c.Current {
			t.Errorf("c: %+v", c)
		}
		all := s.snapshots(t, vm)
		if len(all) != 3 || all[0].ID != a.ID || all[1].ID != b.ID || all[0].Current || len(all[0].Children) != 1 || all[0].Children[0] != b.ID {
			t.Errorf("all: %+v", all)
		}
		remove(t, s, vm, b.ID, hypervisor.RemoveOptions{})
		all = s.snapshots(t, vm)
		if len(all) != 2 || all[1].ID != c.ID || all[1].Parent != a.ID || all[1].Depth != 2 || all[1].Path != "a/c" {
			t.Errorf("without b: %+v", all)
		}
		remove(t, s, vm, a.ID, hypervisor.RemoveOptions{Children: true})
		if all := s.snapshots(t, vm); len(all) > 0 {
			t.Errorf("without a and its children: %+v", all)
		}
	}},
	{"snapshot/removing keeps the disks' bytes", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		s.WriteDisk(t, "vm1", 0, pattern(3, 100_000), 4096)
		b := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "b"})
		s.WriteDisk(t, "vm1", 1, pattern(4, 100_000), 8192)
		want := s.disks(t, "vm1")
		remove(t, s, vm, a.ID, hypervisor.RemoveOptions{})
		wantBytes(t, "one removed", s.disks(t, "vm1"), want)
		remove(t, s, vm, b.ID, hypervisor.RemoveOptions{})
		wantBytes(t, "both removed", s.disks(t, "vm1"), want)
	}},
	{"snapshot/names", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		for _, name := range []string{"a/b", "100%", `back\slash`, "größer → kleiner", "%2f"} {
			snap := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: name, Description: name})
			if snap.Name != name || snap.Description != name {
				t.Errorf("%q is read back as %q, %q", name, snap.Name, snap.Description)
			}
		}
	}},
	{"snapshot/rename", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a", Description: "first"})
		if err := s.Hypervisor.RenameSnapshot(t.Context(), vm.ID, a.ID, "b/c", "second"); err != nil {
			t.Fatal(err)
		}
		if all := s.snapshots(t, vm); len(all) != 1 || all[0].ID != a.ID || all[0].Name != "b/c" || all[0].Description != "second" {
			t.Errorf("renamed: %+v", all)
		}
		err := s.Hypervisor.RenameSnapshot(t.Context(), vm.ID, a.ID, "b/c", "")
		all := s.snapshots(t, vm)
		if err == nil && all[0].Description != "" || err != nil && !errors.Is(err, hypervisor.ErrNotSupported) {
			t.Errorf("description emptied: %+v, %v", all, err)
		}
	}},
	{"snapshot/gone", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		a := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		for range 2 {
			remove(t, s, vm, a.ID, hypervisor.RemoveOptions{})
		}
		wantError(t, "rename", s.Hypervisor.RenameSnapshot(t.Context(), vm.ID, a.ID, "x", ""), hypervisor.ErrSnapshotNotFound)
		b := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "b"})
		if err := s.Hypervisor.DestroyVM(t.Context(), vm.ID); err != nil {
			t.Fatal(err)
		}
		remove(t, s, vm, b.ID, hypervisor.RemoveOptions{})
		_, err := s.Hypervisor.Snapshots(t.Context(), vm.ID)
		wantNotFound(t, "list", err)
		wantNotFound(t, "rename", s.Hypervisor.RenameSnapshot(t.Context(), vm.ID, b.ID, "x", ""))
		id, err := s.Hypervisor.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "c"})
		wantNotFound(t, "create", err)
		if id != "" {
			t.Errorf("create returned %s", id)
		}
	}},
	{"snapshot/memory and quiescing", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		if m := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "m", Memory: true}); !m.Memory || m.Quiesced || m.PowerState != hypervisor.PoweredOn {
			t.Errorf("memory: %+v", m)
		}
		if q := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "q", Quiesce: &hypervisor.Quiesce{}}); q.Memory || !q.Quiesced || q.PowerState != hypervisor.PoweredOff {
			t.Errorf("quiesced: %+v", q)
		}
		// Where nothing in the guest can be asked, an error is fine and so is a snapshot that says so.
		for _, spec := range []VMSpec{{Name: "agentless", NoAgent: true}, {Name: "off", PoweredOff: true}} {
			spec.Disks = [][]byte{pattern(1, capacities[0])}
			vm := s.add(t, spec)
			_, err := s.Hypervisor.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "q", Quiesce: &hypervisor.Quiesce{}})
			if err != nil && !errors.Is(err, hypervisor.ErrQuiesce) && !errors.Is(err, hypervisor.ErrGuestAgent) {
				t.Errorf("%s: %v", spec.Name, err)
			}
			for _, q := range s.snapshots(t, vm) {
				if q.Quiesced || err != nil {
					t.Errorf("%s: %+v, error %v", spec.Name, q, err)
				}
			}
		}
	}},
	{"snapshot/too deep", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		for n := 1; ; n++ {
			id, err := s.Hypervisor.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: fmt.Sprint(n)})
			if err == nil && n <= 40 {
				continue
			}
			wantError(t, "create", err, hypervisor.ErrTooManySnapshots)
			if all := s.snapshots(t, vm); id != "" || len(all) != n-1 || n < 30 {
				t.Errorf("%d snapshots, ID %q", len(all), id)
			}
			return
		}
	}},
	{"snapshot/many at once", func(t *testing.T, s *suite) {
		vms := []*hypervisor.VM{s.vm(t, "vm1"), s.vm(t, "vm2")}
		const each = 6
		var group sync.WaitGroup
		for _, vm := range vms {
			for n := range each {
				group.Go(func() {
					id, err := s.Hypervisor.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: fmt.Sprint(n)})
					if err != nil {
						t.Errorf("create %d of %s: %v", n, vm.Name, err)
						return
					}
					if n%2 == 0 {
						if err := s.Hypervisor.RemoveSnapshot(t.Context(), vm.ID, id, hypervisor.RemoveOptions{}); err != nil {
							t.Errorf("remove %d of %s: %v", n, vm.Name, err)
						}
					}
				})
			}
		}
		group.Wait()
		for _, vm := range vms {
			names := map[string]bool{}
			for _, snap := range s.snapshots(t, vm) {
				names[snap.Name] = true
			}
			if len(names) != each/2 || names["0"] || !names["1"] {
				t.Errorf("%s: %v", vm.Name, names)
			}
		}
	}},
}

func remove(t *testing.T, s *suite, vm *hypervisor.VM, id hypervisor.SnapshotID, options hypervisor.RemoveOptions) {
	t.Helper()
	if err := s.Hypervisor.RemoveSnapshot(t.Context(), vm.ID, id, options); err != nil {
		t.Fatalf("remove snapshot %s: %v", id, err)
	}
}
