package vsphere

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func TestInPlace_obstacles(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 2<<20)
	backing := func(p *inPlacePlan) *types.VirtualDiskFlatVer2BackingInfo {
		f, ok := p.disks[0].own.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok {
			t.Fatalf("backing %T", p.disks[0].own.Backing)
		}
		return f
	}
	for name, tt := range map[string]struct {
		change func(*inPlacePlan)
		want   hypervisor.ObstacleKind
	}{
		"none":            {func(*inPlacePlan) {}, ""},
		"template":        {func(p *inPlacePlan) { p.vm.Config.Template = true }, hypervisor.ObstacleTemplate},
		"fault tolerance": {func(p *inPlacePlan) { p.vm.Config.FtInfo = &types.FaultToleranceConfigInfo{} }, hypervisor.ObstacleFaultTolerance},
		"encrypted VM":    {func(p *inPlacePlan) { p.vm.Config.KeyId = &types.CryptoKeyId{} }, hypervisor.ObstacleEncryption},
		"encrypted disk":  {func(p *inPlacePlan) { backing(p).KeyId = &types.CryptoKeyId{} }, hypervisor.ObstacleEncryption},
		"multi-writer":    {func(p *inPlacePlan) { backing(p).Sharing = "sharingMultiWriter" }, hypervisor.ObstacleMultiWriter},
		"linked clone":    {func(p *inPlacePlan) { backing(p).Parent = &types.VirtualDiskFlatVer2BackingInfo{} }, hypervisor.ObstacleDelta},
		"needs consolidation": {func(p *inPlacePlan) {
			backing(p).Parent, p.vm.Runtime.ConsolidationNeeded = &types.VirtualDiskFlatVer2BackingInfo{}, true
		}, ""},
		"raw device": {func(p *inPlacePlan) {
			p.disks[0].own.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{CompatibilityMode: "virtualMode"}
		}, hypervisor.ObstaclePhysicalRDM},
		"shared bus": {func(p *inPlacePlan) {
			c, ok := object.VirtualDeviceList(p.vm.Config.Hardware.Device).FindByKey(p.disks[0].own.ControllerKey).(types.BaseVirtualSCSIController)
			if !ok {
				t.Fatal("the disk isn't on a SCSI controller")
			}
			c.GetVirtualSCSIController().SharedBus = types.VirtualSCSISharingPhysicalSharing
		}, hypervisor.ObstacleSharedBus},
	} {
		p, err := b.client.planInPlace(t.Context(), b.spec("run-1"))
		must(t, err)
		tt.change(p)
		err = p.checkObstacles()
		var e *hypervisor.ObstacleError
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (!errors.As(err, &e) || e.Obstacles[0].Kind != tt.want):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInPlace_refused(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 2<<20)
	p, err := b.client.planInPlace(t.Context(), b.spec("run-1"))
	must(t, err)
	store := p.stores[p.disks[0].store]
	store.Summary.FreeSpace = 100
	p.stores[p.disks[0].store] = store
	p.captured.DiskUsage = map[int32]int64{p.disks[0].captured.Key: 60, p.disks[1].captured.Key: 70}
	for _, d := range p.disks {
		if f, ok := d.captured.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			f.ThinProvisioned = types.NewBool(true)
		}
	}
	var space *hypervisor.InsufficientSpaceError
	if err := p.checkSpace(); !errors.As(err, &space) || space.Need != 130 || space.Free != 100 {
		t.Errorf("space: %v", err)
	}
	if _, err := b.client.StartInPlace(t.Context(), b.spec("")); err == nil {
		t.Error("a run without an ID was started")
	}

	// A suspended VM would lose its memory.
	task, err := b.client.vm(b.vm.ID).Suspend(t.Context())
	must(t, err)
	must(t, task.Wait(t.Context()))
	if _, err := b.client.CheckInPlace(t.Context(), b.spec("run-1")); !errors.Is(err, hypervisor.ErrGuestAgent) {
		t.Errorf("suspended: %v", err)
	}
	spec := b.spec("run-1")
	spec.PowerOff = true
	if warnings, err := b.client.CheckInPlace(t.Context(), spec); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "memory") {
		t.Errorf("suspended, power off: %q, %v", warnings, err)
	}
	b.deleteReplaced(b.mustInPlace(spec).replaced)
	b.sameContent("suspended", b.before)
	b.untouched()

	// A disk that has grown is another one.
	var vm mo.VirtualMachine
	must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"config.hardware"}, &vm))
	grown := orderedDisks(vm.Config.Hardware.Device)[1]
	grown.CapacityInBytes, grown.CapacityInKB = 3<<20, 3<<10
	b.reconfigure(vmRef(b.vm.ID), edits(grown))
	var mismatch *hypervisor.DiskMismatchError
	if _, err := b.client.CheckInPlace(t.Context(), b.spec("run-2")); !errors.As(err, &mismatch) || !strings.Contains(err.Error(), "is larger") {
		t.Errorf("grown: %v", err)
	}
}

