package lab

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ticketCookie carries a generic service ticket.
const ticketCookie = "vmware_cgi_ticket"

// tickets are the generic service tickets that were given out and not used yet. The zero value is
// ready to use.
type tickets struct {
	mu   sync.Mutex
	byID map[string]request
}

// A request is what a ticket allows once. The host is left out: one server stands for them all.
type request struct{ method, path, query string }

// serveFolder serves the files of datastores to those who have a session or a ticket.
func (l *Lab) serveFolder(w http.ResponseWriter, r *http.Request) {
	method := r.Method + " /folder"
	l.enter(r.Context(), method)
	ticket, user := l.redeem(r), ""
	if !ticket {
		user = l.sessionUser(r)
	}
	if !ticket && user == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "neither a session nor a ticket", http.StatusUnauthorized)
		return
	}
	ctx, cancel := l.untilDone(r.Context())
	defer cancel()
	fault, ok := l.faults.next(method, faultTransfer)
	if ok && !l.transferFault(ctx, w, &fault) {
		return
	}
	name, err := l.folderName(r.URL, ticket)
	if err == nil {
		err = l.mayFile(user, name, r.Method == http.MethodPut || r.Method == http.MethodPost)
	}
	if err == nil {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			out := newFaultyWriter(ctx, w, otherRange(r, fault.Fault))
			if err = l.getFile(out, r, name); err == nil && finish(out) != nil {
				panic(http.ErrAbortHandler)
			}
		case http.MethodPut, http.MethodPost:
			err = l.putFile(w, r, newFaultyReader(ctx, r.Body, fault.Fault), name)
		default:
			err = refuse(http.StatusMethodNotAllowed, "%s is not allowed here", r.Method)
		}
	}
	var refusal *httpError
	switch {
	case errors.As(err, &refusal):
		http.Error(w, refusal.Error(), refusal.status)
	case errors.Is(err, errDropped):
		panic(http.ErrAbortHandler)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// otherRange makes a request ask for something else than it does, if that is what a fault is about. It
// returns the fault that remains.
func otherRange(r *http.Request, fault string) string {
	var first, last int64
	_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	switch fault {
	case "whole":
		r.Header.Del("Range")
	case "shifted":
		first, last = first+512, last+512
	case "shorter":
		last--
	default:
		return fault
	}
	if err == nil && fault != "whole" {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
	}
	return ""
}

// untilDone is a context that ends with ctx and with the lab.
func (l *Lab) untilDone(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	l.spawn(func() {
		select {
		case <-ctx.Done():
		case <-l.done:
			cancel()
		}
	})
	return ctx, cancel
}

// sessionUser is the user of the session that a request has the cookie of, "" where there is none.
func (l *Lab) sessionUser(r *http.Request) string {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return ""
	}
	for _, s := range l.sessions() {
		if s.Key == cookie.Value {
			return s.UserName
		}
	}
	return ""
}

// redeem uses up the ticket of a request, and says whether it allows the request.
func (l *Lab) redeem(r *http.Request) bool {
	cookie, err := r.Cookie(ticketCookie)
	if err != nil {
		return false
	}
	l.tickets.mu.Lock()
	defer l.tickets.mu.Unlock()
	allowed, ok := l.tickets.byID[cookie.Value]
	delete(l.tickets.byID, cookie.Value)
	return ok && allowed == request{r.Method, r.URL.Path, r.URL.Query().Encode()}
}

// recordTicket looks at a call of AcquireGenericServiceTicket and at its answer: the simulator gives
// out tickets, but forgets them.
func (l *Lab) recordTicket(envelope []byte, w http.ResponseWriter) (http.ResponseWriter, func()) {
	copied := &teeWriter{ResponseWriter: w}
	return copied, func() {
		method, err := simulator.UnmarshalBody(types.TypeFunc(), envelope)
		if err != nil {
			return
		}
		call, ok := method.Body.(*types.AcquireGenericServiceTicket)
		if !ok {
			return
		}
		spec, ok := call.Spec.(*types.SessionManagerHttpServiceRequestSpec)
		if !ok {
			return
		}
		u, err := url.Parse(spec.Url)
		id := firstElement(copied.body.Bytes(), "id")
		if err != nil || id == "" {
			return
		}
		verb := strings.ToUpper(strings.TrimPrefix(spec.Method, "http"))
		l.tickets.mu.Lock()
		defer l.tickets.mu.Unlock()
		if l.tickets.byID == nil {
			l.tickets.byID = make(map[string]request)
		}
		l.tickets.byID[id] = request{verb, u.Path, u.Query().Encode()}
		l.secrets.note(id)
	}
}

// A teeWriter keeps a copy of an answer's body.
type teeWriter struct {
	http.ResponseWriter
	body bytes.Buffer
}

// Write passes on and keeps.
func (t *teeWriter) Write(p []byte) (int, error) {
	_, _ = t.body.Write(p) // a buffer never fails
	return t.ResponseWriter.Write(p)
}

// firstElement is the text of the first element of a name in a document.
func firstElement(document []byte, name string) string {
	decoder := xml.NewDecoder(bytes.NewReader(document))
	for {
		token, err := decoder.Token()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == name {
			var text string
			if decoder.DecodeElement(&text, &start) != nil {
				return ""
			}
			return text
		}
	}
}

