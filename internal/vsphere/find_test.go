package vsphere

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// cloneInto clones a VM into a new folder of the datacenter, and returns the clone's path.
func cloneInto(t *testing.T, c *Client, vm *hypervisor.VM, folder, name string) string {
	t.Helper()
	ref, err := object.NewSearchIndex(c.vim).FindByInventoryPath(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	into, err := object.NewFolder(c.vim, ref.Reference()).CreateFolder(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.vm(vm.ID).Clone(t.Context(), into, name, types.VirtualMachineCloneSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.waitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	return "/DC0/vm/" + folder + "/" + escapeName(name)
}

func TestFindVM(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01", "web02", "vm-1")
	all := l.Status().VMs
	status := all[slices.IndexFunc(all, func(vm lab.VMStatus) bool { return vm.Name == "web01" })]
	status.Config = nil
	want := find(t, c, "web01")
	if want.Name != "web01" || string(want.ID) != status.ID || want.BIOSUUID != strings.ToLower(status.BIOSUUID) ||
		want.InstanceUUID != strings.ToLower(status.InstanceUUID) || want.PowerState != hypervisor.PoweredOn ||
		want.Path != status.Folder+"/web01" || !want.GuestAgent || want.CPUs == 0 || want.MemoryBytes < 1<<20 ||
		want.GuestID == "" || want.HardwareVersion == "" || want.Server == "" {
		t.Errorf("got %+v, the lab says %+v", want, status)
	}
	for _, ref := range []string{
		status.ID, status.BIOSUUID, strings.ToUpper(status.BIOSUUID), status.InstanceUUID,
		strings.ReplaceAll(status.InstanceUUID, "-", ""), want.Path, want.Path[1:], " web01 ",
		"lab/web01",
	} {
		got, err := c.FindVM(t.Context(), hypervisor.VMRef(ref))
		if err != nil {
			t.Errorf("%q: %v", ref, err)
			continue
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%q: got %+v\nwant %+v", ref, got, want)
		}
	}
	if got := find(t, c, "vm-1"); got.Name != "vm-1" {
		t.Errorf("a name that looks like an ID finds %+v", got)
	}
	for _, ref := range []hypervisor.VMRef{
		"web03", "vm-99999", "/DC0/vm/web03", "/web01", "/DC0/vm", "DC0", "00000000-0000-4000-8000-000000000000", "x/web01",
	} {
		_, err := c.FindVM(t.Context(), ref)
		var gone *hypervisor.VMNotFoundError
		if !errors.As(err, &gone) || gone.Ref != string(ref) || gone.Where == "" {
			t.Errorf("%q: got %v, want a VMNotFoundError", ref, err)
		}
	}
	if _, err := c.FindVM(t.Context(), " "); err == nil {
		t.Error("an empty reference finds something")
	}
}

func TestFindVM_ambiguous(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	first := find(t, c, "web01")
	path := cloneInto(t, c, first, "apps", "web01")
	_, err := c.FindVM(t.Context(), "web01")
	var several *hypervisor.AmbiguousVMError
	if !errors.As(err, &several) || len(several.Matches) != 2 {
		t.Fatalf("got %v, want an AmbiguousVMError of two", err)
	}
	second := find(t, c, hypervisor.VMRef(path))
	for _, vm := range []*hypervisor.VM{first, second} {
		if !slices.ContainsFunc(several.Matches, func(line string) bool {
			return strings.Contains(line, vm.Path) && strings.Contains(line, string(vm.ID)) &&
				strings.Contains(line, vm.BIOSUUID) && strings.Contains(line, vm.InstanceUUID)
		}) {
			t.Errorf("%s can't be told from %v", vm.Path, several.Matches)
		}
	}
	if got := find(t, c, "apps/web01"); got.ID != second.ID {
		t.Errorf("a relative path finds %s, want %s", got.Path, second.Path)
	}
}

func TestFindVM_sameBIOSUUID(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01", "web02")
	first, second := find(t, c, "web01"), find(t, c, "web02")
	if err := c.PowerOff(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	task, err := c.vm(second.ID).Reconfigure(t.Context(), types.VirtualMachineConfigSpec{Uuid: first.BIOSUUID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.waitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	_, err = c.FindVM(t.Context(), hypervisor.VMRef(first.BIOSUUID))
	var several *hypervisor.AmbiguousVMError
	if !errors.As(err, &several) || len(several.Matches) != 2 {
		t.Fatalf("got %v, want an AmbiguousVMError of two", err)
	}
	if got := find(t, c, hypervisor.VMRef(second.InstanceUUID)); got.ID != second.ID {
		t.Errorf("got %s, want %s", got.ID, second.ID)
	}
}

func TestFindVM_specialCharacters(t *testing.T) {
	t.Parallel()
	names := []string{`100% sure`, `a/b`, `back\slash`, "ümläut 漢字", "two  spaces", `<&">`}
	_, c := labWith(t, names...)
	for _, name := range names {
		path := "/DC0/vm/lab/" + escapeName(name)
		for _, ref := range []string{path, path[1:], name, escapeName(name)} {
			got, err := c.FindVM(t.Context(), hypervisor.VMRef(ref))
			if err != nil {
				t.Errorf("%q: %v", ref, err)
				continue
			}
			if got.Name != name || got.Path != path {
				t.Errorf("%q: got %q at %q, want %q at %q", ref, got.Name, got.Path, name, path)
			}
		}
	}
}

func TestVMByInstanceUUID(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01", "web02")
	first := find(t, c, "web01")
	for range manyLookUps + 5 { // by search, by hint, and after listing all
		for _, id := range []string{first.InstanceUUID, strings.ToUpper(first.InstanceUUID)} {
			if got, err := c.VMByInstanceUUID(t.Context(), id); err != nil || got.ID != first.ID {
				t.Fatalf("got %+v and %v", got, err)
			}
		}
		for _, id := range []string{first.BIOSUUID, "00000000-0000-4000-8000-000000000000"} {
			_, err := c.VMByInstanceUUID(t.Context(), id)
			var gone *hypervisor.VMNotFoundError
			if !errors.As(err, &gone) {
				t.Fatalf("%s: got %v, want a VMNotFoundError", id, err)
			}
		}
	}
	if _, err := c.VMByInstanceUUID(t.Context(), "web01"); err == nil {
		t.Error("a name is no UUID")
	}
}

// TestVMByInstanceUUID_drift changes the inventory behind the client's back.
func TestVMByInstanceUUID_drift(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01", "web02")
	first, second := find(t, c, "web01"), find(t, c, "web02")
	for _, vm := range []*hypervisor.VM{first, second} {
		if _, err := c.VMByInstanceUUID(t.Context(), vm.InstanceUUID); err != nil {
			t.Fatal(err)
		}
		if err := c.PowerOff(t.Context(), vm.ID); err != nil {
			t.Fatal(err)
		}
	}
	task, err := c.vm(first.ID).Destroy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.waitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	var gone *hypervisor.VMNotFoundError
	if _, err := c.VMByInstanceUUID(t.Context(), first.InstanceUUID); !errors.As(err, &gone) {
		t.Errorf("got %v, want a VMNotFoundError", err)
	}
	// Another VM takes the identity over, as a restored one does.
	task, err = c.vm(second.ID).Reconfigure(t.Context(), types.VirtualMachineConfigSpec{InstanceUuid: first.InstanceUUID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.waitTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if got, err := c.VMByInstanceUUID(t.Context(), first.InstanceUUID); err != nil || got.ID != second.ID {
		t.Errorf("got %+v and %v, want %s", got, err, second.ID)
	}
	if _, err := c.VMByInstanceUUID(t.Context(), second.InstanceUUID); !errors.As(err, &gone) {
		t.Errorf("got %v, want a VMNotFoundError", err)
	}
}

func TestFindVM_esx(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{ESX: true})
	if err := l.AddVM(t.Context(), lab.VMSpec{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, labConfig(l))
	vm := find(t, c, "web01")
	for _, ref := range []hypervisor.VMRef{
		hypervisor.VMRef(vm.ID), hypervisor.VMRef(vm.Path), hypervisor.VMRef(vm.BIOSUUID), hypervisor.VMRef(vm.InstanceUUID),
	} {
		if got := find(t, c, ref); got.ID != vm.ID {
			t.Errorf("%s: got %s, want %s", ref, got.ID, vm.ID)
		}
	}
	if _, err := c.rest(t.Context()); !errors.Is(err, hypervisor.ErrNotSupported) {
		t.Errorf("got %v, want ErrNotSupported", err)
	}
	if id, err := c.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: "a"}); err != nil || id == "" {
		t.Errorf("got %q and %v", id, err)
	}
}

// TestRefresh_calls counts what a refresh of many snapshots costs, with ten workers as Terraform has.
func TestRefresh_calls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ n, most int }{{1, 5}, {10, 40}, {200, 150}} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			t.Parallel()
			l := labtest.Start(t, lab.Options{})
			seed := labtest.RawDisk(t, 1<<20, 1)
			for i := range tt.n {
				if err := l.AddVM(t.Context(), lab.VMSpec{Name: fmt.Sprintf("vm%03d", i), Disks: []string{seed}}); err != nil {
					t.Fatal(err)
				}
			}
			var uuids []string
			for _, vm := range l.Status().VMs {
				if strings.HasPrefix(vm.Name, "vm") {
					uuids = append(uuids, vm.InstanceUUID)
				}
			}
			c := dial(t, labConfig(l))
			before := l.Calls()
			work := make(chan string)
			var wg sync.WaitGroup
			start := time.Now()
			for range 10 {
				wg.Go(func() {
					for id := range work {
						vm, err := c.VMByInstanceUUID(t.Context(), id)
						if err != nil {
							t.Error(err)
							continue
						}
						if _, err := c.Snapshots(t.Context(), vm.ID); err != nil {
							t.Error(err)
						}
					}
				})
			}
			for _, id := range uuids {
				work <- id
			}
			close(work)
			wg.Wait()
			total := 0
			used := make(map[string]int)
			for method, n := range l.Calls() {
				if n -= before[method]; n > 0 {
					used[method] = n
					total += n
				}
			}
			t.Logf("%d snapshots: %d calls in %s: %v", len(uuids), total, time.Since(start), used)
			if total > tt.most {
				t.Errorf("%d calls, want at most %d", total, tt.most)
			}
		})
	}
}
