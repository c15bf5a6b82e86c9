package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"
)

const (
	formatHash     = "BLAKE3-256-128"
	formatSplitter = "FIXED-1M"
)

// Open opens the repository that c names, or makes it if c.Create is set and there is none.
//
// Errors: ErrNoRepository (ErrNotMade where one could be made), ErrPassword, ErrDamaged, ErrUnreachable, ErrRefused,
// ErrWeakerLock, and ErrReadOnly or ErrFull where the repository had to be made. A repository that can't be written opens, for
// reading.
func Open(ctx context.Context, c Config) (*Repository, error) {
	name, err := c.name()
	if err != nil {
		return nil, fmt.Errorf("open repository %q: %w", c.Path, err)
	}
	r, err := c.open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", name, err)
	}
	if err := r.refresh(ctx); err != nil {
		_ = r.Close(context.WithoutCancel(ctx)) // the first error tells more
		return nil, err
	}
	return r, nil
}

// name is what messages call the repository: the absolute path of its directory, or its place.
func (c Config) name() (string, error) {
	if c.Place != nil {
		return c.Place.String(), nil
	}
	path, err := filepath.Abs(c.Path)
	if c.Path == "" || err != nil {
		return "", fmt.Errorf("%w: the path is not valid", ErrNoRepository)
	}
	return path, nil
}

func (c Config) open(ctx context.Context, name string) (*Repository, error) {
	if !c.Password.IsSet() {
		return nil, fmt.Errorf("%w: the password is not set", ErrPassword)
	}
	if err := c.Compression.validate(); err != nil {
		return nil, err
	}
	if _, ok := encryptions[c.Encryption]; !ok {
		return nil, fmt.Errorf("unknown encryption %q", c.Encryption)
	}
	r := &Repository{
		path: name, compression: c.Compression, idle: newIdleMeter(), working: make(chan struct{}, workers()), patience: lockPatience,
		commitTimeout: commitTimeout, lock: c.lockOf(),
	}
	var base blob.Storage
	var err error
	if c.Place == nil {
		r.directory, r.locker = name, fileLocker{name}
		base, err = openDirectory(ctx, name, c)
	} else {
		if r.remote, err = openPlace(ctx, c); err == nil {
			base = r.remote
		}
		r.locker = noLocks{}
	}
	if err != nil {
		return nil, err
	}
	if err := r.connect(ctx, base, c); err != nil {
		return nil, readError(err)
	}
	r.readFormat = func(ctx context.Context) (*format.Manager, error) {
		return format.NewManager(ctx, r.storage, "", 0, c.Password.Reveal(), time.Now)
	}
	err = r.checkFormat(c)
	if err == nil {
		err = r.checkLock(ctx)
	}
	if err != nil {
		_ = r.Close(context.WithoutCancel(ctx)) // the first error tells more
		return nil, err
	}
	return r, nil
}

// checkFormat refuses a repository that is encrypted in another way than is asked for.
func (r *Repository) checkFormat(c Config) error {
	got, want := r.rep.FormatManager().GetEncryptionAlgorithm(), encryptions[c.Encryption]
	if c.Encryption != "" && got != want {
		return fmt.Errorf("%w: it is encrypted with %s, and not with %s", ErrNoRepository, got, want)
	}
	return nil
}

// initialize writes what makes a storage a repository.
func initialize(ctx context.Context, base blob.Storage, c Config) error {
	lock, err := c.lockOf().blobs()
	if err != nil {
		return err
	}
	err = repo.Initialize(ctx, base, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:       formatHash,
			Encryption: encryptions[c.Encryption],
		},
		ObjectFormat:    format.ObjectFormat{Splitter: formatSplitter},
		RetentionMode:   lock.RetentionMode,
		RetentionPeriod: lock.RetentionPeriod,
	}, c.Password.Reveal())
	if err != nil && !errors.Is(err, repo.ErrAlreadyInitialized) {
		return fmt.Errorf("make it: %w", writeError(err))
	}
	return nil
}

// connect opens the repository in a storage.
func (r *Repository) connect(ctx context.Context, base blob.Storage, c Config) error {
	base, err := c.Limits.apply(base)
	if err != nil {
		return err
	}
	r.storage = registerStorage(base, r.remote != nil)
	dir, file, err := writeClientConfig(r.storage)
	if err != nil {
		r.storage.unregister()
		return errors.Join(fmt.Errorf("write the client's configuration: %w", err), base.Close(ctx))
	}
	r.workDir = dir
	opened, err := repo.Open(ctx, file, c.Password.Reveal(), &repo.Options{
		DisableRepositoryLog: true,
		DoNotWaitForUpgrade:  true,
		TimeNowFunc:          c.now,
		// Kopia's own handler ends the process. The operation during which it is called fails too.
		OnFatalError: func(error) {},
	})
	if err == nil {
		if direct, ok := opened.(repo.DirectRepository); ok {
			r.rep = direct
			return nil
		}
		err = errors.Join(errors.New("not a direct repository"), opened.Close(ctx))
	}
	r.storage.unregister()
	return errors.Join(err, os.RemoveAll(dir))
}

// ensureOwner names who may run maintenance, unless somebody has done so: Kopia refuses maintenance
// of a repository without an owner. It tells maintenance to renew the lock on objects, if there is one.
func (r *Repository) ensureOwner(ctx context.Context) error {
	if r.owned.Load() {
		return nil
	}
	if err := r.writeLock(ctx); err != nil {
		return err
	}
	r.manifests.RLock()
	params, err := maintenance.GetParams(ctx, r.rep)
	r.manifests.RUnlock()
	if err != nil {
		return readError(err)
	}
	owner, renew := clientUser+"@"+clientHost, r.lock != nil || params.ExtendObjectLocks
	if params.Owner != "" && (params.Owner != owner || params.ExtendObjectLocks == renew) {
		r.owned.Store(true)
		return nil
	}
	params.Owner, params.ExtendObjectLocks = owner, renew
	return writeError(repo.WriteSession(ctx, r.rep, writeOptions("set maintenance owner"),
		func(ctx context.Context, w repo.RepositoryWriter) error {
			return maintenance.SetParams(ctx, w, params)
		}))
}
