package vsphere

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// A follower keeps what a caller keeps of a disk, to read only its changes the next time.
type follower struct {
	*bench
	n           int
	granularity int64
	token       string
	image       []byte
}

// step takes a point in time, reads what is to be read, and compares the result with what the guest had.
func (f *follower) step(spec hypervisor.PointInTimeSpec) (hypervisor.ReadPlan, hypervisor.Config) {
	f.Helper()
	want := readLabDisk(f.T, f.lab, benchVM, f.n)
	p := f.open(spec)
	request := hypervisor.DiskRequest{Granularity: f.granularity}
	if f.image != nil {
		request.Base = &hypervisor.Base{Tracking: f.token}
	}
	reader := f.openDisk(p, f.n, request)
	plan := reader.Plan()
	if plan.Areas != nil && (f.image == nil || plan.FullReason != "") || plan.Areas == nil && f.image != nil && plan.FullReason == "" {
		f.Fatalf("plan %+v makes no sense", plan)
	}
	got, _, err := image(f.Context(), reader, f.image)
	if err != nil {
		f.Fatal(err)
	}
	if err := p.Close(f.Context()); err != nil {
		f.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		f.Fatalf("wrong bytes from %d on (%d bytes, want %d), plan %+v", at, len(got), len(want), plan)
	}
	f.image, f.token = got, plan.Tracking
	return plan, p.Config()
}

