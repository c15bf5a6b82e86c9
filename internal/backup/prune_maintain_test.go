package backup_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// maintained is a repository with an answer to Maintain.
type maintained struct {
	*repository.Repository
	result repository.Maintenance
	err    error
}

func (m maintained) Maintain(context.Context, repository.MaintainOptions) (*repository.Maintenance, error) {
	return &m.result, m.err
}

// What people are told of maintenance.
func TestMaintain(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	busy := fmt.Errorf("maintain: %w", repository.ErrBusy)
	for name, test := range map[string]struct {
		result repository.Maintenance
		err    error
		want   string // in the one warning; empty: none
	}{
		"done":         {repository.Maintenance{Ran: true}, nil, ""},
		"not due":      {repository.Maintenance{Due: time.Now().Add(day)}, nil, ""},
		"busy":         {repository.Maintenance{Due: time.Now().Add(-day)}, busy, ""},
		"never before": {repository.Maintenance{}, busy, ""},
		"always busy":  {repository.Maintenance{Due: time.Now().Add(-8 * day)}, busy, "has been due since"},
		"not ours":     {repository.Maintenance{}, fmt.Errorf("maintain: %w", repository.ErrNotOwner), ""},
		"failed":       {repository.Maintenance{}, errBroken, errBroken.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			warnings := newManager(nil, maintained{result: test.result, err: test.err}).Maintain(t.Context())
			if got := strings.Join(warnings, "\n"); len(warnings) > 1 || (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("warnings %q, want %q", got, test.want)
			}
		})
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if warnings := newManager(nil, maintained{err: context.Canceled}).Maintain(cancelled); len(warnings) != 0 {
		t.Errorf("cancelled: %v", warnings)
	}
}

// The real thing, after a backup.
func TestMaintain_afterBackup(t *testing.T) {
	t.Parallel()
	hv, _ := newSmallVM(t)
	repo := openRepository(t)
	m := newManager(hv, repo)
	mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1)})
	if warnings := m.Maintain(t.Context()); len(warnings) != 0 {
		t.Errorf("warnings %v", warnings)
	}
	if result, err := repo.Maintain(t.Context(), repository.MaintainOptions{}); err != nil || result.Ran || result.Due.Before(time.Now()) {
		t.Errorf("it had not run: %+v, %v", result, err)
	}
	mustTake(t, m, backup.Request{VM: "web", Retention: keepLast(1)})
}
