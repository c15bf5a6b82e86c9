package vsphere

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// An interruption is something that goes wrong in the middle of a phase: an injected fault, or the
// caller's context ending at the moment of a call.
type interruption struct {
	name     string
	fault    lab.Fault
	cancelAt string
	// nth is which of the calls of cancelAt cancels; zero is the first.
	nth int32
	// is what the error has to wrap; nil: any error will do.
	is error
	// succeeds is set when the interruption must not be noticed.
	succeeds bool
}

// arm sets the interruption up and returns the context to work with, and a check that it happened.
func (i interruption) arm(b *bench) (context.Context, func()) {
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	if i.cancelAt == "" {
		b.lab.Fault(i.fault)
		return ctx, func() {} // labtest.Start checks that the fault was hit
	}
	var calls atomic.Int32
	b.lab.OnCall(i.cancelAt, func(context.Context) {
		if calls.Add(1) == i.nth+1 {
			cancel()
		}
	})
	return ctx, func() {
		if ctx.Err() == nil {
			b.Errorf("%s was called %d times, and not interrupted", i.cancelAt, calls.Load())
		}
		b.lab.OnCall(i.cancelAt, nil)
	}
}

// check judges the outcome.
func (i interruption) check(b *bench, err error) {
	b.Helper()
	switch {
	case i.succeeds && err != nil:
		b.Errorf("got %v, want success", err)
	case !i.succeeds && err == nil:
		b.Error("got success, want an error")
	case i.cancelAt != "" && !i.succeeds && !errors.Is(err, context.Canceled):
		b.Errorf("got %v, want context.Canceled", err)
	case i.is != nil && !errors.Is(err, i.is):
		b.Errorf("got %v, want %v", err, i.is)
	}
	if err != nil && strings.Contains(err.Error(), "/nfc/") {
		b.Errorf("the error shows a ticket: %v", err)
	}
}

func TestPointInTime_interrupted(t *testing.T) {
	t.Parallel()
	for _, i := range []interruption{
		{name: "snapshot fails", fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "NoDiskSpace"}},
		{name: "snapshot refused", fault: lab.Fault{Method: "CreateSnapshot_Task", Fault: "call:NoPermission"}},
		{name: "snapshot cancelled", cancelAt: "CreateSnapshotEx_Task"},
		{name: "NVRAM dropped", fault: lab.Fault{Method: "GET /folder", Fault: "drop"}, succeeds: true},
		{name: "NVRAM unavailable", fault: lab.Fault{Method: "GET /folder", Fault: "503", Count: readAttempts}, is: hypervisor.ErrLost},
		{name: "capture cancelled", cancelAt: "GET /folder"},
		{name: "lease refused", fault: lab.Fault{Method: "ExportSnapshot", Fault: "NoPermission"}},
		{name: "lease busy", fault: lab.Fault{Method: "ExportSnapshot", Fault: "TaskInProgress"}, succeeds: true},
		{name: "lease dropped", fault: lab.Fault{Method: "ExportSnapshot", Fault: "drop"}},
		{name: "lease cancelled", cancelAt: "ExportSnapshot"},
		{name: "checksum type refused", fault: lab.Fault{Method: "HttpNfcLeaseSetManifestChecksumType", Fault: "NotSupported"}, succeeds: true},
		{name: "transfer dropped", fault: lab.Fault{Method: "GET /nfc", Fault: "drop"}, is: hypervisor.ErrLost},
		{name: "transfer truncated", fault: lab.Fault{Method: "GET /nfc", Fault: "truncate"}, is: hypervisor.ErrLost},
		{name: "transfer corrupt", fault: lab.Fault{Method: "GET /nfc", Fault: "corrupt"}},
		{name: "transfer unavailable", fault: lab.Fault{Method: "GET /nfc", Fault: "503"}, is: hypervisor.ErrLost},
		{name: "second transfer dropped", fault: lab.Fault{Method: "GET /nfc", Fault: "drop", After: 1}, is: hypervisor.ErrLost},
		{name: "transfer cancelled", cancelAt: "GET /nfc"},
		{name: "manifest unavailable", fault: lab.Fault{Method: "HttpNfcLeaseGetManifest", Fault: "InvalidState"}},
		{name: "complete fails", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "InvalidState"}, succeeds: true},
		{name: "complete dropped", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "drop"}, succeeds: true},
		{name: "complete cancelled", cancelAt: "HttpNfcLeaseComplete", succeeds: true},
		{name: "removal busy", fault: lab.Fault{Method: "RemoveSnapshot_Task", Fault: "TaskInProgress"}, succeeds: true},
		{name: "removal cancelled", cancelAt: "RemoveSnapshot_Task", succeeds: true},
	} {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 4<<20, 6<<20)
			ctx, happened := i.arm(b)
			taken, err := b.backUp(ctx)
			happened()
			i.check(b, err)
			if i.succeeds && err == nil && len(taken.config.NVRAM) == 0 {
				b.Errorf("the backup has no NVRAM: %q", taken.config.Warnings)
			}
			labtest.AssertClean(t, b.lab)
			// Whatever happened, the next attempt works.
			b.mustBackUp()
			labtest.AssertClean(t, b.lab)
		})
	}
}

