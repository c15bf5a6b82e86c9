package vsphere

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// A wire is the way of one client to the server. When it is cut nothing gets through any more, as when the
// client's process is killed, whatever the code still tries to tidy up.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	w := &wire{listener: listener, to: to}
	t.Cleanup(w.cut)
	go w.serve(t.Context())
	return w
}

func (w *wire) serve(ctx context.Context) {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := new(net.Dialer).DialContext(ctx, "tcp", w.to)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			continue
		}
		go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
		go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
	}
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conns...)
	return !w.dead
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	_ = w.listener.Close()
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// A death is a moment at which the process is killed.
type death struct {
	name   string
	method string
	nth    int32
	unsent bool // the server doesn't get the call any more
	nvram  bool
	snaps  bool
	// swapped is set when the VM has the restored disks then, and keeps them.
	swapped bool
	// had is set when the VM has the restored disks then, and gets its own back.
	had bool
}

var deaths = []death{
	{name: "journal", method: "ReconfigVM_Task", nth: journalChange},
	{name: "journal unsent", method: "ReconfigVM_Task", nth: journalChange, unsent: true},
	{name: "import", method: "ImportVApp"},
	{name: "import unsent", method: "ImportVApp", unsent: true},
	{name: "upload", method: "POST /nfc"},
	{name: "second upload", method: "POST /nfc", nth: 1},
	{name: "complete", method: "HttpNfcLeaseComplete"},
	{name: "complete unsent", method: "HttpNfcLeaseComplete", unsent: true},
	{name: "detach", method: "ReconfigVM_Task", nth: detachChange},
	{name: "detach unsent", method: "ReconfigVM_Task", nth: detachChange, unsent: true},
	{name: "destroy", method: "Destroy_Task"},
	{name: "destroy unsent", method: "Destroy_Task", unsent: true},
	{name: "stop", method: "ReconfigVM_Task", nth: stopChange},
	{name: "shutdown", method: "ShutdownGuest"},
	{name: "shutdown unsent", method: "ShutdownGuest", unsent: true},
	{name: "snapshots", method: "RemoveAllSnapshots_Task", snaps: true},
	{name: "snapshots unsent", method: "RemoveAllSnapshots_Task", snaps: true, unsent: true},
	{name: "swap", method: "ReconfigVM_Task", nth: swapChange, had: true}, // without its hardware, it is undone
	{name: "swap unsent", method: "ReconfigVM_Task", nth: swapChange, unsent: true},
	{name: "NVRAM announced", method: "ReconfigVM_Task", nth: swapChange + 1, nvram: true, had: true},
	{name: "NVRAM copy", method: "PUT /folder", nvram: true, had: true},
	{name: "NVRAM copied", method: "ReconfigVM_Task", nth: swapChange + 2, nvram: true, had: true},
	{name: "NVRAM", method: "PUT /folder", nth: 1, nvram: true, had: true},
	{name: "hardware", method: "ReconfigVM_Task", nth: hardwareChange, swapped: true},
	{name: "hardware unsent", method: "ReconfigVM_Task", nth: hardwareChange, unsent: true, had: true},
	{name: "hardware with NVRAM", method: "ReconfigVM_Task", nth: hardwareChange + 2, nvram: true, swapped: true},
	{name: "finish unsent", method: "ReconfigVM_Task", nth: finishChange, unsent: true, swapped: true},
	{name: "finish", method: "ReconfigVM_Task", nth: finishChange, swapped: true},
	{name: "finish with NVRAM", method: "DeleteDatastoreFile_Task", nvram: true, swapped: true},
}

