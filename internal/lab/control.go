package lab

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
)

// maxGuestIO is the most that one request reads or writes as the guest, in bytes.
const maxGuestIO = 64 << 20

// installControl registers what the command vm-lab uses to play the guest, to inject faults and to
// look at the lab. It takes no password: whoever reaches a lab may do with it as they like.
func (l *Lab) installControl() {
	svc := l.model.Service
	svc.HandleFunc("GET /lab/status", l.controlStatus)
	svc.HandleFunc("GET /lab/disk", l.controlRead)
	svc.HandleFunc("PUT /lab/disk", l.controlWrite)
	svc.HandleFunc("POST /lab/fault", l.controlFault)
}

func (l *Lab) controlStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(l.Status()) // the client is gone
}

// guestIO is what a request to play the guest asks for.
type guestIO struct {
	vm     string
	disk   int
	offset int64
}

// controlTarget parses the query of a request. It answers what can't be parsed.
func controlTarget(w http.ResponseWriter, r *http.Request) (guestIO, bool) {
	q := r.URL.Query()
	disk, err := strconv.Atoi(q.Get("disk"))
	if err != nil {
		http.Error(w, "disk: "+err.Error(), http.StatusBadRequest)
		return guestIO{}, false
	}
	offset, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil {
		http.Error(w, "offset: "+err.Error(), http.StatusBadRequest)
		return guestIO{}, false
	}
	return guestIO{q.Get("vm"), disk, offset}, true
}

func (l *Lab) controlRead(w http.ResponseWriter, r *http.Request) {
	g, ok := controlTarget(w, r)
	if !ok {
		return
	}
	length, err := strconv.ParseInt(r.URL.Query().Get("length"), 10, 64)
	if err != nil || length < 0 || length > maxGuestIO {
		http.Error(w, "length must be from 0 to "+strconv.Itoa(maxGuestIO), http.StatusBadRequest)
		return
	}
	p := make([]byte, length)
	if err := l.ReadDisk(g.vm, g.disk, g.offset, p); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(p) // the client is gone
}

func (l *Lab) controlWrite(w http.ResponseWriter, r *http.Request) {
	g, ok := controlTarget(w, r)
	if !ok {
		return
	}
	p, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxGuestIO))
	if err == nil {
		err = l.WriteDisk(g.vm, g.disk, g.offset, p)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (l *Lab) controlFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&f)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case f.Method == "":
		http.Error(w, "method is empty", http.StatusBadRequest)
	default:
		l.Fault(f)
		w.WriteHeader(http.StatusNoContent)
	}
}
