package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
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
	files := &davFiles{url: p.URL, login: gowebdav.NewAutoAuth(p.User, p.Password.Reveal()), base: p.transport()}
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
	url   string
	login gowebdav.Authorizer
	base  http.RoundTripper
	made  sync.Map // directories that there are
}

// client is the library for one call with a context, of which it knows nothing.
func (s *davFiles) client(ctx context.Context) (*gowebdav.Client, *davTransport) {
	t := &davTransport{ctx: ctx, base: s.base}
	c := gowebdav.NewAuthClient(s.url, s.login)
	c.SetHeader("Accept-Encoding", "identity") // it is encrypted
	c.SetTransport(t)
	return c, t
}

// A davTransport makes the requests of one call. They end with its context.
type davTransport struct {
	ctx    context.Context //nolint:containedctx // that is what it is for
	base   http.RoundTripper
	failed error // how a request got no answer that is of use
	listed int   // how much the last list has, with what it is of
}

// RoundTrip implements http.RoundTripper.
func (t *davTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.base.RoundTrip(r.WithContext(t.ctx))
	if err == nil && answer.StatusCode == http.StatusMultiStatus && r.Method == "PROPFIND" {
		t.listed, err = readListing(answer)
	}
	t.failed = err
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// meaning gives the error of a call the meaning that a fileServer's must have.
func (t *davTransport) meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case t.failed != nil: // of some requests that failed, the library says that the server refused them
		return t.failed
	case gowebdav.IsErrNotFound(err):
		return fmt.Errorf("%w", fs.ErrNotExist)
	case gowebdav.IsErrCode(err, http.StatusRequestedRangeNotSatisfiable):
		return blob.ErrInvalidRange
	default:
		return err
	}
}

// mostListing is the most that the answer about a directory may have, in bytes: hundreds of thousands of files.
const mostListing = 256 * mib

// readListing reads what a server says of a directory or a file, and makes sure that it has ended: the library takes as
// much of it as it understands for all there is. A blob that is missing in a list is one that maintenance takes for lost.
func readListing(answer *http.Response) (n int, err error) {
	b, err := io.ReadAll(io.LimitReader(answer.Body, mostListing))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return 0, fmt.Errorf("read a list: %w", err)
	}
	answer.Body = io.NopCloser(bytes.NewReader(b))
	return countListing(b)
}

// countListing counts what a list is of and what is below that. The list must be whole, and begin with what it is of, since
// the library leaves that out (RFC 4918, section 14.16; the order is up to the server).
func countListing(list []byte) (n int, err error) {
	var parsed struct {
		XMLName xml.Name `xml:"DAV: multistatus"`
		Hrefs   []string `xml:"DAV: response>href"`
	}
	if err := xml.Unmarshal(list, &parsed); err != nil {
		return 0, fmt.Errorf("read a list: %w", err)
	}
	var of string
	for i, href := range parsed.Hrefs {
		u, err := url.Parse(strings.TrimSpace(href))
		if err != nil {
			return 0, fmt.Errorf("read a list: %w", err)
		}
		if name := strings.TrimSuffix(u.Path, "/"); i == 0 {
			of = name + "/"
		} else if !strings.HasPrefix(name, of) {
			return 0, fmt.Errorf("read a list: %q isn't below %q, with which it begins", u.Path, of)
		}
	}
	return len(parsed.Hrefs), nil
}

func (s *davFiles) read(ctx context.Context, name string, offset, length int64, out blob.OutputBuffer) error {
	c, t := s.client(ctx)
	open := func() (io.ReadCloser, error) { return c.ReadStream(name) }
	if length >= 0 {
		open = func() (io.ReadCloser, error) { return c.ReadStreamRange(name, offset, max(length, 1)) }
	}
	body, err := open()
	if err != nil {
		return t.meaning(err)
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
	c, t := s.client(ctx)
	info, err := c.Stat(name)
	if f, ok := info.(*gowebdav.File); err == nil && (!ok || f == nil) {
		return nil, errors.New("the server doesn't describe the file")
	}
	return info, t.meaning(err)
}

func (s *davFiles) list(ctx context.Context, directory string) ([]fs.FileInfo, error) {
	c, t := s.client(ctx)
	entries, err := c.ReadDir(gowebdav.FixSlash(directory))
	if err == nil && len(entries) != t.listed-1 {
		return nil, fmt.Errorf("of %d files that the server lists, it describes %d", t.listed-1, len(entries))
	}
	return entries, t.meaning(err)
}

func (s *davFiles) remove(ctx context.Context, name string) error {
	c, t := s.client(ctx)
	return t.meaning(c.Remove(name))
}

// write makes the directory first. A server that is asked to put a file where there is none may answer, and close the
// connection, before it has read the file: who still sends that doesn't see the answer.
func (s *davFiles) write(ctx context.Context, name string, content []byte) error {
	c, t := s.client(ctx)
	directory := path.Dir(name)
	if _, ok := s.made.Load(directory); !ok && directory != "." {
		if err := c.MkdirAll(directory, 0); err != nil {
			return t.meaning(err)
		}
		s.made.Store(directory, nil)
	}
	temporary := fmt.Sprintf("%s-%d", name, rand.Int64()) //nolint:gosec // it must be another each time
	err := c.Write(temporary, content, 0)
	if err == nil {
		err = c.Rename(temporary, name, true)
	}
	if err != nil {
		err = t.meaning(err)
		_ = s.remove(ctx, temporary) // maintenance removes one that stays
	}
	return err
}

func (s *davFiles) close() error {
	(&http.Client{Transport: s.base}).CloseIdleConnections()
	return nil
}

// davLeftover is as Kopia's client (v0.23.1) names them, too.
var davLeftover = regexp.MustCompile(`^(.+)-[0-9]{1,19}$`)

func (s *davFiles) leftover() *regexp.Regexp { return davLeftover }
