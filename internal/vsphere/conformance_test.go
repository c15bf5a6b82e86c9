package vsphere

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// interruptible names the calls in which the port's methods are interrupted: what begins to change
// something on the server, or carries the data.
var interruptible = map[hypervisortest.Method]string{
	hypervisortest.CreateSnapshot:   "CreateSnapshotEx_Task",
	hypervisortest.RemoveSnapshot:   "RemoveSnapshot_Task",
	hypervisortest.RenameSnapshot:   "RenameSnapshot",
	hypervisortest.RevertToSnapshot: "RevertToSnapshot_Task",
	hypervisortest.Consolidate:      "ConsolidateVMDisks_Task",
	hypervisortest.PowerOn:          "PowerOnVM_Task",
	hypervisortest.PowerOff:         "PowerOffVM_Task",
	hypervisortest.ShutDownGuest:    "ShutdownGuest",
	hypervisortest.OpenPointInTime:  "CreateSnapshotEx_Task",
	hypervisortest.StartRestore:     "ImportVApp",
	hypervisortest.WriteDisk:        "POST /nfc",
	hypervisortest.StartInPlace:     "ImportVApp",
	hypervisortest.Swap:             "ShutdownGuest",
	hypervisortest.Commit:           "ReconfigVM_Task",
	hypervisortest.DestroyVM:        "Destroy_Task",
}

func TestConformance(t *testing.T) {
	t.Parallel()
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Harness { t.Helper(); return newHarness(t, TransportDatastore) })
}

// TestConformance_export reads disks through leases, as where there are no plain files.
func TestConformance_export(t *testing.T) {
	t.Parallel()
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Harness { t.Helper(); return newHarness(t, TransportExport) },
		"point in time/", "tracking/", "cancel/before/ReadDisk", "cancel/during/ReadDisk")
}

func newHarness(t *testing.T, transport string) hypervisortest.Harness {
	t.Helper()
	dial := func(t *testing.T, config Config) *Client {
		t.Helper()
		if transport == TransportDatastore {
			config.Transports = nil // the default: datastore, where it is possible
		}
		return dial(t, config)
	}
	l := labtest.Start(t, lab.Options{})
	labtest.ExpireWhenRefused(l) // what a killed process leaves behind is held by its lease
	client := dial(t, labConfig(l))
	return hypervisortest.Harness{
		Hypervisor: client,
		Connect:    func(t *testing.T) hypervisor.Hypervisor { t.Helper(); return dial(t, labConfig(l)) },
		AddVM:      func(t *testing.T, spec hypervisortest.VMSpec) { t.Helper(); addLabVM(t, l, spec) },
		AddTwin:    func(t *testing.T, name string) { t.Helper(); addTwin(t, client, name) },
		WriteDisk: func(t *testing.T, vm string, n int, p []byte, off int64) {
			t.Helper()
			if err := l.WriteDisk(escapeName(vm), n, off, p); err != nil {
				t.Fatal(err)
			}
		},
		ReadDisk: func(t *testing.T, vm string, n int) []byte { t.Helper(); return readLabDisk(t, l, escapeName(vm), n) },
		Leftovers: func(t *testing.T) []string {
			t.Helper()
			return leftovers(t, l)
		},
		Sabotage: saboteur(l, client),
		Deny: func(t *testing.T, operation hypervisor.Operation) hypervisor.Hypervisor {
			t.Helper()
			return deny(t, l, operation)
		},
		Interrupt: func(_ *testing.T, method hypervisortest.Method, fn func()) bool {
			call, ok := interruptible[method]
			before := int64(0)
			if method == hypervisortest.ReadDisk {
				call, ok = "GET /nfc", true
				if transport == TransportDatastore {
					call, before = "GET /folder", 1 // which only finds out whether it is possible
				}
			}
			if ok {
				var calls atomic.Int64
				l.OnCall(call, func(context.Context) {
					if calls.Add(1) == before+1 {
						fn()
					}
				})
			}
			return ok
		},
	}
}

func addLabVM(t *testing.T, l *lab.Lab, spec hypervisortest.VMSpec) {
	t.Helper()
	dir := t.TempDir()
	vm := lab.VMSpec{Name: spec.Name, PoweredOff: spec.PoweredOff, ToolsNotRunning: spec.NoAgent, ChangeTracking: spec.Tracking}
	for n, content := range spec.Disks {
		file := filepath.Join(dir, strconv.Itoa(n)+".raw")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		vm.Disks = append(vm.Disks, file)
	}
	if err := l.AddVM(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
}

// addTwin clones a VM into a folder beside it.
func addTwin(t *testing.T, c *Client, name string) {
	t.Helper()
	ref, err := object.NewSearchIndex(c.vim).FindByInventoryPath(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := object.NewFolder(c.vim, ref.Reference()).CreateFolder(t.Context(), "twins")
	if err != nil {
		t.Fatal(err)
	}
	vm, err := c.FindVM(t.Context(), hypervisor.VMRef(name))
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.vm(vm.ID).Clone(t.Context(), folder, name, types.VirtualMachineCloneSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func readLabDisk(t *testing.T, l *lab.Lab, vm string, n int) []byte {
	t.Helper()
	for _, v := range l.Status().VMs {
		if v.Name != vm || n >= len(v.Disks) {
			continue
		}
		p := make([]byte, v.Disks[n].Capacity)
		if err := l.ReadDisk(vm, n, 0, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Fatalf("there is no disk %d of VM %q", n, vm)
	return nil
}

// leftovers waits a little for what ends by itself: a task whose outcome a client already knows.
func leftovers(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := labLeftovers(l.Status())
		if len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return left
		}
	}
}

func labLeftovers(s lab.Status) (left []string) {
	homes := map[string]bool{}
	for _, vm := range s.VMs {
		if strings.HasPrefix(vm.Name, makingPrefix) {
			left = append(left, "VM "+vm.Name)
		}
		for _, snapshot := range vm.Snapshots {
			if strings.HasPrefix(snapshot.Name, hypervisortest.TemporaryPrefix) {
				left = append(left, "snapshot "+snapshot.Name+" of "+vm.Name)
			}
		}
		for _, d := range vm.Disks {
			homes[path.Dir(d.File)] = true
			if len(d.Chain) > 1 && len(vm.Snapshots) == 0 {
				left = append(left, "delta disk "+d.File)
			}
		}
	}
	for _, lease := range s.Leases {
		left = append(left, lease.Kind+" lease on "+lease.Entity)
	}
	for _, task := range s.Tasks {
		if task.State == "running" || task.State == "queued" {
			left = append(left, "task "+task.Name)
		}
	}
	for _, f := range s.Files {
		if f.VM == "" && !homes[path.Dir(f.Name)] {
			left = append(left, "file "+f.Name)
		}
	}
	return left
}
