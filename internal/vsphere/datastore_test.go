package vsphere

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// newTrackedBench starts a lab with a VM whose change tracking is on, and a client that reads disks in the
// preferred ways.
func newTrackedBench(t *testing.T, transports []string, capacities ...int64) *bench {
	t.Helper()
	b := &bench{T: t}
	for i, capacity := range capacities {
		b.raw = append(b.raw, labtest.RawDisk(t, capacity, uint64(i)+1))
	}
	b.lab = labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{Name: benchVM, Disks: b.raw, ChangeTracking: true}}})
	config := labConfig(b.lab)
	config.Transports = transports
	b.client = dial(t, config)
	b.find()
	return b
}

// open opens a point in time, which is closed with the test if it wasn't before.
func (b *bench) open(spec hypervisor.PointInTimeSpec) hypervisor.PointInTime {
	b.Helper()
	spec.Name = "tf-backup-1"
	p, err := b.client.OpenPointInTime(b.Context(), b.vm.ID, spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close(context.WithoutCancel(b.Context())) }) // a test that minds closes by itself
	return p
}

// openDisk opens the n-th disk.
func (b *bench) openDisk(p hypervisor.PointInTime, n int, request hypervisor.DiskRequest) hypervisor.DiskReader {
	b.Helper()
	reader, err := p.OpenDisk(b.Context(), b.vm.Disks[n].Key, request)
	if err != nil {
		b.Fatal(err)
	}
	return reader
}

// image reads a disk into what it was before: zeros, or outside of the areas of the plan the base.
func image(ctx context.Context, reader hypervisor.DiskReader, base []byte) (out []byte, read int64, err error) {
	out = make([]byte, reader.Capacity())
	if areas := reader.Plan().Areas; areas != nil {
		copy(out, base)
		areas.Each(func(e disk.Extent) bool { clear(out[e.Offset:e.End()]); return true })
	}
	err = reader.Extents(ctx, func(off int64, data []byte) error {
		read += int64(len(data))
		copy(out[off:], data)
		return nil
	})
	return out, read, err
}

// model is the simulator's own object of the VM, for changes that no client can make.
func (b *bench) model(change func(ctx *simulator.Context, vm *simulator.VirtualMachine)) {
	b.Helper()
	ctx := *b.lab.Model().Service.Context
	vm, ok := ctx.Map.Get(vmRef(b.vm.ID)).(*simulator.VirtualMachine)
	if !ok {
		b.Fatal("the VM is gone")
	}
	ctx.WithLock(vm, func() { change(&ctx, vm) })
}

