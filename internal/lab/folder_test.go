package lab_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// folderURL is the URL of a file on the seeded VMs' datastore.
func (e *env) folderURL(file string) string {
	u := e.URL()
	u.Path = "/folder/" + file
	u.RawQuery = url.Values{"dcPath": {"DC0"}, "dsName": {"LocalDS_0"}}.Encode()
	return u.String()
}

// folder sends a request with the cookies given.
func (e *env) folder(method, url string, header http.Header, body io.Reader, cookies ...*http.Cookie) (int, []byte) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.ctx, method, url, body)
	e.must(err)
	for k, v := range header {
		req.Header[k] = v
	}
	for _, c := range cookies {
		req.AddCookie(c)
	}
	res, err := e.plain().Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, p
	}
	return res.StatusCode, p
}

// sessionCookie is the cookie of the client's session.
func (e *env) sessionCookie() *http.Cookie {
	e.t.Helper()
	for _, c := range e.client.Jar.Cookies(e.client.URL()) {
		if c.Name == soap.SessionCookieName {
			return c
		}
	}
	e.t.Fatal("the client has no session cookie")
	return nil
}

func TestFolder_needsASession(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	good := e.sessionCookie()
	target := e.folderURL("web01/web01.vmx")
	for name, c := range map[string]struct {
		cookies []*http.Cookie
		status  int
	}{
		"none":          {nil, 401},
		"forged":        {[]*http.Cookie{{Name: soap.SessionCookieName, Value: "forged"}}, 401},
		"session":       {[]*http.Cookie{good}, 200},
		"forged ticket": {[]*http.Cookie{{Name: "vmware_cgi_ticket", Value: "forged"}}, 401},
	} {
		if got, _ := e.folder(http.MethodGet, target, nil, http.NoBody, c.cookies...); got != c.status {
			t.Errorf("%s: %d, want %d", name, got, c.status)
		}
	}
	e.must(e.client.Logout(e.ctx))
	if got, _ := e.folder(http.MethodGet, target, nil, http.NoBody, good); got != http.StatusUnauthorized {
		t.Errorf("after Logout: %d", got)
	}
}

func TestFolder_ticketIsForOneRequest(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	target := e.folderURL("web01/web01.vmx")
	manager := session.NewManager(e.client.Client)
	acquire := func() *http.Cookie {
		t.Helper()
		ticket, err := manager.AcquireGenericServiceTicket(e.ctx, &types.SessionManagerHttpServiceRequestSpec{
			Method: "httpGet", Url: target,
		})
		e.must(err)
		return &http.Cookie{Name: "vmware_cgi_ticket", Value: ticket.Id}
	}
	ticket := acquire()
	if got, _ := e.folder(http.MethodGet, target, nil, http.NoBody, ticket); got != http.StatusOK {
		t.Errorf("first use: %d", got)
	}
	if got, _ := e.folder(http.MethodGet, target, nil, http.NoBody, ticket); got != http.StatusUnauthorized {
		t.Errorf("second use: %d", got)
	}
	if got, _ := e.folder(http.MethodPut, target, nil, http.NoBody, acquire()); got != http.StatusUnauthorized {
		t.Errorf("another method: %d", got)
	}
	if got, _ := e.folder(http.MethodGet, e.folderURL("web01/web01.nvram"), nil, http.NoBody, acquire()); got != http.StatusUnauthorized {
		t.Errorf("another file: %d", got)
	}
}

