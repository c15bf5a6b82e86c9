package vsphere

import (
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

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
