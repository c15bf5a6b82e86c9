package vsphere

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// An overview decides when the VMs of the whole inventory are read at once, for those who accept answers of
// a moment ago: a refresh of many resources, which asks for one VM after the other.
type overview struct {
	list func(ctx context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error)

	// changes counts what was done through this connection that may have changed something. Nobody gets an
	// answer from before.
	changes atomic.Int64

	mu    sync.Mutex
	asked map[types.ManagedObjectReference]bool

	turn    chan struct{}                                        // who has the token may use the following
	listed  map[types.ManagedObjectReference]types.ObjectContent // at that time, after so many changes
	at      time.Time
	changed int64
}

func newOverview(
	list func(context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error),
) *overview {
	o := &overview{list: list, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// listing lists all VMs. Who accepts an answer of a moment ago waits for others who ask, and gets theirs.
func (o *overview) listing(ctx context.Context) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	maxAge := hypervisor.MaxAge(ctx)
	if maxAge == 0 {
		return o.list(ctx)
	}
	select {
	case <-o.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
	at, changed := time.Now(), o.changes.Load()
	if o.listed != nil && o.changed == changed && at.Sub(o.at) <= maxAge {
		return o.listed, nil
	}
	listed, err := o.list(ctx)
	if err == nil {
		o.listed, o.at, o.changed = listed, at, changed
	}
	return listed, err
}

// Few VMs are read one by one: with those that come at the same time, that is a handful of calls. For more
// of them all are read at once, unless the inventory is so large that most would be read for nothing.
const (
	manyAsked = 6
	worthIt   = 170 // VMs read for one that was asked for
)

// note notes that a VM was asked for, and returns how many were.
func (o *overview) note(ref types.ManagedObjectReference) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asked == nil {
		o.asked = make(map[types.ManagedObjectReference]bool)
	}
	o.asked[ref] = true
	return len(o.asked)
}

// all lists all VMs if reading them is worth it for so many that are asked for; else nil.
func (o *overview) all(ctx context.Context, asked int) ([]types.ManagedObjectReference, error) {
	if asked < manyAsked {
		return nil, nil
	}
	listed, err := o.listing(ctx)
	if err != nil || len(listed) > asked*worthIt {
		return nil, err
	}
	refs := make([]types.ManagedObjectReference, 0, len(listed))
	for ref := range listed {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b types.ManagedObjectReference) int { return strings.Compare(a.Value, b.Value) })
	return refs, nil
}

// A picture is what a reader has read of the whole inventory.
type picture struct {
	turn    chan struct{} // who has the token may read or replace it
	objects map[types.ManagedObjectReference]types.ObjectContent
	taken   time.Time
	changes int64
	refused int // so many were asked for when reading all was not worth it
}

func newPicture() *picture {
	p := &picture{turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// maxPicture is how many VMs one call asks for.
const maxPicture = 1000

// recent answers from the picture of the whole inventory, which is taken anew if it is older than maxAge. It
// returns nil where the VM has to be asked for on its own: there is no picture, or it isn't on it.
func (r *reader) recent(
	ctx context.Context, ref types.ManagedObjectReference, maxAge time.Duration,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	asked := r.overview.note(ref)
	if asked < manyAsked {
		return nil, nil
	}
	p := r.picture
	select {
	case <-p.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { p.turn <- struct{}{} }()
	if p.objects == nil || time.Since(p.taken) > maxAge || p.changes != r.overview.changes.Load() {
		if asked < 2*p.refused {
			return nil, nil
		}
		if err := r.take(ctx, p, asked); err != nil {
			return nil, err
		}
	}
	if _, ok := p.objects[ref]; !ok {
		return nil, nil
	}
	return p.objects, nil
}

// take takes the picture anew. Where that fails, VMs are read on their own, which tells whose fault it was.
func (r *reader) take(ctx context.Context, p *picture, asked int) error {
	p.objects = nil
	taken, changes := time.Now(), r.overview.changes.Load()
	refs, err := r.overview.all(ctx, asked)
	if refs == nil || err != nil {
		p.refused = asked
		return ctx.Err()
	}
	objects := make(map[types.ManagedObjectReference]types.ObjectContent, len(refs))
	for batch := range slices.Chunk(refs, maxPicture) {
		requests := make([]*readRequest, len(batch))
		for i, ref := range batch {
			requests[i] = &readRequest{ref: ref}
		}
		found, err := r.call(ctx, requests)
		if err != nil {
			p.refused = asked
			return ctx.Err()
		}
		for ref, object := range found {
			objects[ref] = object
		}
	}
	p.objects, p.taken, p.changes, p.refused = objects, taken, changes, 0
	return nil
}

// kept are the answers about single VMs, for those who accept answers of a moment ago: a refresh of many snapshots of
// a few VMs asks for each of the VMs again and again.
type kept struct {
	mu      sync.Mutex
	answers map[types.ManagedObjectReference]keptAnswer
}

// A keptAnswer is what a question at some time, after so many changes, gave.
type keptAnswer struct {
	objects map[types.ManagedObjectReference]types.ObjectContent
	asked   time.Time
	changes int64
}

// get returns the answer to a question that was asked since a time, and since the last change; nil: there is none.
func (k *kept) get(
	ref types.ManagedObjectReference, since time.Time, changes int64,
) map[types.ManagedObjectReference]types.ObjectContent {
	k.mu.Lock()
	defer k.mu.Unlock()
	answer, ok := k.answers[ref]
	if !ok || answer.asked.Before(since) || answer.changes != changes {
		delete(k.answers, ref)
		return nil
	}
	return answer.objects
}

func (k *kept) set(ref types.ManagedObjectReference, answer keptAnswer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers == nil {
		k.answers = make(map[types.ManagedObjectReference]keptAnswer)
	}
	k.answers[ref] = answer
}

// mayChange tells whether a call may change what others read.
func mayChange(method string) bool {
	switch method {
	case "Login", "Logout", "DestroyView", "ContinueRetrievePropertiesEx", "CreateFilter", "CreatePropertyCollector",
		"DestroyPropertyCollector", "DestroyPropertyFilter", "WaitForUpdatesEx", "CancelWaitForUpdates":
		return false
	}
	return !onlyReads(method)
}
