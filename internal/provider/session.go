package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// Outcomes of asking for a connection that was not configured.
var (
	errNoHypervisor           = errors.New("no hypervisor is configured")
	errNoRepositoryConfigured = errors.New("no repository is configured")
)

// An unknownError says that the provider's own configuration is not known yet, which is no error
// while a plan is made.
type unknownError struct{ argument string }

func (e *unknownError) Error() string {
	return fmt.Sprintf("the provider's argument %s is not known yet", e.argument)
}

// A session is one configured provider: its connections, made when something needs them. All
// resources and data sources of a run share it.
type session struct {
	settings settings
	backends backends
	version  string
	log      *slog.Logger
	now      func() time.Time

	hv   lazy[hypervisor.Hypervisor]
	repo lazy[*repository.Repository]

	invoked sync.WaitGroup // the actions under way

	mu    sync.Mutex
	owned []owned         // VMs that resources of this run restored and would delete
	lost  map[string]bool // restores in place and reverts whose VMs are gone, by restoreModel.existing
}

func newSession(s settings, b backends, version string) *session {
	return &session{
		settings: s, backends: b, version: version, log: slog.New(logHandler{}), now: time.Now,
		hv: newLazy[hypervisor.Hypervisor](), repo: newLazy[*repository.Repository](),
	}
}

// hypervisor connects to the configured hypervisor, once. Errors: errNoHypervisor, *unknownError, and
// those of connecting.
func (s *session) hypervisor(ctx context.Context) (hypervisor.Hypervisor, error) {
	switch {
	case s.settings.hypervisorUnknown != "":
		return nil, &unknownError{s.settings.hypervisorUnknown}
	case s.settings.vsphere == nil:
		return nil, errNoHypervisor
	}
	return s.hv.get(ctx, func(ctx context.Context) (hypervisor.Hypervisor, error) {
		return s.backends.hypervisor(ctx, s.settings, s.log)
	})
}

// repository opens the configured repository, once; create lets it be made where there is none.
// Errors: errNoRepositoryConfigured, *unknownError, and those of repository.Open.
func (s *session) repository(ctx context.Context, create bool) (*repository.Repository, error) {
	switch {
	case s.settings.repositoryUnknown != "":
		return nil, &unknownError{s.settings.repositoryUnknown}
	case s.settings.repository == nil:
		return nil, errNoRepositoryConfigured
	}
	return s.repo.get(ctx, func(ctx context.Context) (*repository.Repository, error) {
		began := s.now()
		repo, err := s.backends.repository(ctx, *s.settings.repository, create)
		if err == nil {
			s.log.InfoContext(ctx, "repository opened", "id", repo.ID(), "duration", progress.Since(began, s.now()))
		}
		return repo, err
	})
}

func (s *session) snapshots(ctx context.Context) (*snapshot.Manager, error) {
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return nil, err
	}
	return snapshot.New(hv, s.log, s.now), nil
}

// both connects to the hypervisor and opens the repository, at the same time: both take a while. Only when there is
// a connection the repository may be made, if create lets it.
func (s *session) both(ctx context.Context, create bool) (hypervisor.Hypervisor, *repository.Repository, error) {
	var repo *repository.Repository
	var repoErr error
	var opening sync.WaitGroup
	opening.Go(func() { repo, repoErr = s.repository(ctx, false) })
	hv, err := s.hypervisor(ctx)
	opening.Wait()
	if err != nil {
		return nil, nil, err
	}
	if create && errors.Is(repoErr, repository.ErrNoRepository) {
		repo, repoErr = s.repository(ctx, true)
	}
	return hv, repo, repoErr
}

// backups gives the manager of backups that can take them.
func (s *session) backups(ctx context.Context) (*backup.Manager, error) {
	hv, repo, err := s.both(ctx, true)
	if err != nil {
		return nil, err
	}
	return backup.New(hv, repo, s.log, s.now, s.version), nil
}

