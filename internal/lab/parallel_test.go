package lab_test

import (
	"fmt"
	"net/url"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// TestParallel has several clients change several VMs at once, two of them each VM, while guests write
// and somebody looks at everything.
func TestParallel(t *testing.T) {
	t.Parallel()
	const vms, rounds = 3, 4
	var options lab.Options
	for i := range vms {
		options.VMs = append(options.VMs, lab.VMSpec{Name: fmt.Sprint("vm", i), Disks: []string{rawDisk(t, 1<<20)}})
	}
	e := newEnv(t, options)
	var clients sync.WaitGroup
	for i := range 2 * vms {
		name := fmt.Sprint("vm", i%vms)
		ref := e.find(name).Reference()
		clients.Go(func() {
			if err := e.churn(name, ref, rounds); err != nil {
				t.Errorf("client %d of %s: %v", i, name, err)
			}
		})
	}
	clients.Wait()
	for i := range vms {
		vm := e.status(fmt.Sprint("vm", i))
		if len(vm.Snapshots) != 0 || len(vm.Disks[0].Chain) != 1 {
			t.Errorf("%s: %+v %+v", vm.Name, vm.Snapshots, vm.Disks)
		}
	}
}

// churn takes, reverts to and removes snapshots with a client of its own. Other clients' tasks are no error.
func (e *env) churn(name string, ref types.ManagedObjectReference, rounds int) error {
	u := e.URL()
	u.User = url.UserPassword(e.User(), e.Password())
	c, err := govmomi.NewClient(e.ctx, u, true)
	if err != nil {
		return err
	}
	vm := object.NewVirtualMachine(c.Client, ref)
	again := func(do func() (*object.Task, error)) (*types.TaskInfo, error) {
		for {
			task, err := do()
			if err != nil {
				return nil, err
			}
			info, err := task.WaitForResult(e.ctx)
			if !fault.Is(err, &types.TaskInProgress{}) {
				return info, err
			}
		}
	}
	for i := range rounds {
		info, err := again(func() (*object.Task, error) { return vm.CreateSnapshot(e.ctx, "s", "", false, false) })
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		snapshot, _ := info.Result.(types.ManagedObjectReference)
		if err := e.WriteDisk(name, 0, int64(i)*65536, []byte("guest")); err != nil {
			return err
		}
		e.Status()
		var o mo.VirtualMachine
		if err := vm.Properties(e.ctx, ref, []string{"snapshot", "layoutEx", "config", "runtime"}, &o); err != nil {
			return err
		}
		if _, err = again(func() (*object.Task, error) { return vm.RevertToSnapshot(e.ctx, snapshot.Value, true) }); err != nil {
			return fmt.Errorf("revert: %w", err)
		}
		if _, err = again(func() (*object.Task, error) { return vm.RemoveSnapshot(e.ctx, snapshot.Value, false, nil) }); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}
	return c.Logout(e.ctx)
}
