package hypervisortest

import (
	"context"
	"maps"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// privileged are the points at which a method refuses a user who may not do what it does.
var privileged = map[Point]hypervisor.Operation{
	BeforeCreateSnapshot:   hypervisor.ToSnapshot,
	BeforeRenameSnapshot:   hypervisor.ToRenameSnapshot,
	BeforeRemoveSnapshot:   hypervisor.ToRemoveSnapshot,
	BeforeRevertToSnapshot: hypervisor.ToRevert,
	BeforeOpenPointInTime:  hypervisor.ToBackUp,
	BeforePowerOn:          hypervisor.ToPowerOn,
	BeforePowerOff:         hypervisor.ToPowerOff,
	BeforeShutDownGuest:    hypervisor.ToPowerOff,
	BeforeDestroyVM:        hypervisor.ToDestroy,
}

// Deny takes the privileges for operations, and for no others, away from the user. They are called as the
// operations are.
func (f *Fake) Deny(operations ...hypervisor.Operation) {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	clear(f.denied)
	for _, operation := range operations {
		f.denied[operation] = true
	}
}

// Denied are the operations that the user may not do.
func (f *Fake) Denied() []hypervisor.Operation {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	return slices.Sorted(maps.Keys(f.denied))
}

// CheckPrivileges implements hypervisor.PrivilegeChecker.
func (f *Fake) CheckPrivileges(ctx context.Context, vms []hypervisor.VMID, operations ...hypervisor.Operation) error {
	if err := f.at(ctx, BeforeCheckPrivileges); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var paths []string
	for _, id := range vms {
		if v, err := f.vm(id); err == nil { // one that is gone is the operation's to tell of
			paths = append(paths, v.Path)
		}
	}
	return f.missing(paths, operations)
}

// missing is the error for operations on objects that the user may not do, nil if it may do all.
func (f *Fake) missing(paths []string, operations []hypervisor.Operation) error {
	denied := f.Denied()
	e := &hypervisor.MissingPrivilegesError{}
	for _, path := range paths {
		for _, operation := range operations {
			if slices.Contains(denied, operation) {
				e.Missing = append(e.Missing, hypervisor.PermissionError{Privilege: string(operation), Object: path})
			}
		}
	}
	if len(e.Missing) == 0 {
		return nil
	}
	return e
}
