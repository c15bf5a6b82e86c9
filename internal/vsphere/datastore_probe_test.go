package vsphere

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

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
		"forbidden": {reason: "Datastore.Browse", late: true, prepare: func(_ *testing.T, b *bench) {
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
