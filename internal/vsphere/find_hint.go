package vsphere

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// hints remember which VM had an instance UUID. They save a search, not a look: whoever uses one checks
// that the VM still has that UUID.
type hints struct {
	mu       sync.Mutex
	refs     map[string]types.ManagedObjectReference
	searches int
}

// manyLookUps is how many VMs are searched for one by one before all are listed instead. Listing costs
// three calls, but a big inventory makes them heavy, so a plan with a few VMs does without.
const manyLookUps = 2

func (h *hints) get(id string) (types.ManagedObjectReference, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ref, ok := h.refs[id]
	return ref, ok
}

func (h *hints) set(id string, ref types.ManagedObjectReference) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refs == nil {
		h.refs = make(map[string]types.ManagedObjectReference)
	}
	h.refs[id] = ref
}

// many counts a look-up without a hint, and tells whether there were many of them.
func (h *hints) many() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.searches++
	return h.searches > manyLookUps
}

// A coalesced question is asked once for all who want to know at the same time. Who comes while it is
// being asked gets the answer to the next asking, never one that is older than his question.
type coalesced[T any] struct {
	life context.Context // one call serves many callers
	ask  func(ctx context.Context) (T, error)

	mu      sync.Mutex
	asking  bool
	waiting *coalescedAnswer[T] // for who came while asking
}

type coalescedAnswer[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func (q *coalesced[T]) get(ctx context.Context) (T, error) {
	q.mu.Lock()
	if q.waiting == nil {
		q.waiting = &coalescedAnswer[T]{done: make(chan struct{})}
	}
	answer := q.waiting
	if !q.asking {
		q.asking = true
		go q.run() //nolint:contextcheck // it serves many callers, on the client's life
	}
	q.mu.Unlock()
	select {
	case <-answer.done:
		return answer.value, answer.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func (q *coalesced[T]) run() {
	for {
		q.mu.Lock()
		answer := q.waiting
		q.waiting = nil
		q.asking = answer != nil
		q.mu.Unlock()
		if answer == nil {
			return
		}
		ctx, cancel := context.WithTimeout(q.life, readTimeout)
		answer.value, answer.err = q.ask(ctx)
		cancel()
		close(answer.done)
	}
}

// A view is a container view: all objects of a kind below a container.
type view struct {
	vim *vim25.Client
	ref types.ManagedObjectReference
}

func newView(
	ctx context.Context, vim *vim25.Client, container types.ManagedObjectReference, kind string,
) (*view, error) {
	res, err := methods.CreateContainerView(ctx, vim, &types.CreateContainerView{
		This: *vim.ServiceContent.ViewManager, Container: container, Type: []string{kind}, Recursive: true,
	})
	if err != nil {
		return nil, err
	}
	return &view{vim: vim, ref: res.Returnval}, nil
}

// viewTimeout is how long giving a view back may take.
const viewTimeout = 15 * time.Second

// destroy gives the view back. It ends with the session otherwise.
func (v *view) destroy(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), viewTimeout)
	defer cancel()
	if _, err := methods.DestroyView(ctx, v.vim, &types.DestroyView{This: v.ref}); err != nil {
		log.DebugContext(ctx, "destroy a view", "error", withoutURL(err))
	}
}

// sessionEnded tells whether an object could not be used because its session has ended.
func sessionEnded(err error) bool {
	if fault.Is(err, &types.NotAuthenticated{}) {
		return true
	}
	var gone *types.ManagedObjectNotFound
	_, ok := fault.As(err, &gone)
	return ok && sessionBound(gone.Obj)
}
