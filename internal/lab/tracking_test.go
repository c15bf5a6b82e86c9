package lab_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const block = 64 << 10

// changeID reads the change ID of a disk from a snapshot's configuration.
func (e *env) changeID(ref types.ManagedObjectReference, disk int) string {
	e.t.Helper()
	var s mo.VirtualMachineSnapshot
	e.must(e.vm.Properties(e.ctx, ref, []string{"config.hardware.device"}, &s))
	for _, d := range s.Config.Hardware.Device {
		if v, ok := d.(*types.VirtualDisk); ok && v.Key == int32(2000+disk) {
			b, ok := v.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			if !ok {
				e.t.Fatalf("backing is %T", v.Backing)
			}
			return b.ChangeId
		}
	}
	e.t.Fatalf("the snapshot has no disk %d", disk)
	return ""
}

func (e *env) query(ref *types.ManagedObjectReference, key int32, offset int64, id string) (types.DiskChangeInfo, error) {
	e.t.Helper()
	res, err := methods.QueryChangedDiskAreas(e.ctx, e.client, &types.QueryChangedDiskAreas{
		This: e.vm.Reference(), Snapshot: ref, DeviceKey: key, StartOffset: offset, ChangeId: id,
	})
	if err != nil {
		return types.DiskChangeInfo{}, err
	}
	return res.Returnval, nil
}

// changed walks through all answers for the first disk.
func (e *env) changed(ref *types.ManagedObjectReference, capacity int64, id string) (areas []types.DiskChangeExtent, calls int) {
	e.t.Helper()
	for off := int64(0); off < capacity; calls++ {
		info, err := e.query(ref, 2000, off, id)
		e.must(err)
		if info.StartOffset != off || info.Length <= 0 {
			e.t.Fatalf("an answer for %d starts at %d and has length %d", off, info.StartOffset, info.Length)
		}
		areas = append(areas, info.ChangedArea...)
		off = info.StartOffset + info.Length
	}
	return areas, calls
}

func equalAreas(t *testing.T, got []types.DiskChangeExtent, want ...types.DiskChangeExtent) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got areas %v, want %v", got, want)
	}
}

// trackedLab has a VM with an empty disk of 1 TiB and a small one.
func trackedLab(t *testing.T) *env {
	t.Helper()
	return newEnv(t, lab.Options{VMs: []lab.VMSpec{{
		Name: "web01", Disks: []string{sparse(t, 1<<40), labtest.RawDisk(t, 4*mib, 1)}, ChangeTracking: true,
	}}})
}

