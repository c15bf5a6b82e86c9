package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func init() {
	children["lock"] = lockAndHang
	children["hold"] = holdAndHang
}

// lockAndHang has the repository alone, says so, and waits for its end.
func lockAndHang(ctx context.Context, path string) error {
	if _, err := (fileLocker{path}).lock(ctx, true); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// holdAndHang holds the one restore point that there is.
func holdAndHang(ctx context.Context, path string) error {
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	points, err := r.List(ctx, Filter{})
	if err != nil {
		return err
	}
	if _, err := r.Hold(ctx, points[0].ID); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// hang starts a child that says something and waits. kill kills it.
func hang(t *testing.T, name, path string) (kill func()) {
	t.Helper()
	cmd := child(t, name, path)
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatalf("%v: %s", errors.Join(err, cmd.Wait()), stderr)
	}
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		_ = stdin.Close()
	}
	t.Cleanup(kill)
	return kill
}

// A writer waits for maintenance of another process, for as long as its patience lasts, and says who it is.
// Once that process is gone, however it ended, nobody waits.
func TestWriterWaitsForMaintenance(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	kill := hang(t, "lock", c.Path)
	r.patience = 50 * time.Millisecond
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.NewWriter(t.Context())
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), c.Path) {
		t.Errorf("a writer during maintenance: %v", err)
	}
	if err := r.Delete(t.Context(), id); !errors.Is(err, ErrBusy) {
		t.Errorf("deleting during maintenance: %v", err)
	}
	if m, err := r.Get(t.Context(), id); err != nil || m.VM.Name != "web01" {
		t.Errorf("reading during maintenance: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.NewWriter(cancelled); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
		t.Errorf("a writer that is cancelled: %v", err)
	}
	r.patience = time.Minute
	written := make(chan error, 1)
	go func() {
		w, err := r.NewWriter(t.Context())
		if err == nil {
			err = w.Close(t.Context())
		}
		written <- err
	}()
	kill()
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// Writers share the lock, and let go of it in every way in which they can end.
func TestWritersShareLock(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r, other := open(t, c), open(t, c)
	alone := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		unlock, err := r.locker.lock(ctx, true)
		if err == nil {
			unlock()
		}
		return err
	}
	if err := alone(); err != nil {
		t.Fatal(err)
	}
	a, err := r.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.NewWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest()
	writeDisk(t, a, m, "disk.raw", testSource(1))
	if _, err := a.Commit(t.Context(), m, testFiles); err != nil {
		t.Fatal(err)
	}
	if err := alone(); !errors.Is(err, ErrBusy) {
		t.Errorf("with one writer left: %v", err)
	}
	for range 2 {
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := alone(); err != nil {
		t.Error(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(c.Path, holderFile)); err == nil {
		t.Error("it still says who maintains")
	}
}

// What another process holds is not deleted, until that process ends.
func TestHold(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	kill := hang(t, "hold", c.Path)
	mine, err := r.Hold(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	held := func() error {
		err := r.DeleteUnused(t.Context(), id)
		if points, listErr := r.List(t.Context(), Filter{}); listErr != nil || len(points) != 1 {
			t.Errorf("listed %v, %v", points, listErr)
		}
		return err
	}
	if err := held(); !errors.Is(err, ErrInUse) {
		t.Errorf("held twice: %v", err)
	}
	mine()
	if err := held(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), string(id)) {
		t.Errorf("held: %v", err)
	}
	kill()
	if err := r.DeleteUnused(t.Context(), id); err != nil {
		t.Errorf("not held any more: %v", err)
	}
	if _, err := r.Hold(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("hold what is gone: %v", err)
	}
	if _, err := r.Hold(t.Context(), "../x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("hold nonsense: %v", err)
	}
	for _, id := range []ID{id, "x"} {
		if err := r.DeleteUnused(t.Context(), id); err != nil {
			t.Errorf("delete what is gone: %v", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(c.Path, holdPrefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// fullLocker is the locker of a storage in which there is no room for the lock.
type fullLocker struct{}

func (fullLocker) lock(context.Context, bool) (func(), error) { return nil, ErrFull }

// Who adds data never does so without the lock; who deletes may, as that makes room.
func TestLockFull(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	r.locker = fullLocker{}
	if _, err := r.NewWriter(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("a writer: %v", err)
	}
	if err := r.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
}
