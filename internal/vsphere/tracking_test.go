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
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
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

// hostVersion makes the VM's host be of a version.
func (b *bench) hostVersion(version, build string) {
	b.Helper()
	b.client.vim.ServiceContent.About.Version = "6.7.0" // which may have such hosts
	b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
		host, ok := ctx.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
		if !ok {
			b.Fatal("the VM has no host")
		}
		ctx.WithLock(host, func() {
			product := *host.Summary.Config.Product
			product.Version, product.Build = version, build
			host.Summary.Config.Product = &product
		})
	})
}

// TestTracking_enable switches tracking on exactly where that is safe, and says when it didn't.
func TestTracking_enable(t *testing.T) {
	t.Parallel()
	want := hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable}
	for name, test := range map[string]struct {
		off     bool // the VM is powered off
		prepare func(t *testing.T, b *bench)
		warning string
	}{
		"running":     {},
		"powered off": {off: true},
		"snapshots": {warning: "has snapshots", prepare: func(t *testing.T, b *bench) {
			t.Helper()
			if _, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "kept"}); err != nil {
				t.Fatal(err)
			}
		}},
		"not allowed": {warning: "could not be switched on", prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "call:NoPermission"})
		}},
		"fails": {warning: "could not be switched on", prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "GenericVmConfigFault"})
		}},
		"not supported": {warning: "hardware version", prepare: func(_ *testing.T, b *bench) {
			b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
				capability := vm.Capability
				capability.ChangeTrackingSupported = false
				ctx.Update(vm, []types.PropertyChange{{Name: "capability", Val: capability}})
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 2<<20)
			config := labConfig(b.lab)
			config.Transports = nil
			b.client = dial(t, config)
			if test.off {
				if err := b.client.PowerOff(t.Context(), b.vm.ID); err != nil {
					t.Fatal(err)
				}
			}
			if test.prepare != nil {
				test.prepare(t, b)
			}
			f := &follower{bench: b, granularity: 1 << 20}
			plan, captured := f.step(want)
			b.find()
			if enabled := test.warning == ""; b.vm.ChangeTracking != enabled || (plan.Tracking != "") != enabled {
				t.Errorf("tracking is on: %t, plan %+v", b.vm.ChangeTracking, plan)
			}
			if all := strings.Join(captured.Warnings, "\n"); !strings.Contains(all, test.warning) || test.warning == "" && strings.Contains(all, "racking") {
				t.Errorf("warnings %q", captured.Warnings)
			}
			if test.warning != "" {
				return
			}
			if err := b.lab.WriteDisk(benchVM, 0, 0, []byte("changed")); err != nil {
				t.Fatal(err)
			}
			if plan, _ = f.step(want); plan.Areas == nil || plan.Areas.Bytes() != 1<<20 {
				t.Errorf("plan %+v", plan)
			}
		})
	}
}

// TestTracking_enabledButNot finds that tracking doesn't run although the setting says so.
func TestTracking_enabledButNot(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 1<<20)
	b.lab.OnCall("QueryChangedDiskAreas", func(context.Context) { t.Error("the server was asked nevertheless") })
	p := &pointInTime{client: b.client, vm: b.vm.ID, tracking: tracking{wanted: hypervisor.TrackingEnable}}
	p.disks = []*pointDisk{{label: "Hard disk 1", capacity: 1 << 20, backing: diskBacking{uuid: "u", base: "[ds] a"}}}
	p.warnOfTracking(t.Context())
	if got := p.Config().Warnings; len(got) != 1 || !strings.Contains(got[0], "Hard disk 1: Change tracking is on, but doesn't run") {
		t.Errorf("warnings %q", got)
	}
	if p.token(p.disks[0]) != nil {
		t.Error("a token without a change ID")
	}
}

