package vsphere

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

func TestPower(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	for _, step := range []struct {
		name string
		do   func(context.Context, hypervisor.VMID) error
		want hypervisor.PowerState
	}{
		{"on, is on", c.PowerOn, hypervisor.PoweredOn},
		{"shut down", c.ShutDownGuest, hypervisor.PoweredOff},
		{"shut down, is off", c.ShutDownGuest, hypervisor.PoweredOff},
		{"off, is off", c.PowerOff, hypervisor.PoweredOff},
		{"on", c.PowerOn, hypervisor.PoweredOn},
		{"off", c.PowerOff, hypervisor.PoweredOff},
	} {
		if err := step.do(t.Context(), vm); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := find(t, c, "web01").PowerState; got != step.want {
			t.Fatalf("%s: the VM is %s, want %s", step.name, got, step.want)
		}
	}
	for name, do := range map[string]func(context.Context, hypervisor.VMID) error{
		"on": c.PowerOn, "off": c.PowerOff, "shut down": c.ShutDownGuest,
	} {
		var gone *hypervisor.VMNotFoundError
		if err := do(t.Context(), "vm-99999"); !errors.As(err, &gone) {
			t.Errorf("%s: got %v, want a VMNotFoundError", name, err)
		}
	}
}

func TestPower_troubles(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"TaskInProgress", "call:TaskInProgress", "drop", "503", "call:NotAuthenticated"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			l, c := labWith(t, "web01")
			vm := find(t, c, "web01").ID
			l.Fault(lab.Fault{Method: "PowerOffVM_Task", Fault: fault, Count: 1})
			l.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: fault, Count: 1})
			if err := c.PowerOff(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
			if err := c.PowerOn(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
			if got := find(t, c, "web01").PowerState; got != hypervisor.PoweredOn {
				t.Errorf("the VM is %s", got)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		l, c := labWith(t, "web01")
		vm := find(t, c, "web01").ID
		l.Fault(lab.Fault{Method: "PowerOffVM_Task", Fault: "call:NoPermission", Count: 1})
		var denied *hypervisor.PermissionError
		if err := c.PowerOff(t.Context(), vm); !errors.As(err, &denied) {
			t.Errorf("got %v, want a PermissionError", err)
		}
	})
}

func TestShutDownGuest_noTools(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{})
	err := l.AddVM(t.Context(), lab.VMSpec{
		Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 1)}, ToolsNotRunning: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, labConfig(l))
	if err := c.ShutDownGuest(t.Context(), find(t, c, "web01").ID); !errors.Is(err, hypervisor.ErrGuestAgent) {
		t.Errorf("got %v, want ErrGuestAgent", err)
	}
}

// TestShutDownGuest_ignored has a guest that doesn't react, until the context ends.
func TestShutDownGuest_ignored(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	l.Fault(lab.Fault{Method: "ShutdownGuest", Fault: "ignore", Count: 1})
	if err := c.ShutDownGuest(expireAt(t, l, "WaitForUpdatesEx"), vm); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
	if got := find(t, c, "web01").PowerState; got != hypervisor.PoweredOn {
		t.Errorf("the VM is %s", got)
	}
}

// TestShutDownGuest_asked compares what an error says about the guest with what the guest was asked.
func TestShutDownGuest_asked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault    lab.Fault
		cancelAt string
		noTools  bool // from the first call on, as in a guest that shuts down
		asked    bool
		succeeds bool
	}{
		"cancelled before":   {cancelAt: "RetrievePropertiesEx"},
		"cancelled":          {cancelAt: "ShutdownGuest", asked: true},
		"cancelled after":    {cancelAt: "WaitForUpdatesEx", fault: lab.Fault{Method: "ShutdownGuest", Fault: "ignore"}, asked: true},
		"refused":            {fault: lab.Fault{Method: "ShutdownGuest", Fault: "NoPermission"}},
		"unavailable":        {fault: lab.Fault{Method: "ShutdownGuest", Fault: "503", Count: readAttempts}},
		"dropped":            {fault: lab.Fault{Method: "ShutdownGuest", Fault: "drop", Count: readAttempts}, asked: true},
		"lost":               {fault: lab.Fault{Method: "ShutdownGuest", Fault: "lost"}, succeeds: true},
		"Tools end first":    {fault: lab.Fault{Method: "ShutdownGuest", Fault: "drop"}, noTools: true, asked: true, cancelAt: "WaitForUpdatesEx"},
		"Tools ended before": {fault: lab.Fault{Method: "ShutdownGuest", Fault: "503"}, noTools: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1<<20)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // nobody else would end it
			defer cancel()
			if c.fault.Method != "" {
				b.lab.Fault(c.fault)
			}
			if c.noTools {
				b.lab.OnCall("ShutdownGuest", func(context.Context) {
					b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
						ctx.Update(vm, []types.PropertyChange{{Name: "guest.toolsRunningStatus",
							Val: string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)}})
					})
				})
			}
			if c.cancelAt != "" {
				b.lab.OnCall(c.cancelAt, func(context.Context) { cancel() })
			}
			err := b.client.ShutDownGuest(ctx, b.vm.ID)
			if (err == nil) != c.succeeds || errors.Is(err, hypervisor.ErrShuttingDown) != c.asked {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestPowerOn_question has a VM that wants to know something before it starts, for which its task waits.
func TestPowerOn_question(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01").ID
	if err := c.PowerOff(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	l.Fault(lab.Fault{Method: "PowerOnVM_Task", Delay: time.Minute, Count: 1})
	var started atomic.Bool
	l.OnCall("PowerOnVM_Task", func(context.Context) { started.Store(true) })
	l.OnCall("WaitForUpdatesEx", func(context.Context) {
		if !started.Load() {
			return
		}
		ctx := *l.Model().Service.Context
		object := ctx.Map.Get(vmRef(vm))
		simVM, ok := object.(*simulator.VirtualMachine)
		if !ok {
			t.Errorf("the VM is a %T", object)
			return
		}
		ctx.WithLock(simVM, func() {
			ctx.Update(simVM, []types.PropertyChange{{Name: "runtime.question", Val: types.VirtualMachineQuestionInfo{
				Id: "1", Text: "msg.uuid.altered: was this VM moved or copied?",
			}}})
		})
	})
	err := c.PowerOn(t.Context(), vm)
	if err == nil || !strings.Contains(err.Error(), "moved or copied") {
		t.Fatalf("got %v, want the question", err)
	}
}
