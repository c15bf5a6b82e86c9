package lab

import (
	"context"
	"crypto/sha1" //nolint:gosec // the protocol's checksum
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// streamVMDK is the media type of an uploaded disk.
const streamVMDK = "application/x-vnd.vmware-streamVmdk"

// installTransfers registers the HTTP side of leases and of datastores, and the lab's own controls,
// with the simulator's service. Patterns with a method win over the simulator's.
func (l *Lab) installTransfers() {
	svc := l.model.Service
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead, http.MethodDelete} {
		svc.HandleFunc(method+" /nfc/", l.serveNFC)
		svc.HandleFunc(method+" /folder/", l.serveFolder)
	}
	l.installControl()
}

// nfcURL is where an item of a lease is read or written. Its host is "*" on an ESXi host: the client
// puts in the one that it is connected to.
func (l *Lab) nfcURL(ticket, target string) string {
	u := l.URL()
	u.Path = "/nfc/" + ticket + "/" + target
	if l.options.ESX {
		u.Host = "*"
		if port := l.URL().Port(); port != "" {
			u.Host = "*:" + port
		}
		return strings.Replace(u.String(), "%2A", "*", 1)
	}
	return u.String()
}

// thumbprint is the SHA-1 digest of the server's certificate, as leases give it.
func (l *Lab) thumbprint() string {
	cert, err := x509.ParseCertificate(l.cert.Certificate[0])
	if err != nil {
		return ""
	}
	return soap.ThumbprintSHA1(cert)
}

// A httpError is an answer to a transfer that went wrong before anything was sent.
type httpError struct {
	status int
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

func refuse(status int, format string, args ...any) error {
	return &httpError{status, fmt.Errorf(format, args...)}
}

// serveNFC serves the URLs of leases. The ticket in the URL is all the authority it takes.
func (l *Lab) serveNFC(w http.ResponseWriter, r *http.Request) {
	method := r.Method + " /nfc"
	l.enter(r.Context(), method)
	ticket, target, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/nfc/"), "/")
	l.leases.mu.Lock()
	lease := l.leases.open[ticket]
	l.leases.mu.Unlock()
	var item *leaseItem
	if lease != nil {
		item = lease.item(target)
	}
	if item == nil {
		http.NotFound(w, r)
		return
	}
	ctx, stop := lease.bind(w, r) // ends with the request, and with the lease
	defer stop()
	fault, ok := l.faults.next(method, faultTransfer)
	if ok && !l.transferFault(ctx, w, &fault) { //nolint:contextcheck // see bind
		return
	}
	var err error
	if r.Method == http.MethodGet {
		err = lease.download(ctx, newFaultyWriter(ctx, w, fault.Fault), item) //nolint:contextcheck // see bind
	} else {
		err = lease.upload(ctx, r, newFaultyReader(ctx, r.Body, fault.Fault), item) //nolint:contextcheck // see bind
	}
	var refusal *httpError
	switch {
	case errors.As(err, &refusal):
		http.Error(w, refusal.Error(), refusal.status)
	case err != nil && (r.Method == http.MethodGet || lease.ctx.Err() != nil || errors.Is(err, errDropped)):
		panic(http.ErrAbortHandler) // closes the connection in mid-stream
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusCreated)
	}
}

// item finds an item by the last element of its URL.
func (s *httpNfcLease) item(target string) *leaseItem {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range s.items {
		if item.target == target && !s.ended {
			return item
		}
	}
	return nil
}

// bind makes a context for a transfer that ends with the request and with the lease. When the lease
// ends, reads and writes of the connection fail at once.
func (s *httpNfcLease) bind(w http.ResponseWriter, r *http.Request) (context.Context, func()) {
	ctx, cancel := context.WithCancel(r.Context())
	control := http.NewResponseController(w)
	unhook := context.AfterFunc(s.ctx, func() {
		cancel()
		past := time.Unix(1, 0)
		_ = control.SetReadDeadline(past)  // a connection without deadlines
		_ = control.SetWriteDeadline(past) // ends with the next write
	})
	return ctx, func() {
		unhook()
		cancel()
	}
}

// tally computes what a manifest says about a stream.
type tally struct {
	sha1, sha256 hash.Hash
	n            int64
}

func newTally(kind types.HttpNfcLeaseManifestEntryChecksumType) *tally {
	t := &tally{sha1: sha1.New()} //nolint:gosec // the protocol's checksum
	if kind == types.HttpNfcLeaseManifestEntryChecksumTypeSha256 {
		t.sha256 = sha256.New()
	}
	return t
}

func (t *tally) Write(p []byte) (int, error) {
	_, _ = t.sha1.Write(p) // a hash never fails
	if t.sha256 != nil {
		_, _ = t.sha256.Write(p)
	}
	t.n += int64(len(p))
	return len(p), nil
}

func (t *tally) entry(item *leaseItem, populated int64) *types.HttpNfcLeaseManifestEntry {
	e := &types.HttpNfcLeaseManifestEntry{
		Key: item.key, Sha1: hex.EncodeToString(t.sha1.Sum(nil)), Size: t.n, Disk: item.disk,
		Capacity: item.capacity, PopulatedSize: populated,
		ChecksumType: string(types.HttpNfcLeaseManifestEntryChecksumTypeSha1),
	}
	e.Checksum = e.Sha1
	if t.sha256 != nil {
		e.ChecksumType = string(types.HttpNfcLeaseManifestEntryChecksumTypeSha256)
		e.Checksum = hex.EncodeToString(t.sha256.Sum(nil))
	}
	return e
}

