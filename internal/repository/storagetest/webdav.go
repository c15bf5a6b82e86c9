package storagetest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/net/webdav"
)

// Credentials of the WebDAV server.
const (
	WebDAVUser     = "backup"
	WebDAVPassword = "only-on-the-loopback-interface" //nolint:gosec // as it says
)

// A WebDAV is a real WebDAV server, of a directory of its own.
type WebDAV struct {
	Dir     string
	address string
}

// NewWebDAV starts a server.
func NewWebDAV(t testing.TB) *WebDAV {
	t.Helper()
	dir := t.TempDir()
	files := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != WebDAVUser || password != WebDAVPassword {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &WebDAV{Dir: dir, address: server.Listener.Addr().String()}
}

// Network is a new way to the server, apart from all others.
func (s *WebDAV) Network(t testing.TB) *Proxy {
	t.Helper()
	return NewProxy(t, "tcp", s.address)
}