// sparse makes an empty raw disk.
func sparse(t *testing.T, capacity int64) string {
	t.Helper()
	name := rawDisk(t, 0)
	if err := os.Truncate(name, capacity); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestQueryChangedDiskAreas(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 40
	e := trackedLab(t)
	e.must(e.WriteDisk("web01", 0, 5*block+1, []byte("a")))
	e.must(e.WriteDisk("web01", 0, capacity-1, []byte("z")))
	first := e.takeSnapshot("first")
	id := e.changeID(first, 0)
	if !regexp.MustCompile(`^52( [0-9a-f]{2}){7}-[0-9a-f]{2}( [0-9a-f]{2}){7}/\d+$`).MatchString(id) {
		t.Errorf("change ID %q", id)
	}
	if other := e.changeID(first, 1); other == "" || other == id {
		t.Errorf("change IDs %q and %q", id, other)
	}
	a := types.DiskChangeExtent{Start: 5 * block, Length: block}
	z := types.DiskChangeExtent{Start: capacity - block, Length: block}
	areas, _ := e.changed(&first, capacity, "*")
	equalAreas(t, areas, a, z)
	areas, _ = e.changed(&first, capacity, id)
	equalAreas(t, areas)

	// What is written after the first snapshot is in the second, also when the first is gone.
	e.must(e.WriteDisk("web01", 0, 1<<39, []byte("m")))
	second := e.takeSnapshot("second")
	e.must(e.WriteDisk("web01", 0, 7<<30, []byte("later")))
	m := types.DiskChangeExtent{Start: 1 << 39, Length: block}
	areas, _ = e.changed(&second, capacity, id)
	equalAreas(t, areas, m)
	task, err := e.vm.RemoveSnapshot(e.ctx, first.Value, false, nil)
	e.must(err)
	e.must(task.Wait(e.ctx))
	areas, _ = e.changed(&second, capacity, id)
	equalAreas(t, areas, m)
	areas, _ = e.changed(&second, capacity, "*")
	equalAreas(t, areas, a, m, z)

	// An extent that the offset cuts begins there.
	info, err := e.query(&second, 2000, 1<<39+100, "*")
	e.must(err)
	equalAreas(t, info.ChangedArea, types.DiskChangeExtent{Start: 1<<39 + 100, Length: block - 100}, z)
}

func TestQueryChangedDiskAreas_pages(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 40
	e := trackedLab(t)
	for i := range int64(4500) {
		e.must(e.WriteDisk("web01", 0, i*2*block, []byte{1}))
	}
	ref := e.takeSnapshot("s")
	areas, calls := e.changed(&ref, capacity, "*")
	if len(areas) != 4500 || calls != 3 {
		t.Fatalf("%d areas in %d answers", len(areas), calls)
	}
	for i, a := range areas {
		if a != (types.DiskChangeExtent{Start: int64(i) * 2 * block, Length: block}) {
			t.Fatalf("area %d is %+v", i, a)
		}
	}
}

func TestQueryChangedDiskAreas_refusals(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 40
	e := trackedLab(t)
	gone := e.takeSnapshot("gone")
	task, err := e.vm.RemoveSnapshot(e.ctx, gone.Value, false, nil)
	e.must(err)
	e.must(task.Wait(e.ctx))
	ref := e.takeSnapshot("s")
	id := e.changeID(ref, 0)
	for name, c := range map[string]struct {
		ref      *types.ManagedObjectReference
		key      int32
		offset   int64
		id       string
		property string
	}{
		"end of the disk":  {&ref, 2000, capacity, "*", "startOffset"},
		"negative":         {&ref, 2000, -1, "*", "startOffset"},
		"unknown disk":     {&ref, 2009, 0, "*", "deviceKey"},
		"a controller":     {&ref, 1000, 0, "*", "deviceKey"},
		"no sequence":      {&ref, 2000, 0, "52 2d", "changeId"},
		"no number":        {&ref, 2000, 0, "52 2d/x", "changeId"},
		"empty":            {&ref, 2000, 0, "", "changeId"},
		"now, and running": {nil, 2000, 0, "*", "snapshot"},
	} {
		_, err := e.query(c.ref, c.key, c.offset, c.id)
		var f *types.InvalidArgument
		if _, ok := fault.As(err, &f); !ok || f.InvalidProperty != c.property {
			t.Errorf("%s: %v (%+v), want InvalidArgument of %s", name, err, f, c.property)
		}
	}
	for name, foreign := range map[string]string{
		"another tracking": "52 2d 7b 8f ac 61 51 cc-77 4c 7b ec 91 50 bb 7b/1",
		"another disk":     e.changeID(ref, 1),
		"from the future":  id + "9",
	} {
		if _, err := e.query(&ref, 2000, 0, foreign); !fault.Is(err, &types.FileFault{}) {
			t.Errorf("%s: %v, want FileFault", name, err)
		}
	}
	if _, err := e.query(&gone, 2000, 0, "*"); !fault.Is(err, &types.NotFound{}) {
		t.Errorf("a snapshot that is gone: %v", err)
	}
}

func TestTracking_resets(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, 4*mib, 1)}, ChangeTracking: true}}})
	toggle := func(on bool) {
		task, err := e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &on})
		e.must(err)
		e.must(task.Wait(e.ctx))
	}
	id := e.changeID(e.takeSnapshot("on"), 0)
	toggle(false)
	off := e.takeSnapshot("off")
	if got := e.changeID(off, 0); got != "" {
		t.Errorf("change ID %q without tracking", got)
	}
	if _, err := e.query(&off, 2000, 0, "*"); !fault.Is(err, &types.FileFault{}) {
		t.Errorf("allocated areas without tracking: %v", err)
	}
	toggle(true)
	on := e.takeSnapshot("on again")
	if _, err := e.query(&on, 2000, 0, id); !fault.Is(err, &types.FileFault{}) {
		t.Errorf("a change ID from before tracking was off: %v", err)
	}
}

// TestTracking_revert shows the trap that a revert is: what it undoes is no change.
func TestTracking_revert(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, 4*mib, 1)}, ChangeTracking: true}}})
	old := e.takeSnapshot("old")
	e.must(e.WriteDisk("web01", 0, 3*block, []byte("undone")))
	id := e.changeID(e.takeSnapshot("base"), 0)
	task, err := e.vm.RevertToSnapshot(e.ctx, old.Value, true)
	e.must(err)
	e.must(task.Wait(e.ctx))
	e.must(e.WriteDisk("web01", 0, 7*block, []byte("new")))
	after := e.takeSnapshot("after")
	areas, _ := e.changed(&after, 4*mib, id)
	equalAreas(t, areas, types.DiskChangeExtent{Start: 7 * block, Length: block})

	// The log of events says so.
	manager := event.NewManager(e.client.Client)
	collector, err := manager.CreateCollectorForEvents(e.ctx, types.EventFilterSpec{
		Entity: &types.EventFilterSpecByEntity{Entity: e.vm.Reference(), Recursion: types.EventFilterSpecRecursionOptionSelf},
	})
	e.must(err)
	var tasks []string
	for {
		page, err := collector.ReadNextEvents(e.ctx, 2)
		e.must(err)
		if len(page) == 0 {
			break
		}
		for _, event := range page {
			if task, ok := event.(*types.TaskEvent); ok {
				tasks = append(tasks, task.Info.DescriptionId)
			}
		}
	}
	e.must(collector.Destroy(e.ctx))
	want := []string{"VirtualMachine.createSnapshot", "VirtualMachine.createSnapshot", "vm.Snapshot.revert", "VirtualMachine.createSnapshot"}
	if !slices.Equal(tasks, want) {
		t.Errorf("tasks in the log: %q", tasks)
	}
}

func TestQueryChangedDiskAreas_ofNow(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{sparse(t, 4*mib)}, ChangeTracking: true, PoweredOff: true}}})
	id := e.changeID(e.takeSnapshot("s"), 0)
	e.must(e.WriteDisk("web01", 0, 3*block, []byte("x")))
	areas, _ := e.changed(nil, 4*mib, id)
	equalAreas(t, areas, types.DiskChangeExtent{Start: 3 * block, Length: block})
}