// TestDatastore_faults reads a disk whose guest writes on, while something happens to single requests.
func TestDatastore_faults(t *testing.T) {
	t.Parallel()
	const capacity = 9<<20 + 512
	for name, test := range map[string]struct {
		fault lab.Fault
		fails bool
	}{
		"none":           {},
		"drop":           {fault: lab.Fault{Fault: "drop", Count: 3}},
		"truncate":       {fault: lab.Fault{Fault: "truncate", Count: 3}},
		"hang":           {fault: lab.Fault{Fault: "hang", Count: 2}},
		"503":            {fault: lab.Fault{Fault: "503", Count: 4}},
		"locked":         {fault: lab.Fault{Fault: "500", Count: 2}},
		"shifted":        {fault: lab.Fault{Fault: "shifted", Count: 2}},
		"shorter":        {fault: lab.Fault{Fault: "shorter", Count: 2}},
		"slow":           {fault: lab.Fault{Delay: 50 * time.Millisecond, Count: 2}},
		"session ends":   {fault: lab.Fault{Fault: "401", Count: 2}},
		"always dropped": {fault: lab.Fault{Fault: "drop", Count: -1}, fails: true},
		"always 503":     {fault: lab.Fault{Fault: "503", Count: -1}, fails: true},
		"whole":          {fault: lab.Fault{Fault: "whole"}, fails: true},
		"gone":           {fault: lab.Fault{Fault: "404"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTrackedBench(t, []string{TransportDatastore}, capacity)
			want := readLabDisk(t, b.lab, benchVM, 0)
			p := b.open(hypervisor.PointInTimeSpec{})
			reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
			if plan := reader.Plan(); plan.Transport != TransportDatastore || plan.TransportReason != "" || plan.Areas != nil || plan.FullReason != "" {
				t.Fatalf("plan %+v", plan)
			}
			if err := b.lab.WriteDisk(benchVM, 0, 0, bytes.Repeat([]byte{0xee}, capacity/2)); err != nil {
				t.Fatal(err)
			}
			if test.fault.Fault == "hang" {
				b.client.config.ReadTimeout = time.Second
			}
			if test.fault.Fault != "" || test.fault.Delay > 0 {
				test.fault.Method = "GET /folder"
				b.lab.Fault(test.fault)
			}
			got, _, err := image(t.Context(), reader, nil)
			switch {
			case test.fails && !errors.Is(err, hypervisor.ErrLost):
				t.Errorf("got error %v, want one that wraps %v", err, hypervisor.ErrLost)
			case name == "gone" && strings.Contains(err.Error(), hypervisor.ErrLost.Error()):
				t.Errorf("%v: a server that answers was not lost", err)
			case !test.fails && (err != nil || !bytes.Equal(got, want)):
				t.Errorf("%v, or other bytes", err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			labtest.AssertClean(t, b.lab)
		})
	}
}

// TestDatastore_allocated reads only what is allocated where that is known. Where it isn't, a disk of which
// little is allocated is read by an export, or whole if that isn't allowed.
func TestDatastore_allocated(t *testing.T) {
	t.Parallel()
	const capacity = 64 << 20
	const unknown = -1
	for name, test := range map[string]struct {
		nfs, thick, fails bool
		ignored           bool   // change tracking
		occupied          int64  // what the server says. 0: the truth
		known             bool   // only what is allocated is read
		reason            string // why it is exported. Empty: it isn't
	}{
		"thin, on VMFS":                {known: true},
		"tracking is to be ignored":    {ignored: true, reason: "occupies "},
		"nearly full":                  {ignored: true, occupied: capacity / 4 * 3},
		"less full":                    {ignored: true, occupied: capacity/4*3 - 1, reason: "occupies 47 MiB of 64 MiB"},
		"thin, nobody knows its size":  {ignored: true, occupied: unknown, reason: "is thin"},
		"the query fails":              {fails: true, reason: "occupies "},
		"on NFS":                       {nfs: true, occupied: capacity, reason: "is thin"},
		"thick":                        {thick: true, occupied: capacity},
		"thick, nobody knows its size": {thick: true, occupied: unknown},
		"thick, on NFS, with holes":    {thick: true, nfs: true, occupied: capacity / 2, reason: "occupies 32 MiB"},
	} {
		for _, transports := range [][]string{nil, {TransportDatastore}} {
			t.Run(strings.Join(append([]string{name}, transports...), ", only "), func(t *testing.T) {
				t.Parallel()
				b := newTrackedBench(t, transports, capacity)
				spec := hypervisor.PointInTimeSpec{}
				if test.ignored {
					spec.ChangeTracking = hypervisor.TrackingIgnore
				}
				if test.nfs {
					b.datastoreType("NFS")
				}
				if test.thick {
					b.model(func(_ *simulator.Context, vm *simulator.VirtualMachine) {
						disks(vm.Config.Hardware.Device)[0].ThinProvisioned = types.NewBool(false)
					})
				}
				if test.fails {
					b.lab.Fault(lab.Fault{Method: "QueryChangedDiskAreas", Fault: "FileFault", Count: -1})
				}
				want := readLabDisk(t, b.lab, benchVM, 0)
				p := b.open(spec)
				if test.occupied != 0 {
					b.occupy(max(test.occupied, 0))
				}
				reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
				plan := reader.Plan()
				exported := test.reason != "" && transports == nil
				if (plan.Transport == TransportExport) != exported || (plan.TransportReason != "") != exported ||
					exported && !strings.Contains(plan.TransportReason, test.reason) {
					t.Errorf("plan %+v", plan)
				}
				got, read, err := image(t.Context(), reader, nil)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%v, or other bytes", err)
				}
				if all := read == capacity; all == (test.known || exported) || read == 0 {
					t.Errorf("read %d bytes of %d", read, capacity)
				}
			})
		}
	}
}

// occupy makes the server say that the VM's disks occupy a number of bytes.
func (b *bench) occupy(size int64) {
	b.Helper()
	b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
		layout := *vm.LayoutEx
		layout.File = slices.Clone(layout.File)
		for i := range layout.File {
			if strings.HasSuffix(layout.File[i].Name, "-flat.vmdk") {
				layout.File[i].Size, layout.File[i].UniqueSize = size, size
			}
		}
		ctx.Update(vm, []types.PropertyChange{{Name: "layoutEx", Val: &layout}})
	})
}

