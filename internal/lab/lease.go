package lab

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// leases are the leases that clients hold. The zero value is ready to use.
type leases struct {
	mu   sync.Mutex
	open map[string]*httpNfcLease // by the ticket in the URLs
}

// An httpNfcLease lets a client read or write the disks of a VM over HTTP for as long as it shows
// signs of life. It belongs to the session that asked for it, its URLs to whoever has them.
//
// The properties (mo.HttpNfcLease) are guarded by the simulator's lock of the object, everything
// below mu by mu.
type httpNfcLease struct {
	mo.HttpNfcLease

	lab    *Lab
	ticket string
	holds  []types.ManagedObjectReference // no mutex: set before the lease is known to anyone
	export bool
	sim    *simulator.Context // the lease's own, to lock and update objects
	ctx    context.Context    // ends with the lease: transfers are cut then
	cancel context.CancelFunc
	renew  chan struct{}
	lapse  chan struct{} // has its time run out before it is over
	gone   chan struct{} // closed when the lease is released

	mu     sync.Mutex
	ended  bool
	entity types.ManagedObjectReference // empty until an import has made its VM
	items  []*leaseItem
}

// A leaseItem is one file that is transferred under a lease.
type leaseItem struct {
	key       string // "/vm-42/ParaVirtualSCSIController0:0"
	importKey string
	target    string // last element of the URL
	disk      bool
	device    int32  // key of the disk's device
	file      string // datastore path of a file that is no disk
	capacity  int64
	size      int64 // of a file that is no disk
	checksum  types.HttpNfcLeaseManifestEntryChecksumType
	manifest  *types.HttpNfcLeaseManifestEntry // of the last complete transfer
}