// newMortalBench is a bench with what the restore needs that dies.
func newMortalBench(t *testing.T, d death) (*inPlaceBench, hypervisor.InPlaceSpec) {
	t.Helper()
	b := &inPlaceBench{bench: &bench{T: t, lab: labtest.Start(t, lab.Options{})}}
	b.client = dial(t, labConfig(b.lab))
	var disks [][]byte
	for n, capacity := range []int64{1 << 20, 1<<20 + 512} {
		raw := labtest.RawDisk(t, capacity, uint64(n)+1) //nolint:gosec // two disks
		b.raw = append(b.raw, raw)
		disks = append(disks, nil)
	}
	must(t, b.lab.AddVM(t.Context(), lab.VMSpec{Name: benchVM, Disks: b.raw}))
	b.find()
	b.backup = b.mustBackUp()
	b.before = b.content()
	for n := range disks {
		must(t, b.lab.WriteDisk(benchVM, n, 512, []byte("written since")))
	}
	b.after = b.content()
	b.reconfigure(vmRef(b.vm.ID), types.VirtualMachineConfigSpec{Annotation: "changed since"})
	spec := b.spec("run-1")
	spec.Hardware, spec.RemoveSnapshots = true, d.snaps
	if d.nvram {
		spec.Config.NVRAM = []byte("variables that were captured")
	}
	if d.snaps {
		_, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "somebody's"})
		must(t, err)
	}
	return b, spec
}

// die carries a restore out until the process is killed. What its lease holds stays held until somebody
// asks for it a second time.
func (b *inPlaceBench) die(d death, spec hypervisor.InPlaceSpec) {
	b.Helper()
	w := newWire(b.T, b.lab.URL().Host)
	config := labConfig(b.lab)
	config.Server = w.listener.Addr().String()
	client, err := Connect(b.Context(), config, slog.New(slog.DiscardHandler))
	must(b, err)
	defer func() { _ = client.Close(b.Context()) }() // it can't log out any more
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var calls atomic.Int32
	var killed atomic.Bool
	b.lab.OnCall(d.method, func(context.Context) {
		if calls.Add(1) == d.nth+1 {
			killed.Store(true)
			w.cut()
			cancel()
		}
	})
	if d.unsent {
		b.lab.Fault(lab.Fault{Method: d.method, Fault: "drop", After: int(d.nth)})
	}
	err = func() error {
		r, err := client.StartInPlace(ctx, spec)
		if err != nil {
			return err
		}
		if err := b.write(ctx, r, spec); err != nil {
			return err
		}
		if _, _, _, err := r.Swap(ctx); err != nil {
			return err
		}
		return r.Finish(ctx, nil)
	}()
	b.lab.OnCall(d.method, nil)
	if !killed.Load() || err == nil {
		b.Fatalf("the process wasn't killed: %d calls, %v", calls.Load(), err)
	}
	if d.method == "ImportVApp" && !d.unsent {
		b.awaitLease() // the server carries out what it was asked for
	}
	labtest.ExpireWhenRefused(b.lab)
}

// awaitLease waits until there is a lease that is ready.
func (b *inPlaceBench) awaitLease() {
	b.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		if leases := b.lab.Status().Leases; len(leases) == 1 && leases[0].State == "ready" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatal("the import made no lease")
		}
	}
}

