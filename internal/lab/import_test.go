package lab_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// emptyLab is a lab without VMs.
func emptyLab(t *testing.T) *env {
	t.Helper()
	return newEnv(t, lab.Options{VMs: []lab.VMSpec{}})
}

// importSpec is a VM made from scratch, with a controller and disks of the given capacities.
func importSpec(t *testing.T, name string, capacities ...int64) *types.VirtualMachineImportSpec {
	t.Helper()
	var list object.VirtualDeviceList
	device, err := list.CreateSCSIController("pvscsi")
	if err != nil {
		t.Fatal(err)
	}
	controller, ok := device.(types.BaseVirtualController)
	if !ok {
		t.Fatalf("%T is no controller", device)
	}
	list = append(list, device)
	for _, c := range capacities {
		d := list.CreateDisk(controller, types.ManagedObjectReference{}, "")
		d.CapacityInBytes, d.CapacityInKB = c, c/1024
		list = append(list, d)
	}
	changes, err := list.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		t.Fatal(err)
	}
	return &types.VirtualMachineImportSpec{ConfigSpec: types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherGuest", NumCPUs: 1, MemoryMB: 64,
		Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"}, DeviceChange: changes,
	}}
}

// startImport starts an import and waits until it takes uploads.
func (e *env) startImport(spec *types.VirtualMachineImportSpec) (*nfc.Lease, *nfc.LeaseInfo) {
	e.t.Helper()
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	folder, err := e.finder.DefaultFolder(e.ctx)
	e.must(err)
	lease, err := pool.ImportVApp(e.ctx, spec, folder, nil)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	return lease, info
}

