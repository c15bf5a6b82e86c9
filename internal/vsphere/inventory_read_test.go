package vsphere

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// TestReader_company has many readers wait for one call, and counts the next.
func TestReader_company(t *testing.T) {
	t.Parallel()
	const n = 50
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("vm%d", i))
	}
	l, c := labWith(t, names...)
	vms := make([]*hypervisor.VM, len(names))
	for i, name := range names {
		vms[i] = find(t, c, hypervisor.VMRef(name))
	}
	before := l.Calls()["RetrievePropertiesEx"]
	first := make(chan struct{})
	all := make(chan struct{})
	var once sync.Once
	l.OnCall("RetrievePropertiesEx", func(context.Context) {
		once.Do(func() {
			close(first)
			<-all // the first call takes until everybody queues
		})
	})
	var wg sync.WaitGroup
	read := func(vm *hypervisor.VM) {
		got, err := c.vmByID(t.Context(), vm.ID)
		if err != nil || got.Name != vm.Name {
			t.Errorf("got %+v and %v, want %s", got, err, vm.Name)
		}
	}
	wg.Go(func() { read(vms[0]) })
	<-first
	for i := range n {
		wg.Go(func() { read(vms[i%len(vms)]) })
	}
	for queued := 0; queued < n; {
		c.reads.vms.mu.Lock()
		queued = len(c.reads.vms.queue)
		c.reads.vms.mu.Unlock()
		runtime.Gosched() // nothing tells when somebody has queued
	}
	close(all)
	wg.Wait()
	if got := l.Calls()["RetrievePropertiesEx"] - before; got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
}

func TestReader_gone(t *testing.T) {
	t.Parallel()
	_, c := labWith(t, "web01")
	vm := find(t, c, "web01")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.vmByID(t.Context(), vm.ID); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := c.vmByID(t.Context(), "vm-99999")
			var gone *hypervisor.VMNotFoundError
			if !errors.As(err, &gone) || gone.Ref != "vm-99999" || gone.Where != c.addr {
				t.Errorf("got %v, want a VMNotFoundError", err)
			}
		})
	}
	wg.Wait()
}

// TestReader_faultOfOne has a call for two fail. Each of them is then asked for alone.
func TestReader_faultOfOne(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01", "web02")
	batch := make([]*readRequest, 2)
	for i, name := range []hypervisor.VMRef{"web01", "web02"} {
		batch[i] = &readRequest{ctx: t.Context(), ref: vmRef(find(t, c, name).ID), done: make(chan struct{})}
	}
	l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "NoPermission", Count: 2})
	c.reads.vms.answer(batch)
	var denied *hypervisor.PermissionError
	if err := batch[0].err; !errors.As(classify(err), &denied) {
		t.Errorf("got %v for the first, want a PermissionError", err)
	}
	if err := batch[1].err; err != nil || len(batch[1].objects) == 0 {
		t.Errorf("got %d objects and %v for the second", len(batch[1].objects), err)
	}
}

func TestReader_interrupted(t *testing.T) {
	t.Parallel()
	l, c := labWith(t, "web01")
	vm := find(t, c, "web01")
	ctx, cancel := context.WithCancel(t.Context())
	l.OnCall("RetrievePropertiesEx", func(context.Context) { cancel() })
	l.Fault(lab.Fault{Method: "RetrievePropertiesEx", Fault: "hang", Count: 1})
	if _, err := c.vmByID(ctx, vm.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	// Nobody has to wait for the end of the call that hangs.
	l.OnCall("RetrievePropertiesEx", nil)
	if _, err := c.vmByID(t.Context(), vm.ID); err != nil {
		t.Error(err)
	}
}