// After the process was killed, whenever that was, the VM has one complete set of disks. Another process
// finishes what it had begun or undoes it, and nothing stays behind.
func TestInPlace_killed(t *testing.T) {
	t.Parallel()
	for n, d := range deaths {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			b, spec := newMortalBench(t, d)
			was := b.read(t.Context(), b.vm.ID)
			b.die(d, spec)
			found, err := b.client.InterruptedInPlace(t.Context(), b.vm.ID)
			must(t, err)
			if found != nil && (found.RunID != "run-1" || found.Swapped != d.swapped) {
				t.Errorf("found %+v", found)
			}
			again := b.spec("run-2")
			again.RemoveSnapshots, again.PowerOff = d.snaps, true
			if found != nil {
				var interrupted *hypervisor.InterruptedError
				if _, err := b.client.StartInPlace(t.Context(), again); !errors.As(err, &interrupted) {
					t.Errorf("another restore: %v", err)
				}
			}
			if n%2 == 0 { // in either order
				_, err := b.client.CleanUpRestores(t.Context(), func(u hypervisor.Unfinished) bool { return u.RunID == "run-1" })
				must(t, err)
			}
			vm, replaced, warnings, err := b.recover(t.Context(), b.vm.ID)
			must(t, err)
			if d.nvram {
				want := b.backup.config.NVRAM
				if d.swapped {
					want = spec.Config.NVRAM
				}
				b.sameNVRAM(vm, want)
			}
			if d.swapped {
				b.sameContent("finished", b.before)
				if found != nil && len(replaced) != 2 || vm.PowerState != hypervisor.PoweredOff {
					t.Errorf("replaced %+v, the VM is %s", replaced, vm.PowerState)
				}
				if found == nil { // nobody is left who knows
					replaced = b.replacedFiles()
				}
				b.deleteReplaced(replaced)
			} else {
				b.sameContent("undone", b.after)
				if d.had {
					b.keptRestored(replaced, warnings)
					b.deleteReplaced(replaced)
					replaced = nil
				}
				if len(replaced) != 0 || vm.PowerState != hypervisor.PoweredOn {
					t.Errorf("replaced %+v, the VM is %s", replaced, vm.PowerState)
				}
				for _, line := range differ(was, b.read(t.Context(), b.vm.ID), always) {
					if !d.snaps {
						t.Errorf("undone: %s", line)
					}
				}
			}
			if len(b.lab.Status().VMs[0].Snapshots) == 0 {
				b.untouched()
			} else {
				b.noTraces()
			}
			b.deleteReplaced(b.mustInPlace(again).replaced)
			b.sameContent("again", b.before)
			b.untouched()
		})
	}
}

// keptRestored checks that the restored disks, which the VM doesn't have any more, are there and named.
func (b *inPlaceBench) keptRestored(kept []hypervisor.Replaced, warnings []string) {
	b.Helper()
	if len(kept) != len(b.raw) || len(warnings) != 1 {
		b.Fatalf("kept %+v, warnings %q", kept, warnings)
	}
	files := map[string]bool{}
	for _, f := range b.lab.Status().Files {
		files[f.Name] = true
	}
	for n, own := range b.status(benchVM).Disks {
		if k := kept[n]; !files[k.Path] || k.Now != own.File || !strings.Contains(warnings[0], k.Path) {
			b.Errorf("kept %+v, files %v, warning %q", k, files, warnings[0])
		}
	}
}

// replacedFiles are the disks beside those that the VM has.
func (b *inPlaceBench) replacedFiles() (all []hypervisor.Replaced) {
	b.Helper()
	used := b.status(benchVM).Disks
	for _, f := range b.lab.Status().Files {
		own := strings.HasSuffix(f.Name, "-flat.vmdk") || !strings.HasSuffix(f.Name, ".vmdk")
		for _, d := range used {
			own = own || d.File == f.Name
		}
		if !own {
			all = append(all, hypervisor.Replaced{Path: f.Name})
		}
	}
	return all
}

// Who started the VM with the restored disks and shut it down again, before anybody recovered it, goes on with
// what was written to them.
func TestInPlace_startedSince(t *testing.T) {
	t.Parallel()
	d := named(t, "swap")
	b, spec := newMortalBench(t, d)
	b.die(d, spec)
	work := b.work()
	found, err := b.client.InterruptedInPlace(t.Context(), b.vm.ID)
	if err != nil || found == nil || !found.Swapped {
		t.Errorf("found %+v, %v", found, err)
	}
	vm, kept, warnings, err := b.recover(t.Context(), b.vm.ID)
	must(t, err)
	if len(kept) != len(b.raw) || len(warnings) > 0 || vm.PowerState != hypervisor.PoweredOff {
		t.Errorf("kept %+v, warnings %q, the VM is %s", kept, warnings, vm.PowerState)
	}
	b.sameContent("recovered", work)
	b.deleteReplaced(kept)
	b.untouched()
}

