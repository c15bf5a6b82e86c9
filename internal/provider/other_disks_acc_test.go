package provider

import (
	"bytes"
	"net/url"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// byHand is a VM of the lab as somebody sees it who works on it by hand.
func (w *world) byHand(name string) *object.VirtualMachine {
	w.t.Helper()
	u := w.lab.URL()
	u.User = url.UserPassword(w.lab.User(), w.lab.Password())
	c, err := govmomi.NewClient(w.t.Context(), u, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: w.vm(name).ID})
}

// TestDestroyWithOtherDisks destroys a copy to which somebody attached the disk of another VM, which vSphere would
// delete with it: the copy stays until the disk is removed from it.
func TestDestroyWithOtherDisks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "db01", PoweredOff: true, Disks: []string{labtest.RawDisk(t, 1<<20, 7)}})
	file, content := w.vm("db01").Disks[0].File, w.content("db01", 0)
	s := w.workspace()
	config := w.provider() + backupConfig + `
resource "vm_restore" "r" {
  backup_id = vm_backup.b.id
  power_on  = false
  new_vm = {
    name     = "copy"
    identity = "copy"
  }
}
`
	s.write(config)
	s.must("apply", "-auto-approve")
	copied := w.byHand("copy")
	devices, err := copied.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	controller, err := devices.FindDiskController("")
	if err != nil {
		t.Fatal(err)
	}
	disk := devices.CreateDisk(controller, types.ManagedObjectReference{}, file)
	if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		backing.Datastore = nil
	}
	if err := copied.AddDevice(t.Context(), disk); err != nil {
		t.Fatal(err)
	}

	s.refused([]string{"Unable to Delete Virtual Machine", "Hard disk 2", file, "still in the state"}, "destroy", "-auto-approve")
	s.refused([]string{file, "still in the state"}, "apply", "-auto-approve", "-replace=vm_restore.r")
	if err := w.holds("db01", 0, content); err != nil {
		t.Fatal(err)
	}
	if devices, err = copied.Device(t.Context()); err != nil {
		t.Fatal(err)
	}
	added := devices.SelectByType((*types.VirtualDisk)(nil))
	if err := copied.RemoveDevice(t.Context(), true, added[len(added)-1]); err != nil {
		t.Fatal(err)
	}
	// A snapshot has the VM run on other files, which are its own disks nevertheless.
	task, err := copied.CreateSnapshot(t.Context(), "by hand", "", false, false)
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.must("destroy", "-auto-approve")
	if !bytes.Equal(w.content("db01", 0), content) {
		t.Error("the disk of the other VM is not what it was")
	}
	labtest.AssertClean(t, w.lab)
}
