package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// errDropped says that an injected fault has broken the transfer.
var errDropped = errors.New("connection dropped by an injected fault")

const (
	// faultAfter is how much of a transfer passes before "drop" and "hang" strike, in bytes.
	faultAfter = 96 << 10
	// corruptAt is the byte of a transfer that "corrupt" flips: it lies in the data of the first
	// grain of a stream-optimized VMDK whose grains start at 64 KiB. A shorter transfer has its last
	// byte flipped.
	corruptAt = 64<<10 + 32
	// holdBack is what "truncate" withholds of the end of a transfer: more than the footer and the
	// end-of-stream marker of a VMDK.
	holdBack = 2 << 10
)

// transferFault lets a fault strike that needs no data. It is false when the request is over. The
// others strike in a faultyWriter or faultyReader.
func (l *Lab) transferFault(ctx context.Context, w http.ResponseWriter, f *Fault) bool {
	if !l.sleep(ctx, f.Delay) {
		panic(http.ErrAbortHandler)
	}
	switch f.Fault {
	case "", "drop", "truncate", "corrupt", "hang", "whole", "shifted", "shorter":
		return true
	}
	status := http.StatusInternalServerError
	if n, err := strconv.Atoi(f.Fault); err == nil && n >= 400 && n <= 599 {
		status = n
	}
	http.Error(w, http.StatusText(status)+": "+f.Fault, status)
	return false
}

// A faultyWriter spoils an answer.
type faultyWriter struct {
	http.ResponseWriter
	ctx   context.Context
	fault string
	n     int64  // bytes that came in
	held  []byte // bytes that came in and didn't go out yet
}

// newFaultyWriter wraps w, or returns it as it is if there is no fault.
func newFaultyWriter(ctx context.Context, w http.ResponseWriter, fault string) http.ResponseWriter {
	if fault == "" {
		return w
	}
	return &faultyWriter{ResponseWriter: w, ctx: ctx, fault: fault}
}

// Write passes on all but the last bytes, so that whatever the fault, it strikes before the end.
func (f *faultyWriter) Write(p []byte) (int, error) {
	f.n += int64(len(p))
	f.held = append(f.held, p...)
	if f.fault == "corrupt" {
		return len(p), f.corrupt(false)
	}
	if (f.fault == "drop" || f.fault == "hang") && f.n > faultAfter {
		return len(p), f.strike()
	}
	if n := len(f.held) - holdBack; n > 0 {
		if _, err := f.ResponseWriter.Write(f.held[:n]); err != nil {
			return 0, err
		}
		f.held = append(f.held[:0], f.held[n:]...)
	}
	return len(p), nil
}

// corrupt flips a byte when it passes by, or the last one at the end.
func (f *faultyWriter) corrupt(end bool) error {
	start := f.n - int64(len(f.held)) // position of held[0]
	keep := 1                         // in case it is the last
	switch {
	case start <= corruptAt && f.n > corruptAt:
		f.held[corruptAt-start] ^= 0x55
		keep = 0
	case start > corruptAt:
		keep = 0
	case end && len(f.held) > 0:
		f.held[len(f.held)-1] ^= 0x55
		keep = 0
	}
	if len(f.held) <= keep {
		return nil
	}
	_, err := f.ResponseWriter.Write(f.held[:len(f.held)-keep])
	f.held = append(f.held[:0], f.held[len(f.held)-keep:]...)
	return err
}

func (f *faultyWriter) strike() error {
	if c, ok := f.ResponseWriter.(http.Flusher); ok {
		c.Flush()
	}
	if f.fault == "hang" {
		<-f.ctx.Done()
	}
	return errDropped
}

// finish ends an answer that is whole. A faulty answer is not.
func finish(w http.ResponseWriter) error {
	f, ok := w.(*faultyWriter)
	if !ok {
		return nil
	}
	switch f.fault {
	case "corrupt":
		return f.corrupt(true)
	case "truncate":
		return nil // a proper end of the answer, but not of what is in it
	}
	return f.strike()
}

// A faultyReader spoils a request's body.
type faultyReader struct {
	io.Reader
	ctx   context.Context
	fault string
	n     int64
}

// newFaultyReader wraps r, or returns it as it is if there is no fault.
func newFaultyReader(ctx context.Context, r io.Reader, fault string) io.Reader {
	if fault == "" {
		return r
	}
	return &faultyReader{Reader: r, ctx: ctx, fault: fault}
}

// Read passes on what comes before the fault.
func (f *faultyReader) Read(p []byte) (int, error) {
	if f.fault != "corrupt" {
		if f.n >= faultAfter {
			return 0, f.strike()
		}
		p = p[:min(int64(len(p)), faultAfter-f.n)]
	}
	n, err := f.Reader.Read(p)
	if at := corruptAt - f.n; f.fault == "corrupt" && at >= 0 && at < int64(n) {
		p[at] ^= 0x55
	}
	f.n += int64(n)
	if errors.Is(err, io.EOF) && f.fault != "corrupt" {
		return 0, f.strike() // withholds what came last
	}
	return n, err
}

func (f *faultyReader) strike() error {
	switch f.fault {
	case "truncate":
		return io.EOF
	case "hang":
		_, _ = io.Copy(io.Discard, f.Reader) // a server sees that a client is gone only while it reads
		<-f.ctx.Done()
	}
	return errDropped
}
