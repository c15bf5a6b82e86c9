package vsphere

import (
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"

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
