package vsphere

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// A watcher lets any number of callers wait for properties to change, over one property collector that
// nobody else uses. One goroutine owns the collector: it registers what is to be watched, a batch at a
// time, and asks for updates. It never adds a filter while it asks; who comes along meanwhile cancels
// the asking. It runs only while somebody waits.
type watcher struct {
	ctx context.Context //nolint:containedctx // the client's life: the watcher serves many callers
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

// closeWatcherTimeout is how long taking leave of the server may take.
const closeWatcherTimeout = 5 * time.Second

// close ends all watches with errClosed, and leaves no question open at the server. stop ends the
// watcher's context; it is called when the goroutines have ended, or take too long.
func (w *watcher) close(stop context.CancelFunc) {
	w.mu.Lock()
	w.isClosed = true
	w.mu.Unlock()
	w.failAll(errClosed)
	timer := time.AfterFunc(closeWatcherTimeout, stop)
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
			w.log.Debug("cancel the wait for updates", "error", withoutURL(err))
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
			w.log.Debug("watching again with a new property collector", "error", withoutURL(err))
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

// A watchRound is a property collector and what is registered with it. Only the watcher's goroutine
// uses it.
type watchRound struct {
	w         *watcher
	collector types.ManagedObjectReference // zero: there is none
	version   string
	filters   map[types.ManagedObjectReference][]*watch
	fresh     []types.ManagedObjectReference // filters that nothing was heard of yet
}

// maxWait is how long a question for updates may stay open, in seconds. It is short enough that no proxy
// on the way takes the connection for dead.
const maxWait = 60

// step registers what has arrived, drops what nobody waits for, and asks for updates once.
func (r *watchRound) step() error {
	if r.collector == (types.ManagedObjectReference{}) {
		if err := r.create(); err != nil {
			return err
		}
	}
	if err := r.register(); err != nil {
		return err
	}
	if err := r.dropFilters(); err != nil {
		return err
	}
	if len(r.filters) == 0 {
		return nil
	}
	return r.ask()
}

// create makes a new collector; everybody who waits has to be registered with it.
func (r *watchRound) create() error {
	res, err := methods.CreatePropertyCollector(r.w.ctx, r.w.vim, &types.CreatePropertyCollector{
		This: r.w.vim.ServiceContent.PropertyCollector,
	})
	if err != nil {
		return err
	}
	r.collector, r.version, r.fresh = res.Returnval, "", nil
	r.filters = make(map[types.ManagedObjectReference][]*watch)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.arrived = r.w.arrived[:0]
	for one := range r.w.waiting {
		r.w.arrived = append(r.w.arrived, one)
	}
	return nil
}

// register makes one filter for all that arrived.
func (r *watchRound) register() error {
	r.w.mu.Lock()
	arrived := r.w.arrived
	r.w.arrived = nil
	r.w.mu.Unlock()
	if len(arrived) == 0 {
		return nil
	}
	spec := types.PropertyFilterSpec{ReportMissingObjectsInResults: types.NewBool(true)}
	paths := make(map[string][]string)
	objects := make(map[types.ManagedObjectReference]bool)
	for _, one := range arrived {
		paths[one.ref.Type] = append(paths[one.ref.Type], one.paths...)
		if !objects[one.ref] {
			objects[one.ref] = true
			spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: one.ref})
		}
	}
	for kind, all := range paths {
		slices.Sort(all)
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: kind, PathSet: slices.Compact(all)})
	}
	res, err := methods.CreateFilter(r.w.ctx, r.w.vim, &types.CreateFilter{This: r.collector, Spec: spec})
	if err != nil {
		return err
	}
	r.filters[res.Returnval] = arrived
	r.fresh = append(r.fresh, res.Returnval)
	// A question without a version is answered at once with all that is so now, so that a change
	// before the filter was there isn't missed.
	r.version = ""
	return nil
}

