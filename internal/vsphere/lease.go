package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const (
	// leaseRenewal is the longest time between two renewals of a lease. A vCenter ends a lease after 300
	// seconds; clients in the field renew once a minute.
	leaseRenewal = time.Minute
	// leaseCleanup bounds ending a lease after its caller has gone.
	leaseCleanup = 2 * time.Minute
)

// A lease is an open HttpNfcLease: the server's permission to move the disks of one VM, with a URL
// for each. It renews itself until it is ended.
//
// The renewer of govmomi isn't used: it stops for good at its first error and tells nobody.
type lease struct {
	client  *Client
	ref     types.ManagedObjectReference
	entity  types.ManagedObjectReference
	items   []leaseItem
	percent atomic.Int32

	// ctx ends when the lease has ended or was lost; its cause says which.
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the renewer has stopped
	end    sync.Once
	endErr error
}

// A leaseItem is one file that a lease moves.
type leaseItem struct {
	key  string // the server's name of the item in manifests
	slot string // where the disk sits, as deviceSlot has it; empty when the key doesn't say
	disk bool
	// guessed is set when it was matched with its disk by order: the capacity has to confirm it.
	guessed bool
	url     *url.URL // a ticket: whoever has it may read the disk. Never put it into an error.
}

// errLeaseEnded is the cause of a lease's context after complete or abort.
var errLeaseEnded = errors.New("lease has ended")

// openLease waits until the server has prepared a lease, and starts to renew it. On error the lease
// is aborted.
func (c *Client) openLease(ctx context.Context, ref types.ManagedObjectReference) (*lease, error) {
	l := &lease{client: c, ref: ref, done: make(chan struct{})}
	info, err := l.wait(ctx)
	if err == nil {
		l.items, err = c.leaseItems(info.DeviceUrl)
	}
	if err != nil {
		abortCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseCleanup)
		defer cancel()
		if abortErr := l.abortCall(abortCtx); abortErr != nil {
			err = errors.Join(err, fmt.Errorf("abort lease: %w", abortErr))
		}
		return nil, err
	}
	l.entity = info.Entity
	// Neither the reference nor a URL: the one names the session, the others are tickets.
	c.log.DebugContext(ctx, "lease opened", "of", l.entity.Value, "items", len(l.items), "timeout_seconds", info.LeaseTimeout)
	// The lease outlives the call that opens it.
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	go l.renew(time.Duration(info.LeaseTimeout) * time.Second) //nolint:contextcheck // it has the lease's own
	return l, nil
}

