package vsphere

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// makingPrefix begins the name of a VM in the making. What carries it and the marker in extraConfig was
// made by a restore that didn't come to its end.
const makingPrefix = "tf-restore-"

func makingName(runID string) string { return makingPrefix + runID }

// restoreCleanup bounds the removal of a VM in the making.
const restoreCleanup = 10 * time.Minute

// A restore is a VM in the making.
type restore struct {
	client   *Client
	spec     hypervisor.RestoreSpec
	captured *capture
	place    *placement
	rebuild  rebuild
	vm       types.ManagedObjectReference
	host     string // for the limits on transfers
	vmx      string // of the VM, once it is known
	disks    map[hypervisor.DiskKey]*importedDisk
	warnings []string

	unanswered bool // the answer to the import was lost: the server may be creating the VM
	writing    bool // how writing the NVRAM ended isn't known: the server may be at it

	lease  *lease
	sha256 bool
	tenure *tenure // on the VM, once the lease of the import has ended

	mu        sync.Mutex
	written   int64 // bytes of all disks so far, for the lease's progress
	total     int64
	committed bool
	aborted   bool
}

// CheckRestore implements hypervisor.Restorer.
func (c *Client) CheckRestore(ctx context.Context, spec hypervisor.RestoreSpec) ([]string, error) {
	r, _, err := c.planRestore(ctx, spec)
	if err != nil {
		var warnings []string
		if r != nil && r.place != nil { // only another VM is in the way
			warnings = r.place.warnings
		}
		return warnings, fmt.Errorf("check restore: %w", err)
	}
	// Looking at the adapters of all VMs takes its time; nothing is decided by it, so that it is done once.
	taken, err := c.addressWarnings(ctx, spec, r.captured, r.place)
	if err != nil {
		return nil, fmt.Errorf("check restore: %w", err)
	}
	return append(r.warnings, taken...), nil
}

// planRestore does everything up to the creation of the VM.
func (c *Client) planRestore(
	ctx context.Context, spec hypervisor.RestoreSpec,
) (*restore, types.VirtualMachineConfigSpec, error) {
	captured, err := readCapture(spec.Config)
	if err != nil {
		return nil, types.VirtualMachineConfigSpec{}, err
	}
	if spec.Isolated {
		isolateConfig(captured.config)
	}
	r := &restore{client: c, spec: spec, captured: captured, disks: map[hypervisor.DiskKey]*importedDisk{}}
	if r.place, err = c.place(ctx, spec, captured); err != nil {
		return r, types.VirtualMachineConfigSpec{}, err
	}
	r.rebuild = r.place.rebuild(spec, captured)
	creation, warnings, err := creationSpec(captured.config, r.rebuild)
	if err != nil {
		return nil, types.VirtualMachineConfigSpec{}, err
	}
	r.warnings = append(r.place.warnings, warnings...)
	return r, creation, nil
}

// StartRestore implements hypervisor.Restorer. The VM exists when the import lease is ready; the lease
// keeps it from being started.
func (c *Client) StartRestore(ctx context.Context, spec hypervisor.RestoreSpec) (hypervisor.Restore, error) {
	if spec.RunID == "" {
		return nil, errors.New("start restore: the run has no ID")
	}
	for attempt := 1; ; attempt++ {
		r, creation, err := c.planRestore(ctx, spec)
		if err != nil {
			return nil, fmt.Errorf("start restore: %w", err)
		}
		if attempt == 1 {
			if err := r.mayRestore(ctx); err != nil {
				return nil, fmt.Errorf("start restore of %q: %w", r.place.name, err)
			}
		}
		if dead := r.place.inTheWay; len(dead) > 0 && attempt < placeAttempts {
			for _, ref := range dead {
				if err := c.destroyMade(ctx, ref, c.destroyHeld); err != nil {
					return nil, fmt.Errorf("start restore: remove %s of a restore that was killed: %w", ref.Value, err)
				}
			}
			continue // what it held, its directory and its space, is free now
		}
		if err = r.start(ctx, creation); err == nil {
			return r, nil
		}
		cleanupCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreCleanup)
		removeErr := r.remove(cleanupCtx)
		cancel()
		// Another restore may have taken the directory since it was chosen.
		if fault.Is(err, &types.FileAlreadyExists{}) && removeErr == nil && attempt < placeAttempts && ctx.Err() == nil {
			continue
		}
		return nil, fmt.Errorf("start restore of %q: %w", r.place.name, errors.Join(err, removeErr))
	}
}