// folderName turns a URL into a datastore path. A ticket is for one host, which knows no datacenters.
func (l *Lab) folderName(u *url.URL, ticket bool) (string, error) {
	q := u.Query()
	dcPath, dsName := q.Get("dcPath"), q.Get("dsName")
	if dsName == "" || dcPath == "" && !ticket {
		return "", refuse(http.StatusBadRequest, "dcPath and dsName are needed")
	}
	name := strings.TrimPrefix(u.Path, "/folder/")
	if name == "" || path.Clean("/"+name) != "/"+name {
		return "", refuse(http.StatusBadRequest, "%q is not the path of a file", name)
	}
	ctx := l.background()
	for _, entity := range ctx.Map.All("Datacenter") {
		dc, ok := entity.(*simulator.Datacenter)
		ref := entity.Reference()
		if !ok || dcPath != "" && strings.Trim(dcPath, "/") != strings.Trim(inventoryPath(ctx, &ref), "/") {
			continue
		}
		for _, ref := range dc.Datastore {
			if ds, ok := ctx.Map.Get(ref).(*simulator.Datastore); ok && ds.Name == dsName {
				return (&object.DatastorePath{Datastore: dsName, Path: name}).String(), nil
			}
		}
	}
	return "", refuse(http.StatusNotFound, "no datastore %q in datacenter %q", dsName, dcPath)
}

// getFile serves a file, or a part of it.
func (l *Lab) getFile(w http.ResponseWriter, r *http.Request, name string) error {
	if descriptor := descriptorOf(name); descriptor != "" {
		info, err := l.store.Shape(descriptor)
		switch {
		case err == nil:
			return l.getExtent(w, r, name, descriptor, info)
		case !errors.Is(err, diskstore.ErrNotExist):
			return err
		}
	}
	file, ok := l.path(name)
	if !ok {
		return refuse(http.StatusNotFound, "%s: no such datastore", name)
	}
	f, err := os.Open(file)
	if err != nil {
		return refuse(http.StatusNotFound, "%s: no such file", name)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return refuse(http.StatusNotFound, "%s: no such file", name)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}

// getExtent serves the bytes of a disk's flat extent. Nobody may read what a running VM writes, and
// the lab has no bytes in the format of deltas.
func (l *Lab) getExtent(w http.ResponseWriter, r *http.Request, name, descriptor string, info diskstore.Info) error {
	flat := strings.HasSuffix(name, "-flat.vmdk")
	switch {
	case flat != (info.Parent == ""):
		return refuse(http.StatusNotFound, "%s: no such file", name)
	case l.locked(descriptor, info):
		return refuse(http.StatusInternalServerError, "%s: failed to lock the file", name)
	case !flat:
		return refuse(http.StatusNotImplemented, "%s: reading deltas is not supported", name)
	}
	source, err := l.store.Source(descriptor)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(source, 0, info.Capacity))
	return nil
}

// locked says whether a running VM writes to a disk's file. Files that others are chained on are only
// read.
func (l *Lab) locked(descriptor string, info diskstore.Info) bool {
	if info.Children > 0 {
		return false
	}
	ctx := l.background()
	for _, entity := range ctx.Map.All("VirtualMachine") {
		vm, ok := entity.(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		var writes bool
		ctx.WithLock(vm, func() { writes = writesTo(&vm.VirtualMachine, descriptor) })
		if writes {
			return true
		}
	}
	return false
}

// writesTo says whether a VM runs on a disk's file.
func writesTo(vm *mo.VirtualMachine, descriptor string) bool {
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn || vm.Config == nil {
		return false
	}
	for _, d := range disksOf(vm.Config.Hardware.Device) {
		if diskFile(d) == descriptor {
			return true
		}
	}
	return false
}

// putFile creates or, with PUT, replaces a file that is not part of a disk.
func (l *Lab) putFile(w http.ResponseWriter, r *http.Request, in io.Reader, name string) error {
	file, ok := l.path(name)
	if !ok {
		return refuse(http.StatusNotFound, "%s: no such datastore", name)
	}
	if _, err := l.store.Stat(name); err == nil {
		return refuse(http.StatusForbidden, "%s is a virtual disk: it takes its content through a lease", name)
	}
	if descriptor := descriptorOf(name); descriptor != "" {
		if _, err := l.store.Stat(descriptor); err == nil {
			return refuse(http.StatusForbidden, "%s is a virtual disk: it takes its content through a lease", name)
		}
	}
	_, err := os.Stat(file)
	exists := err == nil
	if exists && r.Method == http.MethodPost {
		return refuse(http.StatusConflict, "%s exists", name)
	}
	if err := l.storeFile(&wholeReader{in, r.ContentLength}, name); err != nil {
		return err
	}
	if exists {
		w.WriteHeader(http.StatusOK)
	} else {
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// A wholeReader fails when less comes than was announced.
type wholeReader struct {
	io.Reader
	left int64 // negative: nothing was announced
}

// Read passes on.
func (w *wholeReader) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.left >= 0 {
		w.left -= int64(n)
	}
	if errors.Is(err, io.EOF) && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