// TestTracking_full does what makes changes untellable, and expects a full read that says why; and then
// that incremental reading goes on.
func TestTracking_full(t *testing.T) {
	t.Parallel()
	const on = hypervisor.TrackingUse
	for name, test := range map[string]struct {
		before func(t *testing.T, b *bench, s saboteurAt) // before the base is taken
		after  func(t *testing.T, b *bench, s saboteurAt)
		spec   hypervisor.ChangeTracking
		reason string
		n      int  // the disk
		stays  bool // it isn't over with the next point in time
	}{
		"reverted to a snapshot from before the base": {
			before: func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.keep(t) },
			after:  func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.revert(t) },
			reason: "reverted to a snapshot on ",
		},
		"reverted to the snapshot, and the snapshot removed": {
			before: func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.keep(t) },
			after:  func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.revert(t); s.drop(t) },
			reason: "reverted to a snapshot on ",
		},
		"reverted to a snapshot from after the base": {
			after:  func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.keep(t); s.revert(t) },
			reason: "reverted to a snapshot on ",
		},
		"reverted, and nobody knows": {
			before: func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.keep(t) },
			after:  func(t *testing.T, b *bench, s saboteurAt) { t.Helper(); s.revert(t); b.lab.ForgetEvents() },
			reason: "doesn't reach back as far as the base",
		},
		"events can't be read": {
			after: func(_ *testing.T, b *bench, _ saboteurAt) {
				b.lab.Fault(lab.Fault{Method: "ReadNextEvents", Fault: "NoPermission", Count: logAttempts})
			},
			reason: "isn't known",
		},
		"resized": {
			after:  func(t *testing.T, b *bench, s saboteurAt) { t.Helper(); s.Resize(t, benchVM, 0, 6<<20); b.find() },
			reason: "it had 5242880 bytes and has 6291456",
		},
		"switched off and on": {
			after: func(t *testing.T, _ *bench, s saboteurAt) {
				t.Helper()
				s.SetChangeTracking(t, benchVM, false)
				s.SetChangeTracking(t, benchVM, true)
			},
			reason: "started anew",
		},
		"switched off": {
			after:  func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.SetChangeTracking(t, benchVM, false) },
			reason: "Change tracking is off.", stays: true,
		},
		"ignored": {spec: hypervisor.TrackingIgnore, reason: "is to be ignored", stays: true},
		"query fails": {
			after:  func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.FailChanges(t) },
			reason: "could not tell what changed",
		},
		"query isn't allowed": {
			after: func(_ *testing.T, b *bench, _ saboteurAt) {
				b.lab.Fault(lab.Fault{Method: "QueryChangedDiskAreas", Fault: "NoPermission"})
			},
			reason: "could not tell what changed",
		},
		"moved to another file": {after: func(t *testing.T, b *bench, _ saboteurAt) { t.Helper(); b.moveDisk(0, "elsewhere", 0) }, reason: "was moved"},
		"moved to another unit": {after: func(t *testing.T, b *bench, _ saboteurAt) { t.Helper(); b.moveDisk(1, "", 5) }, n: 1, reason: "attached elsewhere"},
		"moved and back": {
			after: func(t *testing.T, b *bench, _ saboteurAt) {
				t.Helper()
				b.lab.PostEvent(benchVM, &types.VmRelocatedEvent{})
			},
			reason: "disks were moved on",
		},
		"an old host": {
			after:  func(t *testing.T, b *bench, _ saboteurAt) { t.Helper(); b.hostVersion("6.0.0", "3029758") },
			reason: "ESXi 6.0.0", stays: true,
		},
		"a snapshot can't be looked into": {
			after: func(t *testing.T, b *bench, s saboteurAt) {
				t.Helper()
				s.keep(t)
				b.client.vim.RoundTripper = blind{b.client.vim.RoundTripper, snapshotRef(*s.kept)}
			},
			reason: "could not be found out", stays: true,
		},
		"switched on above a snapshot": {
			before: func(t *testing.T, _ *bench, s saboteurAt) { t.Helper(); s.SetChangeTracking(t, benchVM, false) },
			after: func(t *testing.T, _ *bench, s saboteurAt) {
				t.Helper()
				s.keep(t)
				s.SetChangeTracking(t, benchVM, true)
			},
			reason: "had the snapshot \"kept\"", stays: true,
		},
		"of no disk": {
			after: func(_ *testing.T, b *bench, _ saboteurAt) {
				b.model(func(_ *simulator.Context, vm *simulator.VirtualMachine) {
					disks(vm.Config.Hardware.Device)[0].Uuid = ""
				})
			},
			reason: "no identity", stays: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTrackedBench(t, nil, 5<<20, 5<<20)
			s := saboteurAt{saboteur(b.lab, b.client), b, new(hypervisor.SnapshotID)}
			if test.before != nil {
				test.before(t, b, s)
			}
			f := &follower{bench: b, n: test.n, granularity: 1 << 20}
			f.step(hypervisor.PointInTimeSpec{ChangeTracking: on})
			if err := b.lab.WriteDisk(benchVM, test.n, 1<<20+5, []byte("undone, maybe")); err != nil {
				t.Fatal(err)
			}
			if test.after != nil {
				test.after(t, b, s)
			}
			plan, _ := f.step(hypervisor.PointInTimeSpec{ChangeTracking: test.spec})
			if plan.Areas != nil || !strings.Contains(plan.FullReason, test.reason) {
				t.Errorf("plan %+v, want a reason with %q", plan, test.reason)
			}
			if !strings.HasSuffix(plan.FullReason, ".") {
				t.Errorf("%q is no sentence", plan.FullReason)
			}
			if (plan.Tracking == "") != test.stays {
				t.Errorf("the token is %q", plan.Tracking)
			}
			if test.stays {
				return
			}
			if plan, _ = f.step(hypervisor.PointInTimeSpec{}); plan.Areas == nil {
				t.Errorf("it doesn't go on: %q", plan.FullReason)
			}
		})
	}
}

// TestTracking_unlisted tells nothing above a snapshot that isn't listed.
func TestTracking_unlisted(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 1<<20)
	p, ok := b.open(hypervisor.PointInTimeSpec{}).(*pointInTime)
	if !ok {
		t.Fatal("another type")
	}
	p.snapshot.Parent = "snapshot-0"
	if why, err := p.trackingBelow(t.Context(), []hypervisor.Snapshot{p.snapshot}); err != nil || why == "" {
		t.Errorf("%q, %v", why, err)
	}
}

// TestTracking_keysBeginAnew sees what happened when the keys of events began anew meanwhile.
func TestTracking_keysBeginAnew(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 1<<20)
	since := logPosition{Key: 1<<31 - 1, At: time.Now()}
	b.lab.PostEvent(benchVM, &types.VmRelocatedEvent{})
	seen := 0
	if _, err := b.client.eventsSince(t.Context(), vmRef(b.vm.ID), since, func(types.BaseEvent) { seen++ }); err != nil || seen != 1 {
		t.Errorf("%d events, %v", seen, err)
	}
}

