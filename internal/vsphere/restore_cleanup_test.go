package vsphere

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// abortLate aborts a restore whose disks are all written, when a file lies beside them.
func abortLate(t *testing.T, file string) *bench {
	t.Helper()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	r, err := b.client.StartRestore(t.Context(), hypervisor.RestoreSpec{
		Config: c.config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	for key, d := range c.disks {
		if err := r.WriteDisk(t.Context(), key, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.client.writeNVRAM(t.Context(), "DC0", "[LocalDS_0] copy/"+file, []byte("text")); err != nil {
		t.Fatal(err)
	}
	b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidDeviceSpec"})
	if _, _, err := r.Commit(t.Context()); err == nil {
		t.Error("the commit succeeded")
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	return b
}

// filesIn lists the files of a directory of the datastore.
func (b *bench) filesIn(directory string) (names []string) {
	for _, f := range b.lab.Status().Files {
		if name, ok := strings.CutPrefix(f.Name, "[LocalDS_0] "+directory+"/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// What the server didn't make, it doesn't remove.
func TestRestore_abortAfterUpload(t *testing.T) {
	t.Parallel()
	b := abortLate(t, "vmware.log")
	if left := b.filesIn("copy"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	labtest.AssertClean(t, b.lab)
}

func TestRestore_abortLeavesFilesOfOthers(t *testing.T) {
	t.Parallel()
	b := abortLate(t, "notes.txt")
	if left := b.filesIn("copy"); !slices.Equal(left, []string{"notes.txt"}) {
		t.Errorf("%v are left", left)
	}
}

func TestDeleteDirectory_taken(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	var vm mo.VirtualMachine
	if err := b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"datastore"}, &vm); err != nil {
		t.Fatal(err)
	}
	stores, err := b.client.stores(t.Context(), vm.Datastore)
	if err != nil {
		t.Fatal(err)
	}
	line, err := b.client.ancestors(t.Context(), vmRef(b.vm.ID))
	if err != nil {
		t.Fatal(err)
	}
	for _, directory := range []string{benchVM, "none"} {
		if err := b.client.deleteDirectory(t.Context(), line, stores["LocalDS_0"], directory); err != nil {
			t.Errorf("%s: %v", directory, err)
		}
	}
	b.sameBytes(benchVM, 0, b.raw[0])
	if err := b.client.PowerOff(t.Context(), b.vm.ID); err != nil {
		t.Error(err)
	}
	if err := b.client.PowerOn(t.Context(), b.vm.ID); err != nil {
		t.Errorf("the VM in the directory is damaged: %v", err)
	}
}

// What comes into a directory that is just being removed doesn't go with it.
func TestDeleteDirectory_filledMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	var vm mo.VirtualMachine
	must(t, b.client.properties(t.Context(), vmRef(b.vm.ID), []string{"datastore"}, &vm))
	stores, err := b.client.stores(t.Context(), vm.Datastore)
	must(t, err)
	line, err := b.client.ancestors(t.Context(), vmRef(b.vm.ID))
	must(t, err)
	must(t, b.client.writeNVRAM(t.Context(), "DC0", "[LocalDS_0] old/vmware.log", []byte("ours")))
	ctx := t.Context()
	b.lab.OnCall("DeleteDatastoreFile_Task", func(context.Context) {
		b.lab.OnCall("DeleteDatastoreFile_Task", nil)
		if err := b.client.writeNVRAM(ctx, "DC0", "[LocalDS_0] old/notes.txt", []byte("theirs")); err != nil {
			t.Error(err)
		}
	})
	must(t, b.client.deleteDirectory(ctx, line, stores["LocalDS_0"], "old"))
	if left := b.filesIn("old"); !slices.Equal(left, []string{"notes.txt"}) {
		t.Errorf("%v are left", left)
	}
}

// The server may act on an upload that broke off when everything else is cleaned up.
func TestRestore_nvramComesLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	c := b.mustBackUp()
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	var destroyed atomic.Bool
	var searched atomic.Int32
	b.lab.OnCall("Destroy_Task", func(context.Context) { destroyed.Store(true) })
	b.lab.OnCall("SearchDatastore_Task", func(ctx context.Context) {
		if destroyed.Load() && searched.Add(1) == 2 { // the first finds that the directory has gone
			if err := b.client.writeNVRAM(ctx, "DC0", "[LocalDS_0] web01/web01.nvram", []byte("late")); err != nil {
				t.Error(err)
			}
		}
	})
	b.lab.Fault(lab.Fault{Method: "PUT /folder", Fault: "drop"})
	spec := hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal}
	if _, _, err := b.restore(t.Context(), c, spec); !errors.Is(err, hypervisor.ErrLost) {
		t.Errorf("got %v", err)
	}
	if searched.Load() < 2 {
		t.Error("nothing came late")
	}
	labtest.AssertClean(t, b.lab)
}

// A file that is written while its directory is removed keeps that from going, for a moment.
func TestRestore_directoryBusy(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"FileLocked", "CannotDeleteFile", "drop"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 4<<20)
			c := b.mustBackUp()
			if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
				t.Fatal(err)
			}
			b.lab.OnCall("ReconfigVM_Task", func(ctx context.Context) {
				if err := b.client.writeNVRAM(ctx, "DC0", "[LocalDS_0] web01/web01-000001.hlog", []byte("text")); err != nil {
					t.Error(err)
				}
			})
			b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidDeviceSpec"})
			b.lab.Fault(lab.Fault{Method: "DeleteDatastoreFile_Task", Fault: fault, Count: 2})
			if _, _, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal}); err == nil {
				t.Error("the restore succeeded")
			}
			labtest.AssertClean(t, b.lab)
		})
	}
}

