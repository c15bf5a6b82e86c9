package lab_test

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // the protocol's checksum
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func TestExportSnapshot_isThePointInTime(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{
		Name: "web01", Disks: []string{labtest.RawDisk(t, 8*mib, 1), labtest.RawDisk(t, 3*mib+512, 2)},
	}}})
	want := [][]byte{e.content("web01", 0, 8*mib), e.content("web01", 1, 3*mib+512)}
	ref := e.takeSnapshot("before")
	e.must(e.WriteDisk("web01", 0, 12345, []byte("written after the snapshot")))
	e.must(e.WriteDisk("web01", 1, 0, bytes.Repeat([]byte{7}, mib)))

	lease, err := e.vm.ExportSnapshot(e.ctx, &ref)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	if info.Entity != e.vm.Reference() || info.LeaseTimeout != 300 || len(info.DeviceUrl) != 2 {
		t.Fatalf("lease info: %+v", info.HttpNfcLeaseInfo)
	}
	_, err = methods.HttpNfcLeaseSetManifestChecksumType(e.ctx, e.client, &types.HttpNfcLeaseSetManifestChecksumType{
		This:                      lease.Reference(),
		DeviceUrlsToChecksumTypes: []types.KeyValue{{Key: info.DeviceUrl[1].Key, Value: "sha256"}},
	})
	e.must(err)
	for i, d := range info.DeviceUrl {
		key := "/" + e.vm.Reference().Value + "/ParaVirtualSCSIController0:" + string(rune('0'+i))
		target := "disk-" + string(rune('0'+i)) + ".vmdk"
		if d.Key != key || d.TargetId != target || d.Disk == nil || !*d.Disk || d.SslThumbprint == "" {
			t.Errorf("device URL %d: %+v, want key %s", i, d, key)
		}
		stream, res, err := e.get(d.Url)
		e.must(err)
		if res.ContentLength != -1 {
			t.Errorf("the stream has a length of %d", res.ContentLength)
		}
		if got := convert(t, stream); !bytes.Equal(got, want[i]) {
			t.Errorf("disk %d is not what it was at the snapshot", i)
		}
		manifest, err := lease.GetManifest(e.ctx)
		e.must(err)
		checkManifest(t, manifest[i], d.Key, stream, int64(len(want[i])), i == 1)
	}
	e.must(lease.Complete(e.ctx))
	props, err := lease.Properties(e.ctx, "state", "info")
	e.must(err)
	if props.State != types.HttpNfcLeaseStateDone || props.Info != nil {
		t.Errorf("after Complete: state %s, info %+v", props.State, props.Info)
	}
	if _, res, err := e.get(info.DeviceUrl[0].Url); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("the URL outlives its lease: %v %v", res, err)
	}
}

func checkManifest(t *testing.T, m types.HttpNfcLeaseManifestEntry, key string, stream []byte, capacity int64, withSHA256 bool) {
	t.Helper()
	s1, s256 := sha1.Sum(stream), sha256.Sum256(stream) //nolint:gosec // the protocol's checksum
	kind, sum := "sha1", hex.EncodeToString(s1[:])
	if withSHA256 {
		kind, sum = "sha256", hex.EncodeToString(s256[:])
	}
	if m.Key != key || m.Size != int64(len(stream)) || m.Capacity != capacity || !m.Disk ||
		m.ChecksumType != kind || m.Checksum != sum || m.Sha1 != hex.EncodeToString(s1[:]) {
		t.Errorf("manifest entry %+v doesn't fit the stream of %d bytes with %s %s", m, len(stream), kind, sum)
	}
}

func TestExportVm_needsAVMThatIsOff(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{
		{Name: "on", Disks: []string{labtest.RawDisk(t, mib, 1)}},
		{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true},
	}})
	if _, err := e.vm.Export(e.ctx); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("export of a running VM: %v", err)
	}
	lease, err := e.find("off").Export(e.ctx)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	// The client that govc uses.
	updater := lease.StartUpdater(e.ctx, info)
	file := filepath.Join(t.TempDir(), "disk.vmdk")
	e.must(lease.DownloadFile(e.ctx, file, info.Items[0], soap.DefaultDownload))
	updater.Done()
	e.must(lease.Complete(e.ctx))
	stream, err := os.ReadFile(file)
	e.must(err)
	if !bytes.Equal(convert(t, stream), e.content("off", 0, mib)) {
		t.Error("the export is not the disk")
	}
}