// wait returns the information that a lease has once it is ready.
func (l *lease) wait(ctx context.Context) (*types.HttpNfcLeaseInfo, error) {
	var info *types.HttpNfcLeaseInfo
	var state types.HttpNfcLeaseState
	var problem *types.LocalizedMethodFault
	err := l.client.watcher.watch(ctx, l.ref, []string{"state", "info", "error"}, func(_ string, value any) bool {
		switch v := value.(type) {
		case types.HttpNfcLeaseState:
			state = v
		case types.HttpNfcLeaseInfo:
			info = &v
		case types.LocalizedMethodFault:
			problem = &v
		}
		ready := state == types.HttpNfcLeaseStateReady && info != nil
		return problem != nil || ready || state == types.HttpNfcLeaseStateError || state == types.HttpNfcLeaseStateDone
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("wait for lease: %w", classify(err))
	case problem != nil:
		return nil, fmt.Errorf("lease: %w", classify(task.Error{LocalizedMethodFault: problem}))
	case state != types.HttpNfcLeaseStateReady:
		return nil, fmt.Errorf("lease is %s instead of ready: %w", state, hypervisor.ErrLost)
	}
	return info, nil
}

// leaseKey matches the end of "/vm-42/ParaVirtualSCSIController0:1", but not of "/vm-42/disk-0:0".
var leaseKey = regexp.MustCompile(`/([A-Za-z0-9]*Controller[0-9]+:[0-9]+)$`)

// leaseItems reads the list of URLs. An ESXi host calls itself "*" in them.
func (c *Client) leaseItems(urls []types.HttpNfcLeaseDeviceUrl) ([]leaseItem, error) {
	items := make([]leaseItem, 0, len(urls))
	for _, d := range urls {
		u, err := c.vim.ParseURL(d.Url)
		if err != nil {
			return nil, fmt.Errorf("lease has a malformed URL for %s", d.Key) // err repeats the ticket
		}
		if d.SslThumbprint != "" {
			c.vim.SetThumbprint(u.Host, d.SslThumbprint)
		}
		item := leaseItem{key: d.Key, url: u, disk: d.Disk != nil && *d.Disk || path.Ext(u.Path) == ".vmdk"}
		for _, key := range []string{d.Key, d.ImportKey} {
			if m := leaseKey.FindStringSubmatch(key); m != nil && item.slot == "" {
				item.slot = m[1]
			}
		}
		items = append(items, item)
	}
	return items, nil
}

// A leaseDisk is a disk that a lease is expected to have an item for.
type leaseDisk struct {
	slot     string
	capacity int64 // bytes
}

// diskItems finds the item of every disk, given the disks in the order of their keys. Where a server's
// keys don't name slots, disks and items are matched in order, which needs as many of one as of the
// other. That order is the server's habit and promised nowhere: it is relied on only among disks of
// different capacities, which tell during the transfer that a guess was wrong.
func (l *lease) diskItems(disks []leaseDisk) (map[string]leaseItem, error) {
	bySlot := map[string]leaseItem{}
	var unnamed []leaseItem
	for _, item := range l.items {
		switch {
		case !item.disk:
		case slices.ContainsFunc(disks, func(d leaseDisk) bool { return d.slot == item.slot }):
			bySlot[item.slot] = item
		default:
			unnamed = append(unnamed, item)
		}
	}
	if len(bySlot) > 0 { // the keys name slots after all; what names another one is another disk
		unnamed = slices.DeleteFunc(unnamed, func(i leaseItem) bool { return i.slot != "" })
	}
	var missing []leaseDisk
	for _, d := range disks {
		if _, ok := bySlot[d.slot]; !ok {
			missing = append(missing, d)
		}
	}
	if len(missing) == 0 {
		return bySlot, nil
	}
	if len(missing) != len(unnamed) {
		return nil, fmt.Errorf("lease of %s has no item for the disks at %s", l.entity.Value, slotsOf(missing))
	}
	for i, d := range missing {
		if slices.ContainsFunc(missing[:i], func(other leaseDisk) bool { return other.capacity == d.capacity }) {
			return nil, fmt.Errorf("lease of %s doesn't tell which of its items are the disks at %s, some of which have "+
				"the same capacity", l.entity.Value, slotsOf(missing))
		}
		item := unnamed[i]
		item.guessed = true
		bySlot[d.slot] = item
	}
	return bySlot, nil
}

func slotsOf(disks []leaseDisk) string {
	slots := make([]string, len(disks))
	for i, d := range disks {
		slots[i] = d.slot
	}
	return strings.Join(slots, ", ")
}

// renew reports progress until the lease ends. A renewal that the server refuses, and none that gets
// through for as long as the lease lasts, mean that the lease is lost.
func (l *lease) renew(timeout time.Duration) {
	defer close(l.done)
	if timeout <= 0 {
		timeout = 5 * time.Minute
	}
	every := min(leaseRenewal, timeout/3)
	timer := time.NewTicker(every)
	defer timer.Stop()
	renewed := time.Now()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(l.ctx, every)
		_, err := methods.HttpNfcLeaseProgress(ctx, l.client.vim, &types.HttpNfcLeaseProgress{
			This: l.ref, Percent: min(max(l.percent.Load(), 0), 100),
		})
		cancel()
		switch {
		case err == nil:
			renewed = time.Now()
		case l.ctx.Err() != nil:
			return
		case leaseGone(err), time.Since(renewed) > timeout:
			l.cancel(fmt.Errorf("renew lease: %w: %w", hypervisor.ErrLost, classify(err)))
			return
		}
	}
}

// leaseGone reports whether a fault says that the lease is over.
func leaseGone(err error) bool {
	return fault.Is(err, &types.ManagedObjectNotFound{}) || fault.Is(err, &types.Timedout{}) ||
		fault.Is(err, &types.InvalidState{}) || fault.Is(err, &types.NotAuthenticated{})
}

// lost is the reason why the lease is of no use any more, nil while it is.
func (l *lease) lost() error {
	if l.ctx.Err() == nil {
		return nil
	}
	return context.Cause(l.ctx)
}

// during returns a context that ends with ctx or with the lease, whichever is first.
func (l *lease) during(ctx context.Context) (context.Context, context.CancelFunc) {
	return either(ctx, l.ctx)
}

