package vsphere

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// A watchRound is a property collector and what is registered with it. Only the watcher's goroutine
// uses it.
type watchRound struct {
	w         *watcher
	collector types.ManagedObjectReference // zero: there is none
	version   string
	filters   map[types.ManagedObjectReference][]*watch
	fresh     []types.ManagedObjectReference // filters whose first answer isn't complete yet

	// heard are the objects of the answers so far, of which a truncated one is a part only.
	heard map[types.ManagedObjectReference]bool
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
	r.collector, r.fresh = res.Returnval, nil
	r.begin()
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
	r.begin()
	return nil
}

// begin has the next question answered from the beginning.
func (r *watchRound) begin() { r.version, r.heard = "", make(map[types.ManagedObjectReference]bool) }

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
	if res.Returnval == nil { // nothing happened in maxWait; ask for what is so, should an update have been lost
		r.begin()
		return nil
	}
	r.version = res.Returnval.Version
	for _, set := range res.Returnval.FilterSet {
		for _, missing := range set.MissingSet {
			r.gone(r.filters[set.Filter], missing.Obj)
		}
		for _, update := range set.ObjectSet {
			r.heard[update.Obj] = true
			r.deliver(r.filters[set.Filter], update)
		}
	}
	// Of many objects an answer comes in parts: a vCenter puts 100 into each, whatever it is asked for
	// (UpdateSet.truncated and WaitOptions.maxObjectUpdates in the API reference).
	if res.Returnval.Truncated == nil || !*res.Returnval.Truncated {
		r.missing()
	}
	return nil
}

// missing ends the watches of objects that a fresh filter doesn't say anything of: its first answer, all
// parts of it, has all that exist.
func (r *watchRound) missing() {
	for _, filter := range r.fresh {
		for _, one := range r.filters[filter] {
			if !r.heard[one.ref] {
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
		r.w.log.DebugContext(r.w.ctx, "destroy a property collector", "error", withoutURL(err))
	}
	r.collector = types.ManagedObjectReference{}
}
