package vsphere

import (
	"context"
	"encoding/json"
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
	// VM and Instance, its instance UUID, are whose journal it is: a copy of the VM has it, too.
	VM       hypervisor.VMID `json:"vm"`
	Instance string          `json:"instance"`
	Phase    phase           `json:"phase"`
	Restart  bool            `json:"restart,omitempty"` // the VM ran when it was stopped
	Boot     []string        `json:"boot,omitempty"`    // the VM's own boot order, as bootNames writes it
	// Had is set when the VM had the restored disks until its own were put back by a process that can't know
	// whether it was started meanwhile.
	Had bool `json:"had,omitempty"`

	Disks []journalDisk `json:"disks"`

	NVRAM      string `json:"nvram,omitempty"`       // file for a copy of the VM's own firmware variables
	NVRAMSaved bool   `json:"nvram_saved,omitempty"` // the copy is complete
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
	switch {
	case err != nil || j == nil:
		return nil, nil, err
	case !strings.EqualFold(j.Instance, vm.Config.InstanceUuid):
		return nil, j, nil
	case j.VM == hypervisor.VMID(vm.Self.Value):
		return j, nil, nil
	}
	// Either the VM was registered anew, or its files were copied, identity and all.
	var first mo.VirtualMachine
	err = c.properties(ctx, vmRef(j.VM), []string{"config.instanceUuid"}, &first)
	switch {
	case vmGone(err):
		return j, nil, nil
	case err != nil:
		return nil, nil, err
	case first.Config == nil:
		return nil, nil, fmt.Errorf("whether the journal is that of %s can't be told: the configuration of %s "+
			"can't be read: %w", vm.Self.Value, j.VM, hypervisor.ErrOutOfReach)
	case strings.EqualFold(first.Config.InstanceUuid, j.Instance):
		return nil, j, nil
	}
	return j, nil, nil
}

// interrupted says what a journal means for who finds it. A VM that was started with the restored disks, or
// has a snapshot of them, keeps them, whatever was still to be done: somebody works with them.
func (j *journal) interrupted(vm *mo.VirtualMachine) hypervisor.Interrupted {
	off := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff && len(snapshotNames(vm)) == 0
	return hypervisor.Interrupted{
		RunID: j.Run, Swapped: j.Phase == phaseDone || j.Phase == phaseSwapped && !off, Stopped: j.Restart,
	}
}

const (
	// journalAttempts is how often a change is tried that others got in the way of.
	journalAttempts = 5
	// settleTimeout bounds finding out what became of a change.
	settleTimeout = 3 * time.Minute
)

// errNoJournal: the VM has no journal, or that of another run or VM.
var errNoJournal = errors.New("the VM's journal is gone")

// change reconfigures a VM and writes a journal with the same stroke, so that the journal is right at any
// moment. from is the run whose journal the VM must have, empty for none; nil for j removes it. What to
// change is made from the VM as it is; should others change it meanwhile, it is made again.
//
// done says whether the VM has the change. It may be so with an error: then ctx ended too late.
func (c *Client) change(
	ctx context.Context, id hypervisor.VMID, from string, j *journal,
	build func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error),
) (done bool, err error) {
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		vm, err := c.readTarget(ctx, id)
		if err != nil {
			return false, err
		}
		if attempt > 1 && hasJournal(vm, j) {
			return true, nil
		}
		spec, err := c.prepareChange(ctx, vm, from, j, build)
		if err != nil {
			return false, err
		}
		info, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
			res, err := methods.ReconfigVM_Task(ctx, c.vim, &types.ReconfigVM_Task{This: vmRef(id), Spec: spec})
			if err != nil {
				return nil, err
			}
			return object.NewTask(c.vim, res.Returnval), nil
		})
		if err == nil || info != nil && info.State == types.TaskInfoStateSuccess {
			return true, err
		}
		unknown := info == nil && (ctx.Err() != nil || isAmbiguous(err))
		if unknown {
			settled, settleErr := c.settle(ctx, id)
			switch {
			case settleErr != nil:
				return false, errors.Join(err, settleErr)
			case hasJournal(settled, j):
				return true, ctx.Err()
			}
		}
		again := unknown || fault.Is(err, &types.ConcurrentAccess{})
		if !again || attempt == journalAttempts || pause(ctx, backoff(attempt)) != nil {
			return false, fmt.Errorf("reconfigure %s: %w", id, withoutURL(err))
		}
	}
}

func (c *Client) prepareChange(
	ctx context.Context, vm *mo.VirtualMachine, from string, j *journal,
	build func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error),
) (types.VirtualMachineConfigSpec, error) {
	var spec types.VirtualMachineConfigSpec
	now, _, err := c.ownJournal(ctx, vm) // a foreign one is written over
	switch {
	case err != nil:
		return spec, err
	case from == "" && now != nil:
		return spec, &hypervisor.InterruptedError{VM: unescapeName(vm.Name), Interrupted: now.interrupted(vm)}
	case from != "" && (now == nil || now.Run != from):
		return spec, errNoJournal
	}
	if build != nil {
		if spec, err = build(vm); err != nil {
			return spec, err
		}
	}
	text, err := j.encode()
	if err != nil {
		return spec, err
	}
	spec.ChangeVersion = vm.Config.ChangeVersion
	spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: journalKey, Value: text})
	return spec, nil
}

// hasJournal reports whether a VM has this very journal, or none if that is nil.
func hasJournal(vm *mo.VirtualMachine, j *journal) bool {
	text, err := j.encode()
	return err == nil && optionValue(vm.Config.ExtraConfig, journalKey) == text
}

// settle waits until the server does nothing with a VM any more, on a deadline of its own, and reads it.
func (c *Client) settle(ctx context.Context, id hypervisor.VMID) (*mo.VirtualMachine, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	// A call whose connection broke may still be on its way to becoming a task.
	if err := pause(ctx, backoff(1)); err != nil {
		return nil, err
	}
	var vm mo.VirtualMachine
	if err := c.properties(ctx, vmRef(id), []string{"recentTask"}, &vm); err != nil {
		return nil, err
	}
	for _, ref := range vm.RecentTask {
		var t mo.Task
		if err := c.properties(ctx, ref, []string{"info"}, &t); err != nil {
			continue // it has been forgotten already
		}
		if t.Info.State == types.TaskInfoStateQueued || t.Info.State == types.TaskInfoStateRunning {
			if _, err := c.watchTask(ctx, ref); err != nil {
				return nil, fmt.Errorf("wait for %s: %w", ref.Value, err)
			}
		}
	}
	return c.readTarget(ctx, id)
}