// TestDatastore_incompleteList distrusts a list of allocated areas that is less than what the disk occupies,
// whatever the server said of that some time ago.
func TestDatastore_incompleteList(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, []string{TransportDatastore}, 64<<20)
	b.liar(func(areas []types.DiskChangeExtent) []types.DiskChangeExtent { return areas[:1] })
	p := b.open(hypervisor.PointInTimeSpec{})
	b.occupy(0)
	want := readLabDisk(t, b.lab, benchVM, 0)
	got, read, err := image(t.Context(), b.openDisk(p, 0, hypervisor.DiskRequest{}), nil)
	if err != nil || !bytes.Equal(got, want) || read != 64<<20 {
		t.Errorf("%v, %d bytes, or others", err, read)
	}
}

// TestDatastore_unmeasured reads all where the server doesn't measure what the disk occupies.
func TestDatastore_unmeasured(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, []string{TransportDatastore}, 4<<20)
	b.lab.Fault(lab.Fault{Method: "RefreshStorageInfo", Fault: "NoPermission"})
	want := readLabDisk(t, b.lab, benchVM, 0)
	got, read, err := image(t.Context(), b.openDisk(b.open(hypervisor.PointInTimeSpec{}), 0, hypervisor.DiskRequest{}), nil)
	if err != nil || !bytes.Equal(got, want) || read != 4<<20 {
		t.Errorf("%v, %d bytes, or others", err, read)
	}
}

// TestDatastore_everything believes no list of allocated areas when everything is asked for, nor when changes
// can't be told: here it has the right sum, and is wrong.
func TestDatastore_everything(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, []string{TransportDatastore}, 16<<20)
	if err := b.lab.WriteDisk(benchVM, 0, 12<<20, []byte("changed")); err != nil {
		t.Fatal(err)
	}
	b.liar(func(areas []types.DiskChangeExtent) []types.DiskChangeExtent {
		sum := int64(0)
		for _, a := range areas {
			sum += a.Length
		}
		return []types.DiskChangeExtent{{Length: sum}}
	})
	want := readLabDisk(t, b.lab, benchVM, 0)
	for name, request := range map[string]hypervisor.DiskRequest{
		"everything": {Everything: true},
		"untold":     {Base: &hypervisor.Base{Tracking: "unknown"}, Granularity: 1 << 20},
	} {
		p := b.open(hypervisor.PointInTimeSpec{})
		got, read, err := image(t.Context(), b.openDisk(p, 0, request), nil)
		if err != nil || !bytes.Equal(got, want) || read != 16<<20 {
			t.Errorf("%s: %v, %d bytes, or others", name, err, read)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// liar makes the server answer wrongly when it is asked for what is allocated.
func (b *bench) liar(lie func([]types.DiskChangeExtent) []types.DiskChangeExtent) {
	b.client.vim.RoundTripper = liar{b.client.vim.RoundTripper, lie}
}

type liar struct {
	soap.RoundTripper
	lie func([]types.DiskChangeExtent) []types.DiskChangeExtent
}

func (l liar) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	err := l.RoundTripper.RoundTrip(ctx, req, res)
	q, asked := req.(*methods.QueryChangedDiskAreasBody)
	a, answered := res.(*methods.QueryChangedDiskAreasBody)
	if err == nil && asked && answered && q.Req.ChangeId == allAreas {
		a.Res.Returnval.ChangedArea = l.lie(a.Res.Returnval.ChangedArea)
	}
	return err
}

// disks are the flat backings of disks.
func disks(devices []types.BaseVirtualDevice) (backings []*types.VirtualDiskFlatVer2BackingInfo) {
	for _, d := range orderedDisks(devices) {
		if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			backings = append(backings, b)
		}
	}
	return backings
}

