package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// pointCleanup bounds the removal of a temporary snapshot. Consolidating the disks of a busy VM takes long,
// and giving up leaves them growing.
const pointCleanup = 2 * time.Hour

// A pointInTime is a VM's disks and configuration as of a temporary snapshot.
type pointInTime struct {
	client   *Client
	vm       hypervisor.VMID
	host     string // for the limits on transfers
	snapshot hypervisor.Snapshot
	config   hypervisor.Config // mu guards its warnings
	disks    []*pointDisk      // of the whole VM, in the order of the lease
	exclude  []hypervisor.DiskKey
	total    int64 // capacity of all disks that may be read
	read     atomic.Int64

	tracking   tracking
	datacenter string            // inventory path
	datastores map[string]string // their types by name

	// life ends with Close.
	life context.Context
	end  context.CancelCauseFunc

	logMu     sync.Mutex
	unsettled map[logPosition]string // what unsettledSince has found out

	placeMu sync.Mutex
	placed  *place

	wayMu  sync.Mutex
	ways   map[hypervisor.DiskKey]string // the transports of the disks that were opened
	probed map[hypervisor.DiskKey]probed

	mu      sync.Mutex // guards what follows; held while the lease is opened
	lease   *lease
	items   map[string]leaseItem
	sha256  bool
	opened  map[hypervisor.DiskKey]bool
	pending int // disks that were opened and not yet read to their end
	closed  bool
}

// A pointDisk is a disk of a point in time.
type pointDisk struct {
	key      hypervisor.DiskKey
	device   int32 // its key on the server
	label    string
	slot     string
	capacity int64 // bytes
	backing  diskBacking
	filtered bool // I/O filters see what it reads and writes
	flat     bool // the snapshot froze a flat file that stands on no other
}

var errClosedPoint = errors.New("the point in time is closed")

// OpenPointInTime implements hypervisor.PointInTimeOpener.
func (c *Client) OpenPointInTime(
	ctx context.Context, id hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	vm, err := c.vmByID(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := refuseObstacles(vm, spec.Exclude); err != nil {
		return nil, err
	}
	changes, err := c.prepareTracking(ctx, id, spec.ChangeTracking)
	if err == nil {
		err = c.noteLog(ctx, id, &changes, true)
	}
	if err != nil {
		return nil, fmt.Errorf("open point in time of %q: %w", vm.Name, err)
	}
	snapshot, err := c.CreateSnapshot(ctx, id, hypervisor.SnapshotSpec{
		Name: spec.Name, Description: spec.Description, Quiesce: spec.Quiesce,
	})
	var point *pointInTime
	if err == nil {
		point, err = c.openSnapshot(ctx, id, snapshot, spec.Exclude, changes)
	}
	if err == nil {
		return point, nil
	}
	if snapshot != "" {
		cleanupCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pointCleanup)
		defer cancel()
		if removeErr := c.RemoveSnapshot(cleanupCtx, id, snapshot, hypervisor.RemoveOptions{}); removeErr != nil {
			err = errors.Join(err, leftSnapshot(spec.Name, snapshot, vm.Name, removeErr))
		}
	}
	return nil, fmt.Errorf("open point in time of %q: %w", vm.Name, err)
}

// leftSnapshot names what is left of a temporary snapshot that could not be removed.
func leftSnapshot(name string, id hypervisor.SnapshotID, vm string, err error) error {
	if errors.Is(err, hypervisor.ErrConsolidationNeeded) {
		return fmt.Errorf("the temporary snapshot %q (%s) of %q was removed, its delta disks were left behind, "+
			"consolidate the VM's disks: %w", name, id, vm, err)
	}
	return fmt.Errorf("the temporary snapshot %q (%s) of %q was left behind: %w", name, id, vm, err)
}