// placeAttempts is how often a directory is chosen that somebody else then takes first.
const placeAttempts = 5

func (r *restore) start(ctx context.Context, creation types.VirtualMachineConfigSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The call itself runs to its end, so that there is always an answer to what was started.
	callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	req := &types.ImportVApp{
		This: r.place.pool, Spec: &types.VirtualMachineImportSpec{ConfigSpec: creation},
		Folder: &r.place.folder, Host: r.place.host,
	}
	if r.place.pool.Type == "VirtualApp" {
		req.Folder = nil // the VMs of a vApp are in no folder, and the server refuses one
	}
	res, err := methods.ImportVApp(callCtx, r.client.vim, req)
	cancel()
	if err != nil {
		r.unanswered = isAmbiguous(err) && !isUntaken(err)
		return fmt.Errorf("import: %w", classify(err))
	}
	if err := r.openLease(ctx, res.Returnval); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := r.findDisks(); err != nil {
		return err
	}
	var vm mo.VirtualMachine
	if err := r.client.properties(ctx, r.vm, []string{"runtime.host", "config.files"}, &vm); err != nil {
		return err
	}
	if vm.Config != nil {
		r.vmx = vm.Config.Files.VmPathName
	}
	if vm.Runtime.Host != nil {
		r.host = vm.Runtime.Host.Value
	}
	r.sha256 = r.lease.agreeOnChecksum(ctx)
	return ctx.Err()
}

// openLease waits for the VM also when ctx has ended: the server creates it beside the call, and may be at it
// still when a lease is aborted that isn't ready. Once it is ready, the VM is known and can be removed.
func (r *restore) openLease(ctx context.Context, ref types.ManagedObjectReference) (err error) {
	openCtx, cancel := outlasting(ctx, leaseCleanup)
	defer cancel()
	if r.lease, err = r.client.openLease(openCtx, ref); err != nil {
		r.unanswered = openCtx.Err() != nil || isAmbiguous(err)
		return errors.Join(ctx.Err(), err)
	}
	r.vm = r.lease.entity
	return ctx.Err()
}

// outlasting returns a context that ends some time after ctx has.
func outlasting(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if pause(longer, by) == nil {
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }
}

// findDisks finds where each disk is uploaded to.
func (r *restore) findDisks() error {
	devices := r.captured.devices()
	var wanted []leaseDisk
	var disks []*importedDisk
	for _, d := range orderedDisks(devices) {
		if _, ok := r.place.disks[d.Key]; !ok {
			continue
		}
		i := &importedDisk{label: deviceLabel(d), capacity: diskCapacity(d)}
		r.disks[diskKey(d)] = i
		r.total += i.capacity
		disks = append(disks, i)
		wanted = append(wanted, leaseDisk{slot: deviceSlot(devices, d), capacity: i.capacity})
	}
	items, err := r.lease.diskItems(wanted)
	if err != nil {
		return err
	}
	for i, d := range disks {
		d.item = items[wanted[i].slot]
	}
	return nil
}

// VM implements hypervisor.Restore.
func (r *restore) VM() hypervisor.VMID { return hypervisor.VMID(r.vm.Value) }

// Abort implements hypervisor.Restore.
func (r *restore) Abort(ctx context.Context) error {
	r.mu.Lock()
	done := r.committed || r.aborted
	r.aborted = true
	r.mu.Unlock()
	if done {
		return nil
	}
	if r.tenure != nil {
		r.tenure.release()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreCleanup)
	defer cancel()
	if err := r.remove(ctx); err != nil {
		return fmt.Errorf("abort restore of %q: %w", r.place.name, err)
	}
	return nil
}
