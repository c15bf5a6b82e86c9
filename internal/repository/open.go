package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"
)

const (
	formatFile = "kopia.repository.f" // there is a repository where this file is
	configFile = "kopia.blobcfg.f"    // written just before it
	lockFile   = ".terraform-vm.lock" // held while a repository is made
	lockPoll   = 20 * time.Millisecond

	formatSplitter = "FIXED-1M"
)

// Open opens the repository at c.Path, or makes it if c.Create is set and there is none.
//
// Errors: ErrNoRepository (ErrNotMade where one could be made), ErrPassword, ErrDamaged, and ErrReadOnly or ErrFull where the repository
// had to be made. A repository that can't be written opens, for reading.
func Open(ctx context.Context, c Config) (*Repository, error) {
	path, err := filepath.Abs(c.Path)
	if c.Path == "" || err != nil {
		return nil, fmt.Errorf("open repository %q: %w: the path is not valid", c.Path, ErrNoRepository)
	}
	if !c.Password.IsSet() {
		return nil, fmt.Errorf("open repository %s: %w: the password is not set", path, ErrPassword)
	}
	compression, err := c.Compression.name()
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, err)
	}
	if err := prepare(ctx, path, c); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, err)
	}
	r, err := connect(ctx, path, c.Password.Reveal())
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, readError(err))
	}
	r.compression = compression
	if err := r.refresh(ctx); err != nil {
		_ = r.Close(context.WithoutCancel(ctx)) // the first error tells more
		return nil, err
	}
	return r, nil
}

// prepare sees to it that there is a repository at path.
func prepare(ctx context.Context, path string, c Config) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.Create, errors.Is(err, syscall.ENOTDIR):
		return missing(path)
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDirectory(path); err != nil {
			return err
		}
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%w: it is not a directory", ErrNoRepository)
	}
	found, err := isRepository(path)
	switch {
	case err != nil || found:
		return err
	case !c.Create:
		if _, err := leftovers(path); err != nil {
			return err
		}
		return fmt.Errorf("%w: the directory has no file %s", ErrNotMade, formatFile)
	}
	return initialize(ctx, path, c.Password.Reveal())
}

// missing says whether a directory that doesn't exist could be made.
func missing(path string) error {
	parent := filepath.Dir(path)
	switch info, err := os.Stat(parent); {
	case err != nil:
		return fmt.Errorf("%w: its parent directory %s doesn't exist", ErrNoRepository, parent)
	case !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory", ErrNoRepository, parent)
	}
	return fmt.Errorf("%w: the directory doesn't exist", ErrNotMade)
}

func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist): // another process was faster
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: its parent directory %s doesn't exist", ErrNoRepository, filepath.Dir(path))
	default:
		return writeError(err)
	}
}

func isRepository(path string) (bool, error) {
	_, err := os.Stat(filepath.Join(path, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// initialize makes a repository in an existing directory. Kopia looks for the format blob first and
// writes it later: of two processes that do so at once, the first would write packs with a key that
// the second then overwrites. The lock prevents it. It goes away with its holder, and its file is
// removed under the lock: who waited for it finds the repository made.
func initialize(ctx context.Context, path, password string) error {
	lock := flock.New(filepath.Join(path, lockFile))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return fmt.Errorf("lock: %w", writeError(err))
	}
	defer func() {
		_ = os.Remove(lock.Path()) // an empty file that stays does no harm
		_ = lock.Unlock()          // as closing does when the process ends
	}()
	if found, err := isRepository(path); err != nil || found {
		return err
	}
	if err := clearLeftovers(path); err != nil {
		return err
	}
	base, err := filesystem.New(ctx, &filesystem.Options{Path: path}, true)
	if err != nil {
		return writeError(err)
	}
	err = repo.Initialize(ctx, base, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:       "BLAKE3-256-128",
			Encryption: "AES256-GCM-HMAC-SHA256",
		},
		ObjectFormat: format.ObjectFormat{Splitter: formatSplitter},
	}, password)
	if err != nil && !errors.Is(err, repo.ErrAlreadyInitialized) {
		return fmt.Errorf("make it: %w", writeError(err))
	}
	return nil
}

// clearLeftovers removes what an initialization that was killed left behind.
func clearLeftovers(path string) error {
	names, err := leftovers(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(path, name)); err != nil {
			return writeError(err)
		}
	}
	return nil
}

// leftovers names what an initialization that was killed left behind in a directory, and refuses one that
// somebody uses for something else.
func leftovers(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == lockFile, name == ".shards", name == "lost+found":
		case name == configFile, strings.HasPrefix(name, ".shards.tmp."),
			strings.HasPrefix(name, configFile+".tmp."), strings.HasPrefix(name, formatFile+".tmp."):
			names = append(names, name)
		default:
			return nil, fmt.Errorf("%w: the directory is not empty (it has %q) and has no file %s",
				ErrNoRepository, name, formatFile)
		}
	}
	return names, nil
}

// connect opens an existing repository.
func connect(ctx context.Context, path, password string) (*Repository, error) {
	base, err := filesystem.New(ctx, &filesystem.Options{Path: path}, false)
	if err != nil {
		return nil, err
	}
	s := registerStorage(base)
	dir, file, err := writeClientConfig(s)
	if err != nil {
		s.unregister()
		return nil, fmt.Errorf("write the client's configuration: %w", err)
	}
	r := &Repository{
		path: path, workDir: dir, storage: s, working: make(chan struct{}, workers()),
		locker: fileLocker{path}, patience: lockPatience,
	}
	opened, err := repo.Open(ctx, file, password, &repo.Options{
		DisableRepositoryLog: true,
		DoNotWaitForUpgrade:  true,
		// Kopia's own handler ends the process. The operation during which it is called fails too.
		OnFatalError: func(error) {},
	})
	if err == nil {
		if direct, ok := opened.(repo.DirectRepository); ok {
			r.rep = direct
			return r, nil
		}
		err = errors.Join(errors.New("not a direct repository"), opened.Close(ctx))
	}
	s.unregister()
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// ensureOwner names who may run maintenance, unless somebody has done so: Kopia refuses maintenance
// of a repository without an owner.
func (r *Repository) ensureOwner(ctx context.Context) error {
	if r.owned.Load() {
		return nil
	}
	r.manifests.RLock()
	params, err := maintenance.GetParams(ctx, r.rep)
	r.manifests.RUnlock()
	if err != nil {
		return readError(err)
	}
	if params.Owner != "" {
		r.owned.Store(true)
		return nil
	}
	params.Owner = clientUser + "@" + clientHost
	return writeError(repo.WriteSession(ctx, r.rep, writeOptions("set maintenance owner"),
		func(ctx context.Context, w repo.RepositoryWriter) error {
			return maintenance.SetParams(ctx, w, params)
		}))
}
