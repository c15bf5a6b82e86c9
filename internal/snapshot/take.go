package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
)

// Deadlines of what happens after the caller's context has ended.
const (
	readBackTimeout = 30 * time.Second
	removeTimeout   = 10 * time.Minute
	restartTimeout  = 5 * time.Minute
	// lateShutDown is how long a guest that was told to shut down, and didn't in time, is watched so
	// that it can be started again when it does.
	lateShutDown = time.Minute
)

// Take takes a snapshot. What killed runs left behind of sets on the VM is removed first.
//
// When it returns an error together with a Taken, the snapshot exists and the caller must record
// it. Nothing else that it did is left behind by an error: a guest that it shut down is started
// again.
//
// Errors: ErrRequest, those of finding a VM, *hypervisor.ObstacleError, hypervisor.ErrTooManySnapshots,
// hypervisor.ErrQuiesce, hypervisor.ErrGuestAgent and the others of CreateSnapshot.
func (m *Manager) Take(ctx context.Context, r Request) (taken *Taken, err error) {
	vm, warnings, err := m.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	log := m.log.With("vm", vm.Path, "snapshot", r.Name)
	shutDown := r.ShutDown && vm.PowerState == hypervisor.PoweredOn
	if shutDown {
		asked := true
		defer func() {
			if !asked {
				return
			}
			if startErr := m.startAgain(ctx, vm, err != nil && taken == nil); startErr != nil {
				err = errors.Join(err, startErr)
			}
		}()
		log.InfoContext(ctx, "shutting down the guest")
		if err := m.shutDown(ctx, vm, r.ShutDownTimeout); err != nil {
			asked = errors.Is(err, hypervisor.ErrShuttingDown)
			return nil, fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
		}
	}
	return m.take(ctx, vm, r, shutDown, warnings)
}

// take takes a snapshot of a VM that was checked, and of which warnings tells what is known so far.
func (m *Manager) take(
	ctx context.Context, vm *hypervisor.VM, r Request, shutDown bool, warnings []string,
) (*Taken, error) {
	called := m.now()
	id, asked, fellBack, err := m.create(ctx, vm, r, shutDown)
	answered := m.now()
	if fellBack != "" {
		warnings = append(warnings, fellBack)
	}
	if id == "" {
		return nil, fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
	}
	taken := &Taken{VM: vm.Identity(), Warnings: warnings, Consistency: quiesce.Crash, called: called, answered: answered}
	s, readErr := m.readBack(ctx, vm, id)
	if readErr != nil {
		// The ID is what the caller must record; the rest is what was asked for.
		taken.Snapshot = hypervisor.Snapshot{
			ID: id, Name: r.Name, Description: r.Description, CreatedAt: m.now(), PowerState: vm.PowerState,
			SizeBytes: -1,
		}
	} else {
		taken.Snapshot, taken.Consistency = *s, quiesce.Of(*s, shutDown)
	}
	if err := errors.Join(err, readErr); err != nil {
		return taken, fmt.Errorf("take snapshot %q of %s: %w", r.Name, vm.Path, err)
	}
	m.log.InfoContext(ctx, "snapshot taken", "vm", vm.Path, "snapshot", r.Name, "id", string(id),
		"consistency", string(taken.Consistency), "duration", progress.Since(called, answered))
	if r.Memory && !taken.Snapshot.Memory && vm.PowerState == hypervisor.PoweredOn {
		taken.Warnings = append(taken.Warnings, fmt.Sprintf("the snapshot doesn't hold the memory of %s.", vm.Name))
	}
	if !asked || taken.Snapshot.Quiesced {
		return taken, nil
	}
	return m.notQuiesced(ctx, r, taken)
}