func TestFolder_rawBytesAndLocks(t *testing.T) {
	t.Parallel()
	const capacity = 4 * mib
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{
		{Name: "web01", Disks: []string{labtest.RawDisk(t, capacity, 1)}},
		{Name: "off", Disks: []string{labtest.RawDisk(t, capacity, 2)}, PoweredOff: true},
	}})
	cookie := e.sessionCookie()
	get := func(file, span string) (int, []byte) {
		header := http.Header{}
		if span != "" {
			header.Set("Range", "bytes="+span)
		}
		return e.folder(http.MethodGet, e.folderURL(file), header, http.NoBody, cookie)
	}
	want := e.content("off", 0, capacity)
	if status, p := get("off/off-flat.vmdk", ""); status != http.StatusOK || !bytes.Equal(p, want) {
		t.Errorf("a disk of a VM that is off: %d, %d bytes", status, len(p))
	}
	for span, c := range map[string]struct {
		status   int
		from, to int
	}{
		"0-0":                 {206, 0, 1},
		"1000-70000":          {206, 1000, 70001},
		"4194000-":            {206, 4194000, capacity},
		"-512":                {206, capacity - 512, capacity},
		"4194303-99999999999": {206, capacity - 1, capacity},
	} {
		if status, p := get("off/off-flat.vmdk", span); status != c.status || !bytes.Equal(p, want[c.from:c.to]) {
			t.Errorf("range %s: %d, %d bytes", span, status, len(p))
		}
	}
	if status, _ := get("off/off-flat.vmdk", fmt.Sprintf("%d-", capacity)); status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range behind the end: %d", status)
	}

	if status, _ := get("web01/web01-flat.vmdk", "0-511"); status != http.StatusInternalServerError {
		t.Errorf("a file that a running VM writes: %d", status)
	}
	want = e.content("web01", 0, capacity)
	e.takeSnapshot("s")
	e.must(e.WriteDisk("web01", 0, 0, []byte("later")))
	if status, p := get("web01/web01-flat.vmdk", ""); status != http.StatusOK || !bytes.Equal(p, want) {
		t.Errorf("the frozen file: %d, %d bytes", status, len(p))
	}
	if status, _ := get("web01/web01-000001-delta.vmdk", ""); status != http.StatusInternalServerError {
		t.Errorf("the delta that the VM writes: %d", status)
	}
	if status, _ := get("web01/web01-000001-flat.vmdk", ""); status != http.StatusNotFound {
		t.Errorf("a delta has no flat extent: %d", status)
	}
}

func TestFolder_names(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	cookie := e.sessionCookie()
	base := e.URL().Scheme + "://" + e.URL().Host + "/folder/"
	for target, status := range map[string]int{
		"web01/web01.vmx?dcPath=DC0&dsName=LocalDS_0":   200,
		"web01/web01.vmdk?dcPath=/DC0&dsName=LocalDS_0": 200,
		"web01/web01.nvram?dcPath=DC0&dsName=LocalDS_0": 200,
		"web01/none?dcPath=DC0&dsName=LocalDS_0":        404,
		"web01?dcPath=DC0&dsName=LocalDS_0":             404,
		"web01/web01.vmx?dcPath=DC1&dsName=LocalDS_0":   404,
		"web01/web01.vmx?dcPath=DC0&dsName=none":        404,
		"web01/web01.vmx?dcPath=DC0":                    400,
		"web01/web01.vmx?dsName=LocalDS_0":              400,
		"?dcPath=DC0&dsName=LocalDS_0":                  400,
		"x%2f..%2f..%2fetc?dcPath=DC0&dsName=LocalDS_0": 400,
	} {
		if got, p := e.folder(http.MethodGet, base+target, nil, http.NoBody, cookie); got != status {
			t.Errorf("%s: %d, want %d: %s", target, got, status, p)
		}
	}
}

func TestFolder_put(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	cookie := e.sessionCookie()
	put := func(method, file, body string) int {
		status, _ := e.folder(method, e.folderURL(file), nil, strings.NewReader(body), cookie)
		return status
	}
	e.Fault(lab.Fault{Method: "PUT /folder", Fault: "truncate"})
	if got := put(http.MethodPut, "restored/restored.nvram", "cut short"); got != http.StatusInternalServerError {
		t.Errorf("cut short: %d", got)
	}
	if got := put(http.MethodPut, "restored/restored.nvram", "first"); got != http.StatusCreated {
		t.Errorf("a new file: %d", got)
	}
	if got := put(http.MethodPost, "restored/restored.nvram", "second"); got != http.StatusConflict {
		t.Errorf("POST on a file that is there: %d", got)
	}
	if got := put(http.MethodPut, "restored/restored.nvram", "third"); got != http.StatusOK {
		t.Errorf("replacing a file: %d", got)
	}
	e.Fault(lab.Fault{Method: "PUT /folder", Fault: "drop"})
	if got := put(http.MethodPut, "restored/restored.nvram", "fourth"); got != 0 {
		t.Errorf("dropped: %d", got)
	}
	if status, p := e.folder(http.MethodGet, e.folderURL("restored/restored.nvram"), nil, http.NoBody, cookie); string(p) != "third" {
		t.Errorf("read back: %d %q", status, p)
	}
	for _, file := range []string{"web01/web01.vmdk", "web01/web01-flat.vmdk"} {
		if got := put(http.MethodPut, file, "x"); got != http.StatusForbidden {
			t.Errorf("%s: %d", file, got)
		}
	}
}

