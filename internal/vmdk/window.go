package vmdk

import (
	"runtime"
	"sync"
)

// A window works on items in parallel and hands them back in order. It holds a fixed number of
// items, which are used again and again. All methods are for one goroutine, which never waits for
// anything but work that is under way; so ending a window never hangs.
type window[T any] struct {
	work  chan *slot[T]
	wg    sync.WaitGroup
	ring  []*slot[T]
	first int // oldest submitted slot
	count int // submitted slots
}

type slot[T any] struct {
	item T
	done chan struct{} // holds a token when the item's work is done
}

// newWindow starts workers (zero: as many as Go runs threads). Each takes its work function from
// newWorker and calls the returned release at its end.
func newWindow[T any](workers int, newWorker func() (run func(*T), release func())) *window[T] {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	size := 2*workers + 2
	w := &window[T]{work: make(chan *slot[T], size), ring: make([]*slot[T], size)}
	for i := range w.ring {
		w.ring[i] = &slot[T]{done: make(chan struct{}, 1)}
	}
	for range workers {
		w.wg.Go(func() {
			run, release := newWorker()
			defer release()
			for s := range w.work {
				run(&s.item)
				s.done <- struct{}{}
			}
		})
	}
	return w
}

// full reports whether the oldest item must be released before another can be submitted.
func (w *window[T]) full() bool { return w.count == len(w.ring) }

// free is the item that submit will submit. The window must not be full.
func (w *window[T]) free() *T { return &w.ring[(w.first+w.count)%len(w.ring)].item }

// submit gives the free item to the workers.
func (w *window[T]) submit() {
	w.work <- w.ring[(w.first+w.count)%len(w.ring)]
	w.count++
}

// oldest is the item that was submitted first, once its work is done. Without wait it is nil when
// the work is still under way. It is nil too when nothing is submitted. The caller must release
// what it got before it asks again.
func (w *window[T]) oldest(wait bool) *T {
	if w.count == 0 {
		return nil
	}
	s := w.ring[w.first]
	if wait {
		<-s.done
		return &s.item
	}
	select {
	case <-s.done:
		return &s.item
	default:
		return nil
	}
}

// release makes the oldest item free.
func (w *window[T]) release() {
	w.first = (w.first + 1) % len(w.ring)
	w.count--
}

// close ends the workers and waits for them. Work that was submitted is finished first.
func (w *window[T]) close() {
	close(w.work)
	w.wg.Wait()
}
