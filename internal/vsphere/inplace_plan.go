package vsphere

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// targetProperties are what a restore in place reads of the VM.
var targetProperties = []string{
	"name", "parent", "parentVApp", "resourcePool", "datastore", "config", "runtime", "snapshot", "layoutEx",
	"guest.toolsRunningStatus", "recentTask",
}

// readTarget reads the VM of a restore in place.
// Errors: a *hypervisor.VMNotFoundError, hypervisor.ErrOutOfReach.
func (c *Client) readTarget(ctx context.Context, id hypervisor.VMID) (*mo.VirtualMachine, error) {
	var vm mo.VirtualMachine
	if err := c.properties(ctx, vmRef(id), targetProperties, &vm); err != nil {
		return nil, err
	}
	if vm.Config == nil {
		return nil, fmt.Errorf("the configuration of %s can't be read: %w", id, hypervisor.ErrOutOfReach)
	}
	return &vm, nil
}

// A swapDisk is one disk of a VM that is replaced.
type swapDisk struct {
	captured *types.VirtualDisk
	own      *types.VirtualDisk // of the VM, as it was when the restore was planned
	slot     string             // of the VM's disk, which outlives everything else about it
	store    string             // datastore of both
	path     string             // of the restored disk: as asked for, later as it is
}

// An inPlacePlan is a restore in place that was checked.
type inPlacePlan struct {
	spec       hypervisor.InPlaceSpec
	captured   *capture
	vm         *mo.VirtualMachine
	line       lineage
	datacenter lineage // ends with the datacenter
	stores     map[string]mo.Datastore
	disks      []*swapDisk
	warnings   []string
}

// planInPlace checks everything that can be checked beforehand. It changes nothing.
func (c *Client) planInPlace(ctx context.Context, spec hypervisor.InPlaceSpec) (*inPlacePlan, error) {
	captured, err := readCapture(spec.Config)
	if err != nil {
		return nil, err
	}
	p := &inPlacePlan{spec: spec, captured: captured}
	if p.vm, err = c.readTarget(ctx, spec.VM); err != nil {
		return nil, err
	}
	_, foreign, err := c.ownJournal(ctx, p.vm)
	if err != nil {
		return nil, err
	}
	if p.line, err = c.ancestors(ctx, vmRef(spec.VM)); err != nil {
		return nil, err
	}
	for i := range p.line {
		if p.line[i].Self.Type == "Datacenter" {
			p.datacenter = p.line[:i+1]
		}
	}
	if p.stores, err = c.stores(ctx, p.vm.Datastore); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		p.matchDisks, p.checkObstacles, p.checkSnapshots, p.checkSpace, p.checkPower,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if len(snapshotNames(p.vm)) > 0 || consolidationNeeded(p.vm) {
		if err := c.refuseLinked(ctx, p.vm, p.line); err != nil {
			return nil, err
		}
	}
	if foreign != nil {
		p.warnings = append(p.warnings, foreign.disowned(p.line.path()))
	}
	if isOther(p.vm.Config, captured.config) {
		p.warnings = append(p.warnings,
			fmt.Sprintf("%s is another virtual machine than the one that was backed up, %s: "+
				"it keeps its own UUIDs and MAC addresses.", p.line.path(), captured.Name))
	}
	changes, err := p.hardwareWarnings()
	if err != nil {
		return nil, err
	}
	p.warnings = append(p.warnings, changes...)
	return p, nil
}

// isOther tells whether two configurations are of different VMs, as far as their identities go: what is
// unique must not be given to a second VM. A clone may have the BIOS UUID of its original.
func isOther(a, b *types.VirtualMachineConfigInfo) bool {
	return a.InstanceUuid == "" || !strings.EqualFold(a.InstanceUuid, b.InstanceUuid)
}

// matchDisks finds the VM's disk that each captured one replaces, and where its file goes: beside the file
// that it replaces, since that directory is the VM's and stays.
func (p *inPlacePlan) matchDisks() error {
	chosen, err := new(placement).chooseDisks(
		hypervisor.RestoreSpec{Config: p.spec.Config, Disks: p.spec.Disks}, p.captured)
	if err != nil {
		return err
	}
	devices := object.VirtualDeviceList(p.vm.Config.Hardware.Device)
	taken := map[int32]string{}
	for _, d := range chosen {
		own, reason := p.match(d)
		if reason == "" && taken[own.Key] != "" {
			reason = fmt.Sprintf("the virtual machine's %s takes the place of %s already",
				deviceLabel(own), taken[own.Key])
		}
		if reason != "" {
			e := &hypervisor.DiskMismatchError{
				VM: p.line.path(), Disk: labelAndAddress(p.captured.devices(), d), Reason: reason,
			}
			for _, o := range orderedDisks(devices) {
				e.Disks = append(e.Disks, labelAndAddress(devices, o))
			}
			return e
		}
		taken[own.Key] = deviceLabel(d)
		was, is := deviceAddress(p.captured.devices(), d), deviceAddress(devices, own)
		if was != is {
			p.warnings = append(p.warnings, fmt.Sprintf("%s was at %s and is at %s now, where it stays.",
				deviceLabel(d), was, is))
		}
		p.disks = append(p.disks, p.place(d, own, deviceSlot(devices, own)))
	}
	return nil
}