// blind is a server that doesn't let anybody read the properties of an object.
type blind struct {
	soap.RoundTripper
	to types.ManagedObjectReference
}

func (b blind) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	if r, ok := req.(*methods.RetrievePropertiesExBody); ok && r.Req.SpecSet[0].ObjectSet[0].Obj == b.to {
		return hypervisor.ErrNotSupported
	}
	return b.RoundTripper.RoundTrip(ctx, req, res)
}

// TestTracking_revertedWhileOpening reverts the VM when the snapshot is there and was not yet looked at.
func TestTracking_revertedWhileOpening(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 5<<20)
	s := saboteurAt{saboteur(b.lab, b.client), b, new(hypervisor.SnapshotID)}
	s.keep(t)
	if err := b.lab.WriteDisk(benchVM, 0, 1<<20+5, []byte("undone")); err != nil {
		t.Fatal(err)
	}
	var reverted atomic.Bool
	b.lab.OnCall("RetrievePropertiesEx", func(context.Context) {
		if len(b.lab.Status().VMs[0].Snapshots) == 2 && !reverted.Swap(true) {
			s.revert(t)
		}
	})
	f := &follower{bench: b, granularity: 1 << 20}
	f.step(hypervisor.PointInTimeSpec{})
	if !reverted.Load() {
		t.Fatal("it was not reverted")
	}
	if plan, _ := f.step(hypervisor.PointInTimeSpec{}); !strings.Contains(plan.FullReason, "reverted to a snapshot on ") {
		t.Errorf("plan %+v", plan)
	}
}

// A saboteurAt plays somebody who has one snapshot of the VM.
type saboteurAt struct {
	hypervisortest.Saboteur
	b    *bench
	kept *hypervisor.SnapshotID
}

func (s saboteurAt) keep(t *testing.T) {
	t.Helper()
	id, err := s.b.client.CreateSnapshot(t.Context(), s.b.vm.ID, hypervisor.SnapshotSpec{Name: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	*s.kept = id
}

func (s saboteurAt) revert(t *testing.T) { t.Helper(); s.Revert(t, benchVM, *s.kept) }

func (s saboteurAt) drop(t *testing.T) {
	t.Helper()
	if err := s.b.client.RemoveSnapshot(t.Context(), s.b.vm.ID, *s.kept, hypervisor.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
}

// moveDisk takes the n-th disk from a VM and gives it back, from a file of another name or at another unit.
func (b *bench) moveDisk(n int, name string, unit int32) {
	b.Helper()
	if err := b.client.PowerOff(b.Context(), b.vm.ID); err != nil {
		b.Fatal(err)
	}
	devices, err := b.client.vm(b.vm.ID).Device(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	d := orderedDisks(devices)[n]
	file := b.vm.Disks[n].Path
	if err := b.client.vm(b.vm.ID).RemoveDevice(b.Context(), true, d); err != nil {
		b.Fatal(err)
	}
	back := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: -1, ControllerKey: d.ControllerKey, UnitNumber: d.UnitNumber}}
	backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		b.Fatalf("%T", d.Backing)
	}
	if name != "" {
		to := strings.Replace(file, ".vmdk", "-"+name+".vmdk", 1)
		dc := b.path("/DC0")
		task, err := object.NewVirtualDiskManager(b.client.vim).MoveVirtualDisk(b.Context(), file, object.NewDatacenter(b.client.vim, dc), to,
			object.NewDatacenter(b.client.vim, dc), false)
		wait(b.T, task, err)
		file = to
	}
	if unit != 0 {
		back.UnitNumber = &unit
	}
	back.Backing = &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file}, DiskMode: backing.DiskMode,
		ThinProvisioned: backing.ThinProvisioned, Uuid: backing.Uuid,
	}
	reconfigure(b.T, b.client, benchVM, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: back},
	}})
	b.find()
}