// streamOf makes a stream-optimized VMDK of raw bytes with our encoder.
func streamOf(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := vmdk.Encode(t.Context(), &b, rawSource(p), vmdk.EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawSource is a disk that is all in memory.
type rawSource []byte

var _ disk.Source = rawSource(nil)

func (r rawSource) Capacity() int64 { return int64(len(r)) }
func (r rawSource) Extents(_ context.Context, yield func(int64, []byte) error) error {
	return yield(0, r)
}

// post uploads a body without a session.
func (e *env) post(method, url string, header http.Header, body io.Reader) int {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.ctx, method, url, body)
	e.must(err)
	req.Header = header
	res, err := e.plain().Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

var diskHeader = http.Header{"Content-Type": {"application/x-vnd.vmware-streamVmdk"}}

func TestImport_storesWhatQemuImgMade(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("needs qemu-img: install the package qemu-utils")
	}
	raw := labtest.RawDisk(t, 6*mib, 3)
	stream := filepath.Join(t.TempDir(), "disk.vmdk")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "vmdk",
		"-o", "subformat=streamOptimized", raw, stream).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e := emptyLab(t)
	lease, info := e.startImport(importSpec(t, "restored", 6*mib))
	// The client that govc uses.
	updater := lease.StartUpdater(e.ctx, info)
	f, err := os.Open(stream)
	e.must(err)
	defer func() { _ = f.Close() }()
	e.must(lease.Upload(e.ctx, info.Items[0], f, soap.Upload{ContentLength: fileSize(t, stream)}))
	updater.Done()
	manifest, err := lease.GetManifest(e.ctx)
	e.must(err)
	p, err := os.ReadFile(stream)
	e.must(err)
	checkManifest(t, manifest[0], info.DeviceUrl[0].Key, p, 6*mib, false)
	e.must(lease.Complete(e.ctx))
	want, err := os.ReadFile(raw)
	e.must(err)
	if !bytes.Equal(e.content("restored", 0, 6*mib), want) {
		t.Error("the disk is not what was uploaded")
	}
	vm := e.find("restored")
	task, err := vm.PowerOn(e.ctx)
	e.must(err)
	e.must(task.Wait(e.ctx))
	labtest.AssertClean(t, e.Lab)
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestImport_refusesBadStreams(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	raw, err := os.ReadFile(labtest.RawDisk(t, 2*mib, 3))
	e.must(err)
	other, err := os.ReadFile(labtest.RawDisk(t, 2*mib, 4))
	e.must(err)
	good := streamOf(t, raw)
	damaged := bytes.Clone(good)
	damaged[64<<10+40] ^= 1
	lease, info := e.startImport(importSpec(t, "restored", 2*mib))
	url := info.DeviceUrl[0].Url
	if k := info.DeviceUrl[0].ImportKey; k != "/restored/ParaVirtualSCSIController0:0" {
		t.Errorf("import key %q", k)
	}
	if got := e.post(http.MethodPost, url, diskHeader, bytes.NewReader(streamOf(t, other))); got != http.StatusCreated {
		t.Fatalf("a good stream: %d", got)
	}
	for name, c := range map[string]struct {
		method string
		header http.Header
		body   []byte
		status int
	}{
		"truncated":     {http.MethodPost, diskHeader, good[:len(good)-2048], 500},
		"no end marker": {http.MethodPost, diskHeader, good[:len(good)-512], 500},
		"empty":         {http.MethodPost, diskHeader, nil, 500},
		"garbage":       {http.MethodPost, diskHeader, bytes.Repeat([]byte("garbage"), 1000), 500},
		"damaged":       {http.MethodPost, diskHeader, damaged, 500},
		"smaller disk":  {http.MethodPost, diskHeader, streamOf(t, raw[:mib]), 500},
		"larger disk":   {http.MethodPost, diskHeader, streamOf(t, append(bytes.Clone(raw), make([]byte, mib)...)), 500},
		"wrong type":    {http.MethodPost, http.Header{"Content-Type": {"application/octet-stream"}}, good, 415},
		"PUT":           {http.MethodPut, diskHeader, good, 403},
		"DELETE":        {http.MethodDelete, diskHeader, nil, 405},
		"GET":           {http.MethodGet, diskHeader, nil, 405},
	} {
		if got := e.post(c.method, url, c.header, bytes.NewReader(c.body)); got != c.status {
			t.Errorf("%s: %d, want %d", name, got, c.status)
		}
	}
	if got := e.post(http.MethodPost, url+"x", diskHeader, bytes.NewReader(good)); got != http.StatusNotFound {
		t.Errorf("unknown disk: %d", got)
	}
	if err := lease.Complete(e.ctx); !fault.Is(err, &types.InvalidState{}) {
		t.Errorf("Complete after a failed upload: %v", err)
	}
	if got := e.post(http.MethodPost, url, diskHeader, bytes.NewReader(good)); got != http.StatusCreated {
		t.Errorf("a second try: %d", got)
	}
	e.must(lease.Complete(e.ctx))
	if !bytes.Equal(e.content("restored", 0, 2*mib), raw) {
		t.Error("the disk has something of what was uploaded before")
	}
}

func TestImport_completeNeedsAllDisks(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	lease, info := e.startImport(importSpec(t, "restored", mib, mib))
	stream := streamOf(t, make([]byte, mib))
	e.post(http.MethodPost, info.DeviceUrl[0].Url, diskHeader, bytes.NewReader(stream))
	if err := lease.Complete(e.ctx); !fault.Is(err, &types.InvalidState{}) {
		t.Fatalf("Complete with a disk missing: %v", err)
	}
	if task, err := e.find("restored").PowerOn(e.ctx); err == nil && task.Wait(e.ctx) == nil {
		t.Error("the VM started half-way")
	}
	e.post(http.MethodPost, info.DeviceUrl[1].Url, diskHeader, bytes.NewReader(stream))
	e.must(lease.Complete(e.ctx))
}

func TestImport_abortLeavesNothing(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	before := e.Status()
	lease, info := e.startImport(importSpec(t, "restored", 8*mib))
	if s := e.Status(); len(s.VMs) != 1 || len(s.Leases) != 1 || s.Leases[0].Kind != "import" {
		t.Fatalf("%+v", s)
	}
	// An upload that is under way is cut.
	stream := streamOf(t, noise(8*mib))
	reader, writer := io.Pipe()
	status := make(chan int)
	go func() { status <- e.post(http.MethodPost, info.DeviceUrl[0].Url, diskHeader, reader) }()
	_, err := writer.Write(stream[:6*mib])
	e.must(err)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for e.Status().VMs[0].Disks[0].Allocated == 0 {
		<-tick.C // until the server stores what it gets
	}
	e.must(lease.Abort(e.ctx, &types.LocalizedMethodFault{Fault: &types.NoDiskSpace{}}))
	go func() {
		_, err := writer.Write(stream[6*mib:])
		_ = writer.CloseWithError(err)
	}()
	if got := <-status; got != 0 {
		t.Errorf("the upload was answered with %d", got)
	}
	if got := e.waitForError(lease); !isFault[*types.NoDiskSpace](got) {
		t.Errorf("error of the lease: %#v", got)
	}
	assertSame(t, before, e.Status())
}

// noise is data that doesn't compress.
func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p) // never fails
	return p
}