// datastoreType makes all datastores be of a type.
func (b *bench) datastoreType(kind string) {
	b.Helper()
	ctx := *b.lab.Model().Service.Context
	for _, entity := range ctx.Map.All("Datastore") {
		if ds, ok := entity.(*simulator.Datastore); ok {
			ctx.WithLock(ds, func() { ctx.Update(ds, []types.PropertyChange{{Name: "summary.type", Val: kind}}) })
		}
	}
}

// TestDatastore_probe reads disks in another way where their files can't be read, and says why.
func TestDatastore_probe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(t *testing.T, b *bench)
		late    bool // it happens when the point in time is open
		reason  string
	}{
		"snapshots": {reason: "chain of snapshots", prepare: func(t *testing.T, b *bench) {
			t.Helper()
			if _, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "other"}); err != nil {
				t.Fatal(err)
			}
		}},
		"vSAN": {reason: `of type "vsan"`, prepare: func(t *testing.T, b *bench) { t.Helper(); b.datastoreType("vsan") }},
		"host": {reason: "host is disconnected", late: true, prepare: func(_ *testing.T, b *bench) {
			b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
				ctx.Update(vm, []types.PropertyChange{{
					Name: "runtime.connectionState", Val: types.VirtualMachineConnectionStateDisconnected,
				}})
			})
		}},
		"files": {reason: "one flat file", late: true, prepare: func(_ *testing.T, b *bench) {
			b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
				ctx.Update(vm, []types.PropertyChange{{Name: "layoutEx", Val: &types.VirtualMachineFileLayoutEx{}}})
			})
		}},
		"locked": {reason: "can't be read: ", late: true, prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "GET /folder", Fault: "500", Count: rangeAttempts})
		}},
		"forbidden": {reason: "403", late: true, prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "GET /folder", Fault: "403"})
		}},
		"no ranges": {reason: "200 OK", late: true, prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "GET /folder", Fault: "whole"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTrackedBench(t, nil, 2<<20)
			want := readLabDisk(t, b.lab, benchVM, 0)
			if !test.late {
				test.prepare(t, b)
			}
			p := b.open(hypervisor.PointInTimeSpec{})
			if test.late {
				test.prepare(t, b)
			}
			reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
			if plan := reader.Plan(); plan.Transport != TransportExport || !strings.Contains(plan.TransportReason, test.reason) {
				t.Errorf("plan %+v, want a reason with %q", plan, test.reason)
			}
			if got, _, err := image(t.Context(), reader, nil); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, or other bytes", err)
			}
		})
	}
	for name, d := range map[string]pointDisk{
		"encrypted": {backing: diskBacking{encrypted: true}, flat: true}, "I/O filters": {filtered: true, flat: true},
	} {
		if why := d.unreadable(); !strings.Contains(why, name) {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// TestDatastore_oneWay reads all disks in the same way, whichever of them is opened first.
func TestDatastore_oneWay(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"file first": {0, 1}, "export first": {1, 0}} {
		b := newTrackedBench(t, nil, 2<<20, 2<<20)
		p := b.open(hypervisor.PointInTimeSpec{})
		point, ok := p.(*pointInTime)
		if !ok {
			t.Fatalf("%T", p)
		}
		point.disks[1].filtered = true
		for _, n := range order {
			plan := b.openDisk(p, n, hypervisor.DiskRequest{}).Plan()
			want := "The disk has I/O filters."
			if n == 0 {
				want = "read in the same way"
			}
			if plan.Transport != TransportExport || !strings.Contains(plan.TransportReason, want) {
				t.Errorf("%s: disk %d: plan %+v", name, n, plan)
			}
		}
	}
	// One that would better be exported is not, when another is read as a file already.
	b := newTrackedBench(t, nil, 2<<20, 8<<20)
	p := b.open(hypervisor.PointInTimeSpec{})
	b.openDisk(p, 0, hypervisor.DiskRequest{})
	if plan := b.openDisk(p, 1, hypervisor.DiskRequest{Everything: true}).Plan(); plan.Transport != TransportDatastore {
		t.Errorf("plan %+v", plan)
	}
}

func TestPlace_extent(t *testing.T) {
	t.Parallel()
	const base = "[ds] web/web"
	for name, test := range map[string]struct {
		files []string
		found bool
	}{
		"one":                  {[]string{base + "-flat.vmdk"}, true},
		"with change tracking": {[]string{base + "-ctk.vmdk", base + "-flat.vmdk"}, true},
		"tracking only":        {[]string{base + "-ctk.vmdk"}, false},
		"none":                 {nil, false},
		"two":                  {[]string{base + "-flat.vmdk", base + "-s001.vmdk"}, false},
		"of another disk":      {[]string{"[ds] web/web_1-flat.vmdk"}, false},
		"on another datastore": {[]string{"[other] web/web-flat.vmdk"}, false},
	} {
		layout := &types.VirtualMachineFileLayoutEx{}
		unit := types.VirtualMachineFileLayoutExDiskUnit{}
		for i, file := range test.files {
			layout.File = append(layout.File, types.VirtualMachineFileLayoutExFileInfo{
				Key: int32(i), Name: file, Type: string(types.VirtualMachineFileLayoutExFileTypeDiskExtent), //nolint:gosec // few
			})
			unit.FileKey = append(unit.FileKey, int32(i)) //nolint:gosec // few
		}
		layout.Snapshot = []types.VirtualMachineFileLayoutExSnapshotLayout{{
			Key: snapshotRef("snapshot-1"), Disk: []types.VirtualMachineFileLayoutExDiskLayout{{
				Key: 2000, Chain: []types.VirtualMachineFileLayoutExDiskUnit{unit},
			}},
		}}
		at := &place{layout: layout}
		got := at.extent("snapshot-1", &pointDisk{device: 2000, backing: diskBacking{base: base + ".vmdk"}})
		if (got != nil) != test.found || got != nil && got.Name != base+"-flat.vmdk" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestDatastore_only fails where the one way that is allowed is impossible.
func TestDatastore_only(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, []string{TransportDatastore}, 1<<20)
	b.datastoreType("vsan")
	_, err := b.open(hypervisor.PointInTimeSpec{}).OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if !errors.Is(err, hypervisor.ErrNotSupported) || !strings.Contains(err.Error(), "vsan") {
		t.Errorf("got error %v", err)
	}
}

// TestDatastore_disturbed throws away what was read of a disk that wasn't in its place all the time.
func TestDatastore_disturbed(t *testing.T) {
	t.Parallel()
	says := map[string]string{
		"moved": "] web01/web01.vmdk to [elsewhere] web01/web01.vmdk", "disk gone": "has the disk [",
	}
	for name, disturb := range map[string]func(t *testing.T, b *bench, p hypervisor.PointInTime){
		"disk gone": func(t *testing.T, b *bench, p hypervisor.PointInTime) {
			t.Helper()
			ctx := *b.lab.Model().Service.Context
			s, ok := ctx.Map.Get(snapshotRef(p.Snapshot().ID)).(*simulator.VirtualMachineSnapshot)
			if !ok {
				t.Fatal("the snapshot is gone")
			}
			ctx.WithLock(s, func() { s.Config.Hardware.Device = nil })
		},
		"moved": func(t *testing.T, b *bench, p hypervisor.PointInTime) {
			t.Helper()
			ctx := *b.lab.Model().Service.Context
			s, ok := ctx.Map.Get(snapshotRef(p.Snapshot().ID)).(*simulator.VirtualMachineSnapshot)
			if !ok {
				t.Fatal("the snapshot is gone")
			}
			ctx.WithLock(s, func() { disks(s.Config.Hardware.Device)[0].FileName = "[elsewhere] web01/web01.vmdk" })
		},
		"snapshot removed": func(t *testing.T, b *bench, p hypervisor.PointInTime) {
			t.Helper()
			if err := b.client.RemoveSnapshot(t.Context(), b.vm.ID, p.Snapshot().ID, hypervisor.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"moved and back": func(_ *testing.T, b *bench, _ hypervisor.PointInTime) {
			b.lab.PostEvent(benchVM, &types.VmRelocatedEvent{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTrackedBench(t, nil, 9<<20)
			p := b.open(hypervisor.PointInTimeSpec{})
			reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
			var once atomic.Bool
			err := reader.Extents(t.Context(), func(int64, []byte) error {
				if !once.Swap(true) {
					disturb(t, b, p)
				}
				return nil
			})
			if !errors.Is(err, hypervisor.ErrLost) || !strings.Contains(err.Error(), says[name]) {
				t.Errorf("got error %v, want one that wraps %v and says %q", err, hypervisor.ErrLost, says[name])
			}
		})
	}
}

// TestDatastore_undisturbed keeps what was read while others did what doesn't concern the frozen file.
func TestDatastore_undisturbed(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 9<<20)
	want := readLabDisk(t, b.lab, benchVM, 0)
	p := b.open(hypervisor.PointInTimeSpec{})
	reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
	var once atomic.Bool
	got := make([]byte, len(want))
	err := reader.Extents(t.Context(), func(offset int64, data []byte) error {
		copy(got[offset:], data)
		if once.Swap(true) {
			return nil
		}
		s := saboteurAt{saboteur(b.lab, b.client), b, new(hypervisor.SnapshotID)}
		s.keep(t)
		s.drop(t)
		s.Revert(t, benchVM, p.Snapshot().ID)
		return b.lab.WriteDisk(benchVM, 0, 0, bytes.Repeat([]byte{0xee}, 1<<20))
	})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other bytes", err)
	}
}

// TestDatastore_closed ends reading when the point in time is closed.
func TestDatastore_closed(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 32<<20)
	if err := b.lab.WriteDisk(benchVM, 0, 0, bytes.Repeat([]byte{1}, 32<<20)); err != nil {
		t.Fatal(err)
	}
	p := b.open(hypervisor.PointInTimeSpec{})
	var end int64
	err := b.openDisk(p, 0, hypervisor.DiskRequest{}).Extents(t.Context(), func(off int64, data []byte) error {
		end = off + int64(len(data))
		return p.Close(t.Context())
	})
	if !errors.Is(err, errClosedPoint) || end == 32<<20 {
		t.Errorf("got error %v after %d bytes", err, end)
	}
	labtest.AssertClean(t, b.lab)
}

// TestDatastore_nothingChanged reads nothing at all, in either way.
func TestDatastore_nothingChanged(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{TransportDatastore, TransportExport} {
		b := newTrackedBench(t, []string{transport}, 4<<20)
		p := b.open(hypervisor.PointInTimeSpec{})
		token := b.openDisk(p, 0, hypervisor.DiskRequest{}).Plan().Tracking
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := b.lab.Calls()
		p = b.open(hypervisor.PointInTimeSpec{})
		request := hypervisor.DiskRequest{Base: &hypervisor.Base{Tracking: token}, Granularity: 1 << 20}
		_, read, err := image(t.Context(), b.openDisk(p, 0, request), make([]byte, 4<<20))
		if err != nil || read != 0 || b.lab.Calls()["ExportSnapshot"] != before["ExportSnapshot"] {
			t.Errorf("%s: %v, %d bytes, or a lease", transport, err, read)
		}
	}
}

// TestDatastore_exportStaysStrict reads changes through a lease: what is skipped of the stream must be there.
func TestDatastore_exportStaysStrict(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"truncate", "drop", "corrupt"} {
		b := newTrackedBench(t, []string{TransportExport}, 4<<20)
		p := b.open(hypervisor.PointInTimeSpec{})
		token := b.openDisk(p, 0, hypervisor.DiskRequest{}).Plan().Tracking
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.lab.WriteDisk(benchVM, 0, 3<<20, []byte("changed")); err != nil {
			t.Fatal(err)
		}
		p = b.open(hypervisor.PointInTimeSpec{})
		b.lab.Fault(lab.Fault{Method: "GET /nfc", Fault: fault})
		request := hypervisor.DiskRequest{Base: &hypervisor.Base{Tracking: token}, Granularity: 1 << 20}
		reader := b.openDisk(p, 0, request)
		if plan := reader.Plan(); plan.Areas == nil || plan.Areas.Bytes() != 1<<20 {
			t.Fatalf("plan %+v", plan)
		}
		if _, _, err := image(t.Context(), reader, make([]byte, 4<<20)); err == nil {
			t.Errorf("%s: no error", fault)
		}
	}
}

// TestDatastore_secrets looks for the session's cookie in everything that is logged and every error.
func TestDatastore_secrets(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 2<<20)
	var out bytes.Buffer
	config := labConfig(b.lab)
	config.Transports = []string{TransportDatastore}
	c, err := Connect(t.Context(), config, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	b.client = c
	p := b.open(hypervisor.PointInTimeSpec{})
	reader := b.openDisk(p, 0, hypervisor.DiskRequest{})
	b.lab.Fault(lab.Fault{Method: "GET /folder", Fault: "drop", Count: -1})
	_, _, readErr := image(t.Context(), reader, nil)
	cookies := c.vim.Jar.Cookies(c.vim.URL())
	if err := errors.Join(p.Close(t.Context()), c.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if readErr == nil || len(cookies) == 0 || !strings.Contains(out.String(), "repeating a read of a datastore's file") {
		t.Fatalf("%v, %d cookies, or nothing was repeated", readErr, len(cookies))
	}
	for _, cookie := range append(cookies, &http.Cookie{Value: config.Password.Reveal()}) {
		if strings.Contains(out.String()+readErr.Error(), cookie.Value) {
			t.Errorf("%q is said", cookie.Name)
		}
	}
}

func TestConfig_transports(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		transports []string
		want       string
	}{
		{nil, "datastore export"}, {[]string{"export"}, "export"}, {[]string{"export", "datastore"}, "export datastore"},
		{[]string{"nbd"}, ""}, {[]string{"export", "export"}, ""}, {[]string{""}, ""},
	} {
		config, _, err := Config{Server: "a", User: "b", Transports: test.transports}.withDefaults()
		if got := strings.Join(config.Transports, " "); (err == nil) != (test.want != "") || err == nil && got != test.want {
			t.Errorf("%q: %q, %v", test.transports, got, err)
		}
	}
}