func TestTrackingToken(t *testing.T) {
	t.Parallel()
	base := trackingToken{Version: tokenVersion, ChangeID: "52 2d/7", Server: "s", VM: "vm", Disk: "disk", Capacity: 1 << 20,
		Slot: "ParaVirtualSCSIController0:0", Path: "[ds] a/a.vmdk", Taken: time.Unix(1, 0).UTC(), Log: logPosition{7, time.Unix(2, 5).UTC()}}
	text, err := base.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseToken(text); err != nil || got != base {
		t.Errorf("%+v, %v", got, err)
	}
	for name, test := range map[string]struct {
		edit   func(*trackingToken)
		reason string
	}{
		"later":           {func(t *trackingToken) { t.ChangeID, t.Taken, t.Log.Key = "52 2d/8", time.Unix(9, 0), 9 }, ""},
		"server":          {func(t *trackingToken) { t.Server = "x" }, "of another virtual machine"},
		"VM":              {func(t *trackingToken) { t.VM = "x" }, "of another virtual machine"},
		"disk":            {func(t *trackingToken) { t.Disk = "x" }, "of another disk"},
		"capacity":        {func(t *trackingToken) { t.Capacity++ }, "resized"},
		"path":            {func(t *trackingToken) { t.Path = "[ds2] a/a.vmdk" }, "moved since"},
		"slot":            {func(t *trackingToken) { t.Slot = "ParaVirtualSCSIController0:1" }, "attached elsewhere"},
		"tracking":        {func(t *trackingToken) { t.ChangeID = "53 2d/8" }, "started anew"},
		"same count":      {func(*trackingToken) {}, "earlier state"},
		"count goes back": {func(t *trackingToken) { t.ChangeID = "52 2d/6" }, "earlier state"},
		"other form":      {func(t *trackingToken) { t.ChangeID = "opaque" }, "started anew"},
	} {
		now := base
		test.edit(&now)
		if got := now.differs(base); (got == "") != (test.reason == "") || !strings.Contains(got, test.reason) {
			t.Errorf("%s: %q, want %q", name, got, test.reason)
		}
	}
	// Identifiers without a count say nothing.
	base.ChangeID = "opaque"
	now := base
	now.ChangeID = "opaque too"
	for _, now := range []trackingToken{base, now} {
		if why := now.differs(base); !strings.Contains(why, "form that is not known") {
			t.Errorf("%q", why)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	good, err := trackingToken{ChangeID: "52 2d/7", Disk: "d", Capacity: 512, Log: logPosition{Key: 1, At: time.Unix(0, 0)}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{good, "", "{}", "null", "[]", `{"version":1}`, `{"version":2,"change_id":"a"}`, strings.Replace(good, "512", "-1", 1)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text)
		if err != nil {
			if token != (trackingToken{}) {
				t.Errorf("%q: something with an error", text)
			}
			return
		}
		if token.ChangeID == "" || token.ChangeID == allAreas || token.Capacity <= 0 || token.Disk == "" {
			t.Errorf("%q: %+v", text, token)
		}
		again, err := token.encode()
		if err != nil {
			return // times that JSON has no form for
		}
		if back, err := parseToken(again); err != nil || !back.Log.At.Equal(token.Log.At) || back.ChangeID != token.ChangeID {
			t.Errorf("%q: %q, %v", text, again, err)
		}
	})
}

func TestOldVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		version, build string
		old            bool
	}{
		{"8.0.2", "22380479", false}, {"7.0.3", "1", false}, {"6.5.0", "1", false}, {"6.0.0", "3247720", false},
		{"6.0.0", "3247719", true}, {"6.0.0", "", true}, {"5.5.0", "9999999", true}, {"", "", false}, {"10.0", "1", false},
	} {
		if got := oldVersion(test.version, test.build); (got != "") != test.old {
			t.Errorf("%q %q: %q", test.version, test.build, got)
		}
	}
}

func TestUnsettles(t *testing.T) {
	t.Parallel()
	task := func(name, id string) types.BaseEvent {
		return &types.TaskEvent{Info: types.TaskInfo{Name: name, DescriptionId: id}}
	}
	ds := func(name string) *types.DatastoreEventArgument {
		return &types.DatastoreEventArgument{Datastore: types.ManagedObjectReference{Type: "Datastore", Value: name}}
	}
	for name, test := range map[string]struct {
		event               types.BaseEvent
		unsettled, disturbs bool
	}{
		"revert":            {task("RevertToSnapshot_Task", "vm.Snapshot.revert"), true, false},
		"revert to current": {task("", "VirtualMachine.revertToCurrentSnapshot"), true, false},
		"extended":          {&types.EventEx{EventTypeId: "com.vmware.vc.vm.VmStateRevertedToSnapshot"}, true, false},
		"of an extension":   {&types.ExtendedEvent{EventTypeId: "vim.event.Reverted"}, true, false},
		"relocated":         {&types.VmRelocatedEvent{}, true, true},
		"migrated":          {&types.VmMigratedEvent{VmEvent: types.VmEvent{Event: types.Event{Ds: ds("a")}}, SourceDatastore: ds("a")}, false, false},
		"migrated, storage": {&types.VmMigratedEvent{VmEvent: types.VmEvent{Event: types.Event{Ds: ds("a")}}, SourceDatastore: ds("b")}, true, true},
		"migrated by DRS": {&types.DrsVmMigratedEvent{VmMigratedEvent: types.VmMigratedEvent{
			VmEvent: types.VmEvent{Event: types.Event{Ds: ds("a")}}, SourceDatastore: ds("b"),
		}}, true, true},
		"restarted elsewhere": {&types.VmRestartedOnAlternateHostEvent{}, true, false},
		"reset by HA":         {&types.VmDasBeingResetEvent{}, true, false},
		"reset, screenshot":   {&types.VmDasBeingResetWithScreenshotEvent{}, true, false},
		"restarted by HA":     {&types.EventEx{EventTypeId: "com.vmware.vc.ha.VmRestartedByHAEvent"}, true, false},
		"restarted":           {&types.EventEx{EventTypeId: "com.vmware.vc.guestOS.restarted"}, false, false},
		"tracking off":        {&types.VmReconfiguredEvent{ConfigSpec: types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(false)}}, true, false},
		"tracking on":         {&types.VmReconfiguredEvent{ConfigSpec: types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)}}, false, false},
		"snapshot":            {task("CreateSnapshot_Task", "VirtualMachine.createSnapshot"), false, false},
		"snapshot removed":    {task("RemoveSnapshot_Task", "vm.Snapshot.remove"), false, false},
		"all removed":         {task("", "VirtualMachine.removeAllSnapshots"), false, false},
		"consolidated":        {task("", "VirtualMachine.consolidateDisks"), false, false},
		"power":               {&types.VmPoweredOnEvent{}, false, false},
	} {
		if got := unsettles(test.event); (got != "") != test.unsettled {
			t.Errorf("%s unsettles: %q", name, got)
		}
		if got := disturbs(test.event); (got != "") != test.disturbs {
			t.Errorf("%s disturbs: %q", name, got)
		}
	}
}