func edits(devices ...types.BaseVirtualDevice) types.VirtualMachineConfigSpec {
	var spec types.VirtualMachineConfigSpec
	for _, d := range devices {
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d,
		})
	}
	return spec
}

// A disk is found by its UUID wherever it is now, and stays there.
func TestInPlace_movedDisks(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	must(t, b.client.PowerOff(t.Context(), b.vm.ID))
	for _, units := range [][]int32{{8, 9}, {1, 0}} { // the two have changed places in the end
		var vm mo.VirtualMachine
		must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"config.hardware"}, &vm))
		disks := orderedDisks(vm.Config.Hardware.Device)
		for n, d := range disks {
			d.UnitNumber = &units[n]
		}
		b.reconfigure(vmRef(b.vm.ID), edits(disks[0], disks[1]))
	}
	warnings, err := b.client.CheckInPlace(t.Context(), b.spec("run-1"))
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "scsi0:0 and is at scsi0:1") {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	files := map[string]string{} // of each UUID
	for _, d := range b.status(benchVM).Disks {
		files[d.UUID] = d.Controller
	}
	out := b.mustInPlace(b.spec("run-1"))
	for n, d := range b.status(benchVM).Disks {
		if files[d.UUID] != d.Controller {
			t.Errorf("%s is at %s, was at %s", d.UUID, d.Controller, files[d.UUID])
		}
		want := b.before[slices.IndexFunc(b.backup.config.Summary.Disks, func(c hypervisor.Disk) bool { return c.UUID == d.UUID })]
		got := make([]byte, len(want))
		must(t, b.lab.ReadDisk(benchVM, n, 0, got))
		if string(got) != string(want) {
			t.Errorf("disk %d doesn't hold what belongs to its UUID", n)
		}
	}
	b.deleteReplaced(out.replaced)
	b.untouched()
}

// What others do to the VM meanwhile is noticed at the latest when the disks are swapped.
func TestInPlace_disturbed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		at      string // the call at which it happens
		nth     int32
		disturb func(ctx context.Context, b *inPlaceBench, other *Client) error
		is      error
	}{
		"snapshot": {"ShutdownGuest", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			_, err := other.CreateSnapshot(ctx, b.vm.ID, hypervisor.SnapshotSpec{Name: "in between"})
			return err
		}, hypervisor.ErrSnapshotsInTheWay},
		"snapshot at the last moment": {"ReconfigVM_Task", swapChange, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			_, err := other.CreateSnapshot(ctx, b.vm.ID, hypervisor.SnapshotSpec{Name: "in between"})
			return err
		}, hypervisor.ErrSnapshotsInTheWay},
		"started": {"CreateCollectorForEvents", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			return other.PowerOn(ctx, b.vm.ID)
		}, nil},
		"grown": {"CreateCollectorForEvents", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			d := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: 2001, ControllerKey: 1000, UnitNumber: types.NewInt32(1)},
				CapacityInBytes: 2 << 20, CapacityInKB: 2 << 10}
			d.Backing = &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: b.vm.Disks[1].Path}, DiskMode: "persistent"}
			_, err := other.reconfigure(ctx, vmRef(b.vm.ID), edits(d))
			return err
		}, nil},
		"destroyed": {"ShutdownGuest", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			return other.DestroyVM(ctx, b.vm.ID)
		}, nil},
		"settings changed": {"ShutdownGuest", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			_, err := other.reconfigure(ctx, vmRef(b.vm.ID), types.VirtualMachineConfigSpec{Annotation: "by others"})
			return err
		}, errors.ErrUnsupported}, // which stands for success
		"disk replaced": {"ShutdownGuest", 0, func(ctx context.Context, b *inPlaceBench, other *Client) error {
			return other.detachDisks(ctx, vmRef(b.vm.ID), []string{b.vm.Disks[1].Path})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newInPlaceBench(t, 1<<20, 1<<20)
			other := dial(t, labConfig(b.lab))
			ctx := t.Context()
			var calls atomic.Int32
			b.lab.OnCall(tt.at, func(context.Context) {
				if calls.Add(1) != tt.nth+1 {
					return
				}
				if err := tt.disturb(ctx, b, other); err != nil {
					t.Errorf("disturb: %v", err)
				}
			})
			out, err := b.inPlace(ctx, b.spec("run-1"))
			if success := errors.Is(tt.is, errors.ErrUnsupported); success != (err == nil) || !success && tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("got %v", err)
			}
			switch name {
			case "destroyed":
				if s := b.lab.Status(); len(s.VMs) != 0 || len(s.Files) != 0 {
					t.Errorf("left behind: %+v %+v", s.VMs, s.Files)
				}
				return
			case "settings changed":
				b.deleteReplaced(out.replaced)
				b.sameContent("swapped", b.before)
			case "grown":
				if !strings.Contains(err.Error(), "another capacity") || b.status(benchVM).Disks[1].Capacity != 2<<20 || b.power() != "poweredOn" {
					t.Errorf("got %v, %+v", err, b.status(benchVM))
				}
			case "disk replaced":
				must(t, b.client.PowerOff(ctx, b.vm.ID))
				b.reconfigure(vmRef(b.vm.ID), reattach(b.vm.Disks[1].Path))
				b.sameContent("undone", b.after)
			default:
				b.sameContent("undone", b.after)
				if b.power() != "poweredOn" {
					t.Errorf("the VM is %s", b.power())
				}
				b.noTraces()
				return
			}
			b.untouched()
		})
	}
}