// refuseObstacles returns an error unless everything that stands in the way of capturing the VM is among
// the excluded disks.
func refuseObstacles(vm *hypervisor.VM, exclude []hypervisor.DiskKey) error {
	for _, key := range exclude {
		if !slices.ContainsFunc(vm.Disks, func(d hypervisor.Disk) bool { return d.Key == key }) {
			return fmt.Errorf("exclude disk %q of %q: the VM has no such disk", key, vm.Name)
		}
	}
	var left []hypervisor.Obstacle
	for _, o := range vm.Obstacles {
		if o.Disk == "" || !slices.Contains(exclude, o.Disk) {
			left = append(left, o)
		}
	}
	if len(left) > 0 {
		return &hypervisor.ObstacleError{VM: vm.Name, Obstacles: left}
	}
	return nil
}

// openSnapshot captures the VM as of a snapshot that exists.
func (c *Client) openSnapshot(
	ctx context.Context, id hypervisor.VMID, snapshot hypervisor.SnapshotID, exclude []hypervisor.DiskKey,
	changes tracking,
) (*pointInTime, error) {
	p := &pointInTime{client: c, vm: id, exclude: slices.Clone(exclude), opened: map[hypervisor.DiskKey]bool{},
		tracking: changes, unsettled: map[logPosition]string{}, datastores: map[string]string{},
		ways: map[hypervisor.DiskKey]string{}, probed: map[hypervisor.DiskKey]probed{}}
	// A point in time outlives the call that opens it.
	p.life, p.end = context.WithCancelCause(context.WithoutCancel(ctx))
	list, err := c.Snapshots(ctx, id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(s hypervisor.Snapshot) bool { return s.ID == snapshot })
	if i < 0 {
		return nil, fmt.Errorf("%s: %w", snapshot, hypervisor.ErrSnapshotNotFound)
	}
	p.snapshot = list[i]

	var frozen mo.VirtualMachineSnapshot
	if err := c.properties(ctx, snapshotRef(snapshot), []string{"config"}, &frozen); err != nil {
		return nil, err
	}
	captured, nvram, warnings, err := c.capture(ctx, vmRef(id), &frozen.Config)
	if err != nil {
		return nil, fmt.Errorf("capture configuration: %w", err)
	}
	data, err := captured.encode()
	if err != nil {
		return nil, err
	}
	summary, err := c.vmByID(ctx, id)
	if err != nil {
		return nil, err
	}
	summary.Disks = describeDisks(frozen.Config.Hardware.Device)
	p.host = captured.host
	p.addDisks(captured)
	summary.Disks = slices.DeleteFunc(summary.Disks, func(d hypervisor.Disk) bool {
		return slices.Contains(exclude, d.Key)
	})
	p.config = hypervisor.Config{Format: configFormat, Data: data, NVRAM: nvram, Summary: *summary, Warnings: warnings}
	p.datacenter = captured.Datacenter
	for _, ds := range captured.Datastores {
		p.datastores[ds.Name] = ds.Type
	}
	if err := p.judgeTracking(ctx, list); err != nil {
		return nil, fmt.Errorf("look at change tracking: %w", err)
	}
	p.warnOfTracking(ctx)
	return p, nil
}

// addDisks lists the disks that the snapshot covers, which are those that a lease of it has.
func (p *pointInTime) addDisks(captured *capture) {
	devices := captured.devices()
	for _, d := range orderedDisks(devices) {
		if describeBacking(d.Backing).independent() {
			continue
		}
		e := &pointDisk{key: diskKey(d), device: d.Key, label: deviceLabel(d), slot: deviceSlot(devices, d),
			capacity: diskCapacity(d), backing: describeBacking(d.Backing), filtered: len(d.Iofilter) > 0}
		if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			e.flat = b.Parent == nil
		}
		p.disks = append(p.disks, e)
		if !slices.Contains(p.exclude, e.key) {
			p.total += e.capacity
		}
	}
}

// Snapshot implements hypervisor.PointInTime.
func (p *pointInTime) Snapshot() hypervisor.Snapshot { return p.snapshot }