// backupChecks gives a manager for Check alone, which needs no repository.
func (s *session) backupChecks(ctx context.Context) (*backup.Manager, error) {
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return nil, err
	}
	return backup.New(hv, nil, s.log, s.now, s.version), nil
}

// keeper gives a manager of backups for what needs no hypervisor.
func (s *session) keeper(repo *repository.Repository) *backup.Manager {
	return backup.New(nil, repo, s.log, s.now, s.version)
}

func (s *session) restores(ctx context.Context) (*restore.Manager, error) {
	hv, repo, err := s.both(ctx, false)
	if err != nil {
		return nil, err
	}
	return restore.New(hv, repo, s.log, s.now), nil
}

// sessionOf takes the provider's data; nil while the configuration is only validated.
func sessionOf(data any, diags *diag.Diagnostics) *session {
	if data == nil {
		return nil
	}
	s, ok := data.(*session)
	if !ok {
		diags.AddError("Unexpected Provider Data", fmt.Sprintf("Got %T instead of %T. This is a bug in the provider.", data, s))
	}
	return s
}

// end closes what was opened: the repository first, whose files would stay, and then the connection,
// which a server ends by itself in time. It doesn't wait for a connection that is being made. Actions that were left
// while they clean up get most of the time for it.
func (s *session) end(ctx context.Context) {
	s.awaitActions(ctx)
	if repo, ok := s.repo.peek(); ok {
		if err := repo.Close(ctx); err != nil {
			s.log.WarnContext(ctx, "close repository", "error", err)
		}
	}
	if hv, ok := s.hv.peek(); ok {
		if err := hv.Close(ctx); err != nil {
			s.log.WarnContext(ctx, "log out", "error", err)
		}
	}
}

// awaitActions waits for the actions that are under way, no longer than two thirds of the time that is left.
func (s *session) awaitActions(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.invoked.Wait()
	}()
	if deadline, ok := ctx.Deadline(); ok {
		limited, cancel := context.WithTimeout(ctx, time.Until(deadline)*2/3)
		defer cancel()
		ctx = limited
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// sessions are those of one provider process.
type sessions struct {
	mu  sync.Mutex
	all []*session
}

func (s *sessions) add(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
}

// newest returns the session that was configured last; nil: there is none.
func (s *sessions) newest() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil
	}
	return s.all[len(s.all)-1]
}

func (s *sessions) end(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ending sync.WaitGroup // at the same time: they share one deadline
	for _, one := range s.all {
		ending.Go(func() { one.end(ctx) })
	}
	ending.Wait()
	s.all = nil
}

// lazy makes a value once, when it is first wanted. Others wait for the one who makes it; if that one
// is cancelled, the next tries. A failure is kept: two hundred resources that try a wrong
// password one after the other would lock the account.
type lazy[T any] struct {
	turn chan struct{} // holds one token while nobody is making the value

	value T
	err   error
	done  bool
}

func newLazy[T any]() lazy[T] {
	l := lazy[T]{turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

func (l *lazy[T]) get(ctx context.Context, open func(context.Context) (T, error)) (T, error) {
	select {
	case <-l.turn:
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	defer func() { l.turn <- struct{}{} }()
	if l.done {
		return l.value, l.err
	}
	value, err := open(ctx)
	if err == nil || ctx.Err() == nil && !mayPass(err) {
		l.value, l.err, l.done = value, err, true
	}
	return value, err
}

// mayPass reports whether opening again can help: a repository that isn't there may be made by the first backup of this
// very run, and a storage that can't be reached comes back. A login that was refused isn't repeated: accounts get locked.
func mayPass(err error) bool {
	return errors.Is(err, repository.ErrNoRepository) || errors.Is(err, repository.ErrUnreachable) || errors.Is(err, repository.ErrBusy)
}

// peek gives the value if it was made.
func (l *lazy[T]) peek() (T, bool) {
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
		return l.value, l.done && l.err == nil
	default:
		var none T
		return none, false
	}
}