// newLease makes a lease that is initializing and enters it into the caller's session.
func (l *Lab) newLease(ctx *simulator.Context, export bool, holds ...types.ManagedObjectReference) *httpNfcLease {
	sim := *ctx
	s := &httpNfcLease{
		lab: l, ticket: uuid.NewString(), holds: holds, export: export, sim: &sim, renew: make(chan struct{}, 1),
		lapse: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	// A lease outlives the call that made it, and the simulator's contexts never end.
	s.ctx, s.cancel = context.WithCancel(context.Background())
	l.secrets.note(s.ticket)
	s.Self.Type = "HttpNfcLease"
	s.State = types.HttpNfcLeaseStateInitializing
	s.Mode = string(types.HttpNfcLeaseModePushOrGet)
	ctx.Session.Put(s)
	l.leases.mu.Lock()
	if l.leases.open == nil {
		l.leases.open = make(map[string]*httpNfcLease)
	}
	l.leases.open[s.ticket] = s
	l.leases.mu.Unlock()
	return s
}

// leaseHolding says whether a lease holds an object: a VM that is exported or imported, or a
// snapshot that is exported.
func (l *Lab) leaseHolding(ref types.ManagedObjectReference) bool {
	l.leases.mu.Lock()
	defer l.leases.mu.Unlock()
	for _, s := range l.leases.open {
		if slices.Contains(s.holds, ref) || s.madeVM() == ref {
			return true
		}
	}
	return false
}

// madeVM is the VM of the lease, or a zero reference.
func (s *httpNfcLease) madeVM() types.ManagedObjectReference {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entity
}

// leaseStatus lists the open leases.
func (l *Lab) leaseStatus() []LeaseStatus {
	l.leases.mu.Lock()
	defer l.leases.mu.Unlock()
	list := []LeaseStatus{}
	for _, s := range l.leases.open {
		status := LeaseStatus{ID: s.Self.Value, Kind: "import", Entity: s.madeVM().Value, State: "initializing"}
		if s.export {
			status.Kind = "export"
		}
		if s.isReady() {
			status.State = "ready"
		}
		list = append(list, status)
	}
	slices.SortFunc(list, func(a, b LeaseStatus) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// isReady says whether the lease has its items and hasn't ended.
func (s *httpNfcLease) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && s.items != nil
}

// faultMethod is the name under which a Fault makes a lease end in the error state instead of getting
// ready: the call that asked for it has succeeded then.
const faultMethod = "HttpNfcLease"

// ready publishes the items of a lease and lets its time run.
func (s *httpNfcLease) ready(entity types.ManagedObjectReference, items []*leaseItem) {
	info := &types.HttpNfcLeaseInfo{
		Lease: s.Self, Entity: entity, LeaseTimeout: int32(math.Ceil(s.lab.options.LeaseTimeout.Seconds())),
	}
	for _, item := range items {
		info.DeviceUrl = append(info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: item.key, ImportKey: item.importKey, Url: s.lab.nfcURL(s.ticket, item.target),
			SslThumbprint: s.lab.thumbprint(), Disk: types.NewBool(item.disk), TargetId: item.target, FileSize: item.size,
		})
		info.TotalDiskCapacityInKB += item.capacity / 1024
	}
	if f, ok := s.lab.faults.next(faultMethod, faultCall); ok && s.lab.sleep(s.ctx, f.Delay) {
		if fault := f.method(); fault != nil && s.end() {
			s.fail(s.sim, fault)
			return
		}
	}
	s.mu.Lock()
	if s.ended { // the client gave up while we were at it
		s.mu.Unlock()
		return
	}
	s.entity, s.items = entity, items
	s.mu.Unlock()
	s.sim.WithLock(s, func() {
		s.sim.Update(s, []types.PropertyChange{
			{Name: "initializeProgress", Val: int32(100)},
			{Name: "info", Val: info},
			{Name: "state", Val: types.HttpNfcLeaseStateReady},
		})
	})
	s.lab.spawn(s.watch)
}

// watch ends the lease when nothing is heard of the client.
func (s *httpNfcLease) watch() {
	timer := time.NewTimer(s.lab.options.LeaseTimeout)
	defer timer.Stop()
	for {
		select {
		case <-s.renew:
			timer.Reset(s.lab.options.LeaseTimeout)
		case <-timer.C:
			s.expire()
			return
		case <-s.lapse:
			s.expire()
			return
		case <-s.ctx.Done():
			return
		case <-s.lab.done:
			s.cancel()
			return
		}
	}
}

// expire ends a lease whose time has run out.
func (s *httpNfcLease) expire() {
	if s.end() {
		s.fail(s.sim, &types.Timedout{})
	}
}

// ExpireLeases lets the time of all open leases run out at once, as if nothing had been heard of their clients
// for all of it. It returns when they and what they made are gone. One that isn't ready yet gets ready first.
func (l *Lab) ExpireLeases() {
	l.leases.mu.Lock()
	open := slices.Collect(maps.Values(l.leases.open))
	l.leases.mu.Unlock()
	for _, s := range open {
		select {
		case s.lapse <- struct{}{}:
		default: // somebody else did
		}
	}
	for _, s := range open {
		select {
		case <-s.gone:
		case <-l.done:
		}
	}
}

// end claims the right to end the lease; only one caller gets it. Transfers are cut.
func (s *httpNfcLease) end() bool {
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	s.mu.Unlock()
	if first {
		s.cancel()
	}
	return first
}

// release forgets a lease that has ended: its URLs are void and it holds nothing any more.
func (s *httpNfcLease) release() {
	s.lab.leases.mu.Lock()
	defer s.lab.leases.mu.Unlock()
	delete(s.lab.leases.open, s.ticket)
	close(s.gone)
}

// fail puts a lease that has ended into the error state. What an import has created is gone then.
func (s *httpNfcLease) fail(ctx *simulator.Context, fault types.BaseMethodFault) {
	s.mu.Lock()
	vm := s.entity
	s.mu.Unlock()
	if !s.export && vm.Value != "" {
		s.lab.discardImport(ctx, vm)
	}
	s.release()
	ctx.WithLock(s, func() {
		ctx.Update(s, []types.PropertyChange{
			{Name: "info", Val: nil},
			{Name: "error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultMessage(fault)}},
			{Name: "state", Val: types.HttpNfcLeaseStateError},
		})
	})
}

// refusal is the fault for a call that needs a ready lease, nil when it is ready.
func (s *httpNfcLease) refusal() *soap.Fault {
	switch {
	case s.isReady():
		return nil
	case s.State == types.HttpNfcLeaseStateError && s.Error != nil:
		if timedOut, ok := s.Error.Fault.(*types.Timedout); ok {
			return simulator.Fault("the lease has timed out", timedOut)
		}
	}
	return simulator.Fault("the lease is not ready", &types.InvalidState{})
}

// HttpNfcLeaseProgress reports progress and renews the lease.
func (s *httpNfcLease) HttpNfcLeaseProgress(ctx *simulator.Context, r *types.HttpNfcLeaseProgress) soap.HasFault {
	body := new(methods.HttpNfcLeaseProgressBody)
	if body.Fault_ = s.refusal(); body.Fault_ != nil {
		return body
	}
	select {
	case s.renew <- struct{}{}:
	default: // renewed a moment ago
	}
	ctx.Update(s, []types.PropertyChange{{Name: "transferProgress", Val: min(max(r.Percent, 0), 100)}})
	body.Res = new(types.HttpNfcLeaseProgressResponse)
	return body
}

// HttpNfcLeaseComplete ends the lease. An import must have all its disks.
func (s *httpNfcLease) HttpNfcLeaseComplete(ctx *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	body := new(methods.HttpNfcLeaseCompleteBody)
	if body.Fault_ = s.refusal(); body.Fault_ != nil {
		return body
	}
	if missing := s.missing(); missing != "" {
		body.Fault_ = simulator.Fault("nothing was uploaded to "+missing, &types.InvalidState{})
		return body
	}
	if !s.end() {
		body.Fault_ = simulator.Fault("the lease has ended", &types.InvalidState{})
		return body
	}
	if vm, ok := ctx.Map.Get(s.madeVM()).(*simulator.VirtualMachine); ok && !s.export {
		ctx.WithLock(vm, func() { s.lab.refreshLayout(ctx, vm) })
	}
	s.release()
	ctx.Update(s, []types.PropertyChange{
		{Name: "transferProgress", Val: int32(100)},
		{Name: "info", Val: nil},
		{Name: "state", Val: types.HttpNfcLeaseStateDone},
	})
	body.Res = new(types.HttpNfcLeaseCompleteResponse)
	return body
}

// missing is the first disk of an import that wasn't uploaded completely, "" when there is none.
func (s *httpNfcLease) missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range s.items {
		if !s.export && item.disk && item.manifest == nil {
			return item.key
		}
	}
	return ""
}

// HttpNfcLeaseAbort ends the lease with the client's fault. What an import has created goes with it.
func (s *httpNfcLease) HttpNfcLeaseAbort(ctx *simulator.Context, r *types.HttpNfcLeaseAbort) soap.HasFault {
	body := new(methods.HttpNfcLeaseAbortBody)
	if !s.end() {
		body.Fault_ = simulator.Fault("the lease has ended", &types.InvalidState{})
		return body
	}
	var fault types.BaseMethodFault = &types.RequestCanceled{}
	if r.Fault != nil && r.Fault.Fault != nil {
		fault = r.Fault.Fault
	}
	s.fail(ctx, fault)
	body.Res = new(types.HttpNfcLeaseAbortResponse)
	return body
}

// HttpNfcLeaseGetManifest lists what was transferred completely so far, with checksums over the
// bytes of the streams.
func (s *httpNfcLease) HttpNfcLeaseGetManifest(
	_ *simulator.Context, _ *types.HttpNfcLeaseGetManifest,
) soap.HasFault {
	body := new(methods.HttpNfcLeaseGetManifestBody)
	if body.Fault_ = s.refusal(); body.Fault_ != nil {
		return body
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body.Res = new(types.HttpNfcLeaseGetManifestResponse)
	for _, item := range s.items {
		if item.manifest != nil {
			body.Res.Returnval = append(body.Res.Returnval, *item.manifest)
		}
	}
	return body
}

// HttpNfcLeaseSetManifestChecksumType chooses the checksum by device key, for transfers to come.
func (s *httpNfcLease) HttpNfcLeaseSetManifestChecksumType(
	_ *simulator.Context, r *types.HttpNfcLeaseSetManifestChecksumType,
) soap.HasFault {
	body := new(methods.HttpNfcLeaseSetManifestChecksumTypeBody)
	if body.Fault_ = s.refusal(); body.Fault_ != nil {
		return body
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := make(map[*leaseItem]types.HttpNfcLeaseManifestEntryChecksumType)
	for _, pair := range r.DeviceUrlsToChecksumTypes {
		i := slices.IndexFunc(s.items, func(item *leaseItem) bool { return item.key == pair.Key })
		kind := types.HttpNfcLeaseManifestEntryChecksumType(pair.Value)
		if i < 0 || !slices.Contains(kind.Values(), kind) {
			body.Fault_ = simulator.Fault("unknown device or checksum type", &types.InvalidArgument{
				InvalidProperty: "deviceUrlsToChecksumTypes",
			})
			return body
		}
		chosen[s.items[i]] = kind
	}
	for item, kind := range chosen {
		item.checksum = kind
	}
	body.Res = new(types.HttpNfcLeaseSetManifestChecksumTypeResponse)
	return body
}