// either returns a context that ends with ctx or with other, whichever is first, and with its cause.
func either(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() { stop(); cancel(context.Canceled) }
}

// manifest returns what the server knows about the stream of an item, or nil if it knows nothing, and
// whether it knows something about other disks.
func (l *lease) manifest(
	ctx context.Context, key string,
) (entry *types.HttpNfcLeaseManifestEntry, others bool, err error) {
	res, err := methods.HttpNfcLeaseGetManifest(ctx, l.client.vim, &types.HttpNfcLeaseGetManifest{This: l.ref})
	if err != nil {
		return nil, false, fmt.Errorf("get manifest of lease: %w", classify(err))
	}
	for i := range res.Returnval {
		if res.Returnval[i].Key == key {
			entry = &res.Returnval[i]
		} else if res.Returnval[i].Disk {
			others = true
		}
	}
	return entry, others, nil
}

// agreeOnChecksum settles which checksum manifests have, and reports whether that is SHA-256. SHA-1 is asked for
// first: it is what every server has, it proves as well that nothing was damaged on the way, and to compute
// both would cost the two sides as much time as to encrypt the stream. Servers before API 6.7 don't
// let one choose.
func (l *lease) agreeOnChecksum(ctx context.Context) (useSHA256 bool) {
	if l.chooseChecksum(ctx, types.HttpNfcLeaseManifestEntryChecksumTypeSha1) == nil {
		return false
	}
	return l.chooseChecksum(ctx, types.HttpNfcLeaseManifestEntryChecksumTypeSha256) == nil
}

// chooseChecksum asks for manifests with a kind of checksum.
func (l *lease) chooseChecksum(ctx context.Context, kind types.HttpNfcLeaseManifestEntryChecksumType) error {
	req := types.HttpNfcLeaseSetManifestChecksumType{This: l.ref}
	for _, item := range l.items {
		if item.disk {
			req.DeviceUrlsToChecksumTypes = append(req.DeviceUrlsToChecksumTypes,
				types.KeyValue{Key: item.key, Value: string(kind)})
		}
	}
	_, err := methods.HttpNfcLeaseSetManifestChecksumType(ctx, l.client.vim, &req)
	return err
}

// complete ends the lease successfully. Only the first of complete and abort does something; further
// calls return what the first did. The call runs to its end even when ctx ends, so that it is known
// whether the server has let go of the VM.
func (l *lease) complete(ctx context.Context) error {
	l.end.Do(func() {
		if l.endErr = l.lost(); l.endErr != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseCleanup)
		defer cancel()
		_, err := methods.HttpNfcLeaseComplete(ctx, l.client.vim, &types.HttpNfcLeaseComplete{This: l.ref})
		if err != nil {
			l.endErr = fmt.Errorf("complete lease: %w", classify(err))
			if abortErr := l.abortCall(ctx); abortErr != nil {
				l.endErr = errors.Join(l.endErr, fmt.Errorf("abort lease: %w", abortErr))
			}
		}
		l.stop()
		l.client.log.DebugContext(ctx, "lease ended", "of", l.entity.Value, "whole", l.endErr == nil)
	})
	return l.endErr
}

// abort ends the lease and lets the server undo what it did for it.
func (l *lease) abort(ctx context.Context) error {
	l.end.Do(func() {
		if err := l.abortCall(ctx); err != nil {
			l.endErr = fmt.Errorf("abort lease: %w", err)
		}
		l.stop()
		l.client.log.DebugContext(ctx, "lease aborted", "of", l.entity.Value)
	})
	return l.endErr
}

func (l *lease) stop() {
	l.cancel(errLeaseEnded)
	<-l.done
}

// abortCall tells the server that the lease is over. A lease that is gone is no error. The call is
// repeated: to end twice what has ended does nothing, and what isn't ended holds the VM.
func (l *lease) abortCall(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		_, err := methods.HttpNfcLeaseAbort(ctx, l.client.vim, &types.HttpNfcLeaseAbort{
			This: l.ref,
			Fault: &types.LocalizedMethodFault{
				Fault:            &types.RequestCanceled{},
				LocalizedMessage: "the transfer was given up",
			},
		})
		if err == nil || leaseGone(err) {
			return nil
		}
		if attempt == readAttempts || pause(ctx, backoff(attempt)) != nil {
			return classify(err)
		}
	}
}