// Config implements hypervisor.PointInTime.
func (p *pointInTime) Config() hypervisor.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	config := p.config
	config.Warnings = slices.Clone(config.Warnings)
	return config
}

// warn adds a warning to the configuration.
func (p *pointInTime) warn(ctx context.Context, text string) {
	p.client.log.WarnContext(ctx, text)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config.Warnings = append(p.config.Warnings, text)
}

// OpenDisk implements hypervisor.PointInTime. The lease that all exported disks share is opened when the
// first of them is read.
func (p *pointInTime) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, context.Cause(ctx))
	}
	i := slices.IndexFunc(p.disks, func(d *pointDisk) bool { return d.key == key })
	if i < 0 || slices.Contains(p.exclude, key) {
		return nil, fmt.Errorf("open disk %s: it is not part of the point in time", key)
	}
	if err := p.reading(ctx); err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, err)
	}
	reader, err := p.openDisk(ctx, p.disks[i], request)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", key, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("open disk %s: %w", key, errClosedPoint)
	}
	if !p.opened[key] {
		p.opened[key] = true
		p.pending++
	}
	return reader, nil
}

// openDisk decides what of a disk is read, and how: in the first of the configured ways that is possible.
func (p *pointInTime) openDisk(
	ctx context.Context, d *pointDisk, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	var plan hypervisor.ReadPlan
	var err error
	if plan.Areas, plan.FullReason, err = p.changes(ctx, d, request); err != nil {
		return nil, err
	}
	if token := p.token(d); token != nil {
		if plan.Tracking, err = token.encode(); err != nil {
			return nil, err
		}
	}
	p.wayMu.Lock()
	defer p.wayMu.Unlock()
	for i, transport := range p.client.config.Transports {
		plan.Transport = transport
		if transport == TransportExport {
			p.ways[d.key] = transport
			return &exportedDisk{point: p, pointDisk: d, plan: plan}, nil
		}
		reader, why, err := p.openFile(ctx, d, request, plan, slices.Contains(p.client.config.Transports[i:], TransportExport))
		if err != nil {
			return nil, err
		}
		if why == "" {
			p.ways[d.key] = transport
			return reader, nil
		}
		plan.TransportReason = why
	}
	return nil, fmt.Errorf("no transport that is allowed can read it: %s: %w", plan.TransportReason, hypervisor.ErrNotSupported)
}

// openFile opens a disk for reading from its datastore. Where that can't be done, or an export is possible
// and better, why says so in a sentence. wayMu is held.
func (p *pointInTime) openFile(
	ctx context.Context, d *pointDisk, request hypervisor.DiskRequest, plan hypervisor.ReadPlan, export bool,
) (reader *datastoreDisk, why string, err error) {
	file, why, err := p.probeOnce(ctx, d)
	if err == nil && why == "" && export {
		why, err = p.exportedTogether(ctx, d)
	}
	if err != nil || why != "" {
		return nil, why, err
	}
	var allocated *disk.Areas
	// Where changes can't be told, the list of what is allocated, which comes from the same tracking, is no better.
	if plan.Areas == nil && plan.FullReason == "" && !request.Everything {
		if allocated, err = p.findAllocated(ctx, d); err != nil {
			return nil, "", err
		}
	}
	// What is read first to know what changed, and then as a whole, is read in one way.
	whole := plan.Areas == nil && allocated == nil || request.Everything
	if whole && export && !p.readsOtherFile(d) {
		if why, err = p.sparse(ctx, d); err != nil || why != "" {
			return nil, why, err
		}
	}
	return &datastoreDisk{point: p, pointDisk: d, file: file, plan: plan, allocated: allocated}, "", nil
}

// reading returns an error when nothing can be read any more.
func (p *pointInTime) reading(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.life.Err() != nil:
		return errClosedPoint
	}
	return nil
}

