package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func init() {
	children["back up"] = backUpOnce
	children["hang"] = backUpAndHang
}

// backUpOnce backs up the same disk as all others do and a disk of its own, and prints the ID.
func backUpOnce(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	return backUpOnceTo(ctx, r)
}

func backUpOnceTo(ctx context.Context, r *Repository) error {
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	m := testManifest()
	for file, src := range map[string]*source{"same.raw": testSource(1), "own.raw": testSource(uint64(os.Getpid()))} {
		result, err := w.WriteDisk(ctx, file, src)
		if err != nil {
			return err
		}
		m.Disks = append(m.Disks, diskOf(file, src.capacity, result))
	}
	id, err := w.Commit(ctx, m, testFiles)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return errors.Join(w.Close(ctx), r.Close(ctx))
}

// backUpAndHang writes several packs of a disk, says so, and waits for its end.
func backUpAndHang(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	src := &source{capacity: 96 * mib}
	for i := range 96 {
		src.extents = append(src.extents, extent{int64(i) * mib, random(uint64(i), mib)})
	}
	src.onYield = func(n int) error {
		if n == 80 {
			fmt.Println("writing")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		}
		return nil
	}
	_, err = w.WriteDisk(ctx, "disk.raw", src)
	return err
}

// Several processes make the repository and back up at once.
func TestConcurrentProcesses(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	concurrentProcesses(t, c, "back up", c.Path)
}

// concurrentProcesses has processes run a child that backs up, and compares what is in the repository then.
func concurrentProcesses(t *testing.T, c Config, name, argument string) {
	t.Helper()
	type process struct {
		wait   func() error
		stdout bytes.Buffer
		stderr bytes.Buffer
		pid    int
	}
	processes := make([]process, 3)
	for i := range processes {
		cmd := child(t, name, argument)
		cmd.Stdout, cmd.Stderr = &processes[i].stdout, &processes[i].stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		processes[i].wait, processes[i].pid = cmd.Wait, cmd.Process.Pid
	}
	for i := range processes {
		if err := processes[i].wait(); err != nil {
			t.Fatalf("%v: %s", err, processes[i].stderr.String())
		}
	}
	r := open(t, c)
	for i := range processes {
		p := &processes[i]
		id := ID(strings.TrimSpace(p.stdout.String()))
		m, err := r.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Disks {
			want := testSource(1)
			if d.File == "own.raw" {
				want = testSource(uint64(p.pid))
			}
			if b := readDisk(t, r, id, d); !bytes.Equal(b, want.bytes()) {
				t.Errorf("%s of process %d differs", d.File, p.pid)
			}
		}
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != len(processes) {
		t.Errorf("listed %v, %v", points, err)
	}
}

func TestKilledWriter(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	before := backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	cmd := child(t, "hang", c.Path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close() //nolint:errcheck // the process is gone by then
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process ended well")
	}
	if packs := blobs(t, c.Path, "p"); len(packs) < 2 {
		t.Fatalf("packs %v: the process had not written any", packs)
	}
	r := open(t, c)
	points, err := r.List(t.Context(), Filter{})
	if err != nil || len(points) != 1 || points[0].ID != before {
		t.Errorf("listed %v, %v", points, err)
	}
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)})
	for id, seed := range map[ID]uint64{before: 1, id: 2} {
		if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(seed).bytes()) {
			t.Errorf("the disk of restore point %s differs", id)
		}
	}
}
