package vsphere

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// Which of a restore's reconfigurations is meant: how many come before it.
const (
	journalChange  = 0
	detachChange   = 1
	stopChange     = 2
	swapChange     = 3
	hardwareChange = 4
	finishChange   = 5
)

// An inPlaceCase is an interruption of a restore in place.
type inPlaceCase struct {
	interruption
	more      []lab.Fault // beside the interruption's
	snapshots bool        // the VM has some, which may go
	powerOff  bool        // is allowed
	nvram     bool        // the VM's differs from the captured one
	restored  bool        // the VM has the restored disks afterwards, although there is an error
}

func reconfig(after int, fault string) lab.Fault {
	return lab.Fault{Method: "ReconfigVM_Task", Fault: fault, After: after}
}

var inPlaceCases = []inPlaceCase{
	{interruption: interruption{name: "check fails", fault: lab.Fault{Method: "RetrievePropertiesEx", Fault: "NoPermission"}}},
	{interruption: interruption{name: "check cancelled", cancelAt: "RetrievePropertiesEx", nth: 1}},
	{interruption: interruption{name: "journal fails", fault: reconfig(journalChange, "InvalidState")}},
	{interruption: interruption{name: "journal refused", fault: reconfig(journalChange, "call:NoPermission")}},
	{interruption: interruption{name: "journal invalid", fault: reconfig(journalChange, "InvalidArgument")}},
	{interruption: interruption{name: "journal without its file", fault: reconfig(journalChange, "FileNotFound")}},
	{interruption: interruption{name: "journal dropped", fault: reconfig(journalChange, "drop"), succeeds: true}},
	{interruption: interruption{name: "journal lost", fault: reconfig(journalChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "journal overtaken", fault: reconfig(journalChange, "ConcurrentAccess"), succeeds: true}},
	{interruption: interruption{name: "journal busy", fault: reconfig(journalChange, "TaskInProgress"), succeeds: true}},
	{interruption: interruption{name: "journal cancelled", cancelAt: "ReconfigVM_Task", nth: journalChange}},
	{interruption: interruption{name: "import refused", fault: lab.Fault{Method: "ImportVApp", Fault: "NoPermission"}}},
	{interruption: interruption{name: "import dropped", fault: lab.Fault{Method: "ImportVApp", Fault: "503"}}},
	{interruption: interruption{name: "import cancelled", cancelAt: "ImportVApp"}},
	{interruption: interruption{name: "upload dropped", fault: lab.Fault{Method: "POST /nfc", Fault: "drop"}, is: hypervisor.ErrLost}},
	{interruption: interruption{name: "upload corrupt", fault: lab.Fault{Method: "POST /nfc", Fault: "corrupt"}}},
	{interruption: interruption{name: "second upload dropped", fault: lab.Fault{Method: "POST /nfc", Fault: "drop", After: 1}, is: hypervisor.ErrLost}},
	{interruption: interruption{name: "upload cancelled", cancelAt: "POST /nfc"}},
	{interruption: interruption{name: "second upload cancelled", cancelAt: "POST /nfc", nth: 1}},
	{interruption: interruption{name: "manifest unavailable", fault: lab.Fault{Method: "HttpNfcLeaseGetManifest", Fault: "InvalidState"}}},
	{interruption: interruption{name: "manifest unavailable at the swap", fault: lab.Fault{Method: "HttpNfcLeaseGetManifest", Fault: "InvalidState", After: 2}}},
	{interruption: interruption{name: "complete fails", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "InvalidState"}}},
	{interruption: interruption{name: "complete dropped", fault: lab.Fault{Method: "HttpNfcLeaseComplete", Fault: "drop"}}},
	{interruption: interruption{name: "complete cancelled", cancelAt: "HttpNfcLeaseComplete"}},
	{interruption: interruption{name: "detach fails", fault: reconfig(detachChange, "InvalidDeviceSpec")}},
	{interruption: interruption{name: "detach dropped", fault: reconfig(detachChange, "drop"), succeeds: true}},
	{interruption: interruption{name: "detach lost", fault: reconfig(detachChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "detach cancelled", cancelAt: "ReconfigVM_Task", nth: detachChange}},
	{interruption: interruption{name: "destroy fails", fault: lab.Fault{Method: "Destroy_Task", Fault: "HostNotReachable"}}},
	{interruption: interruption{name: "destroy dropped", fault: lab.Fault{Method: "Destroy_Task", Fault: "drop"}, succeeds: true}},
	{interruption: interruption{name: "destroy lost", fault: lab.Fault{Method: "Destroy_Task", Fault: "lost"}, succeeds: true}},
	{interruption: interruption{name: "destroy cancelled", cancelAt: "Destroy_Task"}},
	{interruption: interruption{name: "stop in the journal fails", fault: reconfig(stopChange, "InvalidState")}},
	{interruption: interruption{name: "stop in the journal lost", fault: reconfig(stopChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "stop in the journal cancelled", cancelAt: "ReconfigVM_Task", nth: stopChange}},
	{interruption: interruption{name: "shutdown refused", fault: lab.Fault{Method: "ShutdownGuest", Fault: "NoPermission"}}},
	{interruption: interruption{name: "shutdown without Tools", fault: lab.Fault{Method: "ShutdownGuest", Fault: "ToolsUnavailable"}, is: hypervisor.ErrGuestAgent}},
	{interruption: interruption{name: "shutdown ignored", fault: lab.Fault{Method: "ShutdownGuest", Fault: "ignore"}, is: hypervisor.ErrShutdown}},
	{interruption: interruption{name: "shutdown ignored, power off", fault: lab.Fault{Method: "ShutdownGuest", Fault: "ignore"}, succeeds: true}, powerOff: true},
	{interruption: interruption{name: "shutdown dropped", fault: lab.Fault{Method: "ShutdownGuest", Fault: "drop"}, succeeds: true}},
	{interruption: interruption{name: "shutdown cancelled", cancelAt: "ShutdownGuest"}},
	{interruption: interruption{name: "power off fails", fault: lab.Fault{Method: "PowerOffVM_Task", Fault: "InvalidState"}},
		more: []lab.Fault{{Method: "ShutdownGuest", Fault: "ToolsUnavailable"}}, powerOff: true},
	{interruption: interruption{name: "power off lost", fault: lab.Fault{Method: "PowerOffVM_Task", Fault: "lost"}, succeeds: true},
		more: []lab.Fault{{Method: "ShutdownGuest", Fault: "ToolsUnavailable"}}, powerOff: true},
	{interruption: interruption{name: "power off cancelled", cancelAt: "PowerOffVM_Task"},
		more: []lab.Fault{{Method: "ShutdownGuest", Fault: "ToolsUnavailable"}}, powerOff: true},
	{interruption: interruption{name: "snapshots stay", fault: lab.Fault{Method: "RemoveAllSnapshots_Task", Fault: "FileLocked"}}, snapshots: true},
	{interruption: interruption{name: "snapshots dropped", fault: lab.Fault{Method: "RemoveAllSnapshots_Task", Fault: "drop"}, succeeds: true}, snapshots: true},
	{interruption: interruption{name: "snapshots lost", fault: lab.Fault{Method: "RemoveAllSnapshots_Task", Fault: "lost"}, succeeds: true}, snapshots: true},
	{interruption: interruption{name: "snapshots cancelled", cancelAt: "RemoveAllSnapshots_Task"}, snapshots: true},
	{interruption: interruption{name: "swap fails", fault: reconfig(swapChange, "InvalidDeviceSpec")}},
	{interruption: interruption{name: "swap refused", fault: reconfig(swapChange, "call:NoPermission")}},
	{interruption: interruption{name: "swap dropped", fault: reconfig(swapChange, "drop"), succeeds: true}},
	{interruption: interruption{name: "swap unavailable", fault: reconfig(swapChange, "503"), succeeds: true}},
	{interruption: interruption{name: "swap lost", fault: reconfig(swapChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "swap overtaken", fault: reconfig(swapChange, "ConcurrentAccess"), succeeds: true}},
	{interruption: interruption{name: "swap busy", fault: reconfig(swapChange, "TaskInProgress"), succeeds: true}},
	{interruption: interruption{name: "swap cancelled", cancelAt: "ReconfigVM_Task", nth: swapChange}},
	{interruption: interruption{name: "hardware dropped", fault: reconfig(hardwareChange, "drop"), succeeds: true}},
	{interruption: interruption{name: "hardware lost", fault: reconfig(hardwareChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "hardware cancelled", cancelAt: "ReconfigVM_Task", nth: hardwareChange}},
	{interruption: interruption{name: "NVRAM unreadable", fault: lab.Fault{Method: "GET /folder", Fault: "503", Count: readAttempts}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM not saved", fault: lab.Fault{Method: "PUT /folder", Fault: "503"}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM dropped", fault: lab.Fault{Method: "PUT /folder", Fault: "drop", After: 1}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM cut off", fault: lab.Fault{Method: "PUT /folder", Fault: "truncate", After: 1}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM not written", fault: lab.Fault{Method: "PUT /folder", Fault: "drop", After: 1, Count: readAttempts}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM neither written nor put back", fault: lab.Fault{Method: "PUT /folder", Fault: "drop", After: 1, Count: 2 * readAttempts}}, nvram: true},
	{interruption: interruption{name: "own NVRAM stays, unavailable", fault: lab.Fault{Method: "DeleteDatastoreFile_Task", Fault: "503"}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "own NVRAM stays, dropped", fault: lab.Fault{Method: "DeleteDatastoreFile_Task", Fault: "drop"}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "own NVRAM stays, lost", fault: lab.Fault{Method: "DeleteDatastoreFile_Task", Fault: "lost"}, succeeds: true}, nvram: true},
	{interruption: interruption{name: "NVRAM cancelled", cancelAt: "PUT /folder", nth: 1}, nvram: true},
	{interruption: interruption{name: "finish fails", fault: reconfig(finishChange, "InvalidState")}, restored: true},
	{interruption: interruption{name: "finish dropped", fault: reconfig(finishChange, "drop"), succeeds: true}},
	{interruption: interruption{name: "finish lost", fault: reconfig(finishChange, "lost"), succeeds: true}},
	{interruption: interruption{name: "finish cancelled", cancelAt: "ReconfigVM_Task", nth: finishChange}, restored: true},
}

// A journal that disappears meanwhile, as when somebody reverts the VM, leaves nothing behind: the VM runs
// again with its own disks.
func TestInPlace_journalGone(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	b.lab.OnCall("ShutdownGuest", func(context.Context) {
		b.lab.OnCall("ShutdownGuest", nil)
		b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{
			ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: journalKey, Value: ""}}})
	})
	if _, err := b.inPlace(t.Context(), b.spec("run-1")); !errors.Is(err, errNoJournal) {
		t.Errorf("got %v", err)
	}
	b.sameContent("undone", b.after)
	if b.power() != "poweredOn" {
		t.Errorf("the VM is %s", b.power())
	}
	b.untouched()
}

// Undoing waits for a guest that was asked to shut down, and for no other.
func TestInPlace_asked(t *testing.T) {
	t.Parallel()
	for cancelAt, asked := range map[string]bool{"RetrievePropertiesEx": false, "ShutdownGuest": true, "WaitForUpdatesEx": true} {
		t.Run(cancelAt, func(t *testing.T) {
			t.Parallel()
			b := newInPlaceBench(t, 1<<20)
			r := b.started(b.spec("run-1"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b.lab.OnCall(cancelAt, func(context.Context) { cancel() })
			if err := r.shutDown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			b.lab.OnCall(cancelAt, nil)
			if r.asked.IsZero() == asked {
				t.Errorf("it would be waited for until %v", r.asked)
			}
			must(t, r.Abort(t.Context()))
			b.sameContent("undone", b.after)
			b.untouched()
		})
	}
}

// prepare makes a bench for the case and says what to restore.
func (i inPlaceCase) prepare(t *testing.T) (*inPlaceBench, hypervisor.InPlaceSpec) {
	t.Helper()
	b := newInPlaceBench(t, 1<<20, 1<<20+512)
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{Annotation: "changed since"})
	if i.snapshots {
		if _, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "somebody's"}); err != nil {
			t.Fatal(err)
		}
	}
	spec := b.spec("run-1")
	spec.Hardware, spec.RemoveSnapshots, spec.PowerOff = true, i.snapshots, i.powerOff
	spec.ShutdownTimeout = time.Minute
	if i.fault.Fault == "ignore" {
		spec.ShutdownTimeout = 3 * time.Second
	}
	if i.nvram {
		spec.Config.NVRAM = []byte("variables that were captured")
	}
	return b, spec
}

// Whatever happens in the middle, the VM has either all of its own disks and runs as before, or all of the
// restored ones; nothing else is left; and the next attempt works.
func TestInPlace_interrupted(t *testing.T) {
	t.Parallel()
	for _, i := range inPlaceCases {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			b, spec := i.prepare(t)
			for _, f := range i.more {
				b.lab.Fault(f)
			}
			ctx, happened := i.arm(b.bench)
			out, err := b.inPlace(ctx, spec)
			happened()
			i.check(b.bench, err)
			if i.succeeds || i.restored {
				b.sameContent("restored", b.before)
				b.deleteReplaced(out.replaced)
			} else {
				b.sameContent("undone", b.after)
				b.sameNVRAM(b.vm, b.backup.config.NVRAM)
				if b.power() != "poweredOn" {
					t.Errorf("the VM is %s, it ran before", b.power())
				}
			}
			if i.snapshots && !i.succeeds {
				b.noTraces()
			} else {
				b.untouched()
			}
			if i.succeeds {
				return
			}
			again := b.spec("run-2")
			again.RemoveSnapshots = i.snapshots
			b.deleteReplaced(b.mustInPlace(again).replaced)
			b.sameContent("again", b.before)
			b.untouched()
		})
	}
}
