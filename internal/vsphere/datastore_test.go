package vsphere

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
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
				b.client.config.ReadTimeout = 3 * time.Second
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
