package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

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
