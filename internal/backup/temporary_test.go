package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

var errBroken = errors.New("broken on purpose")

func openRepository(t *testing.T) *repository.Repository {
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{
		Path: filepath.Join(t.TempDir(), "repository"), Password: secret.New("correct horse"), Create: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repo.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return repo
}

func describeRun(t *testing.T, r run.Run) string {
	t.Helper()
	description, err := snapshotDescription(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return description
}

// killed is a run of this host whose process is gone.
func killed(t *testing.T) run.Run {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("needs the command true of the package coreutils")
	}
	r := run.Start(time.Now(), time.Time{})
	r.End()
	r.PID = cmd.ProcessState.Pid()
	return r
}

func TestCleanUp(t *testing.T) {
	t.Parallel()
	dead := killed(t)
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	elsewhere := living
	elsewhere.Space = run.Space{1}
	expired := elsewhere
	expired.ID = run.ID{1} // living is a run of this process
	expired.Expires = time.Now().Add(-time.Second)
	otherOwner := strings.Replace(describeRun(t, dead), "terraform-provider-vm", "somebody", 1)

	for name, c := range map[string]struct {
		name, description string
		gone              bool
	}{
		"killed":                      {snapshotName(dead), describeRun(t, dead), true},
		"expired, on another host":    {snapshotName(expired), describeRun(t, expired), true},
		"living":                      {snapshotName(living), describeRun(t, living), false},
		"on another host":             {snapshotName(elsewhere), describeRun(t, elsewhere), false},
		"somebody's":                  {"before the upgrade", "", false},
		"somebody's, with our prefix": {SnapshotPrefix + "mine", "keep this", false},
		"renamed":                     {"keep this", describeRun(t, dead), false},
		"renamed with our prefix":     {SnapshotPrefix + "keep", describeRun(t, dead), false},
		"other owner":                 {snapshotName(dead), otherOwner, false},
		"other JSON":                  {snapshotName(dead), `{"owner":1}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv := hypervisortest.NewFake(t)
			vm := hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{make([]byte, 1<<20)}})
			id, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{Name: c.name, Description: c.description})
			if err != nil {
				t.Fatal(err)
			}
			m := New(hv, openRepository(t), slog.New(slog.DiscardHandler), time.Now, "1")
			result, err := m.Take(t.Context(), Request{VM: "web"})
			if err != nil {
				t.Fatal(err)
			}
			left, err := hv.Snapshots(t.Context(), vm.ID)
			if err != nil {
				t.Fatal(err)
			}
			if gone := len(left) == 0; gone != c.gone || !gone && (len(left) != 1 || left[0].ID != id) {
				t.Errorf("left: %+v", left)
			}
			if kept := result.Manifest.Warnings; len(kept) > 0 {
				t.Errorf("the backup itself keeps %q", kept)
			}
			if warned := len(result.Warnings) == 1 && strings.Contains(result.Warnings[0], c.name); warned != c.gone {
				t.Errorf("warnings %q", result.Warnings)
			}
		})
	}
}

// A chain that is as deep as it may be has room again when what a killed backup left is removed: that
// must not be counted. Other branches of the tree don't count either.
func TestCheck_depth(t *testing.T) {
	t.Parallel()
	dead := killed(t)
	for name, c := range map[string]struct {
		ours bool
		want error
	}{
		"with a dead run's snapshot": {true, nil},
		"without":                    {false, hypervisor.ErrTooManySnapshots},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv := hypervisortest.NewFake(t)
			vm := hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{make([]byte, 1<<20)}})
			for n := range hypervisor.MaxSnapshotDepth {
				spec := hypervisor.SnapshotSpec{Name: "mine"}
				if c.ours && n == 7 {
					spec = hypervisor.SnapshotSpec{Name: snapshotName(dead), Description: describeRun(t, dead)}
				}
				if _, err := hv.CreateSnapshot(t.Context(), vm.ID, spec); err != nil {
					t.Fatal(err)
				}
			}
			m := New(hv, openRepository(t), slog.New(slog.DiscardHandler), time.Now, "1")
			if _, err := m.Check(t.Context(), Request{VM: "web"}); !errors.Is(err, c.want) {
				t.Errorf("check: %v, want %v", err, c.want)
			}
			if _, err := m.Take(t.Context(), Request{VM: "web"}); !errors.Is(err, c.want) {
				t.Errorf("take: %v, want %v", err, c.want)
			}
		})
	}
}

// What can't be cleaned up is no reason not to take a backup.
func TestCleanUp_fails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "cancel"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			hv := hypervisortest.NewFake(t)
			vm := hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{make([]byte, 1<<20)}})
			dead := killed(t)
			if _, err := hv.CreateSnapshot(t.Context(), vm.ID, hypervisor.SnapshotSpec{
				Name: snapshotName(dead), Description: describeRun(t, dead),
			}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fault := hypervisortest.Fault{At: hypervisortest.BeforeRemoveSnapshot, Err: errBroken}
			if how == "cancel" {
				fault.Do, fault.Err = func(context.Context) { cancel() }, nil
			}
			hv.Fail(fault)
			m := New(hv, openRepository(t), slog.New(slog.DiscardHandler), time.Now, "1")
			result, err := m.Take(ctx, Request{VM: "web"})
			if how == "cancel" {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "can't be removed") {
				t.Errorf("warnings %q", result.Warnings)
			}
		})
	}
}

func FuzzTemporary(f *testing.F) {
	r := run.Start(time.Now(), time.Time{})
	r.End()
	description, err := snapshotDescription(r, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(snapshotName(r), description)
	f.Add(SnapshotPrefix, "{}")
	f.Add(snapshotName(r), "null")
	f.Fuzz(func(t *testing.T, name, description string) {
		r, _, ours := temporary(hypervisor.Snapshot{Name: name, Description: description})
		if ours && (!strings.HasSuffix(name, r.ID.String()) || !json.Valid([]byte(description))) {
			t.Errorf("%q, %q is taken for the snapshot of run %s", name, description, r.ID)
		}
	})
}

// failingWriter fails on demand and is a real writer otherwise.
type failingWriter struct {
	writer
	commit, diskErr error
	file            string // that diskErr is for
	closed          *int
}

func (w failingWriter) WriteDisk(ctx context.Context, file string, src disk.Source) (repository.DiskResult, error) {
	if w.diskErr != nil && file == w.file {
		return repository.DiskResult{}, w.diskErr
	}
	return w.writer.WriteDisk(ctx, file, src)
}

func (w failingWriter) Commit(ctx context.Context, m *repository.Manifest, files map[string][]byte) (repository.ID, error) {
	if w.commit != nil {
		return "", fmt.Errorf("commit: %w", w.commit)
	}
	return w.writer.Commit(ctx, m, files)
}

func (w failingWriter) Close(ctx context.Context) error {
	*w.closed++
	return errors.Join(w.writer.Close(ctx), ctx.Err())
}

func TestTake_repositoryFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		open   error
		writer failingWriter
		fails  int // so many times
		want   error
		opened int // points in time
	}{
		"open":                    {open: repository.ErrReadOnly, fails: 1, want: repository.ErrReadOnly},
		"first disk":              {writer: failingWriter{diskErr: repository.ErrFull, file: "disk-2000.raw"}, fails: 1, want: repository.ErrFull, opened: 1},
		"second disk":             {writer: failingWriter{diskErr: repository.ErrFull, file: "disk-2001.raw"}, fails: 1, want: repository.ErrFull, opened: 1},
		"commit":                  {writer: failingWriter{commit: repository.ErrFull}, fails: 1, want: repository.ErrFull, opened: 1},
		"data gone":               {writer: failingWriter{commit: repository.ErrIncomplete}, fails: 1, opened: 2},
		"data gone again":         {writer: failingWriter{commit: repository.ErrIncomplete}, fails: 2, want: repository.ErrIncomplete, opened: 2},
		"data gone while copying": {writer: failingWriter{diskErr: repository.ErrIncomplete, file: "disk-2001.raw"}, fails: 1, opened: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv := hypervisortest.NewFake(t)
			hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{make([]byte, 2<<20), []byte(strings.Repeat("x", 1<<20))}})
			repo := openRepository(t)
			m := New(hv, repo, slog.New(slog.DiscardHandler), time.Now, "1")
			opened, closed, fails := 0, 0, c.fails
			m.newWriter = func(ctx context.Context) (writer, error) {
				w, err := repo.NewWriter(ctx)
				f := failingWriter{writer: w, closed: &closed}
				if fails--; fails >= 0 {
					if c.open != nil {
						return nil, c.open
					}
					f = c.writer
					f.writer, f.closed = w, &closed
				}
				opened++
				return f, err
			}
			result, err := m.Take(t.Context(), Request{VM: "web"})
			if !errors.Is(err, c.want) || c.want == nil && (result == nil || len(result.Warnings) != 1) {
				t.Errorf("got %+v, %v, want error %v", result, err, c.want)
			}
			if n := hv.Seen(hypervisortest.BeforeOpenPointInTime); n != c.opened || opened != closed {
				t.Errorf("%d points in time, want %d; %d writers opened, %d closed", n, c.opened, opened, closed)
			}
			wantPoints := 0
			if c.want == nil {
				wantPoints = 1
			}
			if points, err := m.List(t.Context(), repository.Filter{}); err != nil || len(points) != wantPoints {
				t.Errorf("restore points %v, %v, want %d", points, err, wantPoints)
			}
			if left := hv.Leftovers(SnapshotPrefix); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := m.Take(t.Context(), Request{VM: "web"}); err != nil {
				t.Errorf("second attempt: %v", err)
			}
		})
	}
}

// Ctrl-C while the repository commits.
func TestTake_cancelledInCommit(t *testing.T) {
	t.Parallel()
	hv := hypervisortest.NewFake(t)
	hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{[]byte(strings.Repeat("x", 1<<20))}})
	repo := openRepository(t)
	m := New(hv, repo, slog.New(slog.DiscardHandler), time.Now, "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	newWriter, closed := m.newWriter, 0
	m.newWriter = func(ctx context.Context) (writer, error) {
		w, err := newWriter(ctx)
		return cancellingWriter{failingWriter{writer: w, closed: &closed}, cancel}, err
	}
	_, err := m.Take(ctx, Request{VM: "web"})
	points, listErr := repo.List(t.Context(), repository.Filter{})
	if listErr != nil {
		t.Fatal(listErr)
	}
	// Either outcome is fine, as long as both sides agree on it.
	if (err == nil) != (len(points) == 1) || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, but there are %d restore points", err, len(points))
	}
	if left := hv.Leftovers(SnapshotPrefix); len(left) > 0 || closed != 1 {
		t.Errorf("left behind: %v; closed %d times", left, closed)
	}
}

type cancellingWriter struct {
	failingWriter
	cancel context.CancelFunc
}

func (w cancellingWriter) Commit(ctx context.Context, m *repository.Manifest, files map[string][]byte) (repository.ID, error) {
	w.cancel()
	return w.failingWriter.Commit(ctx, m, files)
}