// TestTracking_answers distrusts answers that make no sense.
func TestTracking_answers(t *testing.T) {
	t.Parallel()
	area := func(start, length int64) []types.DiskChangeExtent {
		return []types.DiskChangeExtent{{Start: start, Length: length}}
	}
	const capacity = 1 << 20
	for name, test := range map[string]struct {
		answer types.DiskChangeInfo
		fine   bool
	}{
		"nothing":           {types.DiskChangeInfo{Length: capacity}, true},
		"something":         {types.DiskChangeInfo{Length: capacity, ChangedArea: area(capacity-512, 512)}, true},
		"no length":         {types.DiskChangeInfo{}, false},
		"negative length":   {types.DiskChangeInfo{Length: -1}, false},
		"too long":          {types.DiskChangeInfo{Length: capacity + 1}, false},
		"elsewhere":         {types.DiskChangeInfo{StartOffset: 512, Length: capacity - 512}, false},
		"area too long":     {types.DiskChangeInfo{Length: capacity, ChangedArea: area(512, capacity)}, false},
		"area beyond":       {types.DiskChangeInfo{Length: capacity, ChangedArea: area(capacity, 512)}, false},
		"area in front":     {types.DiskChangeInfo{Length: capacity, ChangedArea: area(-512, 1024)}, false},
		"empty area":        {types.DiskChangeInfo{Length: capacity, ChangedArea: area(512, 0)}, false},
		"huge area":         {types.DiskChangeInfo{Length: capacity, ChangedArea: area(1<<62, 1<<62)}, false},
		"huge area at zero": {types.DiskChangeInfo{Length: capacity, ChangedArea: area(0, 1<<63-1)}, false},
	} {
		if _, err := checkChanges(&test.answer, 0, capacity); (err == nil) != test.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTracking_pages reads a disk with more changed areas than one answer has.
func TestTracking_pages(t *testing.T) {
	t.Parallel()
	const capacity, block, areas = 1 << 30, 64 << 10, 4500
	b := &bench{T: t, lab: labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{
		Name: benchVM, Disks: []string{labtest.RawDisk(t, capacity, 1)}, ChangeTracking: true,
	}}})}
	b.client = dial(t, labConfig(b.lab))
	b.find()
	p := b.open(hypervisor.PointInTimeSpec{})
	token := b.openDisk(p, 0, hypervisor.DiskRequest{}).Plan().Tracking
	for i := range int64(areas) {
		if err := b.lab.WriteDisk(benchVM, 0, i*3*block+100, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := b.lab.Calls()["QueryChangedDiskAreas"]
	p = b.open(hypervisor.PointInTimeSpec{})
	plan := b.openDisk(p, 0, hypervisor.DiskRequest{Base: &hypervisor.Base{Tracking: token}, Granularity: block}).Plan()
	if plan.Areas == nil || plan.Areas.Bytes() != areas*block {
		t.Fatalf("plan %+v", plan)
	}
	for i := range int64(areas) {
		if !plan.Areas.Contains(i*3*block) || plan.Areas.Contains((i*3+1)*block) {
			t.Fatalf("area %d is not as written", i)
		}
	}
	if calls := b.lab.Calls()["QueryChangedDiskAreas"] - before; calls != 3 {
		t.Errorf("%d calls", calls)
	}
}
