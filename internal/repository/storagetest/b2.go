package storagetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Credentials of the B2 server, and its bucket.
const (
	B2KeyID  = "0012abcdef"
	B2Key    = "K001onlyOnTheLoopbackInterface" //nolint:gosec // as it says
	B2Bucket = "backups"

	b2Host  = "api.backblazeb2.com"
	b2Token = "token-of-the-account"
	b2Page  = 3 // files in a page of a list, so that every list has some
)

// A B2 speaks what clients of Backblaze B2 need for small files: it is written from Backblaze's reference of the native
// API, version 1, for tests alone. It is also the proxy through which a client reaches it under Backblaze's own name.
type B2 struct {
	objects objects
	plain   *httptest.Server
	secure  *httptest.Server // for Backblaze's name
	env     []string
	hides   sync.Map // how often a file was to be deleted, by name: it is the third time that it is
}

// NewB2 starts a server.
func NewB2(t testing.TB) *B2 {
	t.Helper()
	s := &B2{}
	certificate, file := b2Certificate(t)
	s.plain = httptest.NewServer(s)
	s.secure = httptest.NewUnstartedServer(s)
	s.secure.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	s.secure.StartTLS()
	t.Cleanup(func() {
		s.secure.CloseClientConnections()
		s.plain.CloseClientConnections()
		s.secure.Close()
		s.plain.Close()
	})
	s.env = []string{"HTTPS_PROXY=" + s.plain.URL, "SSL_CERT_FILE=" + file}
	return s
}

// Env has a process take this server for Backblaze's, on systems where SSL_CERT_FILE names the certificates to trust.
func (s *B2) Env() []string { return s.env }

func b2Certificate(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{b2Host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// ServeHTTP implements http.Handler.
func (s *B2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := strings.TrimPrefix(r.URL.Path, "/b2api/v1/")
	switch {
	case r.Method == http.MethodConnect:
		s.tunnel(w, r)
	case call == "b2_authorize_account":
		if user, key, _ := r.BasicAuth(); user != B2KeyID || key != B2Key {
			b2Fail(w, http.StatusUnauthorized, "unauthorized", "no such key")
			return
		}
		b2Answer(w, map[string]any{"accountId": "a", "apiUrl": s.plain.URL, "downloadUrl": s.plain.URL, "authorizationToken": b2Token})
	case r.Header.Get("Authorization") != b2Token:
		b2Fail(w, http.StatusUnauthorized, "bad_auth_token", "not the token")
	case call == "upload":
		s.upload(w, r)
	case strings.HasPrefix(r.URL.Path, "/file/"+B2Bucket+"/"):
		s.download(w, r)
	default:
		s.call(w, r, call)
	}
}

// tunnel connects a client with the server under Backblaze's name.
func (s *B2) tunnel(w http.ResponseWriter, r *http.Request) {
	if r.Host != b2Host+":443" {
		http.Error(w, "not here", http.StatusForbidden)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close() //nolint:errcheck // it ends with either
	server, err := new(net.Dialer).DialContext(r.Context(), "tcp", s.secure.Listener.Addr().String())
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, client) // until either ends
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server) // as above
}

func b2Answer(w http.ResponseWriter, answer any) { _ = json.NewEncoder(w).Encode(answer) } // the client went

func b2Fail(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	b2Answer(w, map[string]any{"status": status, "code": code, "message": message})
}

// call does what has arguments in JSON.
func (s *B2) call(w http.ResponseWriter, r *http.Request, call string) {
	var q struct {
		BucketID, FileID, FileName, StartFileName, Prefix string
		MaxFileCount                                      int
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.BucketID != "" && q.BucketID != "bucket" {
		b2Fail(w, http.StatusBadRequest, "bad_request", "Invalid bucketId")
		return
	}
	switch call {
	case "b2_list_buckets":
		b2Answer(w, map[string]any{"buckets": []any{map[string]any{"bucketId": "bucket", "bucketName": B2Bucket, "bucketType": "allPrivate"}}})
	case "b2_get_upload_url":
		b2Answer(w, map[string]any{"bucketId": "bucket", "uploadUrl": s.plain.URL + "/b2api/v1/upload", "authorizationToken": b2Token})
	case "b2_list_file_names", "b2_list_file_versions":
		names, next := s.objects.list(q.Prefix, q.StartFileName, min(q.MaxFileCount, b2Page))
		files := []any{}
		for _, name := range names {
			if o, ok := s.objects.get(name); ok {
				files = append(files, b2File(name, o))
			}
		}
		b2Answer(w, map[string]any{"files": files, "nextFileName": next})
	case "b2_get_file_info":
		o, ok := s.objects.get(strings.TrimPrefix(q.FileID, "id-"))
		if !ok {
			b2Fail(w, http.StatusBadRequest, "bad_request", "Bad fileId: "+q.FileID)
			return
		}
		b2Answer(w, b2File(strings.TrimPrefix(q.FileID, "id-"), o))
	case "b2_hide_file":
		if n, _ := s.hides.LoadOrStore(q.FileName, new(atomic.Int32)); n.(*atomic.Int32).Add(1) <= 2 { //nolint:forcetypeassert // nothing else
			b2Fail(w, http.StatusServiceUnavailable, "service_unavailable", "busy")
			return
		}
		if found, _ := s.objects.remove(q.FileName); !found {
			b2Fail(w, http.StatusBadRequest, "no_such_file", "not there")
			return
		}
		b2Answer(w, map[string]any{"fileName": q.FileName, "action": "hide"})
	default:
		b2Fail(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("unknown call %q", call))
	}
}

func b2File(name string, o object) map[string]any {
	return map[string]any{
		"fileId": "id-" + name, "fileName": name, "contentLength": len(o.content), "contentSha1": o.sha1, "action": "upload",
		"uploadTimestamp": o.at.UnixMilli(),
	}
}

func (s *B2) upload(w http.ResponseWriter, r *http.Request) {
	name, nameErr := url.QueryUnescape(r.Header.Get("X-Bz-File-Name"))
	content, err := io.ReadAll(r.Body)
	if err != nil || nameErr != nil || int64(len(content)) != r.ContentLength {
		b2Fail(w, http.StatusBadRequest, "bad_request", "not all of it came")
		return
	}
	if made := (object{content: content}).hashed(); made.sha1 != r.Header.Get("X-Bz-Content-Sha1") {
		b2Fail(w, http.StatusBadRequest, "bad_request", "Sha1 did not match data received")
		return
	}
	b2Answer(w, b2File(name, s.objects.put(name, content, time.Time{})))
}

func (s *B2) download(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/file/"+B2Bucket+"/")
	o, ok := s.objects.get(name)
	if !ok {
		b2Fail(w, http.StatusNotFound, "not_found", "not there")
		return
	}
	w.Header().Set("X-Bz-File-Name", url.QueryEscape(name))
	w.Header().Set("X-Bz-File-Id", "id-"+name)
	w.Header().Set("X-Bz-Content-Sha1", o.sha1)
	o.serve(w, r)
}
