package repository

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"github.com/pkg/sftp"
)

// sftpFiles are the files of an SSH server. A connection that is lost is made again with the next request.
type sftpFiles struct {
	place      *SFTP
	connecting chan struct{}   // has a token while somebody uses current
	current    *sftpConnection // nil: none yet
}

// An sftpConnection is a session of SFTP, and what it goes through.
type sftpConnection struct {
	*sftp.Client
	network io.Closer
	lost    atomic.Bool
}

func newSFTPConnection(c *sftp.Client, network io.Closer) *sftpConnection {
	s := &sftpConnection{Client: c, network: network}
	go func() {
		_ = c.Wait() // whatever ended it
		s.lose()
	}()
	return s
}

// lose ends a connection without waiting for the server.
func (c *sftpConnection) lose() {
	c.lost.Store(true)
	_ = c.network.Close() // it is of no use any more
}

// sftpPacket is what every server takes, in bytes, and sftpRequests how many are under way for a file.
const (
	sftpPacket   = 32 << 10
	sftpRequests = 64
)

// sftpOptions are those of sessions.
var sftpOptions = []sftp.ClientOption{
	sftp.MaxPacket(sftpPacket), sftp.MaxConcurrentRequestsPerFile(sftpRequests),
	sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true),
}

func newSFTPFiles(p *SFTP, c *sftpConnection) *sftpFiles {
	return &sftpFiles{place: p, connecting: make(chan struct{}, 1), current: c}
}

// connection is the one in use, or a new one.
func (s *sftpFiles) connection(ctx context.Context) (*sftpConnection, error) {
	select {
	case s.connecting <- struct{}{}:
		defer func() { <-s.connecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.current != nil && !s.current.lost.Load() {
		return s.current, nil
	}
	c, err := s.place.dial(ctx)
	if err == nil {
		s.current = c
	}
	return c, err
}

// using has something done on a connection. One that gives no answer, or none that it should, is not used again.
func using[T any](ctx context.Context, s *sftpFiles, do func(c *sftpConnection) (T, error)) (T, error) {
	c, err := s.connection(ctx)
	if err != nil {
		var none T
		return none, err
	}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			c.lose()
		}
	})
	defer stop()
	value, err := do(c)
	var answer *sftp.StatusError
	if err != nil && !errors.As(err, &answer) && !isOutcome(err) && !errors.Is(err, blob.ErrInvalidRange) &&
		!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		c.lose()
	}
	return value, err
}

func (s *sftpFiles) read(ctx context.Context, name string, offset, length int64, out blob.OutputBuffer) error {
	_, err := using(ctx, s, func(c *sftpConnection) (struct{}, error) {
		return struct{}{}, c.read(name, offset, length, out)
	})
	return err
}

func (c *sftpConnection) read(name string, offset, length int64, out blob.OutputBuffer) error {
	f, err := c.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	out.Reset()
	if length < 0 {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		offset, length = 0, info.Size()
	}
	b := make([]byte, length)
	switch _, err = f.ReadAt(b, offset); {
	case errors.Is(err, io.EOF):
		return blob.ErrInvalidRange
	case err != nil:
		return err
	}
	_, err = out.Write(b)
	return err
}

func (s *sftpFiles) stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return using(ctx, s, func(c *sftpConnection) (fs.FileInfo, error) { return c.Stat(name) })
}

func (s *sftpFiles) list(ctx context.Context, directory string) ([]fs.FileInfo, error) {
	return using(ctx, s, func(c *sftpConnection) ([]fs.FileInfo, error) { return c.ReadDirContext(ctx, directory) })
}

func (s *sftpFiles) remove(ctx context.Context, name string) error {
	_, err := using(ctx, s, func(c *sftpConnection) (struct{}, error) { return struct{}{}, c.Remove(name) })
	return err
}

func (s *sftpFiles) write(ctx context.Context, name string, content []byte) error {
	_, err := using(ctx, s, func(c *sftpConnection) (struct{}, error) {
		return struct{}{}, c.write(name, content, s.place.Path)
	})
	return err
}

func (c *sftpConnection) write(name string, content []byte, root string) error {
	var suffix [8]byte
	_, _ = rand.Read(suffix[:]) // never fails
	temporary := name + ".tmp." + hex.EncodeToString(suffix[:])
	err := c.create(temporary, content)
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.MkdirAll(path.Dir(name)); err == nil {
			err = c.create(temporary, content)
		}
	}
	if err == nil {
		err = c.PosixRename(temporary, name)
	}
	if err != nil {
		_ = c.Remove(temporary) // maintenance removes one that stays
		if answer := new(sftp.StatusError); errors.As(err, &answer) && answer.FxCode() == sftp.ErrSSHFxOpUnsupported {
			return fmt.Errorf("%w: it can't replace a file by another (posix-rename@openssh.com)", ErrRefused)
		}
		if c.isFull(err, root, len(content)) {
			return fmt.Errorf("%w: the disk of the server is full", ErrFull)
		}
	}
	return err
}

// create writes a file that isn't there. It is on the server's disk afterwards, where the server can tell (OpenSSH).
func (c *sftpConnection) create(name string, content []byte) error {
	f, err := c.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0) // ReadFrom (v1.13.10) says nothing of an error with the last packet
	if _, ok := c.HasExtension("fsync@openssh.com"); ok && err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// isFull reports whether a write failed for lack of space, for which SFTP has no status of its own.
func (c *sftpConnection) isFull(err error, root string, size int) bool {
	var answer *sftp.StatusError
	if !errors.As(err, &answer) || answer.FxCode() != sftp.ErrSSHFxFailure {
		return false
	}
	space, err := c.StatVFS(root)
	return err == nil && (space.Bavail*space.Frsize < uint64(size) || space.Files > 0 && space.Favail == 0)
}

func (s *sftpFiles) close() error {
	s.connecting <- struct{}{}
	defer func() { <-s.connecting }()
	if s.current != nil {
		s.current.lose()
	}
	return nil
}

// sftpLeftover is as Kopia's client (v0.23.1) names them, too.
var sftpLeftover = regexp.MustCompile(`^(.+)\.tmp\.[0-9a-f]{16}$`)

func (s *sftpFiles) leftover() *regexp.Regexp { return sftpLeftover }
