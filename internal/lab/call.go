package lab

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// serveSDK stands before the simulator's SOAP service: it counts calls, runs hooks and breaks connections.
func (l *Lab) serveSDK(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method := soapMethod(body)
	l.enter(r.Context(), method)
	if f, ok := l.faults.next(method, faultTransport); ok {
		if !l.sleep(r.Context(), f.Delay) {
			return
		}
		l.breakConnection(w, r, method, f.Fault)
		return
	}
	if method == "AcquireGenericServiceTicket" {
		tee, record := l.recordTicket(body, w)
		l.model.Service.ServeSDK(tee, r)
		record()
		return
	}
	if method == "WaitForUpdatesEx" {
		l.serveWait(w, r)
		return
	}
	l.model.Service.ServeSDK(w, r)
}

// serveWait answers a wait for updates. The simulator waits to the end, a minute or so, also for a
// client that is gone; neither the connection nor the end of the lab shall wait with it.
func (l *Lab) serveWait(w http.ResponseWriter, r *http.Request) {
	answer := &heldAnswer{header: http.Header{}, code: http.StatusOK}
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		l.model.Service.ServeSDK(answer, r)
	}()
	select {
	case <-ready:
	case <-r.Context().Done():
		return
	case <-l.done:
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes()) // a client that is gone misses nothing
}

// A heldAnswer holds an answer back until it is complete.
type heldAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *heldAnswer) Header() http.Header         { return a.header }
func (a *heldAnswer) WriteHeader(code int)        { a.code = code }
func (a *heldAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

// breakConnection answers a request as a broken server or network does.
func (l *Lab) breakConnection(w http.ResponseWriter, r *http.Request, method, fault string) {
	switch fault {
	case "503":
		http.Error(w, "503 Service Unavailable", http.StatusServiceUnavailable)
	case "lost":
		answer := &lostWriter{header: http.Header{}}
		l.faults.lose(method)
		l.model.Service.ServeSDK(answer, r)
		w.Header().Set("Content-Length", strconv.Itoa(answer.body.Len()))
		_, _ = w.Write(answer.body.Bytes()[:answer.body.Len()/2])
		_ = http.NewResponseController(w).Flush() // the client sees the beginning
		panic(http.ErrAbortHandler)
	case "hang":
		select {
		case <-r.Context().Done():
		case <-l.done:
		}
	default:
		panic(http.ErrAbortHandler) // the server closes the connection without an answer
	}
}

// A lostWriter keeps an answer that is not going to arrive.
type lostWriter struct {
	header http.Header
	body   bytes.Buffer
}

func (w *lostWriter) Header() http.Header         { return w.header }
func (w *lostWriter) WriteHeader(int)             {}
func (w *lostWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

// sleep waits. It is false when ctx or the lab ended before.
func (l *Lab) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-l.done:
	}
	return false
}

// soapMethod is the name of the first element in an envelope's body, "" when there is none.
func soapMethod(envelope []byte) string {
	decoder := xml.NewDecoder(bytes.NewReader(envelope))
	inBody := false
	for {
		token, err := decoder.RawToken()
		if err != nil {
			return ""
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if inBody {
			return start.Name.Local
		}
		inBody = start.Name.Local == "Body"
	}
}
