package restore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A RehearseRequest describes a restore that is tried out. Names that are empty mean the captured ones.
type RehearseRequest struct {
	BackupID repository.ID

	Folder       string // inventory path
	ResourcePool string // inventory path or name
	Host         string // empty: the cluster chooses
	Datastore    string // for the VM and all disks

	GuestTimeout time.Duration // for how long the guest's heartbeat is waited for. Zero: DefaultGuestTimeout
	Screenshot   bool          // a picture of the guest's screen is wanted

	Version string // of the program, which is kept with the outcome
}

// A Rehearsal is what became of one.
type Rehearsal struct {
	Manifest      *repository.Manifest
	RestoredBytes int64 // bytes of data that were written
	RestoreTime   time.Duration
	BootTime      time.Duration // from power-on to the guest's first heartbeat; zero: there was none
	Heartbeat     bool
	Screenshot    []byte // a PNG file; nil: none was wanted, or none could be taken
	Recorded      bool   // the outcome is in the repository
	Warnings      []string
	CompletedAt   time.Time
}

// ErrNoHeartbeat: the copy of a rehearsal was started, but its guest gave no sign of life in time, or the VM stopped.
var ErrNoHeartbeat = errors.New("its guest gave no heartbeat")

// errRehearsed ends a restore whose VM has served its purpose.
var errRehearsed = errors.New("the rehearsal is over")

// A LeftBehindError says that a VM in the making could not be removed.
type LeftBehindError struct {
	VM  hypervisor.VMID
	Err error
}

func (e *LeftBehindError) Error() string {
	return fmt.Sprintf("the incomplete VM %s stays behind: %v", e.VM, e.Err)
}

// Unwrap gives the reason.
func (e *LeftBehindError) Unwrap() error { return e.Err }

// A rehearsal is under way.
type rehearsal struct {
	RehearseRequest
	m      *Manager
	j      *job
	start  time.Time
	result *Rehearsal

	tried   bool  // the VM was complete, and was to be started
	problem error // what went wrong then
}

// Rehearse builds a VM from a restore point as Restore does, but isolated from everything and with an identity of its
// own, starts it, waits for its guest's heartbeat, takes a picture of its screen, and removes it. It is all the time
// one in the making: a run that was killed is cleaned up by the next restore or rehearsal, and the VM never has a name
// that anybody else may use. What came out is kept in the repository as a verification at repository.VerifyRestore.
//
// The VM is removed also when the rehearsal fails or is cancelled, on a deadline of its own. With an error there is a
// Rehearsal if the VM came so far as to be started. Errors: as Restore; ErrNotStarted;
// ErrNoHeartbeat; a *LeftBehindError.
func (m *Manager) Rehearse(ctx context.Context, r RehearseRequest) (*Rehearsal, error) {
	h, err := m.newRehearsal(ctx, r)
	if err != nil {
		h.record(ctx, err)
		return nil, err
	}
	release, err := m.repo.Hold(ctx, r.BackupID) // nobody may prune it meanwhile
	if err != nil {
		return nil, fmt.Errorf("rehearse a restore from %s: %w", r.BackupID, err)
	}
	defer release()
	err = h.run(ctx)
	h.j.warnings = append(h.j.warnings, h.j.clean.end(ctx, h.tried)...)
	if warning := h.record(ctx, err); warning != "" {
		h.j.warnings = append(h.j.warnings, warning)
	}
	if err != nil {
		err = fmt.Errorf("rehearse a restore of %s from %s: %w", h.j.manifest.VM.Path, r.BackupID, err)
	}
	if !h.tried {
		return nil, err
	}
	h.result.Warnings, h.result.CompletedAt = h.j.warnings, m.now().UTC()
	return h.result, err
}

// CheckRehearsal does at plan time what can be checked without creating anything. It returns the warnings that
// Rehearse would give.
func (m *Manager) CheckRehearsal(ctx context.Context, r RehearseRequest) (warnings []string, err error) {
	h, err := m.newRehearsal(ctx, r)
	if err != nil {
		return nil, err
	}
	warnings, err = m.hv.CheckRestore(ctx, h.j.spec)
	if err != nil {
		err = fmt.Errorf("rehearse a restore of %s from %s: %w", h.j.manifest.VM.Path, r.BackupID, err)
	}
	return append(h.j.warnings, warnings...), err
}