func TestExport_faults(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, 4*mib, 2)}, PoweredOff: true}}})
	lease, err := e.vm.Export(e.ctx)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	url := info.DeviceUrl[0].Url
	good, _, err := e.get(url)
	e.must(err)
	decode := func(p []byte) error {
		d, err := vmdk.NewDecoder(e.ctx, bytes.NewReader(p), vmdk.DecodeOptions{})
		if err != nil {
			return err
		}
		return d.Extents(e.ctx, func(int64, []byte) error { return nil })
	}
	e.must(decode(good))

	e.Fault(lab.Fault{Method: "GET /nfc", Fault: "drop"})
	if p, _, err := e.get(url); err == nil || len(p) >= len(good) {
		t.Errorf("drop: %d bytes, %v", len(p), err)
	}
	e.Fault(lab.Fault{Method: "GET /nfc", Fault: "truncate"})
	if p, _, err := e.get(url); err != nil || len(p) >= len(good) || !errors.Is(decode(p), vmdk.ErrTruncated) {
		t.Errorf("truncate: %d bytes, %v, %v", len(p), err, decode(p))
	}
	e.Fault(lab.Fault{Method: "GET /nfc", Fault: "corrupt"})
	p, _, err := e.get(url)
	if err != nil || len(p) != len(good) || decode(p) == nil {
		t.Errorf("corrupt: %d bytes, %v, %v", len(p), err, decode(p))
	}
	differ := 0
	for i := range p {
		if p[i] != good[i] {
			differ++
		}
	}
	if differ != 1 {
		t.Errorf("corrupt: %d bytes differ", differ)
	}
	e.Fault(lab.Fault{Method: "GET /nfc", Fault: "503", After: 1})
	if _, res, err := e.get(url); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("before the 503: %v, %v", res, err)
	}
	if _, res, err := e.get(url); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("503: %v, %v", res, err)
	}
	if got := e.Calls()["GET /nfc"]; got != 6 {
		t.Errorf("%d calls are counted", got)
	}
	if left := e.UnhitFaults(); len(left) != 0 {
		t.Errorf("not hit: %+v", left)
	}
}

func TestExport_ofAHost(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{ESX: true, VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}}})
	lease, err := e.vm.Export(e.ctx)
	e.must(err)
	info, err := lease.Wait(e.ctx, nil)
	e.must(err)
	if !strings.HasPrefix(info.DeviceUrl[0].Url, "https://*") {
		t.Errorf("URL: %s", info.DeviceUrl[0].Url)
	}
	stream, _, err := e.get(info.Items[0].URL.String())
	e.must(err)
	if !bytes.Equal(convert(t, stream), e.content("off", 0, mib)) {
		t.Error("the export is not the disk")
	}
	e.must(lease.Complete(e.ctx))
}

func TestExportSnapshot_twoLabsSideBySide(t *testing.T) {
	t.Parallel()
	a := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, mib, 1)}}}})
	b := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, mib, 9)}}}})
	if a.Password() == b.Password() || a.Fingerprint() == b.Fingerprint() || a.URL().Host == b.URL().Host {
		t.Error("the labs share something")
	}
	e := a
	e.must(a.WriteDisk("web01", 0, 0, []byte("only in a")))
	for _, e := range []*env{a, b} {
		ref := e.takeSnapshot("s")
		lease, err := e.vm.ExportSnapshot(e.ctx, &ref)
		e.must(err)
		info, err := lease.Wait(e.ctx, nil)
		e.must(err)
		stream, _, err := e.get(info.DeviceUrl[0].Url)
		e.must(err)
		if !bytes.Equal(convert(t, stream), e.content("web01", 0, mib)) {
			t.Error("the export is not the disk")
		}
		e.must(lease.Complete(e.ctx))
	}
	if got := b.content("web01", 0, 9); string(got) == "only in a" {
		t.Error("a write in one lab shows in the other")
	}
}

func TestHugeDisk(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 40
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{sparse(t, capacity)}, PoweredOff: true}}})
	at := map[int64][]byte{0: noise(100), 700<<30 + 77: noise(200000), capacity - 3: []byte("end")}
	for off, p := range at {
		e.must(e.WriteDisk("off", 0, off, p))
	}
	export, err := e.vm.Export(e.ctx)
	e.must(err)
	info, err := export.Wait(e.ctx, nil)
	e.must(err)
	stream, _, err := e.get(info.DeviceUrl[0].Url)
	e.must(err)
	e.must(export.Complete(e.ctx))
	if len(stream) > mib {
		t.Errorf("the stream has %d bytes", len(stream))
	}
	lease, in := e.startImport(importSpec(t, "copy", capacity))
	if got := e.post(http.MethodPost, in.DeviceUrl[0].Url, diskHeader, bytes.NewReader(stream)); got != http.StatusCreated {
		t.Fatalf("upload: %d", got)
	}
	e.must(lease.Complete(e.ctx))
	for off, want := range at {
		got := make([]byte, len(want))
		e.must(e.ReadDisk("copy", 0, off, got))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d differ", len(want), off)
		}
	}
	for _, vm := range e.Status().VMs {
		if n := vm.Disks[0].Allocated; n > mib {
			t.Errorf("the disk of %s takes %d bytes", vm.Name, n)
		}
	}
}

// A snapshot that goes between the call and its work gives no lease: nothing would be left to read.
func TestExport_snapshotRemovedBeside(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	ref := e.takeSnapshot("s")
	e.OnCall("ExportSnapshot", func(context.Context) {
		task, err := e.vm.RemoveSnapshot(e.ctx, ref.Value, false, nil)
		if err == nil {
			err = task.Wait(e.ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	_, err := methods.ExportSnapshot(e.ctx, e.client, &types.ExportSnapshot{This: ref})
	if !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("got %v", err)
	}
	labtest.AssertClean(t, e.Lab)
}