// whileOpen returns a context that ends with ctx or when the point in time is closed.
func (p *pointInTime) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.life, func() { cancel(context.Cause(p.life)) })
	return ctx, func() { stop(); cancel(context.Canceled) }
}

// openLease returns the lease and the items of its disks by slot. Readers that come while it is being
// opened wait. A lease that was lost isn't replaced: what was read through it may be incomplete, and
// whoever reads has to hear of it.
func (p *pointInTime) openLease(ctx context.Context) (*lease, map[string]leaseItem, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errClosedPoint
	}
	if p.lease != nil {
		return p.lease, p.items, p.lease.lost()
	}
	ref, err := p.client.exportSnapshot(ctx, p.snapshot.ID)
	if err != nil {
		return nil, nil, err
	}
	l, err := p.client.openLease(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	disks := make([]leaseDisk, len(p.disks))
	for i, d := range p.disks {
		disks[i] = leaseDisk{slot: d.slot, capacity: d.capacity}
	}
	items, err := l.diskItems(disks)
	if err != nil {
		abortCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseCleanup)
		defer cancel()
		return nil, nil, errors.Join(err, l.abort(abortCtx))
	}
	p.lease, p.items, p.sha256 = l, items, l.useSHA256(ctx)
	return p.lease, p.items, nil
}

// exportSnapshot starts an export. The task of a lease that somebody lost blocks the VM until the
// server gives that lease up, which is waited for.
func (c *Client) exportSnapshot(
	ctx context.Context, snapshot hypervisor.SnapshotID,
) (types.ManagedObjectReference, error) {
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return types.ManagedObjectReference{}, fmt.Errorf("export %s: %w", snapshot, context.Cause(ctx))
		}
		// The call itself runs to its end: a lease whose answer nobody hears keeps the VM's disks open.
		callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		res, err := methods.ExportSnapshot(callCtx, c.vim, &types.ExportSnapshot{This: snapshotRef(snapshot)})
		cancel()
		if err == nil {
			return res.Returnval, nil
		}
		busy, ok := inProgress(err)
		if !ok || c.waitForOther(ctx, busy, attempt) != nil {
			return types.ManagedObjectReference{}, fmt.Errorf("export %s: %w", snapshot, classify(err))
		}
	}
}

// progress counts what was read and tells the lease, so that the server's task shows it.
func (p *pointInTime) progress(bytes int64) {
	read := p.read.Add(bytes)
	p.mu.Lock()
	l := p.lease
	p.mu.Unlock()
	if l != nil && p.total > 0 {
		l.percent.Store(int32(min(read*100/p.total, 100))) //nolint:gosec // at most 100
	}
}

// diskDone notes that a disk was read to its end.
func (p *pointInTime) diskDone(key hypervisor.DiskKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened[key] {
		p.opened[key] = false
		p.pending--
	}
}

// Close implements hypervisor.PointInTime.
func (p *pointInTime) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pointCleanup)
	defer cancel()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.end(errClosedPoint)
	l, whole := p.lease, p.pending == 0
	p.mu.Unlock()

	var leaseErr error
	if l != nil {
		leaseCtx, cancel := context.WithTimeout(ctx, leaseCleanup)
		if whole {
			leaseErr = l.complete(leaseCtx)
		} else {
			leaseErr = l.abort(leaseCtx)
		}
		cancel()
		// Nothing depends on the end of an export any more: a lease that could not be ended expires.
		if leaseErr != nil {
			p.client.log.WarnContext(ctx, "end the lease of an export", "vm", p.vm, "error", leaseErr)
		}
	}
	err := p.client.RemoveSnapshot(ctx, p.vm, p.snapshot.ID, hypervisor.RemoveOptions{})
	if err != nil {
		return errors.Join(leftSnapshot(p.snapshot.Name, p.snapshot.ID, p.config.Summary.Name, err), leaseErr)
	}
	return nil
}