// match finds the disk of the VM that a captured one replaces, or says why there is none.
func (p *inPlacePlan) match(d *types.VirtualDisk) (own *types.VirtualDisk, reason string) {
	devices := object.VirtualDeviceList(p.vm.Config.Hardware.Device)
	id, address := describeBacking(d.Backing).uuid, deviceAddress(p.captured.devices(), d)
	for _, o := range orderedDisks(devices) {
		if id != "" && strings.EqualFold(describeBacking(o.Backing).uuid, id) {
			own = o
			break
		}
		if own == nil && deviceAddress(devices, o) == address {
			own = o
		}
	}
	if own == nil {
		return nil, fmt.Sprintf("the virtual machine has no disk with the UUID %s, and none at %s", id, address)
	}
	switch want, have := diskCapacity(d), diskCapacity(own); {
	case have > want:
		return nil, fmt.Sprintf("the virtual machine's %s is larger: it has %d bytes, the backup's %d",
			deviceLabel(own), have, want)
	case have < want:
		return nil, fmt.Sprintf("the virtual machine's %s is smaller: it has %d bytes, the backup's %d",
			deviceLabel(own), have, want)
	}
	return own, ""
}

func labelAndAddress(devices object.VirtualDeviceList, d types.BaseVirtualDevice) string {
	return fmt.Sprintf("%s (%s)", deviceLabel(d), deviceAddress(devices, d))
}

// restoredSuffix is what the names of restored disks end with. One that replaces another doesn't get a
// second.
var restoredSuffix = regexp.MustCompile(`-restored-[0-9a-f]{12}$`)

// place chooses the file of a restored disk. No other run chooses the same.
func (p *inPlacePlan) place(captured, own *types.VirtualDisk, slot string) *swapDisk {
	store, file := splitPath(baseFile(own.Backing))
	d := &swapDisk{captured: captured, own: own, slot: slot, store: store, path: joinPath(store, "")}
	if keepsObjects(p.stores[store]) {
		return d // the server chooses
	}
	stem := restoredSuffix.ReplaceAllString(strings.TrimSuffix(path.Base(file), path.Ext(file)), "")
	run := sha256.Sum256([]byte(p.spec.RunID))
	d.path = joinPath(store, path.Join(path.Dir(file), stem+"-restored-"+hex.EncodeToString(run[:6])+".vmdk"))
	return d
}

// baseFile is the file at the bottom of a disk's chain.
func baseFile(backing types.BaseVirtualDeviceBackingInfo) string {
	chain := chainFiles(backing)
	if len(chain) == 0 {
		return ""
	}
	return chain[len(chain)-1]
}

// chainFiles are the files of a disk, from the one that is written down to the base.
func chainFiles(backing types.BaseVirtualDeviceBackingInfo) []string {
	var files []string
	switch b := backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		for ; b != nil; b = b.Parent {
			files = append(files, b.FileName)
		}
	case *types.VirtualDiskSeSparseBackingInfo:
		for ; b != nil; b = b.Parent {
			files = append(files, b.FileName)
		}
	case *types.VirtualDiskSparseVer2BackingInfo:
		for ; b != nil; b = b.Parent {
			files = append(files, b.FileName)
		}
	default:
		if name := describeBacking(backing).fileName; name != "" {
			files = append(files, name)
		}
	}
	return files
}

// checkObstacles refuses VMs and disks that can't be swapped.
func (p *inPlacePlan) checkObstacles() error {
	var out []hypervisor.Obstacle
	add := func(kind hypervisor.ObstacleKind, device, reason, remedy string) {
		out = append(out, hypervisor.Obstacle{Kind: kind, Device: device, Reason: reason, Remedy: remedy})
	}
	config := p.vm.Config
	if config.Template {
		add(hypervisor.ObstacleTemplate, "", "The VM is a template, whose disks can't be replaced.",
			"Convert it to a virtual machine.")
	}
	if faultTolerant(p.vm) {
		add(hypervisor.ObstacleFaultTolerance, "",
			"Fault Tolerance protects the VM, and the disks of such VMs can't be replaced.",
			"Turn Fault Tolerance off for this VM.")
	}
	if config.KeyId != nil {
		add(hypervisor.ObstacleEncryption, "", "The VM is encrypted, the restored disks are not.",
			"Decrypt the VM, or restore into a new one.")
	}
	devices := object.VirtualDeviceList(config.Hardware.Device)
	for _, d := range p.disks {
		label, backing := deviceLabel(d.own), describeBacking(d.own.Backing)
		if backing.raw {
			add(hypervisor.ObstaclePhysicalRDM, label, "The disk is a raw device.",
				"Leave it out, or restore into a new VM.")
		}
		if backing.encrypted {
			add(hypervisor.ObstacleEncryption, label, "The disk is encrypted, the restored one is not.",
				"Decrypt it, or leave it out.")
		}
		if backing.sharing == string(types.VirtualDiskSharingSharingMultiWriter) {
			add(hypervisor.ObstacleMultiWriter, label,
				"Several VMs may write to the disk (multi-writer).", "Set its sharing to none.")
		}
		if mode := busSharing(devices.FindByKey(d.own.ControllerKey)); mode != "" {
			add(hypervisor.ObstacleSharedBus, label,
				fmt.Sprintf("Its controller shares the bus with other VMs (%s).", mode),
				"Set the controller's bus sharing to none.")
		}
		// Whose the files below are can't be told, and they would be lost with the replaced disk.
		if p.vm.Snapshot == nil && !consolidationNeeded(p.vm) && len(chainFiles(d.own.Backing)) > 1 {
			add(hypervisor.ObstacleDelta, label,
				"The disk is a difference to another one although the VM has no snapshots, as in a linked clone.",
				"Make a full clone of the VM, or leave the disk out.")
		}
	}
	if len(out) > 0 {
		return &hypervisor.ObstacleError{VM: p.line.path(), Action: "restored into", Obstacles: out}
	}
	return nil
}

