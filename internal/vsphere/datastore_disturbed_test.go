package vsphere

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

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
