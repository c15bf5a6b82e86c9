package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// These make this program make a repository of the provider's kind, store an image in it, or fetch one from it.
const (
	asCreate = "BENCH_AS_CREATE"
	asStore  = "BENCH_AS_STORE"
	asFetch  = "BENCH_AS_FETCH"
)

// roles are what this program can be besides the benchmark, by the variable that says so.
var roles = map[string]func(ctx context.Context, args []string) error{
	asCreate:   func(ctx context.Context, args []string) error { return createRepository(ctx, args[0]) },
	asStore:    func(ctx context.Context, args []string) error { return storeImage(ctx, args[0], args[1], args[2]) },
	asMultiply: func(ctx context.Context, args []string) error { return multiply(ctx, args[0]) },
	asList:     func(ctx context.Context, args []string) error { return listAll(ctx, args[0]) },
	asNewest:   func(ctx context.Context, args []string) error { return newest(ctx, args[0]) },
	asDelete:   func(ctx context.Context, args []string) error { return deleteOne(ctx, args[0]) },
	asFetch:    func(ctx context.Context, args []string) error { return fetchImage(ctx, args[0], args[1]) },
}

// An imageSource is a raw image of which the parts with data are known.
type imageSource struct {
	path     string
	capacity int64
}

func (s *imageSource) Capacity() int64 { return s.capacity }

// Extents implements disk.Source.
func (s *imageSource) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	buffer := make([]byte, 4<<20)
	for offset := int64(0); ; {
		data, err := unix.Seek(int(file.Fd()), offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if offset, err = unix.Seek(int(file.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		for data < offset {
			n := min(int64(len(buffer))-data%int64(len(buffer)), offset-data)
			if _, err := file.ReadAt(buffer[:n], data); err != nil {
				return err
			}
			if err := yield(data, buffer[:n]); err != nil {
				return err
			}
			data += n
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

const diskFile = "disk.raw"

func createRepository(ctx context.Context, path string) error {
	r, err := repository.Open(ctx, repository.Config{Path: path, Password: secret.New(password), Create: true})
	if err != nil {
		return err
	}
	return r.Close(ctx)
}

func storeImage(ctx context.Context, image, path, compression string) (err error) {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	r, err := repository.Open(ctx, repository.Config{
		Path: path, Password: secret.New(password), Compression: repository.Compression(compression),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	result, err := w.WriteDisk(ctx, diskFile, &imageSource{image, info.Size()})
	if err != nil {
		return err
	}
	_, err = w.Commit(ctx, &repository.Manifest{
		SchemaVersion: repository.SchemaVersion, CreatedAt: time.Now(), Consistency: "crash",
		VM: repository.VM{Name: "image", Path: "/image", Server: "none"},
		Disks: []repository.Disk{{
			Key: "disk", File: diskFile, Capacity: info.Size(), Digest: result.Digest, ChunkSize: result.ChunkSize,
			DataBytes: result.DataBytes, Hashes: result.Hashes,
		}},
		Config: repository.ConfigFile{Format: "none", File: "config"},
	}, map[string][]byte{"config": []byte("none")})
	return err
}

func fetchImage(ctx context.Context, path, target string) (err error) {
	r, err := repository.Open(ctx, repository.Config{Path: path, Password: secret.New(password)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	points, err := r.List(ctx, repository.Filter{})
	if err != nil {
		return err
	}
	if len(points) != 1 {
		return fmt.Errorf("%d restore points", len(points))
	}
	m, err := r.Get(ctx, points[0].ID)
	if err != nil {
		return err
	}
	reader, err := r.OpenDisk(ctx, points[0].ID, m.Disks[0])
	if err != nil {
		return err
	}
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	err = file.Truncate(reader.Capacity())
	if err == nil {
		err = reader.Extents(ctx, func(offset int64, data []byte) error {
			_, err := file.WriteAt(data, offset)
			return err
		})
	}
	return errors.Join(err, file.Close())
}

// same compares two files.
func same(a, b string) error {
	left, err := os.Open(a)
	if err != nil {
		return err
	}
	defer func() { _ = left.Close() }() // only read
	right, err := os.Open(b)
	if err != nil {
		return err
	}
	defer func() { _ = right.Close() }() // only read
	one, other := make([]byte, 4<<20), make([]byte, 4<<20)
	for {
		n, err := io.ReadFull(left, one)
		m, otherErr := io.ReadFull(right, other)
		if n != m || string(one[:n]) != string(other[:m]) {
			return fmt.Errorf("%s and %s differ", a, b)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err := errors.Join(err, otherErr); err != nil {
			return err
		}
	}
}
