package lab_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
)

// env is a lab with a VM of two disks and a client that is logged in.
type env struct {
	*lab.Lab
	t      *testing.T
	ctx    context.Context
	client *govmomi.Client
	finder *find.Finder
	vm     *object.VirtualMachine
}

// newEnv starts a lab. Without options it has the VM web01.
func newEnv(t *testing.T, options lab.Options) *env {
	t.Helper()
	if options.VMs == nil {
		options.VMs = []lab.VMSpec{{Name: "web01", Disks: []string{rawDisk(t, 4<<20), rawDisk(t, 2<<20)}}}
	}
	l, err := lab.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &env{Lab: l, t: t, ctx: t.Context()}
	e.client = e.login(l.User(), l.Password())
	e.finder = find.NewFinder(e.client.Client)
	dc, err := e.finder.DefaultDatacenter(e.ctx)
	e.must(err)
	e.finder.SetDatacenter(dc)
	if len(options.VMs) > 0 {
		e.vm = e.find(options.VMs[0].Name)
	}
	return e
}

func (e *env) login(user, password string) *govmomi.Client {
	e.t.Helper()
	u := e.URL()
	u.User = url.UserPassword(user, password)
	c, err := govmomi.NewClient(e.ctx, u, true)
	e.must(err)
	e.t.Cleanup(func() { _ = c.Logout(context.Background()) })
	return c
}

func (e *env) find(name string) *object.VirtualMachine {
	e.t.Helper()
	vm, err := e.finder.VirtualMachine(e.ctx, name)
	e.must(err)
	return vm
}

func (e *env) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// rawDisk makes a raw disk image whose blocks differ from one another.
func rawDisk(t *testing.T, size int) string {
	t.Helper()
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i>>16) ^ byte(i*7)
	}
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSeed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	status := e.Status()
	if len(status.VMs) != 1 {
		t.Fatalf("%+v", status)
	}
	vm := status.VMs[0]
	if vm.PowerState != "poweredOn" || len(vm.Disks) != 2 || vm.Disks[0].Key != 2000 || len(vm.Tags) != 1 || len(vm.NICs) != 2 {
		t.Errorf("%+v", vm)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	l, err := lab.Start(t.Context(), lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{rawDisk(t, 1<<20)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); len(s.Sessions) != 0 || len(l.Calls()) != 0 || len(s.Leases) != 0 {
		t.Errorf("sessions %+v, calls %v, leases %+v", s.Sessions, l.Calls(), s.Leases)
	}
	if err := l.AddVM(t.Context(), lab.VMSpec{Name: "web01"}); err == nil {
		t.Error("a name is given twice")
	}
	if err := l.AddVM(t.Context(), lab.VMSpec{Name: "web02", PoweredOff: true}); err != nil {
		t.Error(err)
	}
	if _, err := lab.Start(t.Context(), lab.Options{Listen: l.URL().Host}); err == nil {
		t.Error("two labs on one address")
	}
	if _, err := lab.Start(t.Context(), lab.Options{VMs: []lab.VMSpec{{Name: "x", Disks: []string{"/not/there.raw"}}}}); err == nil {
		t.Error("a disk that isn't there")
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}
