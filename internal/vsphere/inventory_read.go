package vsphere

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A reader reads the same properties of many objects in few calls. While one call is under way, further
// requests queue, and leave together as the next call. A lone request leaves at once; where there was
// company a moment ago, a call waits for it for a few milliseconds. A request never gets an answer to a
// call that left before it came, so that whoever changes something and then reads sees the change; whoever
// accepts older answers (hypervisor.Recent) gets them where many do.
type reader struct {
	ctx  context.Context // the client's life: a call serves many callers
	vim  *vim25.Client
	spec readSpec

	overview *overview
	picture  *picture
	kept     kept

	mu      sync.Mutex
	queue   []*readRequest
	calling bool
	company int // how many requests the last call answered
}

// A readSpec says what to read of an object, and of which objects around it.
type readSpec struct {
	props  []types.PropertySpec
	around []types.BaseSelectionSpec
}

// A readRequest is one caller's question.
type readRequest struct {
	ctx  context.Context // tells when the caller has gone
	ref  types.ManagedObjectReference
	done chan struct{}

	objects map[types.ManagedObjectReference]types.ObjectContent // shared: not to be modified
	err     error
}

// maxBatch is how many objects a call asks for, so that no answer grows without bound.
const maxBatch = 100

// gather is how long a call waits for those who came together with the last one: they were answered at
// the same time, and are about to come back.
const gather = 3 * time.Millisecond

// readTimeout limits one call; it serves callers whose own deadlines differ.
const readTimeout = 2 * time.Minute

// read returns the properties of ref, and of the objects around it. An object that is gone is not among
// them. What is returned is shared with other callers and must not be modified.
func (r *reader) read(
	ctx context.Context, ref types.ManagedObjectReference,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	maxAge := hypervisor.MaxAge(ctx)
	if maxAge == 0 {
		return r.ask(ctx, ref)
	}
	if objects, err := r.recent(ctx, ref, maxAge); objects != nil || err != nil {
		return objects, err
	}
	asked, changes := time.Now(), r.overview.changes.Load()
	if objects := r.kept.get(ref, asked.Add(-maxAge), changes); objects != nil {
		return objects, nil
	}
	objects, err := r.ask(ctx, ref)
	if _, ok := objects[ref]; ok && err == nil {
		r.kept.set(ref, keptAnswer{objects: objects, asked: asked, changes: changes})
	}
	return objects, err
}

