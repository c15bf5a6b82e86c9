package repository

import (
	"context"
	"sync"
)

// outages tell those who wait for the storage that it can't be reached. Kopia v0.23.1 lists index blobs again and
// again, for as long as its context lets it (epoch.Manager.refreshLocked), whatever error that gives.
type outages struct {
	mu     sync.Mutex
	next   int
	ending map[int]context.CancelCauseFunc // of the contexts that end with the next outage
}

// begin ends all contexts that bind gave and that are still in use.
func (o *outages) begin(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, end := range o.ending {
		end(err)
	}
	clear(o.ending)
}

// bind returns a context that ends when the storage couldn't be reached for too long. Its error is that of the
// storage then. unbind must be called when it isn't used any more.
func (o *outages) bind(parent context.Context) (_ context.Context, unbind func()) {
	inner, end := context.WithCancelCause(parent)
	o.mu.Lock()
	if o.ending == nil {
		o.ending = map[int]context.CancelCauseFunc{}
	}
	key := o.next
	o.next++
	o.ending[key] = end
	o.mu.Unlock()
	done := make(chan struct{})
	context.AfterFunc(inner, func() { close(done) })
	return &outageContext{Context: inner, parent: parent, done: done}, func() {
		o.mu.Lock()
		delete(o.ending, key)
		o.mu.Unlock()
		end(nil)
	}
}

// An outageContext has the error of an outage where others say that they were cancelled. It has a channel of its own
// so that contexts made from it ask it for the error.
type outageContext struct {
	context.Context
	parent context.Context
	done   chan struct{}
}

func (c *outageContext) Done() <-chan struct{} { return c.done }

func (c *outageContext) Err() error {
	if c.Context.Err() == nil || c.parent.Err() != nil {
		return c.parent.Err()
	}
	return context.Cause(c.Context)
}

// bind returns a context for what needs the repository's storage. It ends with an outage that is too long.
func (r *Repository) bind(ctx context.Context) (_ context.Context, unbind func()) {
	if r.remote == nil {
		return r.storage.outages.bind(ctx)
	}
	return r.remote.outages.bind(ctx)
}
