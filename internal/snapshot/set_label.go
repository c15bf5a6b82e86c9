package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// setOwner marks a line of a description as one of ours.
const setOwner = "terraform-provider-vm"

// A setLabel is the last line of the descriptions of a set's snapshots. Run is there until all of the set
// is: a set with a snapshot that names a run which is over is half a set, and nobody's.
type setLabel struct {
	Owner string            `json:"owner"`
	Set   string            `json:"set"`
	VMs   []hypervisor.VMID `json:"vms"` // of all members

	Run     string     `json:"run,omitempty"` // a run's token
	Host    string     `json:"host,omitempty"`
	PID     int        `json:"pid,omitempty"`
	Started *time.Time `json:"started,omitempty"`
}

func newSetLabel(r run.Run, started time.Time, vms []hypervisor.VMID) setLabel {
	started = started.UTC().Truncate(time.Second)
	return setLabel{
		Owner: setOwner, Set: r.ID.String(), VMs: vms, Run: r.Token(), Host: r.Host, PID: r.PID, Started: &started,
	}
}

// complete is the label of a set that is complete.
func (l setLabel) complete() setLabel { return setLabel{Owner: l.Owner, Set: l.Set, VMs: l.VMs} }

// describe puts the label behind a description.
func (l setLabel) describe(human string) (string, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return "", fmt.Errorf("describe a snapshot of a set: %w", err)
	}
	if human == "" {
		return string(b), nil
	}
	return human + "\n" + string(b), nil
}

// parseLabel takes a description apart. ok is false for one without a label, which human then is.
func parseLabel(description string) (human string, l setLabel, ok bool) {
	human, line := "", description
	if i := strings.LastIndexByte(description, '\n'); i >= 0 {
		human, line = description[:i], description[i+1:]
	}
	if json.Unmarshal([]byte(line), &l) != nil || l.Owner != setOwner || l.Set == "" {
		return description, setLabel{}, false
	}
	return human, l, true
}

// abandoned tells whether a label is of a set whose run was over before the set was complete.
func (l setLabel) abandoned(now time.Time) bool {
	if l.Run == "" {
		return false
	}
	r, err := run.ParseToken(l.Run)
	return err == nil && r.ID.String() == l.Set && r.Dead(now)
}

// A halfSet is what a run left behind that was over before its set was complete.
type halfSet struct {
	label setLabel
	on    string // path of a VM that has a part of it
}

// halfSets finds half sets among the snapshots of a VM. A label that doesn't name the VM came with a copy of another's
// files: it says nothing about the set, which may have been complete a moment later.
func (m *Manager) halfSets(vm *hypervisor.VM, snapshots []hypervisor.Snapshot) (half []halfSet) {
	for _, s := range snapshots {
		if _, l, ok := parseLabel(s.Description); ok && slices.Contains(l.VMs, vm.ID) && l.abandoned(m.now()) {
			half = append(half, halfSet{label: l, on: vm.Path})
		}
	}
	return half
}

func (h halfSet) String() string {
	started := "at an unknown time"
	if h.label.Started != nil {
		started = h.label.Started.Format(time.RFC3339)
	}
	return fmt.Sprintf("incomplete set of snapshots %s that a run on %s (process %d, %s) left on %s",
		h.label.Set, h.label.Host, h.label.PID, started, h.on)
}

// removeHalf removes half sets from all VMs that have parts of them. What can't be removed is in nobody's
// way, so that it brings a warning and no error, unless ctx has ended.
func (m *Manager) removeHalf(ctx context.Context, half []halfSet) (warnings []string, err error) {
	seen := map[string]bool{}
	for _, h := range half {
		if seen[h.label.Set] {
			continue
		}
		seen[h.label.Set] = true
		switch err := m.sweep(ctx, h.label); {
		case ctx.Err() != nil:
			return warnings, fmt.Errorf("remove the %s: %w", h, ctx.Err())
		case err != nil:
			warnings = append(warnings, fmt.Sprintf("the %s can't be removed: %v", h, err))
		default:
			m.log.WarnContext(ctx, "removed an incomplete set of snapshots", "set", h.label.Set)
			warnings = append(warnings, fmt.Sprintf("removed the %s.", h))
		}
	}
	return warnings, nil
}

// sweep removes every snapshot with a set's label from the VMs that the label names. Those that still name
// the run come last: as long as there is one, the rest can be told from a complete set. The second time all are
// removed: a request that was given up may have marked one as complete since the first.
func (m *Manager) sweep(ctx context.Context, l setLabel) error {
	for _, all := range []bool{false, true} {
		errs := make([]error, len(l.VMs))
		each(len(l.VMs), setWorkers, func(i int) {
			errs[i] = m.sweepVM(ctx, l.VMs[i], func(of setLabel) bool {
				return of.Set == l.Set && (all || of.Run == "")
			})
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// sweepVM removes the snapshots of a VM of whose labels match says so.
func (m *Manager) sweepVM(ctx context.Context, vm hypervisor.VMID, match func(l setLabel) bool) error {
	all, err := m.hv.Snapshots(ctx, vm)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the snapshots of %s: %w", vm, err)
	}
	for _, s := range all {
		if _, l, ok := parseLabel(s.Description); !ok || !match(l) {
			continue
		}
		err := m.hv.RemoveSnapshot(ctx, vm, s.ID, hypervisor.RemoveOptions{})
		if err != nil && !gone(err) && !errors.Is(err, hypervisor.ErrSnapshotNotFound) {
			return fmt.Errorf("remove snapshot %q (%s) of %s: %w", s.Name, s.ID, vm, err)
		}
	}
	return nil
}
