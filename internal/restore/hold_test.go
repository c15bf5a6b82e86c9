package restore_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// pruning is a repository that somebody prunes as soon as a restore reads a disk.
type pruning struct {
	*repository.Repository
	mu     sync.Mutex
	pruned []error
}

func (p *pruning) OpenDisk(ctx context.Context, id repository.ID, d repository.Disk) (*repository.DiskReader, error) {
	err := p.DeleteUnused(ctx, id)
	p.mu.Lock()
	p.pruned = append(p.pruned, err)
	p.mu.Unlock()
	return p.Repository.OpenDisk(ctx, id, d)
}

// A restore point can't be pruned while a restore reads from it, and can be afterwards.
func TestRestore_holdsRestorePoint(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.hv.Lose(s.vm.ID)
	repo := &pruning{Repository: s.repo}
	result, err := restore.New(s.hv, repo, slog.New(slog.DiscardHandler), time.Now).
		Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil {
		t.Fatal(err)
	}
	s.wantDisks(t, result.VM.ID)
	if len(repo.pruned) == 0 {
		t.Error("no disk was read")
	}
	for _, err := range repo.pruned {
		if !errors.Is(err, repository.ErrInUse) {
			t.Errorf("pruning in the middle: %v", err)
		}
	}
	if err := s.repo.DeleteUnused(t.Context(), s.id); err != nil {
		t.Error(err)
	}
}