// A file that is removed while it is written doesn't come back with its last byte.
func TestFolder_putIntoARemovedDirectory(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	cookie := e.sessionCookie()
	before := e.Status()
	reader, writer := io.Pipe()
	status := make(chan int)
	go func() {
		got, _ := e.folder(http.MethodPut, e.folderURL("restored/restored.nvram"), nil, reader, cookie)
		status <- got
	}()
	_, err := writer.Write([]byte("first half"))
	e.must(err)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(e.Status().Files) == len(before.Files) {
		<-tick.C // until the server writes it
	}
	dc, err := e.finder.DefaultDatacenter(e.ctx)
	e.must(err)
	e.must(e.wait(object.NewFileManager(e.client.Client).DeleteDatastoreFile(e.ctx, "[LocalDS_0] restored", dc)))
	_, err = writer.Write([]byte("second half"))
	e.must(err)
	e.must(writer.Close())
	<-status
	assertSame(t, before, e.Status())
	manager := object.NewFileManager(e.client.Client)
	e.must(manager.MakeDirectory(e.ctx, "[LocalDS_0] restored", dc, false)) // it isn't there any more
}

// The client that govc uses.
func TestFolder_datastoreOfGovmomi(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	ds, err := e.finder.Datastore(e.ctx, "LocalDS_0")
	e.must(err)
	p := soap.DefaultUpload
	e.must(ds.Upload(e.ctx, strings.NewReader("text"), "dir/file.txt", &p))
	r, n, err := ds.Download(e.ctx, "dir/file.txt", nil)
	e.must(err)
	defer func() { _ = r.Close() }()
	got, err := io.ReadAll(r)
	if err != nil || n != 4 || string(got) != "text" {
		t.Errorf("%q, %d, %v", got, n, err)
	}
	f, err := ds.Open(e.ctx, "dir/file.txt")
	e.must(err)
	defer func() { _ = f.Close() }()
	_, err = f.Seek(2, io.SeekStart)
	e.must(err)
	if got, err := io.ReadAll(f); err != nil || string(got) != "xt" {
		t.Errorf("after Seek: %q, %v", got, err)
	}
}

func TestFolder_faults(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}}})
	cookie := e.sessionCookie()
	want := e.content("off", 0, mib)
	for fault, check := range map[string]func(status int, p []byte) bool{
		"drop":    func(status int, p []byte) bool { return status == 0 && len(p) < mib },
		"503":     func(status int, _ []byte) bool { return status == 503 },
		"403":     func(status int, _ []byte) bool { return status == 403 },
		"corrupt": func(status int, p []byte) bool { return status == 200 && len(p) == mib && !bytes.Equal(p, want) },
		"":        func(status int, p []byte) bool { return status == 200 && bytes.Equal(p, want) },
	} {
		e.Fault(lab.Fault{Method: "GET /folder", Fault: fault})
		if status, p := e.folder(http.MethodGet, e.folderURL("off/off-flat.vmdk"), nil, http.NoBody, cookie); !check(status, p) {
			t.Errorf("fault %q: %d, %d bytes", fault, status, len(p))
		}
		if left := e.UnhitFaults(); len(left) != 0 {
			t.Errorf("fault %q was not hit", fault)
		}
	}
	for fault, answer := range map[string][]byte{
		"": want[1000:3000], "whole": want, "shifted": want[1512:3512], "shorter": want[1000:2999],
	} {
		e.Fault(lab.Fault{Method: "GET /folder", Fault: fault})
		_, p := e.folder(http.MethodGet, e.folderURL("off/off-flat.vmdk"), http.Header{"Range": {"bytes=1000-2999"}}, http.NoBody, cookie)
		if !bytes.Equal(p, answer) {
			t.Errorf("a range, fault %q: %d bytes, want %d, or others", fault, len(p), len(answer))
		}
	}
}

func TestFolder_ofAHost(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{ESX: true, VMs: []lab.VMSpec{{Name: "off", Disks: []string{labtest.RawDisk(t, mib, 2)}, PoweredOff: true}}})
	target := strings.Replace(e.folderURL("off/off-flat.vmdk"), "dcPath=DC0", "dcPath=ha-datacenter", 1)
	if status, p := e.folder(http.MethodGet, target, nil, http.NoBody, e.sessionCookie()); !bytes.Equal(p, e.content("off", 0, mib)) {
		t.Errorf("%d, %d bytes", status, len(p))
	}
}