// counted passes a source on and adds up its data.
type counted struct {
	disk.Source
	bytes int64
}

func (c *counted) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	return c.Source.Extents(ctx, func(offset int64, data []byte) error {
		c.bytes += int64(len(data))
		return yield(offset, data)
	})
}

// download streams an item. An error after the first byte means that the stream is not whole.
func (s *httpNfcLease) download(ctx context.Context, w http.ResponseWriter, item *leaseItem) error {
	if !s.export {
		return refuse(http.StatusMethodNotAllowed, "the lease is for an import")
	}
	sum := newTally(s.checksumOf(item))
	if !item.disk {
		return s.downloadFile(w, item, sum)
	}
	source, err := s.lab.store.Source(item.file)
	if err != nil {
		return refuse(http.StatusInternalServerError, "%w", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream") // and no length: nobody knows it yet
	data := &counted{Source: source}
	if _, err := vmdk.Encode(ctx, io.MultiWriter(w, sum), data, vmdk.EncodeOptions{}); err != nil {
		return err
	}
	if err := finish(w); err != nil {
		return err
	}
	s.record(item, sum.entry(item, data.bytes))
	return nil
}

func (s *httpNfcLease) downloadFile(w http.ResponseWriter, item *leaseItem, sum *tally) error {
	name, ok := s.lab.path(item.file)
	if !ok {
		return refuse(http.StatusNotFound, "%s is gone", item.file)
	}
	f, err := os.Open(name)
	if err != nil {
		return refuse(http.StatusNotFound, "%s is gone", item.file)
	}
	defer func() { _ = f.Close() }() // only read
	if _, err := io.Copy(io.MultiWriter(w, sum), f); err != nil {
		return err
	}
	if err := finish(w); err != nil {
		return err
	}
	s.record(item, sum.entry(item, 0))
	return nil
}

func (s *httpNfcLease) checksumOf(item *leaseItem) types.HttpNfcLeaseManifestEntryChecksumType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return item.checksum
}

// record notes a complete transfer; nil takes an earlier one back.
func (s *httpNfcLease) record(item *leaseItem, e *types.HttpNfcLeaseManifestEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item.manifest = e
}

// upload stores an item: a disk from a stream-optimized VMDK, anything else as it is. What an earlier
// upload has stored is replaced.
func (s *httpNfcLease) upload(ctx context.Context, r *http.Request, in io.Reader, item *leaseItem) error {
	switch {
	case s.export, r.Method != http.MethodPost && r.Method != http.MethodPut:
		return refuse(http.StatusMethodNotAllowed, "%s is not allowed here", r.Method)
	case r.Method == http.MethodPut && r.Header.Get("Overwrite") != "t":
		return refuse(http.StatusForbidden, "PUT needs the header Overwrite: t")
	case r.Method == http.MethodPost && !item.disk:
		return refuse(http.StatusMethodNotAllowed, "%s is not a disk: use PUT", item.key)
	case r.Method == http.MethodPost && r.Header.Get("Content-Type") != streamVMDK:
		return refuse(http.StatusUnsupportedMediaType, "a disk is uploaded as %s", streamVMDK)
	}
	s.record(item, nil)
	sum := newTally(s.checksumOf(item))
	in = io.TeeReader(in, sum)
	var populated int64
	var err error
	if item.disk {
		populated, err = s.storeDisk(ctx, in, item)
	} else {
		err = s.lab.storeFile(in, item.file)
	}
	if err != nil {
		return err
	}
	s.record(item, sum.entry(item, populated))
	return nil
}

// storeDisk decodes a stream into the disk store.
func (s *httpNfcLease) storeDisk(ctx context.Context, in io.Reader, item *leaseItem) (populated int64, err error) {
	d, err := vmdk.NewDecoder(ctx, in, vmdk.DecodeOptions{})
	if err != nil {
		return 0, err
	}
	if d.Capacity() != item.capacity {
		return 0, fmt.Errorf("the stream is of a disk of %d bytes, %s has %d", d.Capacity(), item.key, item.capacity)
	}
	if err := s.lab.emptyDisk(item.file); err != nil {
		return 0, err
	}
	err = d.Extents(ctx, func(offset int64, data []byte) error {
		populated += int64(len(data))
		return s.lab.store.WriteAt(item.file, data, offset)
	})
	return populated, err
}

// storeFile writes a file of a datastore, replacing what was there only when all of it has arrived. Like a
// vCenter it makes the directory if it isn't there (github.com/vmware/govmomi/issues/1332), at the start:
// what arrives after the file was removed is lost with it.
func (l *Lab) storeFile(in io.Reader, name string) (err error) {
	file, ok := l.path(name)
	if !ok {
		return refuse(http.StatusNotFound, "%s: no such datastore", name)
	}
	_, err = os.Stat(file)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && isNew {
			err = errors.Join(err, removeSame(f, file))
		}
		err = errors.Join(err, f.Close())
	}()
	arrived, err := os.CreateTemp(l.dir, "upload-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arrived.Close(), os.Remove(arrived.Name())) }()
	if _, err := io.Copy(arrived, in); err != nil {
		return err
	}
	if _, err := arrived.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = io.Copy(f, arrived)
	return err
}

// removeSame removes an open file, unless another one has its name by now.
func removeSame(f *os.File, name string) error {
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(name); err != nil || !os.SameFile(ours, now) {
		return nil //nolint:nilerr // it has no name any more
	}
	return os.Remove(name)
}
