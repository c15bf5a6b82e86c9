package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Limits of VirtualMachineGuestQuiesceSpec.timeout (vSphere Web Services API).
const (
	minQuiesceTimeout = 5 * time.Minute
	maxQuiesceTimeout = 240 * time.Minute
)

// CreateSnapshot implements hypervisor.Snapshotter.
func (c *Client) CreateSnapshot(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.SnapshotSpec,
) (hypervisor.SnapshotID, error) {
	id, err := c.createSnapshot(ctx, vm, spec)
	if err != nil {
		return id, fmt.Errorf("create snapshot %q of %s: %w", spec.Name, vm, err)
	}
	return id, nil
}

func (c *Client) createSnapshot(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.SnapshotSpec,
) (hypervisor.SnapshotID, error) {
	quiesce, err := quiesceSpec(spec)
	if err != nil {
		return "", err
	}
	unlock, err := c.lockVM(ctx, vm)
	if err != nil {
		return "", err
	}
	defer unlock()
	before, err := c.snapshotState(ctx, vm)
	if err != nil {
		return "", err
	}
	req := &types.CreateSnapshotEx_Task{
		This: vmRef(vm), Name: escapeName(spec.Name), Description: spec.Description,
		Memory: spec.Memory, QuiesceSpec: quiesce,
	}
	for attempt := 1; ; attempt++ {
		id, err := c.tryCreate(ctx, vm, req, spec, before)
		if err == nil || id != "" || ctx.Err() != nil {
			return id, err
		}
		// Nothing is to be seen of it on the server. Where the server, or what stands before it, said
		// itself that it didn't take the call, it is made again.
		if !isUntaken(err) || attempt == createAttempts {
			return "", c.snapshotObstacle(ctx, vm, before.name, withoutURL(err))
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return "", err
		}
	}
}

// createAttempts is how often a snapshot is asked for of a server that doesn't take the call.
const createAttempts = 3

// tryCreate asks for a snapshot once, and looks what became of it if the answer was lost.
func (c *Client) tryCreate(
	ctx context.Context, vm hypervisor.VMID, req *types.CreateSnapshotEx_Task,
	spec hypervisor.SnapshotSpec, before *snapshotBefore,
) (hypervisor.SnapshotID, error) {
	info, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.CreateSnapshotEx_Task(ctx, c.vim, req)
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
	if info != nil && info.State == types.TaskInfoStateSuccess {
		if ref, ok := info.Result.(types.ManagedObjectReference); ok {
			return hypervisor.SnapshotID(ref.Value), err
		}
	}
	switch {
	case err == nil:
		// The task is done but doesn't say what it made.
		return c.findCreated(ctx, vm, spec, before, errors.New("the server doesn't name the snapshot"))
	case info == nil && (ctx.Err() != nil || isAmbiguous(err)):
		return c.findCreated(ctx, vm, spec, before, err)
	}
	return "", err
}

// quiesceSpec translates how the guest is to be quiesced; nil: not at all.
func quiesceSpec(spec hypervisor.SnapshotSpec) (types.BaseVirtualMachineGuestQuiesceSpec, error) {
	if spec.Name == "" {
		return nil, errors.New("the name is empty")
	}
	if len(escapeName(spec.Name)) > 80 {
		// The limit of entity names; longer ones are refused by some versions and cut by others.
		return nil, fmt.Errorf("the name is longer than 80 bytes (%%, / and \\ count three each)")
	}
	q := spec.Quiesce
	if q == nil {
		return nil, nil // no quiescing is no error
	}
	if spec.Memory {
		return nil, errors.New("a snapshot with memory can't be quiesced too: the memory holds what the guest has not written yet")
	}
	var base types.VirtualMachineGuestQuiesceSpec
	if q.Timeout != 0 {
		if q.Timeout < minQuiesceTimeout || q.Timeout > maxQuiesceTimeout {
			return nil, fmt.Errorf("quiesce timeout %s: must be %s to %s", q.Timeout, minQuiesceTimeout, maxQuiesceTimeout)
		}
		base.Timeout = int32((q.Timeout + time.Minute - 1) / time.Minute) // 240 at most
	}
	if q.VSS == nil {
		return &base, nil
	}
	windows := &types.VirtualMachineWindowsQuiesceSpec{VirtualMachineGuestQuiesceSpec: base}
	// Absent values leave the choice to VMware Tools.
	windows.VssBootableSystemState = types.NewBool(q.VSS.BootableSystemState)
	windows.VssPartialFileSupport = types.NewBool(q.VSS.PartialFileSupport)
	var ok bool
	if windows.VssBackupContext, ok = vssContexts[q.VSS.Context]; !ok {
		return nil, fmt.Errorf("VSS context %q: must be auto, backup or file_share", q.VSS.Context)
	}
	if windows.VssBackupType, ok = vssBackupTypes[q.VSS.BackupType]; !ok {
		return nil, fmt.Errorf("VSS backup type %q: must be full, incremental, differential, log or copy", q.VSS.BackupType)
	}
	return windows, nil
}