func reattach(file string) types.VirtualMachineConfigSpec {
	d := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
		Key: -1, ControllerKey: 1000, UnitNumber: types.NewInt32(1),
		Backing: &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file}, DiskMode: "persistent",
		},
	}}
	return types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d},
	}}
}

// Where the answer to the swap is lost and nobody can say what became of it, it is undone as soon as
// somebody can.
func TestInPlace_swapUnknown(t *testing.T) {
	t.Parallel()
	for _, hardware := range []bool{false, true} {
		b := newInPlaceBench(t, 1<<20, 1<<20)
		var calls atomic.Int32
		b.lab.OnCall("ReconfigVM_Task", func(context.Context) {
			if calls.Add(1) == swapChange+1 {
				b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "NoPermission"})
			}
		})
		b.lab.Fault(reconfig(swapChange, "lost"))
		spec := b.spec("run-1")
		spec.Hardware = hardware
		_, err := b.inPlace(t.Context(), spec)
		var swapped *hypervisor.SwappedError
		if err == nil || errors.As(err, &swapped) {
			t.Errorf("got %v", err)
		}
		b.sameContent("undone", b.after)
		if b.power() != "poweredOn" {
			t.Errorf("the VM is %s", b.power())
		}
		b.untouched()
	}
}

// Where the answer to the import is lost, the VM in the making is found and removed, when its lease is over.
func TestInPlace_importLost(t *testing.T) {
	t.Parallel()
	b, spec := newMortalBench(t, death{})
	labtest.ExpireWhenRefused(b.lab)
	b.lab.Fault(lab.Fault{Method: "ImportVApp", Fault: "lost"})
	if _, err := b.client.StartInPlace(t.Context(), spec); err == nil {
		t.Error("got success")
	}
	b.untouched()
	b.deleteReplaced(b.mustInPlace(spec).replaced)
	labtest.AssertClean(t, b.lab)
}

// Where the server chooses the places of files, the restored disks are where it put them.
func TestInPlace_serverChooses(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	// The lab keeps files as ever, it only says otherwise while the restore is planned.
	b.lab.OnCall("ImportVApp", func(context.Context) { b.datastoreType("VMFS") })
	spec := b.spec("run-0")
	spec.Disks = []hypervisor.DiskKey{b.backup.config.Summary.Disks[0].Key}
	b.datastoreType("vsan")
	r, err := b.client.StartInPlace(t.Context(), spec)
	must(t, err)
	must(t, b.write(t.Context(), r, spec))
	must(t, r.Abort(t.Context()))
	b.untouched()
	b.datastoreType("vsan")
	spec.RunID = "run-1"
	out := b.mustInPlace(spec)
	b.sameContent("restored", [][]byte{b.before[0], b.after[1]})
	file := b.status(benchVM).Disks[0].File
	if len(out.warnings) != 1 || !strings.Contains(out.warnings[0], file) || !strings.Contains(file, makingPrefix) {
		t.Errorf("the disk is %s, warnings %q", file, out.warnings)
	}
	b.deleteReplaced(out.replaced)
	labtest.AssertClean(t, b.lab)
	if err := b.client.deleteDisks(t.Context(), nil, []string{"[LocalDS_0]"}); err != nil {
		t.Errorf("a disk that nobody knows the place of: %v", err)
	}
}