func TestRestore_interrupted(t *testing.T) {
	t.Parallel()
	for _, i := range []interruption{
		{name: "check fails", fault: lab.Fault{Method: "FindAllByUuid", Fault: "NoPermission"}},
		{name: "check cancelled", cancelAt: "QueryConfigOptionDescriptor"},
		{name: "directory unknown", fault: lab.Fault{Method: "SearchDatastore_Task", Fault: "call:NoPermission"}},
		{name: "import refused", fault: lab.Fault{Method: "ImportVApp", Fault: "NoPermission"}},
		{name: "import dropped", fault: lab.Fault{Method: "ImportVApp", Fault: "drop"}},
		{name: "import cancelled", cancelAt: "ImportVApp"},
		{name: "upload dropped", fault: lab.Fault{Method: "POST /nfc", Fault: "drop"}, is: hypervisor.ErrLost},
		{name: "upload corrupt", fault: lab.Fault{Method: "POST /nfc", Fault: "corrupt"}},
		{name: "upload unavailable", fault: lab.Fault{Method: "POST /nfc", Fault: "503"}, is: hypervisor.ErrLost},
		{name: "upload cancelled", cancelAt: "POST /nfc"},
		{name: "second upload dropped", fault: lab.Fault{Method: "POST /nfc", Fault: "drop", After: 1}, is: hypervisor.ErrLost},
		{name: "second upload cancelled", cancelAt: "POST /nfc", nth: 1},
		{name: "manifest unavailable", fault: lab.Fault{Method: "HttpNfcLeaseGetManifest", Fault: "InvalidState"}},
		{name: "manifest unavailable at commit", fault: lab.Fault{Method: "HttpNfcLeaseGetManifest", Fault: "InvalidState", After: 2}},
		{name: "complete fails", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "InvalidState"}},
		{name: "complete dropped", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "drop"}},
		{name: "complete cancelled", cancelAt: "HttpNfcLeaseComplete"},
		{name: "reconfigure fails", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidDeviceSpec"}},
		{name: "reconfigure refused", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "call:NoPermission"}},
		{name: "reconfigure dropped", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "drop"}},
		{name: "reconfigure lost", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "lost"}},
		{name: "reconfigure busy", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "TaskInProgress"}, succeeds: true},
		{name: "reconfigure cancelled", cancelAt: "ReconfigVM_Task"},
		{name: "attributes refused", fault: lab.Fault{Method: "SetField", Fault: "NoPermission"}},
		{name: "attributes cancelled", cancelAt: "SetField"},
		{name: "NVRAM dropped", fault: lab.Fault{Method: "PUT /folder", Fault: "drop"}},
		{name: "NVRAM cancelled", cancelAt: "PUT /folder"},
		{name: "rename dropped", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "drop", After: 1}, succeeds: true},
		{name: "rename lost", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "lost", After: 1}, succeeds: true},
		{name: "rename overtaken", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "ConcurrentAccess", After: 1}, succeeds: true},
		{name: "rename fails", fault: lab.Fault{Method: "ReconfigVM_Task", Fault: "DuplicateName", After: 1}},
		{name: "rename cancelled", cancelAt: "ReconfigVM_Task", nth: 1},
	} {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 4<<20, 6<<20)
			c := b.mustBackUp()
			if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
				t.Fatal(err)
			}
			before := len(b.lab.Status().VMs)
			ctx, happened := i.arm(b)
			_, _, err := b.restore(ctx, c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
			happened()
			i.check(b, err)
			labtest.AssertClean(t, b.lab)
			if i.succeeds {
				return
			}
			if after := b.lab.Status().VMs; len(after) != before {
				t.Errorf("%d VMs before, %d after", before, len(after))
			}
			// Whatever happened, the next attempt works, in the same place.
			vm, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal, RunID: "run-2"})
			if err != nil {
				t.Fatal(err)
			}
			if vm.Disks[0].Path != b.vm.Disks[0].Path {
				t.Errorf("first disk is %s, was %s", vm.Disks[0].Path, b.vm.Disks[0].Path)
			}
			for n, raw := range b.raw {
				b.sameBytes(benchVM, n, raw)
			}
		})
	}
}