// create takes the snapshot, a second time without quiescing where quiescing failed and was only
// preferred: the warning says so. asked tells whether the guest was asked to quiesce for the
// snapshot that was taken.
func (m *Manager) create(
	ctx context.Context, vm *hypervisor.VM, r Request, shutDown bool,
) (id hypervisor.SnapshotID, asked bool, warning string, err error) {
	ctx, phase := progress.Enter(ctx, "taking the snapshot", "vm", vm.Path, "snapshot", r.Name)
	defer phase.Leave()
	spec := hypervisor.SnapshotSpec{Name: r.Name, Description: r.Description, Memory: r.Memory}
	if !shutDown && quiesce.Possible(vm) {
		spec.Quiesce = r.Quiesce.Spec()
	}
	id, err = m.hv.CreateSnapshot(ctx, vm.ID, spec)
	again := spec.Quiesce != nil && r.Quiesce.Mode == quiesce.Preferred && quiesceFailed(err)
	if id != "" || !again {
		return id, spec.Quiesce != nil, "", err
	}
	warning = fmt.Sprintf("%s was not quiesced, the snapshot is crash-consistent: %v.", vm.Name, err)
	m.log.WarnContext(ctx, warning)
	spec.Quiesce = nil
	id, err = m.hv.CreateSnapshot(ctx, vm.ID, spec)
	return id, false, warning, err
}

// notQuiesced deals with a snapshot for which the guest was asked to quiesce and didn't, although
// nothing failed. If quiescing was required, the snapshot goes.
func (m *Manager) notQuiesced(ctx context.Context, r Request, taken *Taken) (*Taken, error) {
	if r.Quiesce.Mode != quiesce.Required {
		taken.Warnings = append(taken.Warnings, fmt.Sprintf(
			"%s was asked to quiesce and was not, the snapshot is crash-consistent.", taken.VM.Name))
		return taken, nil
	}
	err := fmt.Errorf("take snapshot %q of %s: it came back not quiesced: %w",
		r.Name, taken.VM.Path, hypervisor.ErrQuiesce)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	ctx, phase := progress.Enter(ctx, "removing the snapshot again", "vm", taken.VM.Path, "snapshot", r.Name)
	defer phase.Leave()
	removeErr := m.hv.RemoveSnapshot(ctx, taken.VM.ID, taken.Snapshot.ID, hypervisor.RemoveOptions{})
	if removeErr == nil || gone(removeErr) || errors.Is(removeErr, hypervisor.ErrSnapshotNotFound) {
		return nil, err
	}
	return taken, errors.Join(err, fmt.Errorf("remove it again (%s): %w", taken.Snapshot.ID, removeErr))
}

// readBack reads what was created, also when the caller's context has ended meanwhile: the snapshot
// exists and is going to be recorded.
func (m *Manager) readBack(
	ctx context.Context, vm *hypervisor.VM, id hypervisor.SnapshotID,
) (*hypervisor.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	return m.get(ctx, vm.Identity(), id)
}

func (m *Manager) shutDown(ctx context.Context, vm *hypervisor.VM, timeout time.Duration) error {
	if timeout == 0 {
		timeout = DefaultShutDownTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, phase := progress.Enter(ctx, "shutting down the guest", "vm", vm.Path)
	defer phase.Leave()
	if err := m.hv.ShutDownGuest(ctx, vm.ID); err != nil {
		return fmt.Errorf("shut down the guest within %s: %w", timeout, err)
	}
	return nil
}

// startAgain starts a VM that was shut down. If it may still be shutting down, because waiting for
// that was what failed, it is given a little longer: starting a VM that still runs does nothing, and
// would leave it off a moment later.
func (m *Manager) startAgain(ctx context.Context, vm *hypervisor.VM, maybeOn bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTimeout)
	defer cancel()
	if maybeOn {
		m.awaitOff(ctx, vm)
	}
	ctx, phase := progress.Enter(ctx, "starting the virtual machine again", "vm", vm.Path)
	defer phase.Leave()
	if err := m.hv.PowerOn(ctx, vm.ID); err != nil {
		return fmt.Errorf("start %s again, which was shut down for the snapshot: %w", vm.Path, err)
	}
	return nil
}

func (m *Manager) awaitOff(ctx context.Context, vm *hypervisor.VM) {
	ctx, cancel := context.WithTimeout(ctx, lateShutDown)
	defer cancel()
	if err := m.hv.ShutDownGuest(ctx, vm.ID); err != nil {
		m.log.WarnContext(ctx, "the guest doesn't shut down", "vm", vm.Path, "error", err)
	}
}

func quiesceFailed(err error) bool {
	return errors.Is(err, hypervisor.ErrQuiesce) || errors.Is(err, hypervisor.ErrGuestAgent)
}

func spell(p hypervisor.PowerState) string {
	switch p {
	case hypervisor.PoweredOn:
		return "powered on"
	case hypervisor.PoweredOff:
		return "powered off"
	default:
		return string(p)
	}
}