// A server that doesn't make disks in the directory of another VM chooses as well.
func TestInPlace_placeRefused(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	b.lab.Fault(lab.Fault{Method: "ImportVApp", Fault: "InvalidDatastorePath"})
	spec := b.spec("run-1")
	spec.Disks = []hypervisor.DiskKey{b.backup.config.Summary.Disks[0].Key}
	out := b.mustInPlace(spec)
	b.sameContent("restored", [][]byte{b.before[0], b.after[1]})
	if file := b.status(benchVM).Disks[0].File; len(out.warnings) != 1 || !strings.Contains(file, makingPrefix) {
		t.Errorf("the disk is %s, warnings %q", file, out.warnings)
	}
	b.deleteReplaced(out.replaced)
	labtest.AssertClean(t, b.lab)
	b.lab.Fault(lab.Fault{Method: "ImportVApp", Fault: "InvalidDatastorePath", Count: 2})
	if _, err := b.client.StartInPlace(t.Context(), b.spec("run-2")); err == nil {
		t.Error("got success")
	}
	labtest.AssertClean(t, b.lab)
}

// Disks keep their storage policies, on the way there and back, unless the server refuses.
func TestInPlace_policies(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	policies := func() map[int32]string {
		t.Helper()
		p, err := b.client.planInPlace(t.Context(), b.spec("run-0"))
		must(t, err)
		ids, err := b.client.ownPolicies(t.Context(), p)
		must(t, err)
		return ids
	}
	ids, err := b.client.findPolicies(t.Context())
	must(t, err)
	var vm mo.VirtualMachine
	must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"config.hardware"}, &vm))
	second := orderedDisks(vm.Config.Hardware.Device)[1]
	spec := edits(second)
	spec.DeviceChange[0].GetVirtualDeviceConfigSpec().Profile = []types.BaseVirtualMachineProfileSpec{
		&types.VirtualMachineDefinedProfileSpec{ProfileId: ids["vSAN Default Storage Policy"]}}
	b.reconfigure(vmRef(b.vm.ID), spec)
	want := map[int32]string{second.Key: ids["vSAN Default Storage Policy"]}
	if got := policies(); !maps.Equal(got, want) || want[second.Key] == "" {
		t.Fatalf("policies %v, want %v", got, want)
	}
	r, err := b.client.StartInPlace(t.Context(), b.spec("run-1"))
	must(t, err)
	must(t, b.write(t.Context(), r, b.spec("run-1")))
	_, _, warnings, err := r.Swap(t.Context())
	must(t, err)
	if got := policies(); !maps.Equal(got, want) || len(warnings) > 0 {
		t.Errorf("swapped: policies %v, want %v, warnings %q", got, want, warnings)
	}
	must(t, r.Back(t.Context()))
	must(t, r.Abort(t.Context()))
	if got := policies(); !maps.Equal(got, want) {
		t.Errorf("back: policies %v, want %v", got, want)
	}
	b.lab.Fault(reconfig(swapChange, "InvalidArgument"))
	out := b.mustInPlace(b.spec("run-2"))
	if len(out.warnings) != 1 || !strings.Contains(out.warnings[0], "storage policy") {
		t.Errorf("warnings %q", out.warnings)
	}
	b.sameContent("without", b.before)
	b.deleteReplaced(out.replaced)
	b.untouched()
}

// A host without a vCenter replaces disks as well.
func TestInPlace_host(t *testing.T) {
	t.Parallel()
	b := &inPlaceBench{bench: &bench{T: t, lab: labtest.Start(t, lab.Options{ESX: true})}}
	b.client = dial(t, labConfig(b.lab))
	b.raw = []string{labtest.RawDisk(t, 1<<20, 1)}
	must(t, b.lab.AddVM(t.Context(), lab.VMSpec{Name: benchVM, Disks: b.raw}))
	b.find()
	b.backup = b.mustBackUp()
	b.before = b.content()
	must(t, b.lab.WriteDisk(benchVM, 0, 512, []byte("written since")))
	spec := b.spec("run-1")
	spec.Hardware = true
	out := b.mustInPlace(spec)
	if len(out.warnings) > 0 {
		t.Errorf("warnings %q", out.warnings)
	}
	b.sameContent("restored", b.before)
	b.deleteReplaced(out.replaced)
	b.untouched()
}
