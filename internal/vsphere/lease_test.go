package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
)

func TestDiskItems(t *testing.T) {
	t.Parallel()
	item := func(slot, path string, disk bool) leaseItem {
		return leaseItem{slot: slot, disk: disk, url: &url.URL{Path: path}}
	}
	disk := func(slot string, capacity int64) leaseDisk { return leaseDisk{slot: slot, capacity: capacity} }
	for _, test := range []struct {
		name  string
		items []leaseItem
		disks []leaseDisk
		want  string // a question mark: it was guessed
	}{
		{"by slot", []leaseItem{item("B0:1", "b", true), item("", "nvram", false), item("A0:0", "a", true)},
			[]leaseDisk{disk("A0:0", 1), disk("B0:1", 1)}, "a b"},
		{"in order", []leaseItem{item("", "0", true), item("", "iso", false), item("", "1", true)},
			[]leaseDisk{disk("A0:0", 1), disk("A0:1", 2)}, "0? 1?"},
		{"in order, but of the same capacity", []leaseItem{item("", "0", true), item("", "1", true), item("", "2", true)},
			[]leaseDisk{disk("A0:0", 1), disk("A0:1", 2), disk("A0:2", 1)}, ""},
		{"one by slot, the other left over", []leaseItem{item("", "x", true), item("A0:0", "a", true)},
			[]leaseDisk{disk("A0:0", 1), disk("B0:0", 1)}, "a x?"},
		{"other disks as well", []leaseItem{item("A0:0", "a", true), item("A0:1", "excluded", true)},
			[]leaseDisk{disk("A0:0", 1)}, "a"},
		{"another disk instead", []leaseItem{item("A0:0", "a", true), item("C0:0", "c", true)},
			[]leaseDisk{disk("A0:0", 1), disk("B0:0", 2)}, ""},
		{"other names for all", []leaseItem{item("X0:0", "0", true), item("X0:1", "1", true)},
			[]leaseDisk{disk("A0:0", 1), disk("A0:1", 2)}, "0? 1?"},
		{"too few", []leaseItem{item("", "0", true)}, []leaseDisk{disk("A0:0", 1), disk("A0:1", 2)}, ""},
		{"too many to tell", []leaseItem{item("", "0", true), item("", "1", true)}, []leaseDisk{disk("A0:0", 1)}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found, err := (&lease{items: test.items}).diskItems(test.disks)
			var got []string
			for _, d := range test.disks {
				if err != nil {
					break
				}
				name := found[d.slot].url.Path
				if found[d.slot].guessed {
					name += "?"
				}
				got = append(got, name)
			}
			if strings.Join(got, " ") != test.want || (err != nil) != (test.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestLeaseItems(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	items, err := b.client.leaseItems([]types.HttpNfcLeaseDeviceUrl{
		{Key: "/vm-42/ParaVirtualSCSIController1:3", Url: "https://*/nfc/x/disk-0.vmdk", Disk: types.NewBool(true)},
		{Key: "/vm-42/disk-0:1", ImportKey: "/web/VirtualNVMEController0:2", Url: "https://esx1/nfc/x/disk-1.vmdk",
			Disk: types.NewBool(true), SslThumbprint: "AA:BB"},
		{Key: "/vm-42/nvram", Url: "https://esx1/nfc/x/web.nvram"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if items[0].slot != "ParaVirtualSCSIController1:3" || items[1].slot != "VirtualNVMEController0:2" || items[2].slot != "" {
		t.Errorf("slots %q, %q, %q", items[0].slot, items[1].slot, items[2].slot)
	}
	if items[0].url.Host != b.lab.URL().Host || items[1].url.Host != "esx1" {
		t.Errorf("hosts %q, %q: an ESXi host calls itself *", items[0].url.Host, items[1].url.Host)
	}
	if !items[0].disk || !items[1].disk || items[2].disk {
		t.Errorf("items %+v", items)
	}
	if got := b.client.vim.Thumbprint("esx1"); got != "AA:BB" {
		t.Errorf("thumbprint %q", got)
	}
	_, err = b.client.leaseItems([]types.HttpNfcLeaseDeviceUrl{{Key: "k", Url: "https://%zz/secret"}})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the ticket", err)
	}
}

// slowBench is a lab whose leases end after a few seconds unless they are renewed.
func slowBench(t *testing.T) (*bench, hypervisor.PointInTime) {
	t.Helper()
	b := &bench{T: t, raw: []string{labtest.RawDisk(t, 4<<20, 1)}}
	b.lab = labtest.Start(t, lab.Options{LeaseTimeout: 9 * time.Second})
	if err := b.lab.AddVM(t.Context(), lab.VMSpec{Name: benchVM, Disks: b.raw}); err != nil {
		t.Fatal(err)
	}
	b.client = dial(t, labConfig(b.lab))
	b.find()
	point, err := b.client.OpenPointInTime(t.Context(), b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1"})
	if err != nil {
		t.Fatal(err)
	}
	return b, point
}

func TestLease_renewed(t *testing.T) {
	t.Parallel()
	b, point := slowBench(t)
	renewals := make(chan struct{}, 100)
	b.lab.OnCall("HttpNfcLeaseProgress", func(context.Context) { renewals <- struct{}{} })
	src, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	waited := false
	err = src.Extents(t.Context(), func(int64, []byte) error {
		for n := 0; n < 4 && !waited; n++ { // longer than a lease lasts by itself
			<-renewals
		}
		waited = true
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := point.Close(t.Context()); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestLease_lost(t *testing.T) {
	t.Parallel()
	b, point := slowBench(t)
	b.lab.Fault(lab.Fault{Method: "HttpNfcLeaseProgress", Fault: "Timedout"})
	src, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	opened, ok := point.(*pointInTime)
	if !ok {
		t.Fatalf("a point in time is %T", point)
	}
	err = src.Extents(t.Context(), func(int64, []byte) error {
		<-opened.lease.ctx.Done()
		return nil
	})
	if !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("got %v, want %v", err, hypervisor.ErrLost)
	}
	if err := point.Close(t.Context()); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestPointInTime_close(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	point, err := b.client.OpenPointInTime(t.Context(), b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1", Description: "text"})
	if err != nil {
		t.Fatal(err)
	}
	if s := point.Snapshot(); s.Name != "tf-backup-1" || s.Description != "text" {
		t.Errorf("snapshot %+v", s)
	}
	src, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b.lab.Fault(lab.Fault{Method: "RemoveSnapshot_Task", Fault: "call:NoPermission"})
	err = point.Close(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"tf-backup-1"`) || !strings.Contains(err.Error(), benchVM) {
		t.Errorf("got %v, want an error that names what is left", err)
	}
	if err := point.Close(t.Context()); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := src.Extents(t.Context(), nil); !errors.Is(err, errClosedPoint) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{}); !errors.Is(err, errClosedPoint) {
		t.Errorf("open after close: %v", err)
	}
	if err := b.client.RemoveSnapshot(t.Context(), b.vm.ID, point.Snapshot().ID, hypervisor.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestPointInTime_sourceRules(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	point, err := b.client.OpenPointInTime(t.Context(), b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1"})
	if err != nil {
		t.Fatal(err)
	}
	src, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := src.Extents(t.Context(), func(int64, []byte) error { return stop }); err != stop { //nolint:errorlint // as it is
		t.Errorf("got %v, want the error of yield as it is", err)
	}
	if err := src.Extents(t.Context(), nil); !errors.Is(err, errSecondPass) {
		t.Errorf("second pass: %v", err)
	}
	if _, err := point.OpenDisk(t.Context(), "none", hypervisor.DiskRequest{}); err == nil {
		t.Error("a disk that isn't there was opened")
	}
	if err := point.Close(t.Context()); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestPointInTime_otherCapacity(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	point, err := b.client.OpenPointInTime(t.Context(), b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1"})
	if err != nil {
		t.Fatal(err)
	}
	opened, ok := point.(*pointInTime)
	if !ok {
		t.Fatalf("a point in time is %T", point)
	}
	opened.disks[0].capacity += 512 // as if the server sent another disk
	src, err := point.OpenDisk(t.Context(), b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	err = src.Extents(t.Context(), func(int64, []byte) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "a disk of 4194304 bytes instead of 4194816") {
		t.Errorf("got %v", err)
	}
	if err := point.Close(t.Context()); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestPointInTime_obstacles(t *testing.T) {
	t.Parallel()
	vm := &hypervisor.VM{Name: "db", Disks: []hypervisor.Disk{{Key: "1"}, {Key: "2"}}, Obstacles: []hypervisor.Obstacle{
		{Kind: hypervisor.ObstacleIndependent, Disk: "2", Device: "Hard disk 2"},
	}}
	var refused *hypervisor.ObstacleError
	if err := refuseObstacles(vm, nil); !errors.As(err, &refused) || len(refused.Obstacles) != 1 {
		t.Errorf("got %v", err)
	}
	if err := refuseObstacles(vm, []hypervisor.DiskKey{"1"}); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if err := refuseObstacles(vm, []hypervisor.DiskKey{"2"}); err != nil {
		t.Errorf("got %v", err)
	}
	if err := refuseObstacles(vm, []hypervisor.DiskKey{"2", "3"}); err == nil {
		t.Error("a disk that isn't there was excluded")
	}
	vm.Obstacles = append(vm.Obstacles, hypervisor.Obstacle{Kind: hypervisor.ObstacleTPM, Device: "TPM"})
	if err := refuseObstacles(vm, []hypervisor.DiskKey{"2"}); !errors.As(err, &refused) || refused.Obstacles[0].Kind != hypervisor.ObstacleTPM {
		t.Errorf("got %v", err)
	}
}

func TestMeasuredReader(t *testing.T) {
	t.Parallel()
	m := newMeasuredReader(strings.NewReader("abc"), true)
	if err := m.drain(); err != nil {
		t.Fatal(err)
	}
	if got := m.sums(); got.size != 3 || got.sha1 != abcSHA1 || got.sha256 != abcSHA256 {
		t.Errorf("got %+v", got)
	}
	old := newMeasuredReader(strings.NewReader("abc"), false)
	if err := old.drain(); err != nil {
		t.Fatal(err)
	}
	long := newMeasuredReader(io.LimitReader(zeroReader{}, maxTrailer+1), false)
	if err := long.drain(); !errors.Is(err, vmdk.ErrFormat) {
		t.Errorf("a trailer without end: %v", err)
	}
	broken := newMeasuredReader(io.MultiReader(strings.NewReader("abc"), brokenReader{}), false)
	_, err := io.ReadAll(broken)
	if err := broken.explain(err); !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("a broken stream: %v", err)
	}
	if err := old.explain(fmt.Errorf("x: %w", vmdk.ErrTruncated)); !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("a short stream: %v", err)
	}
	if err := old.explain(vmdk.ErrCorrupt); errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("a damaged stream: %v", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return copy(p, make([]byte, len(p))), nil }

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
