package lab_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
)

// BenchmarkExport streams a disk of 256 MiB, a half of which compresses to a quarter; the other half
// doesn't compress.
func BenchmarkExport(b *testing.B) {
	const capacity = 256 << 20
	p := noise(capacity)
	for i := 0; i < capacity/2; i += 4 {
		p[i], p[i+1], p[i+2] = 1, 2, 3
	}
	raw := filepath.Join(b.TempDir(), "disk.raw")
	if err := os.WriteFile(raw, p, 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := lab.Start(b.Context(), lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{raw}, PoweredOff: true}}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	u := l.URL()
	u.User = url.UserPassword(l.User(), l.Password())
	c, err := govmomi.NewClient(b.Context(), u, true)
	if err != nil {
		b.Fatal(err)
	}
	vm, err := find.NewFinder(c.Client).VirtualMachine(b.Context(), "/DC0/vm/lab/off")
	if err != nil {
		b.Fatal(err)
	}
	lease, err := vm.Export(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	info, err := lease.Wait(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(capacity)
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, info.DeviceUrl[0].Url, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		res, err := (&http.Client{Transport: c.DefaultTransport()}).Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			b.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWriteDisk writes 1 MiB as the guest.
func BenchmarkWriteDisk(b *testing.B) {
	raw := filepath.Join(b.TempDir(), "disk.raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte{1}, 16<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := lab.Start(b.Context(), lab.Options{VMs: []lab.VMSpec{{Name: "on", Disks: []string{raw}}}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p := noise(mib)
	b.SetBytes(mib)
	for i := int64(0); b.Loop(); i++ {
		if err := l.WriteDisk("on", 0, i%16*mib, p); err != nil {
			b.Fatal(err)
		}
	}
}
