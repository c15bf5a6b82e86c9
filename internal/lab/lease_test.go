package lab_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const mib = 1 << 20

// content reads a disk as the guest sees it.
func (e *env) content(vm string, disk int, capacity int64) []byte {
	e.t.Helper()
	p := make([]byte, capacity)
	e.must(e.ReadDisk(vm, disk, 0, p))
	return p
}

// takeSnapshot takes a snapshot without memory.
func (e *env) takeSnapshot(name string) types.ManagedObjectReference {
	e.t.Helper()
	task, err := e.vm.CreateSnapshot(e.ctx, name, "", false, false)
	e.must(err)
	info, err := task.WaitForResult(e.ctx)
	e.must(err)
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		e.t.Fatalf("the result of the task is %T", info.Result)
	}
	return ref
}

// get downloads a URL of a lease. It needs no session, so it gets none.
func (e *env) get(url string) ([]byte, *http.Response, error) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, url, http.NoBody)
	e.must(err)
	res, err := e.plain().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	p, err := io.ReadAll(res.Body)
	return p, res, err
}

// plain is an HTTP client that knows the lab's certificate and nothing else.
func (e *env) plain() *http.Client {
	soapClient := soap.NewClient(e.URL(), true)
	return &http.Client{Transport: soapClient.DefaultTransport()}
}

// convert turns a stream-optimized VMDK into raw bytes with qemu-img, a reader that isn't ours.
func convert(t *testing.T, stream []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("needs qemu-img: install the package qemu-utils")
	}
	in := filepath.Join(t.TempDir(), "disk.vmdk")
	if err := os.WriteFile(in, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	out := in + ".raw"
	if text, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "raw", in, out).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img convert: %v\n%s", err, text)
	}
	p, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLease_holdsItsVM(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}}})
	lease, err := e.vm.Export(e.ctx)
	e.must(err)
	_, err = lease.Wait(e.ctx, nil)
	e.must(err)
	if s := e.Status(); len(s.Leases) != 1 || s.Leases[0].Kind != "export" || s.Leases[0].State != "ready" {
		t.Errorf("leases: %+v", s.Leases)
	}
	for name, run := range map[string]func() (*object.Task, error){
		"power on": func() (*object.Task, error) { return e.vm.PowerOn(e.ctx) },
		"destroy":  func() (*object.Task, error) { return e.vm.Destroy(e.ctx) },
		"reconfigure": func() (*object.Task, error) {
			return e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{Annotation: "x"})
		},
	} {
		if task, err := run(); err == nil {
			if err = task.Wait(e.ctx); err == nil {
				t.Errorf("%s passed while the VM is exported", name)
			}
		}
	}
	e.must(lease.Abort(e.ctx, nil))
	if s := e.Status(); len(s.Leases) != 0 {
		t.Errorf("leases: %+v", s.Leases)
	}
	task, err := e.vm.PowerOn(e.ctx)
	e.must(err)
	e.must(task.Wait(e.ctx))
	for name, err := range map[string]error{
		"Progress": lease.Progress(e.ctx, 1), "Complete": lease.Complete(e.ctx), "Abort": lease.Abort(e.ctx, nil),
	} {
		if !fault.Is(err, &types.InvalidState{}) {
			t.Errorf("%s of an aborted lease: %v", name, err)
		}
	}
}

// waitForError waits for a lease to end in an error, which Wait of the nfc package doesn't do.
func (e *env) waitForError(lease *nfc.Lease) *types.LocalizedMethodFault {
	e.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	for {
		p, err := lease.Properties(ctx, "state", "error")
		e.must(err)
		if p.State == types.HttpNfcLeaseStateError {
			return p.Error
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.t.Fatalf("the lease is still %s", p.State)
		}
	}
}

