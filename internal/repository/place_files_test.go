package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopiasftp "github.com/kopia/kopia/repo/blob/sftp"
	kopiawebdav "github.com/kopia/kopia/repo/blob/webdav"
	"github.com/pkg/sftp"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// onFiles runs a test on every kind of server that keeps files, with the directory that it serves.
func onFiles(t *testing.T, test func(t *testing.T, connect server, dir string)) {
	t.Helper()
	t.Run("sftp", func(t *testing.T) {
		t.Parallel()
		s := storagetest.NewSSHD(t)
		test(t, onSSHD(s), s.Dir)
	})
	t.Run("webdav", func(t *testing.T) {
		t.Parallel()
		s := storagetest.NewWebDAV(t)
		test(t, onWebDAV(s), s.Dir)
	})
}

// makeTree makes files with their directories, as old as they are said to be.
func makeTree(t *testing.T, dir string, files map[string]time.Duration) {
	t.Helper()
	for name, age := range files {
		name := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil {
			err = os.WriteFile(name, []byte("12345"), 0o600)
		}
		if err == nil {
			err = os.Chtimes(name, time.Now().Add(-age), time.Now().Add(-age))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree is the content of a directory by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[name] = "a directory"
			return err
		}
		b, err := os.ReadFile(name)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPlaceFiles_plan opens what isn't a repository without leave to make one. Nothing is changed.
func TestPlaceFiles_plan(t *testing.T) {
	t.Parallel()
	onFiles(t, func(t *testing.T, connect server, dir string) {
		makeTree(t, dir, map[string]time.Duration{"home/documents/a/b.f": 0, "killed/" + configFile: 0, "killed/ter/raf/orm-vm.make-1.f": 2 * makeClaimAge})
		if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		for name, want := range map[string]error{"empty": ErrNotMade, "killed": ErrNotMade, "home": ErrNoRepository, "missing/a": ErrNoRepository} {
			c, _ := connect(t, name)
			c.Create = false
			_, err := Open(t.Context(), c)
			if !errors.Is(err, want) || name == "home" && errors.Is(err, ErrNotMade) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
		if after := tree(t, dir); !maps.Equal(before, after) {
			t.Errorf("there is %v\nbefore there was %v", after, before)
		}
		c, _ := connect(t, "home")
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrNoRepository) || !strings.Contains(err.Error(), "documents") {
			t.Errorf("a directory in use: %v", err)
		}
		c, _ = connect(t, "killed")
		open(t, c)
	})
}

// A listedServer keeps which directories were read.
type listedServer struct {
	fileServer
	listed []string
}

func (s *listedServer) list(ctx context.Context, directory string) ([]fs.FileInfo, error) {
	s.listed = append(s.listed, directory)
	return s.fileServer.list(ctx, directory)
}

// TestPlaceFiles_shallow looks at no more than a directory itself to find that it is no repository.
func TestPlaceFiles_shallow(t *testing.T) {
	t.Parallel()
	onFiles(t, func(t *testing.T, connect server, dir string) {
		makeTree(t, dir, map[string]time.Duration{"ter/x": 0, "lost+found/y": 0})
		c, _ := connect(t, "")
		s, err := connectPlace(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(t.Context()) //nolint:errcheck // of a test
		files, ok := s.current.(*fileStorage)
		if !ok {
			t.Fatalf("it is a %T", s.current)
		}
		spy := &listedServer{fileServer: files.server}
		files.server = spy
		if _, err := leftBlobs(t.Context(), s); err != nil || !slices.Equal(spy.listed, []string{files.RootPath}) {
			t.Errorf("it read %v, %v", spy.listed, err)
		}
	})
}

// TestPlaceFiles_kopia reads with Kopia's own clients what was written, all of it.
func TestPlaceFiles_kopia(t *testing.T) {
	t.Parallel()
	onFiles(t, func(t *testing.T, connect server, dir string) {
		c, _ := connect(t, "")
		r := open(t, c)
		backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
		if _, err := os.Stat(filepath.Join(dir, ".shards")); err != nil {
			t.Errorf("it doesn't say how it is laid out: %v", err)
		}
		var other blob.Storage
		var err error
		switch p := c.Place.(type) {
		case *SFTP:
			other, err = kopiasftp.New(t.Context(), &kopiasftp.Options{Path: dir, Host: p.Host, Port: p.Port, Username: p.User,
				KeyData: p.Key.Reveal(), KnownHostsData: p.KnownHosts}, false)
		case *WebDAV:
			other, err = kopiawebdav.New(t.Context(), &kopiawebdav.Options{URL: p.URL, Username: p.User, Password: p.Password.Reveal()}, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close(t.Context()) //nolint:errcheck // of a test
		list := func(s blob.Storage) (all map[blob.ID]string) {
			all = map[blob.ID]string{}
			err := s.ListBlobs(t.Context(), "", func(m blob.Metadata) error {
				var b buffer
				err := s.GetBlob(t.Context(), m.BlobID, 0, -1, &b)
				all[m.BlobID] = b.String()
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		if mine, theirs := list(r.remote), list(other); len(mine) < 4 || !maps.Equal(mine, theirs) {
			t.Errorf("there are %d blobs, and %d to Kopia's client, or others", len(mine), len(theirs))
		}
	})
}

// TestPlaceFiles_sweep has maintenance remove what writing left behind that was broken off long ago, and nothing else.
func TestPlaceFiles_sweep(t *testing.T) {
	t.Parallel()
	onFiles(t, func(t *testing.T, connect server, dir string) {
		c, _ := connect(t, "")
		r := open(t, c)
		suffix, others := ".tmp.0123456789abcdef", "-5577006791947779410"
		if _, ok := c.Place.(*WebDAV); ok {
			suffix, others = others, suffix
		}
		const long = 48 * time.Hour
		kept := map[string]time.Duration{
			"p01/234/56.f" + suffix: time.Hour, "p01/234/57.f" + others: long, "p01/234/58.f": long, "notes" + suffix: long,
			"x01/" + suffix: long,
		}
		gone := map[string]time.Duration{"p01/234/59.f" + suffix: long, "kopia.repository.f" + suffix: long, ".shards" + suffix: long}
		makeTree(t, dir, kept)
		makeTree(t, dir, gone)
		m, err := r.Maintain(t.Context(), MaintainOptions{Now: true})
		if err != nil || m.Swept != len(gone) {
			t.Fatalf("maintenance: %+v, %v", m, err)
		}
		left := tree(t, dir)
		for name := range kept {
			if _, ok := left[filepath.Join(dir, name)]; !ok {
				t.Errorf("%s is removed", name)
			}
		}
		for name := range gone {
			if _, ok := left[filepath.Join(dir, name)]; ok {
				t.Errorf("%s is still there", name)
			}
		}
	})
}

// A fullDisk is an SFTP server whose disk is full.
type fullDisk struct {
	sftp.Handlers
	free    uint64
	removed []string
	cannot  string // the request that it doesn't know
}

func (d *fullDisk) Filewrite(*sftp.Request) (io.WriterAt, error) { return d, nil }

func (d *fullDisk) WriteAt([]byte, int64) (int, error) { return 0, sftp.ErrSSHFxFailure }

func (d *fullDisk) Filecmd(r *sftp.Request) error {
	if r.Method == d.cannot {
		return sftp.ErrSSHFxOpUnsupported
	}
	if r.Method == "Remove" {
		d.removed = append(d.removed, r.Filepath)
	}
	return nil
}

func (d *fullDisk) StatVFS(*sftp.Request) (*sftp.StatVFS, error) {
	return &sftp.StatVFS{Bsize: 4096, Frsize: 4096, Blocks: 1 << 20, Bavail: d.free}, nil
}

// serve connects with the server.
func (d *fullDisk) serve(t *testing.T, put sftp.FileWriter) *sftpFiles {
	t.Helper()
	mine, its := net.Pipe()
	server := sftp.NewRequestServer(its, sftp.Handlers{FileGet: d.FileGet, FilePut: put, FileCmd: d, FileList: d.FileList})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve() // until the connection is closed
	}()
	client, err := sftp.NewClientPipe(mine, mine, sftpOptions...)
	if err != nil {
		t.Fatal(err)
	}
	files := newSFTPFiles(&SFTP{Path: "/"}, newSFTPConnection(client, mine))
	t.Cleanup(func() {
		_ = files.close() // never fails
		<-served
	})
	return files
}

// TestSFTP_noReplacement has a server that can't replace files. To ask it again is of no use.
func TestSFTP_noReplacement(t *testing.T) {
	t.Parallel()
	d := &fullDisk{free: 1 << 20, Handlers: sftp.InMemHandler(), cannot: "Rename"}
	files := d.serve(t, d.FilePut)
	if err := files.write(t.Context(), "/a.f", []byte("x")); !errors.Is(err, ErrRefused) {
		t.Errorf("it says %v", err)
	}
}

// TestSFTP_full tells a disk that is full from what may pass, and leaves nothing on it.
func TestSFTP_full(t *testing.T) {
	t.Parallel()
	for free, want := range map[uint64]error{0: ErrFull, 1 << 10: nil} {
		d := &fullDisk{free: free, Handlers: sftp.InMemHandler()}
		files := d.serve(t, d)
		err := files.write(t.Context(), "/a.f", bytes.Repeat([]byte("x"), 5000))
		if err == nil || errors.Is(err, ErrFull) != (want != nil) {
			t.Errorf("with %d blocks left: %v, want %v", free, err, want)
		}
		if len(d.removed) != 1 || !sftpLeftover.MatchString(d.removed[0]) {
			t.Errorf("with %d blocks left, removed: %v", free, d.removed)
		}
	}
}

// TestFiles_gone takes the directory of a repository away, as a disk of the server that isn't mounted any more, or leaves an empty
// one in its place. That is an outage, and not a repository without restore points.
func TestFiles_gone(t *testing.T) {
	t.Parallel()
	onFiles(t, func(t *testing.T, connect server, dir string) {
		testGone(t, filepath.Join(dir, "backups"), func() Config {
			c, _ := connect(t, "backups")
			c.MaxOutage = -1
			return c
		})
	})
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "backups")
		testGone(t, dir, func() Config { return Config{Path: dir, Password: secret.New(testPassword), Create: true} })
	})
}

func testGone(t *testing.T, dir string, config func() Config) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := open(t, config())
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": networkSource(1)})
	for _, empty := range []bool{false, true} {
		if err := os.Rename(dir, dir+"-elsewhere"); err != nil {
			t.Fatal(err)
		}
		if empty {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if points, err := r.List(t.Context(), Filter{}); err == nil {
			t.Errorf("empty %t: it lists %d restore points", empty, len(points))
		}
		if _, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err == nil {
			t.Errorf("empty %t: it is maintained", empty)
		}
		if err := os.RemoveAll(dir); err != nil { // that it can be written may have been tried
			t.Fatal(err)
		}
		if err := os.Rename(dir+"-elsewhere", dir); err != nil {
			t.Fatal(err)
		}
		if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 1 || points[0].ID != id {
			t.Errorf("it is there again: %v, %v", points, err)
		}
	}
}