// A server creates the VM of an import beside the call. One who gives up meanwhile has to wait for it: the VM
// would appear when nobody looks for it any more.
func TestRestore_cancelledWhileCreating(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	c := b.mustBackUp()
	before := len(b.lab.Status().VMs)
	b.lab.Fault(lab.Fault{Method: "ImportVAppLRO", Delay: 200 * time.Millisecond})
	ctx, happened := interruption{cancelAt: "ImportVApp"}.arm(b)
	_, _, err := b.restore(ctx, c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy"})
	happened()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if after := len(b.lab.Status().VMs); after != before {
		t.Errorf("%d VMs before, %d after", before, after)
	}
	for _, task := range b.lab.Status().Tasks {
		if task.State == "running" {
			t.Errorf("the server is still at %s", task.Name)
		}
	}
	labtest.AssertClean(t, b.lab)
}

// A cancellingDisk ends the caller's context in the middle of its content.
type cancellingDisk struct {
	*memoryDisk
	cancel context.CancelFunc
}

func (c *cancellingDisk) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	half := *c.memoryDisk
	half.extents = half.extents[:len(half.extents)/2]
	if err := half.Extents(ctx, yield); err != nil {
		return err
	}
	c.cancel()
	return c.memoryDisk.Extents(ctx, func(int64, []byte) error { return nil })
}

func TestRestore_cancelledInMidStream(t *testing.T) {
	t.Parallel()
	b := newBench(t, 8<<20)
	ctx, cancel := context.WithCancel(t.Context())
	point, err := b.client.OpenPointInTime(ctx, b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1"})
	if err != nil {
		t.Fatal(err)
	}
	src, err := point.OpenDisk(ctx, b.vm.Disks[0].Key, hypervisor.DiskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	err = src.Extents(ctx, func(int64, []byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("export: %v", err)
	}
	if err := point.Close(ctx); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)

	c := b.mustBackUp()
	ctx, cancel = context.WithCancel(t.Context())
	r, err := b.client.StartRestore(ctx, hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	key := c.config.Summary.Disks[0].Key
	if err := r.WriteDisk(ctx, key, &cancellingDisk{c.disks[key], cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("import: %v", err)
	}
	if err := r.Abort(ctx); err != nil {
		t.Error(err)
	}
	labtest.AssertClean(t, b.lab)
}

func TestPointInTime_hangs(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	ctx, cancel := context.WithCancel(t.Context())
	b.lab.Fault(lab.Fault{Method: "GET /nfc", Fault: "hang"})
	b.lab.OnCall("GET /nfc", func(context.Context) { cancel() })
	if _, err := b.backUp(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	labtest.AssertClean(t, b.lab)
}

// Once a VM has its name nothing undoes it any more: that it can't be read back is a warning.
func TestCommit_readBackFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	var reconfigured atomic.Int32
	b.lab.OnCall("ReconfigVM_Task", func(context.Context) {
		if reconfigured.Add(1) == 2 { // the last, which gives the VM its name
			b.lab.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "call:NoPermission"})
		}
	})
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
	if err != nil {
		t.Fatal(err)
	}
	if vm.Path != b.vm.Path || vm.InstanceUUID != b.vm.InstanceUUID || vm.BIOSUUID != b.vm.BIOSUUID {
		t.Errorf("restored %+v, was %+v", vm, b.vm)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "could not be compared") {
		t.Errorf("warnings %q", warnings)
	}
	if vms := b.lab.Status().VMs; len(vms) != 1 || vms[0].Name != benchVM {
		t.Errorf("VMs %+v", vms)
	}
}

// An abort whose call fails is repeated, or a half VM stays.
func TestAbort_callFails(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"drop", "503", "call:InvalidRequest"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 4<<20)
			c := b.mustBackUp()
			if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
				t.Fatal(err)
			}
			b.lab.Fault(lab.Fault{Method: "POST /nfc", Fault: "drop"})
			b.lab.Fault(lab.Fault{Method: "HttpNfcLeaseAbort", Fault: name, Count: 2})
			if _, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal}); !errors.Is(err, hypervisor.ErrLost) {
				t.Errorf("got %v", err)
			}
			if vms := b.lab.Status().VMs; len(vms) > 0 {
				t.Errorf("VMs %+v", vms)
			}
			labtest.AssertClean(t, b.lab)
		})
	}
}

// Whatever else is wrong with a restore is told before a VM makes way for it.
func TestPlace_conflictLast(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	spec := hypervisor.RestoreSpec{Config: c.config, Identity: hypervisor.IdentityOriginal, RunID: "run-1"}
	var inUse *hypervisor.IdentityInUseError
	if _, err := b.client.CheckRestore(t.Context(), spec); !errors.As(err, &inUse) {
		t.Errorf("got %v", err)
	}
	spec.Networks = map[string]string{"VM Network": "no such network"}
	var unavailable *hypervisor.NotAvailableError
	if _, err := b.client.CheckRestore(t.Context(), spec); !errors.As(err, &unavailable) || unavailable.Kind != "network" {
		t.Errorf("with a wrong network: %v", err)
	}
}
