package vsphere

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const (
	// journalKey is the extraConfig key of a VM's journal.
	journalKey = "terraform.vm.restore.journal"
	// targetKey is the extraConfig key by which a VM in the making names the VM that gets its disks.
	targetKey = "terraform.vm.restore.target"
	// maxJournal bounds a journal, in bytes. That of a VM with 60 disks and long names has some 20 KiB.
	maxJournal = 48 << 10
	// journalVersion counts the forms of journals.
	journalVersion = 1
)

// A phase is how far a restore in place is. Each is written by the very change of the VM that leads to it.
type phase string

const (
	phaseUpload  phase = "upload"  // the VM is as it was
	phaseStop    phase = "stop"    // the VM may be stopped; it has its own disks
	phaseSwapped phase = "swapped" // the VM has the restored disks, and not yet its hardware
	phaseDone    phase = "done"
)

// A journal is what a VM says of the restore that replaces its disks. The names of its fields are read by
// other versions.
type journal struct {
	Version int    `json:"version"`
	Step    int    `json:"step"` // of the run: no two journals are the same
	Run     string `json:"run"`
	Holder  string `json:"holder"` // the run that may change the VM: Run itself, or one that recovers from it
	bearer
	Phase   phase `json:"phase"`
	Restart bool  `json:"restart,omitempty"` // the VM ran when it was stopped
	// Keep is for how long the VM's own disks are to be kept once they are replaced, in seconds.
	Keep int64    `json:"keep,omitempty"`
	Boot []string `json:"boot,omitempty"` // the VM's own boot order, as bootNames writes it
	// Swapped is where the VM's log was shortly before the disks were exchanged; nil: that could not be read.
	Swapped *logPosition `json:"swapped,omitempty"`
	// Had is set when the VM had the restored disks until its own were put back by a process that can't know
	// whether it was started meanwhile.
	Had bool `json:"had,omitempty"`

	Disks []journalDisk `json:"disks"`

	NVRAM      string `json:"nvram,omitempty"`       // file for a copy of the VM's own firmware variables
	NVRAMSaved bool   `json:"nvram_saved,omitempty"` // the copy is complete
}

// A bearer is the VM that something was written into: a copy of the VM has it, too.
type bearer struct {
	VM       hypervisor.VMID `json:"vm"`
	Instance string          `json:"instance"` // UUID
}

func bearerOf(vm *mo.VirtualMachine) bearer {
	return bearer{VM: hypervisor.VMID(vm.Self.Value), Instance: vm.Config.InstanceUuid}
}

type journalDisk struct {
	Label    string `json:"label"`
	Slot     string `json:"slot"`
	Own      string `json:"own"`              // path of the VM's own disk
	Restored string `json:"restored"`         // path of the restored one
	Policy   string `json:"policy,omitempty"` // ID of the storage policy of the VM's own disk
}

// replaced are the disks that are not the VM's any more.
func (j *journal) replaced() []hypervisor.Replaced {
	all := make([]hypervisor.Replaced, len(j.Disks))
	for i, d := range j.Disks {
		all[i] = hypervisor.Replaced{Label: d.Label, Path: d.Own, Now: d.Restored}
	}
	return all
}

func ownPath(d journalDisk) string      { return d.Own }
func restoredPath(d journalDisk) string { return d.Restored }

// paths are the files of the journal's disks.
func (j *journal) paths(file func(journalDisk) string) []string {
	paths := make([]string, len(j.Disks))
	for i, d := range j.Disks {
		paths[i] = file(d)
	}
	return paths
}

// disowned says what becomes of a journal that a VM has because it is a copy of another.
func (j *journal) disowned(vm string) string {
	return fmt.Sprintf("%s is a copy of another virtual machine (%s) that was made while that was being restored in "+
		"place. The journal of that restore, which was copied with it, is removed and no file of either touched.",
		vm, j.VM)
}

// as is the next journal, in a phase.
func (j *journal) as(p phase) *journal {
	next := *j
	next.Step++
	next.Phase, next.Disks = p, slices.Clone(j.Disks)
	return &next
}

// encode is the journal as it is written; empty, which removes it, for nil.
func (j *journal) encode() (string, error) {
	if j == nil {
		return "", nil
	}
	data, err := json.Marshal(j)
	if err != nil {
		return "", fmt.Errorf("encode journal: %w", err)
	}
	if len(data) > maxJournal {
		return "", fmt.Errorf(
			"the journal would have %d bytes, more than %d: restore fewer disks at a time", len(data), maxJournal)
	}
	return string(data), nil
}

// readJournal reads a VM's journal; nil: it has none.
func readJournal(config *types.VirtualMachineConfigInfo) (*journal, error) {
	text := optionValue(config.ExtraConfig, journalKey)
	if text == "" {
		return nil, nil
	}
	return decodeJournal(text)
}

