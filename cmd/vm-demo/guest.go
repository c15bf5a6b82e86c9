package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	systemCapacity = 384 << 20
	// dataCapacity is no multiple of anything but a sector, as disks sometimes are.
	dataCapacity = 200<<20 + 512
	pageSize     = 8 << 10
)

// An image is a raw disk image.
type image struct {
	path     string
	capacity int64
}

// guestFiles are the files in the guest's file system, as a directory.
type guestFiles struct {
	dir   string
	files []string // regular files, relative to dir, sorted
	bytes int64
}

// collectFiles takes Go's standard library, which every machine that built this has, and a program for
// the files of the guest.
func collectFiles(ctx context.Context, dir, program string) (*guestFiles, error) {
	root, err := output(command(ctx, "go", "env", "GOROOT"))
	if err != nil {
		return nil, err
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	g := &guestFiles{dir: dir}
	for _, part := range []string{"archive", "compress", "crypto", "debug", "encoding", "go", "internal", "math", "net", "os", "runtime", "syscall"} {
		err := filepath.WalkDir(filepath.Join(source, part), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil || !entry.Type().IsRegular() {
				return errors.Join(err, ctx.Err())
			}
			name, err := filepath.Rel(source, path)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return g.add(filepath.Join("srv", name), data)
		})
		if err != nil {
			return nil, err
		}
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := g.add(filepath.Join("usr", "bin", filepath.Base(program)), binary); err != nil {
		return nil, err
	}
	slices.Sort(g.files)
	return g, nil
}

func (g *guestFiles) add(name string, data []byte) error {
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	g.files = append(g.files, name)
	g.bytes += int64(len(data))
	return os.WriteFile(path, data, 0o644)
}

// spoil is what a bad day does to the files: every text below a directory is overwritten with noise. Texts
// have no holes, so everything keeps its place on the disk.
func (g *guestFiles) spoil(below string) (files int, bytes int64, err error) {
	noise := rand.NewChaCha8([32]byte([]byte("the noise that spoils every file")))
	for _, name := range g.files {
		if !strings.HasPrefix(filepath.ToSlash(name), below) || filepath.Ext(name) != ".go" {
			continue
		}
		path := filepath.Join(g.dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return files, bytes, err
		}
		data := make([]byte, info.Size())
		_, _ = noise.Read(data) // never fails
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return files, bytes, err
		}
		files, bytes = files+1, bytes+info.Size()
	}
	return files, bytes, nil
}

// makeFileSystem makes an ext4 image of the files: with mke2fs, as an installer would, or where there is
// none with the module in tools. Equal files give equal images but for what changed.
func (g *guestFiles) makeFileSystem(ctx context.Context, img image, tools string) (how string, err error) {
	if err := makeSparse(img); err != nil {
		return "", err
	}
	mke2fs := find("mke2fs", "mkfs.ext4")
	if mke2fs == "" {
		return "tar2ext4", g.convert(ctx, img, filepath.Join(tools, "ext4", "go.mod"))
	}
	const uuid = "7d1c0f4e-5a39-4a8b-9d55-6c8f2f1b0e11"
	cmd := command(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-L", "system", "-U", uuid, "-E", "hash_seed="+uuid+",root_owner=0:0",
		"-d", g.dir, img.path)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000")
	_, err = output(cmd)
	return "mke2fs", err
}

// convert makes the file system with a program that needs nothing but Go.
func (g *guestFiles) convert(ctx context.Context, img image, tool string) error {
	archive := img.path + ".tar"
	defer func() { _ = os.Remove(archive) }() // all of it is removed in the end
	file, err := os.Create(archive)
	if err != nil {
		return err
	}
	t := tar.NewWriter(file)
	if err := errors.Join(t.AddFS(os.DirFS(g.dir)), t.Close(), file.Close()); err != nil {
		return err
	}
	if _, err := output(command(ctx, "go", "tool", "-modfile="+tool, "tar2ext4", "-i", archive, "-o", img.path)); err != nil {
		return err
	}
	return os.Truncate(img.path, img.capacity)
}

// makeData makes a disk as a database leaves it: pages with a header and rows, some of them free.
func makeData(img image) error {
	if err := makeSparse(img); err != nil {
		return err
	}
	file, err := os.OpenFile(img.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	page := make([]byte, pageSize)
	for offset := int64(0); offset+pageSize <= img.capacity/2 && err == nil; offset += pageSize {
		if random.IntN(5) == 0 {
			continue // free, never written
		}
		clear(page)
		row := fmt.Appendf(page[:0], "PAGE%012d", offset/pageSize)
		for len(row) < pageSize-100 {
			row = fmt.Appendf(row, "|%d;customer-%06d;%d.%02d", len(row), random.IntN(1e6), random.IntN(1e4), random.IntN(100))
		}
		_, err = file.WriteAt(page, offset)
	}
	if err == nil { // and the very end
		_, err = file.WriteAt([]byte("the last bytes of the disk"), img.capacity-26)
	}
	return errors.Join(err, file.Close())
}

func makeSparse(img image) error {
	file, err := os.Create(img.path)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(img.capacity), file.Close())
}

// A change is a run of bytes of a disk that differ.
type change struct {
	offset int64
	data   []byte
}

// differences finds where two images of the same size differ, by blocks of 4 KiB; runs that are less
// than 64 KiB apart count as one.
func differences(before, after image) ([]change, error) {
	const block, near, window = 4 << 10, 64 << 10, 1 << 20
	a, err := os.Open(before.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Close() }() // only read
	b, err := os.Open(after.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	type run struct{ from, to int64 }
	var runs []run
	one, other := make([]byte, window), make([]byte, window)
	for offset := int64(0); offset < before.capacity; offset += window {
		n := min(window, before.capacity-offset)
		if _, err := a.ReadAt(one[:n], offset); err != nil {
			return nil, err
		}
		if _, err := b.ReadAt(other[:n], offset); err != nil {
			return nil, err
		}
		for at := int64(0); at < n; at += block {
			to := min(at+block, n)
			switch last := len(runs) - 1; {
			case bytes.Equal(one[at:to], other[at:to]):
			case last >= 0 && offset+at-runs[last].to < near:
				runs[last].to = offset + to
			default:
				runs = append(runs, run{offset + at, offset + to})
			}
		}
	}
	changes := make([]change, len(runs))
	for i, r := range runs {
		changes[i] = change{r.from, make([]byte, r.to-r.from)}
		if _, err := b.ReadAt(changes[i].data, r.from); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// checkFileSystem runs e2fsck, where it is installed, and says what it found.
func checkFileSystem(ctx context.Context, img image) (string, error) {
	e2fsck := find("e2fsck")
	if e2fsck == "" {
		return "skipped: e2fsck is not installed (package e2fsprogs)", nil
	}
	out, err := command(ctx, e2fsck, "-f", "-n", img.path).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("e2fsck found damage: %w\n%s", err, out)
	}
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	_, summary, _ := strings.Cut(lines[len(lines)-1], ": ")
	return "e2fsck -f: clean, " + summary, nil
}
