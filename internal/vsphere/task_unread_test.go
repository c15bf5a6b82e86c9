package vsphere

import (
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestTaskInfo_unread has a server that fails to show a task, which must not pass for one that is over.
func TestTaskInfo_unread(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	chain(t, c, vm, "a")
	fail := func(after int) {
		l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "call:SystemError", After: after})
	}
	refused := func(name string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "SystemError") {
			t.Errorf("%s: got %v, want a SystemError", name, err)
		}
	}

	fail(1)
	refused("the end of a disk's read", c.awaitRemovals(t.Context(), vm))
	fail(1)
	_, err := c.settle(t.Context(), vm)
	refused("the end of a change in doubt", err)

	var m mo.VirtualMachine
	if err := c.properties(t.Context(), vmRef(vm), []string{"recentTask"}, &m); err != nil || len(m.RecentTask) == 0 {
		t.Fatalf("%d tasks, %v", len(m.RecentTask), err)
	}
	if c.busy(t.Context(), &m) {
		t.Error("the VM is busy with a task that has ended")
	}
	fail(0)
	if !c.busy(t.Context(), &m) {
		t.Error("the VM isn't busy with a task that can't be read")
	}

	l.ForgetTasks()
	if c.busy(t.Context(), &m) {
		t.Error("the VM is busy with a task that the server has forgotten")
	}
	if info, err := c.taskInfo(t.Context(), m.RecentTask[0]); info != nil || err != nil {
		t.Errorf("got %+v and %v of a task that the server has forgotten", info, err)
	}
	if info, err := c.taskInfo(t.Context(), types.ManagedObjectReference{Type: "Task", Value: "task-99999"}); info != nil || err != nil {
		t.Errorf("got %+v and %v of no task", info, err)
	}
}