func isFault[F types.BaseMethodFault](f *types.LocalizedMethodFault) bool {
	if f == nil {
		return false
	}
	_, ok := f.Fault.(F)
	return ok
}

// assertSame asserts that VMs, leases and files are as before.
func assertSame(t *testing.T, before, after lab.Status) {
	t.Helper()
	if len(after.VMs) != len(before.VMs) || len(after.Leases) != 0 {
		t.Errorf("VMs %+v, leases %+v", after.VMs, after.Leases)
	}
	names := func(s lab.Status) string {
		var b strings.Builder
		for _, f := range s.Files {
			b.WriteString(f.Name + "\n")
		}
		return b.String()
	}
	if names(before) != names(after) {
		t.Errorf("files before:\n%safter:\n%s", names(before), names(after))
	}
}

func TestImport_timeoutLeavesNothing(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	before := e.Status()
	lease, _ := e.startImport(importSpec(t, "restored", mib))
	e.ExpireLeases()
	if got := e.waitForError(lease); !isFault[*types.Timedout](got) {
		t.Errorf("error of the lease: %#v", got)
	}
	assertSame(t, before, e.Status())
}

func TestImport_faults(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	good := streamOf(t, noise(5*mib))
	lease, info := e.startImport(importSpec(t, "restored", 5*mib))
	url := info.DeviceUrl[0].Url
	for _, c := range []struct {
		fault  string
		status int
	}{{"drop", 0}, {"truncate", 500}, {"corrupt", 500}, {"503", 503}, {"NoDiskSpace", 500}} {
		e.Fault(lab.Fault{Method: "POST /nfc", Fault: c.fault})
		if got := e.post(http.MethodPost, url, diskHeader, bytes.NewReader(good)); got != c.status {
			t.Errorf("%s: %d, want %d", c.fault, got, c.status)
		}
	}
	if got := e.post(http.MethodPost, url, diskHeader, bytes.NewReader(good)); got != http.StatusCreated {
		t.Errorf("without a fault: %d", got)
	}
	e.must(lease.Complete(e.ctx))
	if left := e.UnhitFaults(); len(left) != 0 {
		t.Errorf("not hit: %+v", left)
	}
}

func TestImport_faultsOfTheServer(t *testing.T) {
	t.Parallel()
	e := emptyLab(t)
	pool, err := e.finder.ResourcePool(e.ctx, "DC0_C0/Resources")
	e.must(err)
	vapp := &types.VirtualAppImportSpec{}
	if _, err := pool.ImportVApp(e.ctx, vapp, nil, nil); !fault.Is(err, &types.InvalidArgument{}) {
		t.Errorf("a vApp: %v", err)
	}
	before := e.Status()
	spec := importSpec(t, "restored", mib)
	spec.ConfigSpec.Files.VmPathName = "[none]"
	lease, err := pool.ImportVApp(e.ctx, spec, nil, nil)
	e.must(err)
	if _, err := lease.Wait(e.ctx, nil); err == nil {
		t.Error("a VM was made on a datastore that isn't there")
	}
	assertSame(t, before, e.Status())
	e.Fault(lab.Fault{Method: "ImportVApp", Fault: "NoPermission"})
	if _, err := pool.ImportVApp(e.ctx, spec, nil, nil); !fault.Is(err, &types.NoPermission{}) {
		t.Errorf("injected fault: %v", err)
	}
}
