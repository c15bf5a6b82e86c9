package vmdk

import (
	"io"
	"sync/atomic"
	"time"
)

// aheadBuffers and aheadSize are what an aheadWriter holds, in buffers and in bytes of each.
const (
	aheadBuffers = 4
	aheadSize    = 2 * grainSize
)

// slowPace is how long it takes a slow writer to take a buffer: somewhat less than a network of 1 Gbit/s takes at
// its best. What takes more bytes than that in a second takes about as many as a processor compresses.
const slowPace = time.Millisecond

// An aheadWriter writes to w in a goroutine of its own, so that whoever fills it goes on meanwhile. All
// methods are for one goroutine. close must be called, and waits for the write that is under way.
type aheadWriter struct {
	queue   chan []byte // full buffers
	free    chan []byte
	failed  chan error // the first error of w; then nothing is written any more
	current []byte
	err     error

	// pace is how long w took lately to write a buffer, on average, in nanoseconds.
	pace atomic.Int64
	// slow tells what the queue was like when a buffer was last handed over: true where all others were
	// waiting to be written by a w that is slow, false where none was. Between these it stays as it is.
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
	a.pace.Store(2 * int64(slowPace)) // until it is known better
	queue := a.queue
	go func() {
		defer close(a.failed)
		var err error
		for b := range queue {
			if err == nil {
				start := time.Now()
				if _, err = w.Write(b); err != nil {
					a.failed <- err
				}
				a.keepPace(time.Since(start))
			}
			a.free <- b
		}
	}()
	return a
}

// keepPace enters how long a buffer took to be written. Buffers of the system come between: some take no time, and
// others much.
func (a *aheadWriter) keepPace(took time.Duration) {
	const memory = 16 // buffers
	pace := a.pace.Load()
	a.pace.Store(pace + (int64(took)-pace)/memory)
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
		a.slow = a.pace.Load() > int64(slowPace)
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
