package repository

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/studio-b12/gowebdav"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// WebDAV is a repository in a directory of a web server.
type WebDAV struct {
	URL      string
	User     string
	Password secret.String

	Thumbprint string // SHA-256 of the one certificate to trust, in hexadecimal; empty: as the system trusts
}

// String names the place without its secrets.
func (p *WebDAV) String() string {
	if u, err := url.Parse(p.URL); err == nil {
		u.User = nil
		return u.String()
	}
	return "webdav"
}

func (p *WebDAV) lock() *ObjectLock { return nil }

// around: as for SFTP.
func (p *WebDAV) around() []Place { return nil }

func (p *WebDAV) connect(ctx context.Context) (blob.Storage, error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("%w: the URL must be one of https or http, without user, password and query", ErrNoRepository)
	}
	files := &davFiles{url: p.URL, login: gowebdav.NewAutoAuth(p.User, p.Password.Reveal()), transport: p.transport()}
	info, err := files.stat(ctx, "/")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: the directory doesn't exist", ErrNoRepository)
	} else if err == nil && !info.IsDir() {
		err = fmt.Errorf("%w: it is not a directory", ErrNoRepository)
	}
	if err != nil {
		return nil, errors.Join(err, files.close())
	}
	return newFileStorage(files, "", p.String()), nil
}

func (p *WebDAV) transport() *http.Transport {
	t := defaultTransport()
	t.ResponseHeaderTimeout = attemptTimeout
	if p.Thumbprint == "" {
		return t
	}
	want := strings.ToLower(strings.ReplaceAll(p.Thumbprint, ":", ""))
	t.TLSClientConfig = &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the one certificate is compared instead
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); hex.EncodeToString(sum[:]) != want {
				return fmt.Errorf("%w: the server's certificate has the thumbprint %x", ErrRefused, sum)
			}
			return nil
		},
	}
	return t
}

// davFiles are the files of a web server, below a URL.
type davFiles struct {
	url       string
	login     gowebdav.Authorizer
	transport *http.Transport
	made      sync.Map // directories that there are
}

// client is one for as long as ctx, which the library knows nothing of.
func (s *davFiles) client(ctx context.Context) *gowebdav.Client {
	c := gowebdav.NewAuthClient(s.url, s.login)
	c.SetHeader("Accept-Encoding", "identity") // it is encrypted
	c.SetTransport(boundTransport{ctx, s.transport})
	return c
}

// A boundTransport ends requests with a context.
type boundTransport struct {
	ctx  context.Context //nolint:containedctx // that is what it is for
	base http.RoundTripper
}

func (t boundTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.base.RoundTrip(r.WithContext(t.ctx))
}

// davError gives the errors their meaning that a fileServer must.
func davError(err error) error {
	switch {
	case gowebdav.IsErrNotFound(err):
		return fmt.Errorf("%w", fs.ErrNotExist)
	case gowebdav.IsErrCode(err, http.StatusRequestedRangeNotSatisfiable):
		return blob.ErrInvalidRange
	default:
		return err
	}
}

func (s *davFiles) read(ctx context.Context, name string, offset, length int64, out blob.OutputBuffer) error {
	open := func() (io.ReadCloser, error) { return s.client(ctx).ReadStream(name) }
	if length >= 0 {
		open = func() (io.ReadCloser, error) { return s.client(ctx).ReadStreamRange(name, offset, max(length, 1)) }
	}
	body, err := open()
	if err != nil {
		return davError(err)
	}
	defer body.Close() //nolint:errcheck // it was only read
	out.Reset()
	if length < 0 {
		_, err = io.Copy(out, body)
		return err
	}
	n, err := io.Copy(out, io.LimitReader(body, length))
	if err == nil && n < length {
		return blob.ErrInvalidRange
	}
	return err
}

func (s *davFiles) stat(ctx context.Context, name string) (fs.FileInfo, error) {
	info, err := s.client(ctx).Stat(name)
	return info, davError(err)
}

func (s *davFiles) list(ctx context.Context, directory string) ([]fs.FileInfo, error) {
	entries, err := s.client(ctx).ReadDir(gowebdav.FixSlash(directory))
	return entries, davError(err)
}

func (s *davFiles) remove(ctx context.Context, name string) error {
	return davError(s.client(ctx).Remove(name))
}

// write makes the directory first. A server that is asked to put a file where there is none may answer, and close the
// connection, before it has read the file: who still sends that doesn't see the answer.
func (s *davFiles) write(ctx context.Context, name string, content []byte) error {
	directory := path.Dir(name)
	if _, ok := s.made.Load(directory); !ok && directory != "." {
		if err := s.client(ctx).MkdirAll(directory, 0); err != nil {
			return err
		}
		s.made.Store(directory, nil)
	}
	temporary := fmt.Sprintf("%s-%d", name, rand.Int64()) //nolint:gosec // it must be another each time
	err := s.client(ctx).Write(temporary, content, 0)
	if err == nil {
		err = s.client(ctx).Rename(temporary, name, true)
	}
	if err != nil {
		_ = s.client(ctx).Remove(temporary) // maintenance removes one that stays
	}
	return davError(err)
}

func (s *davFiles) close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// davLeftover is as Kopia's client (v0.23.1) names them, too.
var davLeftover = regexp.MustCompile(`^(.+)-[0-9]{1,19}$`)

func (s *davFiles) leftover() *regexp.Regexp { return davLeftover }