func decodeJournal(text string) (*journal, error) {
	if len(text) > maxJournal {
		return nil, fmt.Errorf("the journal in %s is too long", journalKey)
	}
	var j journal
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return nil, fmt.Errorf("the journal in %s can't be read: %w", journalKey, err)
	}
	switch {
	case j.Version != journalVersion:
		return nil, fmt.Errorf("the journal in %s is of version %d, this version reads %d",
			journalKey, j.Version, journalVersion)
	case j.Run == "" || j.VM == "" || len(j.Disks) == 0:
		return nil, fmt.Errorf("the journal in %s is incomplete", journalKey)
	}
	switch j.Phase {
	case phaseUpload, phaseStop, phaseSwapped, phaseDone:
	default:
		return nil, fmt.Errorf("the journal in %s has the unknown phase %q", journalKey, j.Phase)
	}
	if j.Holder == "" {
		j.Holder = j.Run
	}
	for _, d := range j.Disks {
		if d.Slot == "" || d.Own == "" || d.Restored == "" || d.Own == d.Restored {
			return nil, fmt.Errorf("the journal in %s is incomplete", journalKey)
		}
	}
	return &j, nil
}

// ownJournal reads the journal of a restore into a VM. One that is of another VM, of which this one is a
// copy, is foreign: what it speaks of are the files of that other VM.
func (c *Client) ownJournal(ctx context.Context, vm *mo.VirtualMachine) (own, foreign *journal, err error) {
	j, err := readJournal(vm.Config)
	if err != nil || j == nil {
		return nil, nil, err
	}
	mine, err := c.bears(ctx, vm, j.bearer)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("whether the journal is that of %s can't be told: %w", vm.Self.Value, err)
	case mine:
		return j, nil, nil
	}
	return nil, j, nil
}

// bears tells whether something that a VM carries was written into this VM, and not into one of which it is a
// copy.
func (c *Client) bears(ctx context.Context, vm *mo.VirtualMachine, b bearer) (bool, error) {
	switch {
	case !strings.EqualFold(b.Instance, vm.Config.InstanceUuid):
		return false, nil
	case b.VM == hypervisor.VMID(vm.Self.Value):
		return true, nil
	}
	// Either the VM was registered anew, or its files were copied, identity and all.
	var first mo.VirtualMachine
	err := c.properties(ctx, vmRef(b.VM), []string{"config.instanceUuid"}, &first)
	switch {
	case vmGone(err):
		return true, nil
	case err != nil:
		return false, err
	case first.Config == nil:
		return false, fmt.Errorf("the configuration of %s can't be read: %w", b.VM, hypervisor.ErrOutOfReach)
	}
	return !strings.EqualFold(first.Config.InstanceUuid, b.Instance), nil
}

// interruption says what a journal means for who finds it. A VM that was started with the restored disks, or
// has a snapshot of them, keeps them, whatever was still to be done: somebody works with them.
func (c *Client) interruption(ctx context.Context, vm *mo.VirtualMachine, j *journal) hypervisor.Interrupted {
	swapped := j.Phase == phaseDone
	if j.Phase == phaseSwapped {
		off := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff && len(snapshotNames(vm)) == 0
		swapped = !off || c.startedSince(ctx, vm.Self, j.Swapped)
	}
	return hypervisor.Interrupted{
		RunID: j.Run, Holder: j.Holder, Lease: optionValue(vm.Config.ExtraConfig, tenureKey), Busy: c.busy(ctx, vm),
		Swapped: swapped, Stopped: j.Restart,
	}
}

// startedSince tells whether a VM was certainly started since its log was at a position. What the log doesn't
// say, or doesn't any more, is no.
func (c *Client) startedSince(ctx context.Context, vm types.ManagedObjectReference, since *logPosition) bool {
	if since == nil {
		return false
	}
	started := false
	_, err := c.eventsSince(ctx, vm, *since, func(event types.BaseEvent) {
		switch event.(type) {
		case *types.VmPoweredOnEvent, *types.DrsVmPoweredOnEvent, *types.VmResumingEvent, *types.VmRestartedOnAlternateHostEvent:
			started = true
		}
	})
	if err != nil {
		c.log.WarnContext(ctx, "whether the VM was started since its disks were replaced can't be told", "vm", vm.Value, "error", err)
	}
	return started
}

// busy tells whether the server is carrying out something on a VM, or whether that can't be told.
func (c *Client) busy(ctx context.Context, vm *mo.VirtualMachine) bool {
	return slices.ContainsFunc(vm.RecentTask, func(ref types.ManagedObjectReference) bool {
		info, err := c.taskInfo(ctx, ref)
		return err != nil || info != nil && goesOn(info.State)
	})
}

// goesOn tells whether a task has not ended.
func goesOn(s types.TaskInfoState) bool {
	return s == types.TaskInfoStateQueued || s == types.TaskInfoStateRunning
}
