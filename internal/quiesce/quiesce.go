// Package quiesce holds what can be asked of a guest while its disks are captured, and what a
// snapshot is worth afterwards: the one is never concluded from the other.
package quiesce

import (
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A Mode says how much quiescing matters.
type Mode string

// The modes. The zero value means Off.
const (
	Required  Mode = "required"  // fail without it
	Preferred Mode = "preferred" // warn and go on without it
	Off       Mode = "off"       // don't ask the guest
)

// A Policy says what is asked of the guest.
type Policy struct {
	Mode    Mode
	Timeout time.Duration   // zero: the hypervisor's default
	VSS     *hypervisor.VSS // Windows guests only; nil: the hypervisor's default
}

// ErrPolicy is what a policy gives that contradicts itself or the rest of the request.
var ErrPolicy = errors.New("invalid quiesce settings")

// Check returns an error that wraps ErrPolicy unless the policy is one that can be carried out.
func (p Policy) Check() error {
	switch p.Mode {
	case "", Off, Preferred, Required:
	default:
		return fmt.Errorf("%w: mode %q is none of required, preferred, off", ErrPolicy, p.Mode)
	}
	if p.Timeout < 0 {
		return fmt.Errorf("%w: the timeout is negative", ErrPolicy)
	}
	return nil
}

// Wanted reports whether the guest is asked at all.
func (p Policy) Wanted() bool { return p.Mode == Required || p.Mode == Preferred }

// Spec is the policy in the hypervisor's words, nil when the guest is not to be asked.
func (p Policy) Spec() *hypervisor.Quiesce {
	if !p.Wanted() {
		return nil
	}
	return &hypervisor.Quiesce{Timeout: p.Timeout, VSS: p.VSS}
}

// Possible reports whether there is anything in the guest that could be asked. Hypervisors ignore the
// request silently where there isn't.
func Possible(vm *hypervisor.VM) bool {
	return vm.PowerState == hypervisor.PoweredOn && vm.GuestAgent
}

// Consistency says what a guest finds when it comes back from a snapshot or a backup.
type Consistency string

// The kinds of consistency, from the weakest.
const (
	Crash       Consistency = "crash"       // as after a power failure
	FileSystem  Consistency = "filesystem"  // file systems at rest
	Application Consistency = "application" // applications at rest too
	Memory      Consistency = "memory"      // the running guest, memory and all
)

// Of tells a snapshot's consistency from what really happened. cleanShutdown is set only by those
// who shut the guest down themselves right before the snapshot; a VM that is found powered off may
// have been stopped in any way.
func Of(s hypervisor.Snapshot, cleanShutdown bool) Consistency {
	switch {
	case s.Memory:
		return Memory
	case cleanShutdown && s.PowerState == hypervisor.PoweredOff:
		return Application
	case s.Quiesced && s.Application:
		return Application
	case s.Quiesced:
		return FileSystem
	default:
		return Crash
	}
}
