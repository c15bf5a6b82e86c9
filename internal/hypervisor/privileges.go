package hypervisor

import (
	"context"
	"strings"
)

// An Operation is something on a VM that a user may lack the privileges for.
type Operation string

// The operations whose privileges can be asked about. What a restore needs is checked by StartRestore and
// StartInPlace, which know where it goes.
const (
	ToSnapshot       Operation = "take a snapshot"
	ToRenameSnapshot Operation = "rename a snapshot"
	ToRemoveSnapshot Operation = "remove a snapshot"
	ToRevert         Operation = "revert to a snapshot"
	ToConsolidate    Operation = "consolidate disks"
	ToBackUp         Operation = "back up" // open a point in time, read its disks, and close it
	ToPowerOn        Operation = "power on"
	ToPowerOff       Operation = "power off or shut down"
	ToDestroy        Operation = "destroy"
	ToScreenshot     Operation = "take a screenshot"
)

// A PrivilegeChecker knows what the user may do.
type PrivilegeChecker interface {
	// CheckPrivileges refuses operations on VMs that the user may not do, before anything is started: a
	// *MissingPrivilegesError. It asks the server at most twice, however many VMs there are. Nil is no
	// promise: where the server doesn't say what the user may do, and for VMs that are gone, the operation
	// itself fails. Errors: a *MissingPrivilegesError, ctx.Err().
	CheckPrivileges(ctx context.Context, vms []VMID, operations ...Operation) error
}

// A MissingPrivilegesError names everything that a user lacks for what was going to be done. Nothing was
// done. It wraps a *PermissionError for each object.
type MissingPrivilegesError struct {
	Missing []PermissionError // at least one; Privilege may name several
}

func (e *MissingPrivilegesError) Error() string {
	if len(e.Missing) == 1 {
		return e.Missing[0].Error()
	}
	lines := make([]string, len(e.Missing))
	for i := range e.Missing {
		lines[i] = "\n  " + e.Missing[i].Privilege + " on " + e.Missing[i].Object
	}
	return "privileges are missing:" + strings.Join(lines, "")
}

// Unwrap gives an error for each object.
func (e *MissingPrivilegesError) Unwrap() []error {
	errs := make([]error, len(e.Missing))
	for i := range e.Missing {
		errs[i] = &e.Missing[i]
	}
	return errs
}