// vssContexts are the words of the port for VirtualMachineWindowsQuiesceSpecVssBackupContext.
var vssContexts = map[string]string{
	"":           "",
	"auto":       string(types.VirtualMachineWindowsQuiesceSpecVssBackupContextCtx_auto),
	"backup":     string(types.VirtualMachineWindowsQuiesceSpecVssBackupContextCtx_backup),
	"file_share": string(types.VirtualMachineWindowsQuiesceSpecVssBackupContextCtx_file_share_backup),
}

// vssBackupTypes are the values of VSS_BACKUP_TYPE (Microsoft, vss.h).
var vssBackupTypes = map[string]int32{
	"": 0, "full": 1, "incremental": 2, "differential": 3, "log": 4, "copy": 5,
}

// snapshotBefore is what a VM had before a snapshot was asked for, to tell afterwards what is new.
type snapshotBefore struct {
	name      string
	snapshots []types.ManagedObjectReference
	tasks     []types.ManagedObjectReference
	begun     bool // a task was seen since that may take a snapshot still, or has
}

// snapshotState reads a VM's snapshots and recent tasks. Error: a *hypervisor.VMNotFoundError.
func (c *Client) snapshotState(ctx context.Context, vm hypervisor.VMID) (*snapshotBefore, error) {
	var m mo.VirtualMachine
	if err := c.readVM(ctx, c.reads.tasks, vm, &m); err != nil {
		return nil, err
	}
	b := &snapshotBefore{name: unescapeName(m.Name), tasks: m.RecentTask}
	for _, s := range flatten(m.Snapshot) {
		b.snapshots = append(b.snapshots, s.node.Snapshot)
	}
	return b, nil
}

// lookAgain is how often findCreated looks for a snapshot that nothing is to be seen of: the call may be
// on its way through the server still. Of one that the server has begun with, it looks until cancelTimeout.
const lookAgain = 4

// findCreated looks what became of a call whose answer was lost. It returns the snapshot's ID if there is
// one, and in any case an error; without a snapshot that is cause.
func (c *Client) findCreated(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.SnapshotSpec, before *snapshotBefore, cause error,
) (hypervisor.SnapshotID, error) {
	lookCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	for look := 1; ; look++ {
		now, err := c.endNewTasks(ctx, lookCtx, vm, before)
		if now == nil {
			return "", notKnown(cause, err)
		}
		for _, s := range flatten(now.Snapshot) {
			if slices.Contains(before.snapshots, s.node.Snapshot) ||
				unescapeName(s.node.Name) != spec.Name || s.node.Description != spec.Description {
				continue
			}
			id := hypervisor.SnapshotID(s.node.Snapshot.Value)
			if ctx.Err() == nil {
				return id, nil // only the answer was lost
			}
			return id, fmt.Errorf("%w; the snapshot exists", withoutURL(cause))
		}
		begun := before.begun || errors.Is(cause, errUnknownEnd)
		if look < lookAgain || begun {
			if pause(lookCtx, backoff(look)) == nil {
				continue
			}
		}
		if begun || err != nil {
			return "", notKnown(cause, err)
		}
		return "", cause
	}
}

// notKnown is the error of a snapshot of which nothing is to be seen, and which may come.
func notKnown(cause, why error) error {
	const text = "whether there is a snapshot now is not known"
	if why == nil {
		return fmt.Errorf("%w; %s", withoutURL(cause), text)
	}
	return fmt.Errorf("%w; %s: %w", withoutURL(cause), text, why)
}