// dropFilters destroys the filters whose watches have all ended.
func (r *watchRound) dropFilters() error {
	for filter, watches := range r.filters {
		if r.w.anyWaits(watches) {
			continue
		}
		delete(r.filters, filter)
		_, err := methods.DestroyPropertyFilter(r.w.ctx, r.w.vim, &types.DestroyPropertyFilter{This: filter})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) anyWaits(watches []*watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range watches {
		if _, ok := w.waiting[one]; ok {
			return true
		}
	}
	return false
}

// ask waits for updates and hands them out.
func (r *watchRound) ask() error {
	r.w.mu.Lock()
	if len(r.w.arrived) > 0 || len(r.w.waiting) == 0 { // the last one may have gone since goOn looked
		r.w.mu.Unlock()
		return nil
	}
	q := &question{collector: r.collector, answered: make(chan struct{})}
	r.w.asking = q
	r.w.mu.Unlock()
	res, err := methods.WaitForUpdatesEx(r.w.ctx, r.w.vim, &types.WaitForUpdatesEx{
		This: r.collector, Version: r.version,
		Options: &types.WaitOptions{MaxWaitSeconds: types.NewInt32(maxWait)},
	})
	r.w.mu.Lock()
	r.w.asking = nil
	r.w.mu.Unlock()
	close(q.answered)
	if err != nil {
		if fault.Is(err, &types.RequestCanceled{}) {
			return nil
		}
		return err
	}
	if res.Returnval == nil { // nothing happened in maxWait
		return nil
	}
	r.version = res.Returnval.Version
	heard := make(map[types.ManagedObjectReference]bool)
	for _, set := range res.Returnval.FilterSet {
		for _, missing := range set.MissingSet {
			r.gone(r.filters[set.Filter], missing.Obj)
		}
		for _, update := range set.ObjectSet {
			heard[update.Obj] = true
			r.deliver(r.filters[set.Filter], update)
		}
	}
	if res.Returnval.Truncated == nil || !*res.Returnval.Truncated {
		r.missing(heard)
	}
	return nil
}

// missing ends the watches of objects that a fresh filter doesn't say anything of: its first answer has
// all that exist.
func (r *watchRound) missing(heard map[types.ManagedObjectReference]bool) {
	for _, filter := range r.fresh {
		for _, one := range r.filters[filter] {
			if !heard[one.ref] {
				r.gone(r.filters[filter], one.ref)
			}
		}
	}
	r.fresh = nil
}

// deliver hands an update to those who watch its object.
func (r *watchRound) deliver(watches []*watch, update types.ObjectUpdate) {
	if update.Kind == types.ObjectUpdateKindLeave {
		r.gone(watches, update.Obj)
		return
	}
	for _, one := range watches {
		if one.ref != update.Obj {
			continue
		}
		for _, change := range update.ChangeSet {
			if change.Val != nil && slices.Contains(one.paths, change.Name) && r.w.tell(one, change.Name, change.Val) {
				break
			}
		}
	}
}

// tell calls until, and ends the watch if that says so.
func (w *watcher) tell(one *watch, name string, value any) (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.waiting[one]; !ok {
		return true
	}
	if !one.until(name, value) {
		return false
	}
	delete(w.waiting, one)
	close(one.done)
	return true
}

// errGone is why a watch ends whose object was removed.
var errGone = errors.New("the object has been removed")

func (r *watchRound) gone(watches []*watch, ref types.ManagedObjectReference) {
	for _, one := range watches {
		if one.ref == ref {
			r.w.finish(one, fmt.Errorf("%s: %w", ref.Value, errGone))
		}
	}
}

// destroy gives the collector back. It fails where that ended with its session, which is as good.
func (r *watchRound) destroy() {
	if r.collector == (types.ManagedObjectReference{}) || r.w.ctx.Err() != nil {
		return // logging out ends it
	}
	_, err := methods.DestroyPropertyCollector(r.w.ctx, r.w.vim, &types.DestroyPropertyCollector{This: r.collector})
	if err != nil {
		r.w.log.Debug("destroy a property collector", "error", withoutURL(err))
	}
	r.collector = types.ManagedObjectReference{}
}