// busSharing is how a controller shares its bus with other VMs; empty: it doesn't.
func busSharing(controller types.BaseVirtualDevice) string {
	switch c := controller.(type) {
	case types.BaseVirtualSCSIController:
		if mode := c.GetVirtualSCSIController().SharedBus; mode != types.VirtualSCSISharingNoSharing {
			return string(mode)
		}
	case *types.VirtualNVMEController:
		if c.SharedBus != string(types.VirtualNVMEControllerSharingNoSharing) {
			return c.SharedBus
		}
	}
	return ""
}

func consolidationNeeded(vm *mo.VirtualMachine) bool { return vm.Runtime.ConsolidationNeeded }

// checkSnapshots refuses a VM with snapshots unless they may go.
func (p *inPlacePlan) checkSnapshots() error {
	names := snapshotNames(p.vm)
	switch {
	case len(names) == 0 && !consolidationNeeded(p.vm):
		return nil
	case p.spec.RemoveSnapshots && len(names) > 0:
		p.warnings = append(p.warnings, fmt.Sprintf("The snapshots of %s are removed: %s.", p.line.path(),
			strings.Join(names, ", ")))
		return nil
	case p.spec.RemoveSnapshots:
		return nil
	case len(names) == 0:
		return fmt.Errorf("%s: %w: its disks need consolidation", p.line.path(),
			hypervisor.ErrSnapshotsInTheWay)
	}
	return fmt.Errorf("%s: %w: %s", p.line.path(), hypervisor.ErrSnapshotsInTheWay, strings.Join(names, ", "))
}

func snapshotNames(vm *mo.VirtualMachine) []string {
	var names []string
	for _, n := range flatten(vm.Snapshot) {
		names = append(names, fmt.Sprintf("%q", n.path))
	}
	return names
}

// checkSpace refuses datastores without room for the new disks beside the old ones.
func (p *inPlacePlan) checkSpace() error {
	need := map[string]int64{}
	for _, d := range p.disks {
		if _, ok := p.stores[d.store]; !ok {
			return fmt.Errorf("%s is on datastore %q, which can't be read: %w", deviceLabel(d.own),
				d.store, hypervisor.ErrOutOfReach)
		}
		need[d.store] += spaceNeeded(d.captured, p.captured.DiskUsage)
	}
	for _, d := range p.disks {
		if free := p.stores[d.store].Summary.FreeSpace; need[d.store] > free {
			return &hypervisor.InsufficientSpaceError{Datastore: d.store, Need: need[d.store], Free: free}
		}
	}
	return nil
}

// checkPower refuses a VM that can't be stopped in a way that is allowed.
func (p *inPlacePlan) checkPower() error {
	if p.spec.PowerOff {
		if p.vm.Runtime.PowerState == types.VirtualMachinePowerStateSuspended {
			p.warnings = append(p.warnings, fmt.Sprintf("%s is suspended; its memory is discarded.",
				p.line.path()))
		}
		return nil
	}
	return p.checkStoppable(p.vm)
}

func (p *inPlacePlan) checkStoppable(vm *mo.VirtualMachine) error {
	switch {
	case vm.Runtime.PowerState == types.VirtualMachinePowerStateSuspended:
		return fmt.Errorf("%s: %w: the VM is suspended, and its memory would have to be discarded",
			p.line.path(), hypervisor.ErrGuestAgent)
	case vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && !toolsRun(vm):
		return fmt.Errorf("%s: %w: the guest can't be asked to shut down", p.line.path(),
			hypervisor.ErrGuestAgent)
	}
	return nil
}

func toolsRun(vm *mo.VirtualMachine) bool {
	return vm.Guest != nil && vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
}

// sameSlot finds the VM's disk in a slot, nil if there is none.
func sameSlot(devices object.VirtualDeviceList, slot string) *types.VirtualDisk {
	i := slices.IndexFunc(devices, func(d types.BaseVirtualDevice) bool {
		_, ok := d.(*types.VirtualDisk)
		return ok && deviceSlot(devices, d) == slot
	})
	if i < 0 {
		return nil
	}
	d, _ := devices[i].(*types.VirtualDisk)
	return d
}