// A server makes what it likes of an upload that is cut. So it isn't.
func TestWriteNVRAM_cancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4<<20)
	ctx, cancel := context.WithCancel(t.Context())
	b.lab.OnCall("PUT /folder", func(context.Context) { cancel() })
	const file = "[LocalDS_0] web01/other.nvram"
	want := bytes.Repeat([]byte("firmware"), 1<<15)
	if err := b.client.writeNVRAM(ctx, "DC0", file, want); err != nil {
		t.Errorf("the upload was cut: %v", err)
	}
	if got, err := b.client.readNVRAM(t.Context(), "DC0", file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d were written, %v", len(got), len(want), err)
	}
	if err := b.client.writeNVRAM(ctx, "DC0", file, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
}

// TestAwaitMade_unreadable looks for a VM in the making that shows no configuration, as one does at first.
func TestAwaitMade_unreadable(t *testing.T) {
	t.Parallel()
	const run = "0123456789abcdef"
	l, c := labWith(t, makingName(run))
	vm := find(t, c, hypervisor.VMRef(makingName(run))).ID
	editVM(t, l, vm, func(vm *simulator.VirtualMachine) {
		vm.Config.ExtraConfig = append(slices.Clone(vm.Config.ExtraConfig), &types.OptionValue{Key: markerKey, Value: run})
	})
	folder, err := c.findPath(t.Context(), "/DC0/vm/lab")
	if err != nil || folder == nil {
		t.Fatalf("got %v and %v", folder, err)
	}
	undo := loseFiles(t, l, vm)
	if found, err := c.findMade(t.Context(), *folder, run); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("got %v and %v, want ErrOutOfReach", found, err)
	}
	looks := 0
	l.OnCall("FindChild", func(context.Context) {
		if looks++; looks == 2 {
			undo()
		}
	})
	r := &restore{client: c, place: &placement{folder: *folder}, spec: hypervisor.RestoreSpec{RunID: run}}
	if found, err := r.awaitMade(t.Context()); err != nil || found == nil || *found != vmRef(vm) {
		t.Errorf("got %v and %v, want %s", found, err, vm)
	}
}

// A disk that a VM in the making shares with the VM it was made for doesn't go with the first.
func TestReleaseTarget(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20, 1<<20)
	r := b.started(b.spec("run-1"))
	must(t, r.upload.lease.complete(t.Context()))
	must(t, b.client.PowerOff(t.Context(), b.vm.ID))
	must(t, b.client.detachDisks(t.Context(), vmRef(b.vm.ID), []string{b.vm.Disks[1].Path}))
	b.reconfigure(vmRef(b.vm.ID), reattach(r.plan.disks[1].path))
	removed, err := b.client.CleanUpRestores(t.Context(), func(hypervisor.Unfinished) bool { return true })
	if err != nil || len(removed) != 1 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if got := readLabDisk(t, b.lab, benchVM, 1); string(got) != string(b.before[1]) {
		t.Error("the disk is lost")
	}
}

// TestReleaseTarget_unreadable has a VM in the making whose disks may be those of a VM that shows none.
func TestReleaseTarget_unreadable(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01", "web02")
	made, target := find(t, c, "web01").ID, find(t, c, "web02").ID
	editVM(t, l, made, func(vm *simulator.VirtualMachine) {
		vm.Config.ExtraConfig = append(slices.Clone(vm.Config.ExtraConfig),
			&types.OptionValue{Key: targetKey, Value: string(target)})
	})
	editVM(t, l, target, func(vm *simulator.VirtualMachine) { vm.LayoutEx = nil })
	loseFiles(t, l, target)
	if err := c.destroyMade(t.Context(), vmRef(made), c.destroy); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("got %v, want ErrOutOfReach", err)
	}
	if got := find(t, c, "web01"); len(got.Disks) != 1 {
		t.Errorf("it has the disks %+v", got.Disks)
	}
}

// A VM whose disks another one has, or is based on, isn't deleted: they would go with it.
func TestDestroyVM_disksInUse(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 1<<20)
	id := b.clone()
	file := b.link(id)
	err := b.client.DestroyVM(t.Context(), b.vm.ID)
	if !errors.Is(err, hypervisor.ErrDisksInUse) || !strings.Contains(err.Error(), copyName) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
	b.sameContent("not deleted", b.after)
	_, err = b.client.destroy(t.Context(), id)
	must(t, err)
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID))
	must(t, b.client.DestroyVM(t.Context(), b.vm.ID)) // which is gone
	labtest.AssertClean(t, b.lab)
}
