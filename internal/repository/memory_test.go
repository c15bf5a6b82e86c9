package repository

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func init() { children["tebibyte"] = backUpTebibyte }

// backUpTebibyte writes a disk of 1 TiB with a little data everywhere, commits and reads it, and
// prints the most memory that the process ever took.
func backUpTebibyte(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	src := &source{capacity: tib}
	for i := range 256 {
		src.extents = append(src.extents, extent{int64(i) * (tib / 256), random(uint64(i), 4096)})
	}
	result, err := w.WriteDisk(ctx, "disk.raw", src)
	if err != nil {
		return err
	}
	m := testManifest()
	d := Disk{File: "disk.raw", Capacity: tib, ChunkSize: result.ChunkSize, Digest: result.Digest, DataBytes: result.DataBytes}
	m.Disks = []Disk{d}
	id, err := w.Commit(ctx, m, testFiles)
	if err != nil {
		return err
	}
	reader, err := r.OpenDisk(ctx, id, d)
	if err != nil {
		return err
	}
	var n int
	err = reader.Extents(ctx, func(offset int64, data []byte) error {
		e := src.extents[n]
		n++
		if offset != e.offset || string(data[:len(e.data)]) != string(e.data) || !disk.IsZero(data[len(e.data):]) {
			return fmt.Errorf("chunk at %d differs", offset)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n != len(src.extents) {
		return fmt.Errorf("%d chunks instead of %d", n, len(src.extents))
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
	return r.Close(ctx)
}

func TestMemoryOfTebibyte(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads peak memory from /proc")
	}
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	out, err := child(t, "tebibyte", testConfig(t).Path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var kib int64
	if _, err := fmt.Sscanf(string(out), "VmHWM: %d kB", &kib); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("peak memory %d MiB", kib>>10)
	if kib > 300<<10 {
		t.Errorf("peak memory %d KiB", kib)
	}
}
