package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// baselessWriter is a writer whose repository lost the base.
type baselessWriter struct{ writer }

func (baselessWriter) WriteChanges(context.Context, string, disk.Source, repository.Base) (repository.DiskResult, error) {
	return repository.DiskResult{}, fmt.Errorf("write: %w", repository.ErrIncomplete)
}

// forgetfulWriter is a writer whose repository loses data between the write and the commit.
type forgetfulWriter struct {
	writer
	times *int
}

func (w forgetfulWriter) Commit(ctx context.Context, m *repository.Manifest, files map[string][]byte) (repository.ID, error) {
	if *w.times--; *w.times >= 0 {
		return "", repository.ErrIncomplete
	}
	return w.writer.Commit(ctx, m, files)
}

// A backup whose base is lost is taken again, with all of the disks read.
func TestTake_baseLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wrap  func(w writer) writer
		times int // that commits fail
		fails bool
	}{
		"while it is read":         {wrap: func(w writer) writer { return baselessWriter{w} }},
		"before the commit":        {times: 1},
		"and more soon afterwards": {times: 2},
		"again and again":          {times: 3, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv := hypervisortest.NewFake(t)
			hv.AddVM(hypervisortest.VMSpec{Name: "web", Tracking: true, Disks: [][]byte{[]byte(strings.Repeat("x", 1<<20))}})
			repo := openRepository(t)
			m := New(hv, repo, slog.New(slog.DiscardHandler), time.Now, "1")
			if _, err := m.Take(t.Context(), Request{VM: "web"}); err != nil {
				t.Fatal(err)
			}
			newWriter, times := m.newWriter, c.times
			m.newWriter = func(ctx context.Context) (writer, error) {
				w, err := newWriter(ctx)
				if c.wrap != nil {
					return c.wrap(w), err
				}
				return forgetfulWriter{w, &times}, err
			}
			result, err := m.Take(t.Context(), Request{VM: "web"})
			switch {
			case c.fails:
				if !errors.Is(err, repository.ErrIncomplete) {
					t.Errorf("error %v", err)
				}
			case err != nil:
				t.Error(err)
			case result.Manifest.Incremental, len(result.Warnings) == 0, !strings.Contains(result.Warnings[0], "taken again"):
				t.Errorf("incremental %v, warnings %q", result.Manifest.Incremental, result.Warnings)
			}
			if left := hv.Leftovers(SnapshotPrefix); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
