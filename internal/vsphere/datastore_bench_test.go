package vsphere

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// BenchmarkRead reads a disk of 1 GiB, half of which is allocated, from the lab. Both ends run in this
// process: TLS and the lab's work are part of what is measured.
func BenchmarkRead(b *testing.B) {
	const capacity = 1 << 30
	file := filepath.Join(b.TempDir(), "disk.raw")
	writeHalf(b, file, capacity)
	l := labtest.Start(b, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{file}, ChangeTracking: true}}})
	for _, test := range []struct {
		name      string
		transport string
		changed   int64 // bytes; zero: everything is read
	}{
		{"datastore", TransportDatastore, 0},
		{"export", TransportExport, 0},
		{"datastore, 1 percent changed", TransportDatastore, capacity / 100},
		{"export, 1 percent changed", TransportExport, capacity / 100},
	} {
		b.Run(test.name, func(b *testing.B) {
			config := labConfig(l)
			config.Transports = []string{test.transport}
			benchmarkRead(b, l, dial(b, config), test.changed)
		})
	}
}

func benchmarkRead(b *testing.B, l *lab.Lab, c *Client, changed int64) {
	b.Helper()
	vm, err := c.FindVM(b.Context(), "web01")
	if err != nil {
		b.Fatal(err)
	}
	open := func() hypervisor.PointInTime {
		p, err := c.OpenPointInTime(b.Context(), vm.ID, hypervisor.PointInTimeSpec{Name: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	request := hypervisor.DiskRequest{Granularity: 1 << 20}
	if changed > 0 {
		p := open()
		reader, err := p.OpenDisk(b.Context(), vm.Disks[0].Key, request)
		if err != nil {
			b.Fatal(err)
		}
		request.Base = &hypervisor.Base{Tracking: reader.Plan().Tracking}
		if err := p.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		for off := int64(0); off < changed; off += 1 << 20 {
			if err := l.WriteDisk("web01", 0, off*50, bytes.Repeat([]byte{7}, 1<<20)); err != nil {
				b.Fatal(err)
			}
		}
	}
	p := open()
	defer func() { _ = p.Close(b.Context()) }() // the lab is thrown away
	b.SetBytes(vm.Disks[0].Capacity)
	for b.Loop() {
		reader, err := p.OpenDisk(b.Context(), vm.Disks[0].Key, request)
		if err != nil {
			b.Fatal(err)
		}
		var read int64
		if err := reader.Extents(b.Context(), func(_ int64, data []byte) error { read += int64(len(data)); return nil }); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(read), "read-bytes")
	}
}

// writeHalf makes an image of which every other 4 MiB are allocated, with text that compresses.
func writeHalf(b *testing.B, name string, capacity int64) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 4<<20)
	for off := int64(0); off < capacity && err == nil; off += 2 * int64(len(data)) {
		for i := range data {
			data[i] = "the quick brown fox jumps over the lazy dog"[(i*7+i/43)%43] ^ byte(off>>23)
		}
		_, err = f.WriteAt(data, off)
	}
	if err == nil {
		err = f.Truncate(capacity)
	}
	if closeErr := f.Close(); err != nil || closeErr != nil {
		b.Fatal(err, closeErr)
	}
}
