package vmdk

import "io"

// aheadBuffers and aheadSize are what an aheadWriter holds, in buffers and in bytes of each.
const (
	aheadBuffers = 4
	aheadSize    = 2 * grainSize
)

// An aheadWriter writes to w in a goroutine of its own, so that whoever fills it goes on meanwhile. All
// methods are for one goroutine. close must be called, and waits for the write that is under way.
type aheadWriter struct {
	queue   chan []byte // full buffers
	free    chan []byte
	failed  chan error // the first error of w; then nothing is written any more
	current []byte
	err     error

	// slow tells what the queue was like when a buffer was last handed over: true where all others were
	// waiting to be written, false where none was. Between these it stays as it is.
	slow bool
}

func newAheadWriter(w io.Writer) *aheadWriter {
	a := &aheadWriter{
		queue: make(chan []byte, aheadBuffers), free: make(chan []byte, aheadBuffers), failed: make(chan error, 1),
		current: make([]byte, 0, aheadSize),
	}
	for range aheadBuffers - 1 {
		a.free <- nil
	}
	queue := a.queue
	go func() {
		defer close(a.failed)
		var err error
		for b := range queue {
			if err == nil {
				if _, err = w.Write(b); err != nil {
					a.failed <- err
				}
			}
			a.free <- b
		}
	}()
	return a
}

// Write implements io.Writer. An error is that of an earlier write.
func (a *aheadWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if len(a.current) == cap(a.current) {
			if err := a.hand(); err != nil {
				return written, err
			}
		}
		n := min(len(p), cap(a.current)-len(a.current))
		a.current = append(a.current, p[:n]...)
		p = p[n:]
		written += n
	}
	return written, nil
}

// hand queues the current buffer and takes another.
func (a *aheadWriter) hand() error {
	switch len(a.free) {
	case 0:
		a.slow = true
	case aheadBuffers - 1:
		a.slow = false
	}
	a.queue <- a.current // there is room for all
	a.current = (<-a.free)[:0]
	if a.current == nil {
		a.current = make([]byte, 0, aheadSize)
	}
	if a.err == nil && len(a.failed) > 0 {
		a.err = <-a.failed
	}
	return a.err
}

// flush writes everything and ends. close may be called after it.
func (a *aheadWriter) flush() error {
	if a.err == nil && len(a.current) > 0 {
		a.queue <- a.current
	}
	a.close()
	return a.err
}

// close ends without writing what isn't queued.
func (a *aheadWriter) close() {
	if a.queue == nil {
		return
	}
	close(a.queue)
	a.queue = nil
	for err := range a.failed {
		a.err = err
	}
}
