package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeImage makes a raw disk image with an ext4 file system that is full of the files of this machine:
// sources, libraries, programs and archives. It returns how many bytes the files take: data at most, less
// where the machine hasn't so many.
func makeImage(ctx context.Context, path string, capacity, data int64) (int64, error) {
	mke2fs, err := program("mke2fs", "e2fsprogs")
	if err != nil {
		return 0, err
	}
	staged := path + ".files"
	if err := os.Mkdir(staged, 0o700); err != nil {
		return 0, err
	}
	total, err := stage(ctx, staged, data)
	if err == nil {
		var file *os.File
		if file, err = os.Create(path); err == nil {
			err = errors.Join(file.Truncate(capacity), file.Close())
		}
	}
	if err == nil {
		// Without lazily initialised tables and without a large journal: what is on the disk are files.
		_, err = output(exec.CommandContext(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-i", "4096", "-J", "size=16",
			"-E", "lazy_itable_init=1,nodiscard", "-d", staged, path))
	}
	return total, errors.Join(err, os.RemoveAll(staged))
}

// stage links real files into a directory until there are so many bytes of them.
func stage(ctx context.Context, dir string, data int64) (int64, error) {
	var total int64
	errEnough := errors.New("enough")
	for n, root := range sourceDirectories(ctx) {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil //nolint:nilerr // what can't be read is left out
			}
			info, err := entry.Info()
			if err != nil || info.Size() == 0 || info.Size() > data-total {
				return nil //nolint:nilerr // gone, or too large
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			target := filepath.Join(dir, fmt.Sprint(n), rel)
			if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
				return err
			}
			if err := link(path, target); err != nil {
				return nil //nolint:nilerr // it may not be read
			}
			if total += (info.Size() + 4095) &^ 4095; total > data-data/256 {
				return errEnough
			}
			return ctx.Err()
		})
		if errors.Is(err, errEnough) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// sourceDirectories are those of which the files are taken, in this order.
func sourceDirectories(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return []string{"/usr"}
	}
	return append(strings.Fields(string(out)), "/usr")
}

// link makes a file appear under another name: as a link, or on another file system as a copy.
func link(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// program finds a program, or says which package has it.
func program(name, pkg string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (package %s)", name, pkg)
}

// output runs a command and returns what it prints; the error has what it complains about.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, stderr.String())
	}
	return stdout.String(), nil
}
