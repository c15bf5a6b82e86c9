package repository

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

func init() { children["tebibyte"] = backUpTebibyte }

// spots is a disk of 1 TiB with data here and there, which is made as it is read.
type spots struct{}

const (
	spotCount    = 64
	spotSize     = 4 * mib
	spotDistance = tib / spotCount
)

func (*spots) Capacity() int64 { return tib }

func (*spots) Extents(_ context.Context, yield func(int64, []byte) error) error {
	for i := range int64(spotCount) {
		if err := yield(i*spotDistance, random(uint64(i), spotSize)); err != nil {
			return err
		}
	}
	return nil
}

// backUpTebibyte writes a disk of 1 TiB with some data everywhere, commits and reads it, and prints the most memory that the process ever took.
func backUpTebibyte(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	src := &spots{}
	result, err := w.WriteDisk(ctx, "disk.raw", src)
	if err != nil {
		return err
	}
	m := testManifest()
	d := Disk{File: "disk.raw", Capacity: tib, ChunkSize: result.ChunkSize, Digest: result.Digest, Hashes: result.Hashes, DataBytes: result.DataBytes}
	m.Disks = []Disk{d}
	id, err := w.Commit(ctx, m, testFiles)
	if err != nil {
		return err
	}
	reader, err := r.OpenDisk(ctx, id, d)
	if err != nil {
		return err
	}
	var next int64
	err = reader.Extents(ctx, func(offset int64, data []byte) error {
		spot, at := next/(spotSize/mib), next%(spotSize/mib)*mib
		next++
		if offset != spot*spotDistance+at || !bytes.Equal(data, random(uint64(spot), spotSize)[at:at+mib]) {
			return fmt.Errorf("chunk at %d differs", offset)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if next != spotCount*spotSize/mib {
		return fmt.Errorf("%d chunks", next)
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