// ask is read for those who accept no older answer than one to their own question.
func (r *reader) ask(
	ctx context.Context, ref types.ManagedObjectReference,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	req := &readRequest{ctx: ctx, ref: ref, done: make(chan struct{})}
	r.mu.Lock()
	r.queue = append(r.queue, req)
	if !r.calling {
		r.calling = true
		go r.run() //nolint:contextcheck // it serves many callers, on the client's life
	}
	r.mu.Unlock()
	select {
	case <-req.done:
		return req.objects, req.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run makes calls until nobody asks any more.
func (r *reader) run() {
	for {
		r.mu.Lock()
		wait := r.company > 1 && len(r.queue) < r.company
		r.mu.Unlock()
		if wait {
			_ = pause(r.ctx, gather) // a closed connection is the call's to report
		}
		r.mu.Lock()
		n := min(len(r.queue), maxBatch)
		batch := r.queue[:n:n]
		r.queue = r.queue[n:]
		r.calling = n > 0
		if n > 0 {
			r.company = n
		}
		r.mu.Unlock()
		if n == 0 {
			return
		}
		r.answer(batch)
	}
}

// answer makes one call for a batch of requests.
func (r *reader) answer(batch []*readRequest) {
	ctx, cancel := context.WithTimeout(r.ctx, readTimeout)
	defer cancel()
	// A call that nobody waits for any more only keeps others from being asked.
	var here atomic.Int64
	here.Store(int64(len(batch)))
	for _, req := range batch {
		defer context.AfterFunc(req.ctx, func() {
			if here.Add(-1) == 0 {
				cancel()
			}
		})()
	}
	objects, err := r.call(ctx, batch)
	if r.ctx.Err() != nil && err != nil {
		err = errClosed
	}
	alone := err != nil && len(batch) > 1 && faultName(err) != "" && !isTransient(err)
	for _, req := range batch {
		req.objects, req.err = objects, err
		if alone {
			// What the server has against one object, such as a missing privilege, is no matter of
			// those who asked for others.
			req.objects, req.err = r.call(ctx, []*readRequest{req})
		}
		close(req.done)
	}
}

func (r *reader) call(
	ctx context.Context, batch []*readRequest,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	spec := types.PropertyFilterSpec{PropSet: r.spec.props, ReportMissingObjectsInResults: types.NewBool(true)}
	known := make(map[types.ManagedObjectReference]bool, len(batch))
	for _, req := range batch {
		if !known[req.ref] {
			known[req.ref] = true
			spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{
				Obj: req.ref, Skip: types.NewBool(false), SelectSet: r.spec.around,
			})
		}
	}
	for attempt := 1; ; attempt++ {
		objects, err := retrieve(ctx, r.vim, spec)
		// The continuation of an answer is bound to the session; if that ends in between, begin again.
		if err == nil || attempt == 2 || !fault.Is(err, &types.NotAuthenticated{}) {
			return objects, err
		}
	}
}

// retrieve reads what spec says, all pages of it.
func retrieve(
	ctx context.Context, vim *vim25.Client, spec types.PropertyFilterSpec,
) (map[types.ManagedObjectReference]types.ObjectContent, error) {
	objects := make(map[types.ManagedObjectReference]types.ObjectContent, len(spec.ObjectSet))
	collector := vim.ServiceContent.PropertyCollector
	res, err := methods.RetrievePropertiesEx(ctx, vim, &types.RetrievePropertiesEx{
		This: collector, SpecSet: []types.PropertyFilterSpec{spec},
	})
	if err != nil {
		return nil, err
	}
	page := res.Returnval
	for page != nil {
		for _, object := range page.Objects {
			objects[object.Obj] = object
		}
		if page.Token == "" {
			break
		}
		next, err := methods.ContinueRetrievePropertiesEx(ctx, vim, &types.ContinueRetrievePropertiesEx{
			This: collector, Token: page.Token,
		})
		if err != nil {
			return nil, err
		}
		page = &next.Returnval
	}
	return objects, nil
}

// load fills dst, a pointer to a managed object of package mo, from what was read of ref.
// Error: a *hypervisor.PermissionError where a property may not be read.
func load(objects map[types.ManagedObjectReference]types.ObjectContent, ref types.ManagedObjectReference, dst any) error {
	object, ok := objects[ref]
	if !ok {
		return classify(missingObject(ref))
	}
	if err := mo.LoadObjectContent([]types.ObjectContent{object}, dst); err != nil {
		return fmt.Errorf("read %s: %w", ref.Value, classify(err))
	}
	return nil
}

// properties reads some properties of one object on their own; reads that many callers make at the same
// time go through a reader instead.
func (c *Client) properties(ctx context.Context, ref types.ManagedObjectReference, paths []string, dst any) error {
	objects, err := retrieve(ctx, c.vim, types.PropertyFilterSpec{
		PropSet:                       []types.PropertySpec{{Type: ref.Type, PathSet: paths}},
		ObjectSet:                     []types.ObjectSpec{{Obj: ref}},
		ReportMissingObjectsInResults: types.NewBool(true),
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", ref.Value, classify(err))
	}
	return c.named(load(objects, ref, dst))
}

// readers are the reads that many callers make at the same time.
type readers struct {
	snapshots *reader // the snapshots of a VM with their files
	trees     *reader // the snapshots of a VM without
	tasks     *reader // the snapshots and recent tasks of a VM
	vms       *reader // what makes a hypervisor.VM, with the folders above it
	who       *reader // what makes a hypervisor.VMIdentity, with the folders above it
	listed    *reader // what makes a hypervisor.VM, and the snapshots with their files
}

func newReaders(ctx context.Context, vim *vim25.Client, o *overview) readers {
	reachable := []string{"config.instanceUuid", "runtime.connectionState"} // which readVM goes by
	newReader := func(spec readSpec) *reader {
		return &reader{ctx: ctx, vim: vim, spec: spec, overview: o, picture: newPicture()}
	}
	one := func(kind string, paths ...string) *reader {
		return newReader(readSpec{props: []types.PropertySpec{{Type: kind, PathSet: paths}}})
	}
	return readers{
		snapshots: one("VirtualMachine", append(reachable, "snapshot", "layoutEx")...),
		trees:     one("VirtualMachine", append(reachable, "snapshot", "runtime.consolidationNeeded")...),
		tasks:     one("VirtualMachine", append(reachable, "name", "snapshot", "recentTask")...),
		vms:       newReader(vmSpec),
		who:       newReader(identitySpec),
		listed:    newReader(vmSpec.with("VirtualMachine", "snapshot", "layoutEx")),
	}
}

// readVM fills m through a reader of snapshots. A VM whose files the server can't read has none, nor anything to
// consolidate, as far as the server shows (VirtualMachineConnectionState in the API reference: no configuration can
// be returned for one that is inaccessible or invalid). That must not pass for an answer.
// Errors: a *hypervisor.VMNotFoundError, hypervisor.ErrOutOfReach, a *hypervisor.PermissionError.
func (c *Client) readVM(ctx context.Context, r *reader, vm hypervisor.VMID, m *mo.VirtualMachine) error {
	objects, err := r.read(ctx, vmRef(vm))
	if err != nil {
		return c.named(classify(err))
	}
	if err := load(objects, vmRef(vm), m); err != nil {
		return c.named(err)
	}
	if m.Config == nil || m.Config.InstanceUuid == "" {
		return unreadable(m, "the virtual machine")
	}
	return nil
}
