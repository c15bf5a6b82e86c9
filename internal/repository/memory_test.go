package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func init() {
	children["1 TiB"] = func(ctx context.Context, path string) error { return backUpLarge(ctx, path, tib) }
	children["16 TiB"] = func(ctx context.Context, path string) error { return backUpLarge(ctx, path, 16*tib) }
}

// backUpLarge writes a disk with some data everywhere, then a change of it, commits and reads it, maintains the
// repository, and prints the most memory that the process ever took.
func backUpLarge(ctx context.Context, path string, capacity int64) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	src := newScattered(capacity, 64, 4*mib)
	whole, err := backUpDisk(ctx, r, capacity, func(w *Writer) (DiskResult, error) {
		return w.WriteDisk(ctx, "disk.raw", src)
	})
	if err != nil {
		return err
	}
	base, err := r.Get(ctx, whole)
	if err != nil {
		return err
	}
	areas := disk.NewAreas(capacity, ChunkSize(capacity))
	areas.Add(disk.Extent{Offset: src.offset(7), Length: 1})
	changed := &source{capacity: capacity} // to zero
	id, err := backUpDisk(ctx, r, capacity, func(w *Writer) (DiskResult, error) {
		return w.WriteChanges(ctx, "disk.raw", changed, Base{ID: whole, Disk: base.Disks[0], Areas: areas})
	})
	if err != nil {
		return err
	}
	if err := readLarge(ctx, r, id, src); err != nil {
		return err
	}
	if m, err := r.Maintain(ctx, MaintainOptions{Now: true}); err != nil || !m.Ran {
		return errors.Join(err, errors.New("no maintenance"))
	}
	return errors.Join(printPeak(), r.Close(ctx))
}

// printPeak prints the most memory that the process ever took.
func printPeak() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
	return nil
}

func backUpDisk(ctx context.Context, r *Repository, capacity int64, write func(w *Writer) (DiskResult, error)) (ID, error) {
	w, err := r.NewWriter(ctx)
	if err != nil {
		return "", err
	}
	result, err := write(w)
	if err != nil {
		return "", err
	}
	m := testManifest()
	m.Disks = []Disk{diskOf("disk.raw", capacity, result)}
	return w.Commit(ctx, m, testFiles)
}

// readLarge reads a disk of which the first chunk of the piece with the number 7 became zero.
func readLarge(ctx context.Context, r *Repository, id ID, src *scattered) error {
	m, err := r.Get(ctx, id)
	if err != nil {
		return err
	}
	reader, err := r.OpenDisk(ctx, id, m.Disks[0])
	if err != nil {
		return err
	}
	size := ChunkSize(src.capacity)
	inPiece := src.size / size
	var next int64
	err = reader.Extents(ctx, func(offset int64, data []byte) error {
		if next == 7*inPiece {
			next++
		}
		piece, at := next/inPiece, next%inPiece*size
		next++
		if offset != src.offset(piece)+at || !bytes.Equal(data, src.data[piece*512+at:][:size]) {
			return fmt.Errorf("chunk at %d differs", offset)
		}
		return nil
	})
	if err == nil && next != src.pieces*inPiece {
		err = fmt.Errorf("%d chunks", next)
	}
	return err
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads peak memory from /proc")
	}
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	for capacity, limit := range map[string]int64{"1 TiB": 350, "16 TiB": 500} {
		wantPeak(t, capacity, limit)
	}
}

// wantPeak runs a child that may take so many MiB of memory, with two processors: each takes some for what it works at.
func wantPeak(t *testing.T, name string, limit int64) {
	t.Helper()
	cmd := child(t, name, testConfig(t).Path)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var kib int64
	if _, err := fmt.Sscanf(string(out), "VmHWM: %d kB", &kib); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s: peak memory %d MiB", name, kib>>10)
	if kib > limit<<10 {
		t.Errorf("%s: peak memory %d KiB", name, kib)
	}
}
