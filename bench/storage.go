package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// password protects all repositories of the benchmarks.
const password = "benchmark"

// A workshop is a directory with an image, for contenders that work on it without a virtual machine.
type workshop struct {
	b     *bench
	dir   string
	image string
	kopia string // the stock command
}

const (
	writing = "store an image in a repository"
	reading = "read an image from a repository"
)

// storage compares the repository alone with other ways to keep the same image.
func storage(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("storage")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	w := &workshop{b: b, dir: dir, image: filepath.Join(dir, "disk.raw")}
	if w.kopia, err = buildKopia(ctx, b.dir); err != nil {
		return err
	}
	if _, err := makeImage(ctx, w.image, b.capacity(), b.data); err != nil {
		return err
	}
	if err := readAll(w.image); err != nil { // nobody is the first to read it from the disk
		return err
	}
	writers := []contender{
		{"cp --sparse=never", w.copyImage("--sparse=never")},
		{"cp --sparse=auto", w.copyImage("--sparse=auto")},
		{"qemu-img convert", w.convert},
		{"repository, s2", w.store("s2-default")},
		{"repository, zstd-fastest", w.store("zstd-fastest")},
		{"kopia, same settings, s2", w.kopiaStore(true)},
		{"kopia, its defaults", w.kopiaStore(false)},
		{"restic", w.restic},
		{"borg", w.borg},
	}
	if err := b.compete(ctx, writing, writers...); err != nil {
		return err
	}
	b.report.faster(writing, "repository, s2", "cp --sparse=never", 1)
	b.report.faster(writing, "repository, s2", "kopia, same settings, s2", 1.6)
	b.report.faster(writing, "repository, s2", "kopia, its defaults", 2.4)
	b.report.faster(writing, "repository, zstd-fastest", "restic", 2.4)
	b.report.faster(writing, "repository, zstd-fastest", "borg", 1.6)
	return w.readBack(ctx)
}

// readBack compares restores of what is in a repository.
func (w *workshop) readBack(ctx context.Context) error {
	ours, theirs := filepath.Join(w.dir, "ours"), filepath.Join(w.dir, "theirs")
	if _, err := w.storeIn(ctx, ours, "zstd-fastest"); err != nil {
		return err
	}
	id, err := w.kopiaFill(ctx, theirs, true)
	if err != nil {
		return err
	}
	restored := filepath.Join(w.dir, "restored")
	err = w.b.compete(ctx, reading,
		contender{"repository", func(ctx context.Context) (outcome, error) {
			u, err := w.self(ctx, asFetch, ours, restored)
			return outcome{Usage: u}, errors.Join(err, same(w.image, restored), os.RemoveAll(restored))
		}},
		contender{"kopia", func(ctx context.Context) (outcome, error) {
			u, err := w.run(ctx, w.kopiaEnv(theirs), w.kopia, "snapshot", "restore", id, restored)
			return outcome{Usage: u}, errors.Join(err, same(w.image, restored), os.RemoveAll(restored))
		}},
	)
	w.b.report.faster(reading, "repository", "kopia", 1.5)
	return errors.Join(err, os.RemoveAll(ours), os.RemoveAll(theirs))
}

// run runs a program in a process whose costs are booked.
func (w *workshop) run(ctx context.Context, env []string, name string, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	books := filepath.Join(w.dir, "usage")
	if err := os.RemoveAll(books); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(append(os.Environ(), env...), runProgram+"="+name, usageFile+"="+books)
	u, err := alone(cmd, books, time.Now())
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return u, nil
}

// self has this program do something in a process of its own.
func (w *workshop) self(ctx context.Context, what string, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	return w.run(ctx, append(w.b.profiling(what), what+"=1"), self, args...)
}

// into has a contender write to a place that is measured and removed afterwards. What it writes is on the
// disk when it ends, as it is with those that see to it themselves.
func (w *workshop) into(write func(ctx context.Context, target string) (usage, error)) func(context.Context) (outcome, error) {
	return func(ctx context.Context) (o outcome, err error) {
		target := filepath.Join(w.dir, "target")
		defer func() { err = errors.Join(err, os.RemoveAll(target)) }()
		if o.Usage, err = write(ctx, target); err != nil {
			return outcome{}, err
		}
		o.Stored = used(target)
		return o, o.Usage.settle(target)
	}
}

func (w *workshop) copyImage(option string) func(context.Context) (outcome, error) {
	return w.into(func(ctx context.Context, target string) (usage, error) {
		return w.run(ctx, nil, "/bin/cp", option, w.image, target)
	})
}

func (w *workshop) convert(ctx context.Context) (outcome, error) {
	name, err := program("qemu-img", "qemu-utils")
	if err != nil {
		return outcome{}, err
	}
	return w.into(func(ctx context.Context, target string) (usage, error) {
		return w.run(ctx, nil, name, "convert", "-O", "qcow2", "-c", w.image, target)
	})(ctx)
}

func (w *workshop) store(compression string) func(context.Context) (outcome, error) {
	return w.into(func(ctx context.Context, target string) (usage, error) {
		return w.storeIn(ctx, target, compression)
	})
}

// storeIn makes a repository and measures how the image is stored in it: to make one is not measured of the
// others either.
func (w *workshop) storeIn(ctx context.Context, target, compression string) (usage, error) {
	if _, err := w.self(ctx, asCreate, target); err != nil {
		return usage{}, err
	}
	return w.self(ctx, asStore, w.image, target, compression)
}

func (w *workshop) restic(ctx context.Context) (outcome, error) {
	name, err := program("restic", "restic")
	if err != nil {
		return outcome{}, err
	}
	return w.into(func(ctx context.Context, target string) (usage, error) {
		env := []string{"RESTIC_PASSWORD=" + password, "RESTIC_REPOSITORY=" + target, "XDG_CACHE_HOME=" + target + "/cache"}
		if _, err := w.run(ctx, env, name, "init", "-q"); err != nil {
			return usage{}, err
		}
		return w.run(ctx, env, name, "backup", "-q", w.image)
	})(ctx)
}

func (w *workshop) borg(ctx context.Context) (outcome, error) {
	name, err := program("borg", "borgbackup")
	if err != nil {
		return outcome{}, err
	}
	return w.into(func(ctx context.Context, target string) (usage, error) {
		env := []string{"BORG_PASSPHRASE=" + password, "BORG_REPO=" + target, "BORG_BASE_DIR=" + w.dir + "/borg"}
		if _, err := w.run(ctx, env, name, "init", "-e", "repokey-blake2"); err != nil {
			return usage{}, err
		}
		return w.run(ctx, env, name, "create", "::image", w.image)
	})(ctx)
}