// endNewTasks waits for the end of the VM's tasks that create snapshots and are new since before; if ctx
// has ended, it cancels them. It returns the VM as it is afterwards, together with an error where a task can't be
// read, which may be one of them, or one of them can't be watched to its end.
func (c *Client) endNewTasks(
	ctx, lookCtx context.Context, vm hypervisor.VMID, before *snapshotBefore,
) (*mo.VirtualMachine, error) {
	for {
		var now mo.VirtualMachine
		if err := c.readVM(lookCtx, c.reads.tasks, vm, &now); err != nil {
			return nil, err
		}
		waited := false
		var unread error
		for _, ref := range now.RecentTask {
			if slices.Contains(before.tasks, ref) {
				continue
			}
			info, err := c.taskInfo(lookCtx, ref)
			if err != nil {
				unread = err
				continue
			}
			before.tasks = append(before.tasks, ref)
			if info != nil && strings.Contains(info.DescriptionId, "createSnapshot") && goesOn(info.State) {
				if err := c.endTask(ctx, lookCtx, ref); err != nil {
					unread, before.begun = err, true
					continue
				}
				waited = true
			}
		}
		if !waited {
			return &now, unread
		}
	}
}

// endTask waits for a task's end, and cancels it if ctx ends.
func (c *Client) endTask(ctx, lookCtx context.Context, ref types.ManagedObjectReference) error {
	if _, err := c.watchTask(ctx, ref); err == nil || ctx.Err() == nil {
		return err
	}
	_, err := c.cancelTask(lookCtx, ref, cancelTimeout)
	return err
}

// snapshotObstacle names the devices that stand in the way of a snapshot, if that is what err is about.
func (c *Client) snapshotObstacle(ctx context.Context, vm hypervisor.VMID, name string, err error) error {
	var device *types.SnapshotIncompatibleDeviceInVm
	if _, ok := fault.As(err, &device); ok {
		return &hypervisor.ObstacleError{VM: name, Obstacles: []hypervisor.Obstacle{incompatibleDevice(device)}}
	}
	if !fault.Is(err, &types.MemorySnapshotOnIndependentDisk{}) {
		return err
	}
	found, ferr := c.vmByRef(ctx, vmRef(vm))
	if ferr != nil {
		return fmt.Errorf("an independent disk prevents a snapshot with memory: %w", err)
	}
	var obstacles []hypervisor.Obstacle
	for _, o := range found.Obstacles {
		if o.Kind == hypervisor.ObstacleIndependent {
			o.BlocksSnapshot = true
			o.Reason = "An independent disk prevents a snapshot with memory."
			o.Remedy = "Take the snapshot without memory, or make the disk dependent."
			obstacles = append(obstacles, o)
		}
	}
	if len(obstacles) == 0 {
		return fmt.Errorf("an independent disk prevents a snapshot with memory: %w", err)
	}
	return &hypervisor.ObstacleError{VM: name, Obstacles: obstacles}
}

// incompatibleDevice describes the device that a fault is about.
func incompatibleDevice(f *types.SnapshotIncompatibleDeviceInVm) hypervisor.Obstacle {
	o := hypervisor.Obstacle{
		BlocksSnapshot: true, Kind: hypervisor.ObstaclePhysicalRDM,
		Reason: "The server can't take a snapshot of a VM with this device.",
		Remedy: "Remove the device for the time of the snapshot.",
	}
	if f.Fault.LocalizedMessage != "" {
		o.Reason = "The server can't take a snapshot of a VM with this device: " +
			strings.TrimSuffix(f.Fault.LocalizedMessage, ".") + "."
	}
	switch inner := f.Fault.Fault.(type) {
	case *types.SharedBusControllerNotSupported:
		o.Device, o.Kind = inner.Device, hypervisor.ObstacleSharedBus
		o.Remedy = "Set the controller's bus sharing to none."
	case types.BaseDeviceNotSupported:
		o.Device = inner.GetDeviceNotSupported().Device
	}
	return o
}

// escapeName writes a name as the API wants it: %, / and \ are escaped in names.
func escapeName(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2f", `\`, "%5c").Replace(name)
}

// unescapeName is the reverse of escapeName. Names that others have given without escaping come back
// as they are.
func unescapeName(name string) string {
	return strings.NewReplacer("%25", "%", "%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`).Replace(name)
}