func TestLease_timesOut(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{
		LeaseTimeout: 6 * time.Second,
		VMs:          []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}},
	})
	lease, err := e.vm.Export(e.ctx)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	renewed := time.Now()
	for range 15 { // longer than it lives by itself
		timer := time.NewTimer(500 * time.Millisecond)
		<-timer.C
		now := time.Now()
		if err := lease.Progress(e.ctx, 10); err != nil {
			if late := time.Since(renewed); late > 6*time.Second {
				t.Skipf("this machine was too busy to renew the lease in time: %s between two renewals", late)
			}
			t.Fatalf("a lease that is renewed ends: %v", err)
		}
		renewed = now
	}
	// A transfer that hangs is cut when the lease ends.
	e.Fault(lab.Fault{Method: "GET /nfc", Fault: "hang"})
	if _, _, err := e.get(info.DeviceUrl[0].Url); err == nil {
		t.Error("the transfer came to a good end")
	}
	got := e.waitForError(lease)
	if _, ok := got.Fault.(*types.Timedout); !ok {
		t.Errorf("error of the lease: %#v", got)
	}
	if err := lease.Progress(e.ctx, 10); !fault.Is(err, &types.Timedout{}) {
		t.Errorf("progress: %v", err)
	}
	if s := e.Status(); len(s.Leases) != 0 {
		t.Errorf("leases: %+v", s.Leases)
	}
}

// On an ESXi host the URL has no host, the client fills it in.
// A disk of 1 TiB costs what is in it, on its way out and on its way in.
// Close doesn't wait for transfers that hang.
func TestClose_whileTransfersHang(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}}})
	export, err := e.vm.Export(e.ctx)
	e.must(err)
	out, err := export.Wait(e.ctx, nil)
	e.must(err)
	_, in := e.startImport(importSpec(t, "restored", 4*mib))
	hanging := make(chan error, 3)
	entered := make(chan struct{}, 3)
	cookie := e.sessionCookie()
	for _, method := range []string{"GET /nfc", "POST /nfc", "GET /folder"} {
		e.OnCall(method, func(context.Context) { entered <- struct{}{} })
		e.Fault(lab.Fault{Method: method, Fault: "hang"})
	}
	stream := streamOf(t, noise(4*mib))
	go func() {
		_, _, err := e.get(out.DeviceUrl[0].Url)
		hanging <- err
	}()
	end := func(status int) {
		if status != 0 {
			hanging <- nil
			return
		}
		hanging <- io.ErrUnexpectedEOF
	}
	go func() { end(e.post(http.MethodPost, in.DeviceUrl[0].Url, diskHeader, bytes.NewReader(stream))) }()
	go func() {
		status, _ := e.folder(http.MethodGet, e.folderURL("off/off-flat.vmdk"), nil, http.NoBody, cookie)
		end(status)
	}()
	for range 3 {
		<-entered
	}
	e.must(e.Close())
	for range 3 {
		if err := <-hanging; err == nil {
			t.Error("a transfer came to a good end")
		}
	}
}

// A lease that isn't ready yet expires as soon as it is.
func TestExpireLeases(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	before := e.Status()
	e.ExpireLeases() // there are none
	e.Fault(lab.Fault{Method: "HttpNfcLease", Delay: 200 * time.Millisecond})
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	lease, err := pool.ImportVApp(e.ctx, importSpec(t, "restored", mib), nil, nil)
	e.must(err)
	e.ExpireLeases()
	if got := e.waitForError(lease); !isFault[*types.Timedout](got) {
		t.Errorf("error of the lease: %#v", got)
	}
	assertSame(t, before, e.Status())
}

// A lease may fail after the call that asked for it.
func TestLease_failsWhileInitializing(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, mib, 2)}}}})
	ref := e.takeSnapshot("s")
	e.Fault(lab.Fault{Method: "HttpNfcLease", Fault: "FileLocked"})
	lease, err := e.vm.ExportSnapshot(e.ctx, &ref)
	e.must(err)
	if _, err := lease.Wait(e.ctx, nil); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("export: %v", err)
	}
	before := e.Status()
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	e.Fault(lab.Fault{Method: "HttpNfcLease", Fault: "NoDiskSpace"})
	lease, err = pool.ImportVApp(e.ctx, importSpec(t, "restored", mib), nil, nil)
	e.must(err)
	if _, err := lease.Wait(e.ctx, nil); !fault.Is(err, &types.NoDiskSpace{}) {
		t.Errorf("import: %v", err)
	}
	assertSame(t, before, e.Status())
}
