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
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
)

const (
	formatFile = "kopia.repository.f" // there is a repository where this file is
	configFile = "kopia.blobcfg.f"    // written just before it
	lockFile   = ".terraform-vm.lock" // held while a repository is made
	lockPoll   = 20 * time.Millisecond
)

// openDirectory sees to it that there is a repository at path, and opens its storage.
func openDirectory(ctx context.Context, path string, c Config) (blob.Storage, error) {
	if err := prepareDirectory(ctx, path, c); err != nil {
		return nil, err
	}
	return filesystem.New(ctx, &filesystem.Options{Path: path}, false)
}

func prepareDirectory(ctx context.Context, path string, c Config) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && c.Create {
		if err := refuseBelow(path); err != nil {
			return err
		}
	}
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
	if err := refuseBelow(path); err != nil {
		return err
	}
	return initializeDirectory(ctx, path, c)
}

// refuseBelow refuses a directory below that of another repository, for the reason of refuseWithin.
func refuseBelow(path string) error {
	for at := path; filepath.Dir(at) != at; at = filepath.Dir(at) {
		if found, err := isRepository(filepath.Dir(at)); err == nil && found {
			return within(filepath.Dir(at))
		}
	}
	return nil
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

// initializeDirectory makes a repository in an existing directory. Kopia looks for the format blob first and
// writes it later: of two processes that do so at once, the first would write packs with a key that
// the second then overwrites. The lock prevents it. It goes away with its holder, and its file is
// removed under the lock: who waited for it finds the repository made.
func initializeDirectory(ctx context.Context, path string, c Config) error {
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
	return initialize(ctx, base, c)
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
