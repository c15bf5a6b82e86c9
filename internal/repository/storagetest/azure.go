package storagetest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Credentials of the Azure server, and its container. Its account is the first label of its address.
const (
	AzureAccount   = "127"
	AzureContainer = "backups"
	AzureKey       = "b25seS1vbi10aGUtbG9vcGJhY2staW50ZXJmYWNl" //nolint:gosec // as it says
	AzureSAS       = "sv=2022-11-02&ss=b&srt=co&sp=rwdl&sig=b25seS1vbi10aGUtbG9vcGJhY2s%3D"
)

// azurePage is how many blobs a page of a list has, so that every list has some.
const azurePage = 3

// An Azure speaks what clients of Azure Blob Storage need for blobs of one request each: it is written from
// Microsoft's reference of the Blob service's REST API, for tests alone. It checks every signature.
type Azure struct {
	objects     objects
	address     string
	refuseLocks atomic.Bool
}

// RefuseLocks has the server let nobody lock a blob that is there, or lets everybody do so again.
func (s *Azure) RefuseLocks(refuse bool) { s.refuseLocks.Store(refuse) }

// NewAzure starts a server.
func NewAzure(t testing.TB) *Azure {
	t.Helper()
	s := &Azure{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

// Network is a new way to the server, apart from all others. Its endpoint is what comes after the account.
func (s *Azure) Network(t testing.TB) (network *Proxy, endpoint string) {
	t.Helper()
	network = NewProxy(t, "tcp", s.address)
	return network, "http://" + strings.TrimPrefix(network.Addr().String(), AzureAccount+".")
}

// Locked is until when nobody can delete a blob.
func (s *Azure) Locked(name string) time.Time {
	o, _ := s.objects.get(name)
	return o.locked
}

// Names are those of all blobs.
func (s *Azure) Names() []string {
	names, _ := s.objects.list("", "", 1<<30)
	return names
}

func azureFail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Ms-Error-Code", code)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+code+"</Message></Error>") // the client went
}

// ServeHTTP implements http.Handler.
func (s *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Ms-Version", r.Header.Get("X-Ms-Version"))
	container, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case !azureSigned(r):
		azureFail(w, http.StatusForbidden, "AuthenticationFailed")
	case container != AzureContainer:
		azureFail(w, http.StatusNotFound, "ContainerNotFound")
	case name == "" && r.URL.Query().Get("comp") == "list":
		s.list(w, r)
	case r.Method == http.MethodPut && r.URL.Query().Get("comp") == "immutabilityPolicies":
		s.lock(w, r, name)
	case r.Method == http.MethodPut && r.Header.Get("X-Ms-Blob-Type") == "BlockBlob":
		s.put(w, r, name)
	case r.Method == http.MethodDelete:
		s.remove(w, name)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		s.get(w, r, name)
	default:
		azureFail(w, http.StatusBadRequest, "UnsupportedHttpVerb")
	}
}

func (s *Azure) put(w http.ResponseWriter, r *http.Request, name string) {
	content, err := io.ReadAll(r.Body)
	if err != nil || int64(len(content)) != r.ContentLength {
		azureFail(w, http.StatusBadRequest, "IncompleteBody")
		return
	}
	until, err := azureLock(r)
	if err != nil {
		azureFail(w, http.StatusBadRequest, "InvalidHeaderValue")
		return
	}
	made := s.objects.put(name, content, until)
	w.Header().Set("Last-Modified", made.at.UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusCreated)
}

// azureLock is until when a request wants to lock a blob.
func azureLock(r *http.Request) (until time.Time, err error) {
	if text := r.Header.Get("X-Ms-Immutability-Policy-Until-Date"); text != "" {
		until, err = http.ParseTime(text)
	}
	return until, err
}

func (s *Azure) lock(w http.ResponseWriter, r *http.Request, name string) {
	until, err := azureLock(r)
	o, ok := s.objects.get(name)
	switch {
	case s.refuseLocks.Load():
		azureFail(w, http.StatusForbidden, "AuthorizationPermissionMismatch")
	case err != nil || until.IsZero():
		azureFail(w, http.StatusBadRequest, "InvalidHeaderValue")
	case !ok:
		azureFail(w, http.StatusNotFound, "BlobNotFound")
	default:
		s.objects.put(name, o.content, until)
	}
}

func (s *Azure) remove(w http.ResponseWriter, name string) {
	switch found, removed := s.objects.remove(name); {
	case !found:
		azureFail(w, http.StatusNotFound, "BlobNotFound")
	case !removed:
		azureFail(w, http.StatusConflict, "BlobImmutableDueToPolicy")
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (s *Azure) get(w http.ResponseWriter, r *http.Request, name string) {
	o, ok := s.objects.get(name)
	if !ok {
		azureFail(w, http.StatusNotFound, "BlobNotFound")
		return
	}
	if wanted := r.Header.Get("X-Ms-Range"); wanted != "" {
		r.Header.Set("Range", wanted)
	}
	var first int
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); n == 1 && first >= len(o.content) {
		azureFail(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		return
	}
	o.serve(w, r)
}

type azureBlob struct {
	Name         string `xml:"Name"`
	LastModified string `xml:"Properties>Last-Modified"`
	Length       int    `xml:"Properties>Content-Length"`
}

func (s *Azure) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	names, next := s.objects.list(q.Get("prefix"), q.Get("marker"), azurePage)
	answer := struct {
		XMLName    xml.Name    `xml:"EnumerationResults"`
		Blobs      []azureBlob `xml:"Blobs>Blob"`
		NextMarker string      `xml:"NextMarker"`
	}{NextMarker: next}
	for _, name := range names {
		if o, ok := s.objects.get(name); ok {
			answer.Blobs = append(answer.Blobs, azureBlob{name, o.at.UTC().Format(http.TimeFormat), len(o.content)})
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer) // the client went
}

// azureSigned reports whether a request has the shared access signature, or is signed with the account's key
// ("Authorize with Shared Key", version 2015-02-21 and later).
func azureSigned(r *http.Request) bool {
	if sas := r.URL.Query(); sas.Has("sig") {
		return strings.Contains(AzureSAS, "sig="+url.QueryEscape(sas.Get("sig")))
	}
	length := "" // of nothing
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	parts := []string{r.Method}
	for _, name := range []string{"Content-Encoding", "Content-Language", "", "Content-Md5", "Content-Type", "Date", "If-Modified-Since",
		"If-Match", "If-None-Match", "If-Unmodified-Since", "Range"} {
		if name == "" {
			parts = append(parts, length)
			continue
		}
		parts = append(parts, r.Header.Get(name))
	}
	var headers []string
	for name, values := range r.Header {
		if name := strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			headers = append(headers, name+":"+strings.Join(values, ","))
		}
	}
	slices.Sort(headers)
	parts = append(parts, headers...)
	var query []string
	for name, values := range r.URL.Query() {
		slices.Sort(values)
		query = append(query, strings.ToLower(name)+":"+strings.Join(values, ","))
	}
	slices.Sort(query)
	parts = append(parts, strings.Join(append([]string{"/" + AzureAccount + r.URL.EscapedPath()}, query...), "\n"))
	key, err := base64.StdEncoding.DecodeString(AzureKey)
	mac := hmac.New(sha256.New, key)
	_, _ = io.WriteString(mac, strings.Join(parts, "\n")) // never fails
	want := "SharedKey " + AzureAccount + ":" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return err == nil && hmac.Equal([]byte(want), []byte(r.Header.Get("Authorization")))
}