// So does who has a snapshot of the restored disks.
func TestInPlace_snapshotSince(t *testing.T) {
	t.Parallel()
	d := named(t, "swap")
	b, spec := newMortalBench(t, d)
	b.die(d, spec)
	_, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "of the restored disks"})
	must(t, err)
	_, kept, _, err := b.recover(t.Context(), b.vm.ID)
	must(t, err)
	b.sameContent("recovered", b.before)
	if len(kept) != len(b.raw) || len(b.status(benchVM).Snapshots) != 1 {
		t.Errorf("kept %+v, snapshots %+v", kept, b.status(benchVM).Snapshots)
	}
	b.deleteReplaced(kept)
}

// work plays somebody who uses the VM for a while and leaves it off. It returns what its disks hold then.
func (b *inPlaceBench) work() [][]byte {
	b.Helper()
	must(b.T, b.client.PowerOn(b.Context(), b.vm.ID))
	must(b.T, b.lab.WriteDisk(benchVM, 0, 512, []byte("worked for a month")))
	must(b.T, b.client.PowerOff(b.Context(), b.vm.ID))
	return b.content()
}

// Where the server doesn't know any more that it was started, the work is kept, also when the recovery itself is
// interrupted.
func TestInPlace_workedWithSince(t *testing.T) {
	t.Parallel()
	d := named(t, "swap")
	b, spec := newMortalBench(t, d)
	b.die(d, spec)
	work := b.work()
	b.lab.ForgetEvents()
	var calls atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	b.lab.OnCall("ReconfigVM_Task", func(context.Context) {
		if calls.Add(1) == 3 { // after the journal was taken over, and the disks put back
			cancel()
		}
	})
	_, _, _, err := b.recover(ctx, b.vm.ID)
	b.lab.OnCall("ReconfigVM_Task", nil)
	if err == nil {
		t.Fatal("the recovery was not interrupted")
	}
	_, kept, warnings, err := b.recover(t.Context(), b.vm.ID)
	must(t, err)
	b.sameContent("recovered", b.after)
	b.keptRestored(kept, warnings)
	must(t, b.client.PowerOff(t.Context(), b.vm.ID))
	for n, k := range kept {
		b.swapFile(k.Now, k.Path)
		if string(readLabDisk(t, b.lab, benchVM, n)) != string(work[n]) {
			t.Errorf("what was written to disk %d is lost", n)
		}
	}
}

// swapFile puts another file into a disk of the VM.
func (b *inPlaceBench) swapFile(from, to string) {
	b.Helper()
	vm, err := b.client.readTarget(b.Context(), b.vm.ID)
	must(b.T, err)
	for _, d := range orderedDisks(vm.Config.Hardware.Device) {
		if describeBacking(d.Backing).fileName != from {
			continue
		}
		slot := deviceSlot(vm.Config.Hardware.Device, d)
		spec, err := swapSpec(vm, []journalDisk{{Slot: slot, Own: from, Restored: to}}, restoredPath, nil, new(fileUsers))
		must(b.T, err)
		b.reconfigure(vmRef(b.vm.ID), spec)
	}
}

// That the copy of the firmware's variables is gone keeps nobody from getting the disks back.
func TestInPlace_withoutNVRAMCopy(t *testing.T) {
	t.Parallel()
	d := named(t, "NVRAM")
	b, spec := newMortalBench(t, d)
	b.die(d, spec)
	vm, err := b.client.readTarget(t.Context(), b.vm.ID)
	must(t, err)
	j, err := readJournal(vm.Config)
	must(t, err)
	line, err := b.client.ancestors(t.Context(), vmRef(b.vm.ID))
	must(t, err)
	must(t, b.client.deleteFile(t.Context(), line, j.NVRAM))
	_, kept, warnings, err := b.recover(t.Context(), b.vm.ID)
	must(t, err)
	b.sameContent("undone", b.after)
	if len(warnings) != 2 || !strings.Contains(warnings[0], j.NVRAM) {
		t.Errorf("warnings %q", warnings)
	}
	b.deleteReplaced(kept)
	b.untouched()
}
