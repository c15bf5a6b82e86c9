package vsphere

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// labWith starts a lab with VMs of one small disk each, and connects to it.
func labWith(t *testing.T, names ...string) (*lab.Lab, *Client) {
	t.Helper()
	l := labtest.Start(t, lab.Options{})
	seed := labtest.RawDisk(t, 1<<20, 1)
	for _, name := range names {
		if err := l.AddVM(t.Context(), lab.VMSpec{Name: name, Disks: []string{seed}}); err != nil {
			t.Fatal(err)
		}
	}
	return l, dial(t, labConfig(l))
}

func find(t *testing.T, c *Client, ref hypervisor.VMRef) *hypervisor.VM {
	t.Helper()
	vm, err := c.FindVM(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func list(t *testing.T, c *Client, vm hypervisor.VMID) []hypervisor.Snapshot {
	t.Helper()
	all, err := c.Snapshots(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSnapshots_tree(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	if got := list(t, c, vm); len(got) != 0 {
		t.Fatalf("a new VM has snapshots: %+v", got)
	}
	specs := []hypervisor.SnapshotSpec{
		{Name: "before", Description: "first"},
		{Name: `100% a/b\c`, Description: `50% d/e\f`, Memory: true},
		{Name: "quiet", Quiesce: &hypervisor.Quiesce{Timeout: 5 * time.Minute}},
	}
	ids := make([]hypervisor.SnapshotID, len(specs))
	for i, spec := range specs {
		var err error
		if ids[i], err = c.CreateSnapshot(t.Context(), vm, spec); err != nil {
			t.Fatal(err)
		}
	}
	got := list(t, c, vm)
	if len(got) != len(specs) {
		t.Fatalf("got %+v", got)
	}
	path := ""
	for i, s := range got {
		spec := specs[i]
		path = strings.TrimPrefix(path+"/"+spec.Name, "/")
		want := hypervisor.Snapshot{
			ID: ids[i], Name: spec.Name, Description: spec.Description, Memory: spec.Memory, Quiesced: spec.Quiesce != nil,
			Path: path, Depth: i + 1, Current: i == len(specs)-1, PowerState: hypervisor.PoweredOff,
		}
		if spec.Memory {
			want.PowerState = hypervisor.PoweredOn
		}
		if i > 0 {
			want.Parent = ids[i-1]
		}
		if i < len(specs)-1 {
			want.Children = ids[i+1 : i+2]
		}
		if time.Since(s.CreatedAt).Abs() > time.Hour {
			t.Errorf("%s was created at %s", s.ID, s.CreatedAt)
		}
		if s.SizeBytes < 0 {
			t.Errorf("the size of %s is not known", s.ID)
		}
		s.CreatedAt, s.SizeBytes, s.Application = time.Time{}, 0, false
		if fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", s, want)
		}
	}
}

func TestSnapshots_size(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	first, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "first"})
	if err != nil {
		t.Fatal(err)
	}
	before := list(t, c, vm)[0].SizeBytes
	const written = 256 << 10
	if err := l.WriteDisk("web01", 0, 0, make([]byte, written)); err != nil {
		t.Fatal(err)
	}
	// Sizes are as the server last counted them.
	if err := c.vm(vm).RefreshStorageInfo(t.Context()); err != nil {
		t.Fatal(err)
	}
	grown := list(t, c, vm)[0].SizeBytes
	if grown < before+written {
		t.Errorf("%d bytes before and %d after %d were written", before, grown, written)
	}
	// What was written in the meantime stays with the first when there is a second.
	if _, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "second"}); err != nil {
		t.Fatal(err)
	}
	got := list(t, c, vm)
	if got[0].ID != first || got[0].SizeBytes < written || got[1].SizeBytes >= written {
		t.Errorf("the first holds %d bytes and the second %d; %d were written between them",
			got[0].SizeBytes, got[1].SizeBytes, written)
	}
}

