package vsphere

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// A watcher lets any number of callers wait for properties to change, over one property collector that
// nobody else uses. One goroutine owns the collector: it registers what is to be watched, a batch at a
// time, and asks for updates. It never adds a filter while it asks; who comes along meanwhile cancels
// the asking. It runs only while somebody waits.
type watcher struct {
	ctx context.Context // the client's life: the watcher serves many callers
	vim *vim25.Client
	log *slog.Logger

	mu        sync.Mutex
	waiting   map[*watch]struct{} // not ended, registered or not
	arrived   []*watch            // not yet registered
	asking    *question           // nil: nothing is being asked
	isRunning bool
	isClosed  bool
	ended     sync.WaitGroup
}

// A watch is one caller that waits.
type watch struct {
	ref   types.ManagedObjectReference
	paths []string
	until func(name string, value any) bool // called by the watcher's goroutine only, until done is closed
	err   error                             // set before done is closed
	done  chan struct{}
}

func newWatcher(ctx context.Context, vim *vim25.Client, log *slog.Logger) *watcher {
	return &watcher{ctx: ctx, vim: vim, log: log, waiting: make(map[*watch]struct{})}
}

// watch calls until with each property's value as it is now and whenever it changes, and returns when
// until returns true, or with ctx.Err() when ctx ends. until is not called any more after watch has
// returned.
func (w *watcher) watch(
	ctx context.Context, ref types.ManagedObjectReference, paths []string, until func(name string, value any) bool,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	one := &watch{ref: ref, paths: paths, until: until, done: make(chan struct{})}
	w.add(one)
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		if w.remove(one) {
			return ctx.Err()
		}
		<-one.done // it ended at the same moment
		return one.err
	}
}

// add hands a watch over to the goroutine.
func (w *watcher) add(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isClosed || w.ctx.Err() != nil {
		one.err = errClosed
		close(one.done)
		return
	}
	w.waiting[one] = struct{}{}
	w.arrived = append(w.arrived, one)
	if !w.isRunning {
		w.isRunning = true
		w.ended.Add(1)
		go w.run()
		return
	}
	if w.asking != nil && len(w.arrived) == 1 {
		w.ended.Add(1)
		go w.interrupt(w.asking)
	}
}

// remove takes a watch away whose caller has gone. It returns false when the watch has ended already.
// A question that nobody waits for any more is cancelled: the server would keep it open.
func (w *watcher) remove(one *watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.waiting[one]
	delete(w.waiting, one)
	if ok && w.asking != nil && len(w.waiting) == 0 {
		w.ended.Add(1)
		go w.interrupt(w.asking)
	}
	return ok
}

// finish ends a watch unless its caller has gone.
func (w *watcher) finish(one *watch, err error) {
	if w.remove(one) {
		one.err = err
		close(one.done)
	}
}

// closeWatcherTimeout is how long taking leave of the server may take at most.
const closeWatcherTimeout = 5 * time.Second

// close ends all watches with errClosed, and leaves no question open at the server. stop ends the
// watcher's context; it is called when the goroutines have ended, or take longer than limit.
func (w *watcher) close(limit time.Duration, stop context.CancelFunc) {
	w.mu.Lock()
	w.isClosed = true
	w.mu.Unlock()
	w.failAll(errClosed)
	timer := time.AfterFunc(limit, stop)
	w.ended.Wait()
	timer.Stop()
	stop()
}

// A question is one call that waits for updates.
type question struct {
	collector types.ManagedObjectReference
	answered  chan struct{} // closed when the call has returned
}

// interrupt makes a question return. The server may get to see the cancellation before the question,
// where it has no effect, so it is repeated until there is an answer.
func (w *watcher) interrupt(q *question) {
	defer w.ended.Done()
	for attempt := 1; ; attempt++ {
		_, err := methods.CancelWaitForUpdates(w.ctx, w.vim, &types.CancelWaitForUpdates{This: q.collector})
		if err != nil && w.ctx.Err() == nil {
			w.log.DebugContext(w.ctx, "cancel the wait for updates", "error", withoutURL(err))
		}
		timer := time.NewTimer(backoff(attempt))
		select {
		case <-q.answered:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// giveUpAfter is for how long the watcher tries to get through to a server that fails before it gives
// up on all who wait.
const giveUpAfter = 5 * time.Minute

// run serves until nobody waits any more. A collector that fails (it ends with its session, or the
// connection breaks) is replaced, and everything is registered again with it: what happened in between
// is in the values that the new one starts with.
func (w *watcher) run() {
	defer w.ended.Done()
	round := &watchRound{w: w}
	failing := time.Time{}
	for attempt := 1; ; {
		if !w.goOn() {
			round.destroy()
			return
		}
		err := round.step()
		switch {
		case w.ctx.Err() != nil:
			w.failAll(errClosed)
		case err == nil:
			attempt, failing = 1, time.Time{}
		default:
			round.destroy()
			if failing.IsZero() {
				failing = time.Now()
			}
			if isFinal(err) || time.Since(failing) > giveUpAfter {
				w.failAll(err)
				break
			}
			w.log.DebugContext(w.ctx, "watching again with a new property collector", "error", withoutURL(err))
			_ = pause(w.ctx, backoff(attempt))
			attempt++
		}
	}
}

// goOn tells whether somebody waits; if not, the goroutine has ended as of now.
func (w *watcher) goOn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isRunning = len(w.waiting) > 0
	if !w.isRunning {
		w.arrived = nil
	}
	return w.isRunning
}

// failAll ends all watches with an error.
func (w *watcher) failAll(err error) {
	w.mu.Lock()
	all := make([]*watch, 0, len(w.waiting))
	for one := range w.waiting {
		all = append(all, one)
	}
	w.mu.Unlock()
	for _, one := range all {
		w.finish(one, err)
	}
}