// newRehearsal reads the restore point, all but its disks. With an error, there is nothing to run.
func (m *Manager) newRehearsal(ctx context.Context, r RehearseRequest) (*rehearsal, error) {
	h := &rehearsal{RehearseRequest: r, m: m, start: m.now(), result: &Rehearsal{}}
	if r.GuestTimeout < 0 {
		return h, fmt.Errorf("%w: a negative timeout of waiting for the guest", ErrRequest)
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	disconnected := false
	var err error
	h.j, err = m.prepare(ctx, Request{BackupID: r.BackupID, Power: PowerOn, NewVM: &NewVM{
		// It is the name of a directory: a VM in the making has one of its own.
		Name:     "tf-rehearsal-" + hex.EncodeToString(id[:]),
		Identity: hypervisor.IdentityCopy, Folder: r.Folder, ResourcePool: r.ResourcePool, Host: r.Host,
		Datastore: r.Datastore, ConnectNetworks: &disconnected,
	}})
	if err != nil {
		return h, err
	}
	h.j.spec.Isolated = true
	h.j.spec.Verify = h.try
	h.result.Manifest = h.j.manifest
	return h, nil
}

// run builds the VM, and removes it.
func (h *rehearsal) run(ctx context.Context) error {
	if err := h.m.cleanUp(ctx, h.j); err != nil {
		return err
	}
	warnings, err := h.m.hv.CheckRestore(ctx, h.j.spec)
	if err != nil {
		return err
	}
	h.j.warnings = append(h.j.warnings, warnings...)
	_, err = h.m.build(ctx, h.j)
	switch {
	case err == nil: // the port says otherwise
		return errors.New("the copy was finished, and stays")
	case !h.tried:
		return err
	}
	var left *LeftBehindError
	if errors.As(err, &left) {
		return errors.Join(h.problem, left)
	}
	return h.problem
}

// try is called with the VM when it is complete.
func (h *rehearsal) try(ctx context.Context, vm hypervisor.VMID) error {
	h.tried = true
	h.result.RestoreTime, h.result.RestoredBytes = h.m.now().Sub(h.start), h.j.dataBytes()
	if h.problem = h.boot(ctx, vm); h.problem != nil {
		return h.problem
	}
	return errRehearsed
}

// boot starts the VM and looks whether its guest comes up.
func (h *rehearsal) boot(ctx context.Context, vm hypervisor.VMID) error {
	h.m.log.InfoContext(ctx, "starting the copy", "vm", h.j.manifest.VM.Path, "copy", string(vm))
	if err := h.powerOn(ctx, vm); err != nil {
		return fmt.Errorf("the copy is complete, but %w: %w", ErrNotStarted, err)
	}
	began := h.m.now()
	err := h.awaitHeartbeat(ctx, vm)
	if err == nil {
		h.result.Heartbeat, h.result.BootTime = true, h.m.now().Sub(began)
	}
	if h.Screenshot && ctx.Err() == nil { // the more so of a guest that doesn't come up
		h.takePicture(ctx, vm)
	}
	return errors.Join(err, ctx.Err())
}

func (h *rehearsal) takePicture(ctx context.Context, vm hypervisor.VMID) {
	ctx, phase := progress.Enter(ctx, "taking a picture of the guest's screen")
	defer phase.Leave()
	var err error
	if h.result.Screenshot, err = h.m.hv.Screenshot(ctx, vm); err != nil {
		h.j.warnings = append(h.j.warnings, fmt.Sprintf("no picture could be taken of the copy's screen: %v.", err))
	}
}

func (h *rehearsal) powerOn(ctx context.Context, vm hypervisor.VMID) error {
	ctx, phase := progress.Enter(ctx, "starting the copy")
	defer phase.Leave()
	return h.m.hv.PowerOn(ctx, vm)
}

// awaitHeartbeat waits until the guest gives a sign of life.
func (h *rehearsal) awaitHeartbeat(ctx context.Context, vm hypervisor.VMID) error {
	timeout := h.GuestTimeout
	if timeout == 0 {
		timeout = DefaultGuestTimeout
	}
	ctx, phase := progress.Enter(ctx, "waiting for the guest's heartbeat", "timeout", timeout.String())
	defer phase.Leave()
	waitCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	last := hypervisor.Guest{PowerState: hypervisor.PoweredOn}
	err := h.m.hv.WatchGuest(waitCtx, vm, func(g hypervisor.Guest) bool {
		last = g
		return g.Agent || g.PowerState != hypervisor.PoweredOn
	})
	switch {
	case err == nil && last.Agent && last.PowerState == hypervisor.PoweredOn:
		return nil
	case err == nil:
		return fmt.Errorf("the copy was started, but %w: the virtual machine stopped", ErrNoHeartbeat)
	case ctx.Err() == nil && waitCtx.Err() != nil:
		return fmt.Errorf("the copy was started, but %w within %s", ErrNoHeartbeat, timeout)
	}
	return fmt.Errorf("wait for the guest's heartbeat: %w", err)
}

// recordTimeout bounds keeping what came out, which is worth it also for a caller who left.
const recordTimeout = 2 * time.Minute

// record keeps what came out, where it says something about the restore point: that there was no room for the
// copy, or that the caller left, does not. It returns a warning if it can't.
func (h *rehearsal) record(ctx context.Context, err error) (warning string) {
	v := repository.Verification{
		Point: h.BackupID, Level: repository.VerifyRestore, At: h.start, OK: h.result.Heartbeat,
		Duration: h.m.now().Sub(h.start), Version: h.Version,
	}
	if !v.OK {
		v.At = h.start.Add(v.Duration)
	}
	switch {
	case h.result.Heartbeat:
	case errors.Is(err, repository.ErrDamaged):
		v.Level, v.Problems = repository.VerifyData, []string{err.Error()}
	case errors.Is(err, ErrNoHeartbeat):
		v.Problems = []string{h.problem.Error()}
	default:
		return ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := h.m.repo.RecordVerification(ctx, v); err != nil {
		return fmt.Sprintf("what came out of the rehearsal is not kept: %v.", err)
	}
	h.result.Recorded = true
	return ""
}