// TestCreateSnapshot_parallel takes many snapshots at the same time, which must neither hang nor fail:
// waiters that share a property collector starve one another, and a busy VM refuses.
func TestCreateSnapshot_parallel(t *testing.T) {
	t.Parallel()
	const n = 20
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("vm%02d", i)
	}
	for name, vms := range map[string][]string{"one VM": names[:1], "many VMs": names} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, vms...)
			var wg sync.WaitGroup
			start := time.Now()
			ids := make([]hypervisor.SnapshotID, n)
			for i := range n {
				vm := find(t, c, hypervisor.VMRef(vms[i%len(vms)])).ID
				wg.Go(func() {
					id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: fmt.Sprintf("s%02d", i)})
					if err != nil {
						t.Error(err)
					}
					ids[i] = id
				})
			}
			wg.Wait()
			t.Logf("%d snapshots on %d VMs in %s, calls %v", n, len(vms), time.Since(start), l.Calls())
			for _, name := range vms {
				for _, s := range list(t, c, find(t, c, hypervisor.VMRef(name)).ID) {
					if !slices.Contains(ids, s.ID) {
						t.Errorf("there is %s that nobody was told of", s.ID)
					}
					ids = slices.DeleteFunc(ids, func(id hypervisor.SnapshotID) bool { return id == s.ID })
				}
			}
			if len(ids) != 0 {
				t.Errorf("snapshots that don't exist: %v", ids)
			}
		})
	}
}

func TestCreateSnapshot_badSpec(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	for name, spec := range map[string]hypervisor.SnapshotSpec{
		"no name":         {},
		"long name":       {Name: strings.Repeat("x", 81)},
		"memory, quiesce": {Name: "a", Memory: true, Quiesce: &hypervisor.Quiesce{}},
		"short timeout":   {Name: "a", Quiesce: &hypervisor.Quiesce{Timeout: time.Minute}},
		"long timeout":    {Name: "a", Quiesce: &hypervisor.Quiesce{Timeout: 5 * time.Hour}},
		"VSS context":     {Name: "a", Quiesce: &hypervisor.Quiesce{VSS: &hypervisor.VSS{Context: "x"}}},
		"VSS backup type": {Name: "a", Quiesce: &hypervisor.Quiesce{VSS: &hypervisor.VSS{BackupType: "x"}}},
	} {
		if id, err := c.CreateSnapshot(t.Context(), vm, spec); err == nil || id != "" {
			t.Errorf("%s: got %q and %v, want an error", name, id, err)
		}
	}
	if n := l.Calls()["CreateSnapshotEx_Task"]; n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

func TestCreateSnapshot_faults(t *testing.T) {
	t.Parallel()
	var (
		obstacle   *hypervisor.ObstacleError
		space      *hypervisor.InsufficientSpaceError
		permission *hypervisor.PermissionError
		notFound   *hypervisor.VMNotFoundError
	)
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	for _, tt := range []struct {
		fault string
		match func(error) bool
	}{
		{"ApplicationQuiesceFault", is(hypervisor.ErrQuiesce)},
		{"FilesystemQuiesceFault", is(hypervisor.ErrQuiesce)},
		{"TooManySnapshotLevels", is(hypervisor.ErrTooManySnapshots)},
		{"SnapshotIncompatibleDeviceInVm", as(&obstacle)},
		{"NoDiskSpace", as(&space)},
		{"NoPermission", as(&permission)},
		{"call:NoPermission", as(&permission)},
		{"call:ManagedObjectNotFound", func(err error) bool { return err != nil }},
		{"InvalidName", func(err error) bool { return strings.Contains(err.Error(), "name") }},
		{"SnapshotLocked", func(err error) bool { return strings.Contains(err.Error(), "locked") }},
		{"SnapshotDisabled", func(err error) bool { return strings.Contains(err.Error(), "disabled") }},
		{"InvalidState", func(err error) bool { return strings.Contains(err.Error(), "InvalidState") }},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "CreateSnapshot_Task", Fault: tt.fault, Count: 1})
			id, err := c.CreateSnapshot(t.Context(), vm, hypervisor.SnapshotSpec{Name: "a"})
			if id != "" || err == nil || !tt.match(err) {
				t.Fatalf("got %q and %v", id, err)
			}
			if got := list(t, c, vm); len(got) != 0 {
				t.Errorf("there is a snapshot: %+v", got)
			}
		})
	}
	t.Run("VM gone", func(t *testing.T) {
		t.Parallel()
		_, c := labWith(t)
		_, err := c.CreateSnapshot(t.Context(), "vm-999999", hypervisor.SnapshotSpec{Name: "a"})
		if !errors.As(err, &notFound) || notFound.Where == "" {
			t.Fatalf("got %v, want a VMNotFoundError", err)
		}
	})
}
