package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A VM that a resource restored stands in the way of the plan that replaces it: name and identity are
// free only when it is deleted, which the apply does first. This file tells that VM from all others. It also
// remembers which VMs were found to be gone.

// errInUse: a VM whose restore ended with an error, because it could not be started or its guest didn't come
// up, is not powered off. It is complete, and may be of use to somebody.
var errInUse = errors.New("its restore ended with an error, but it isn't powered off now: somebody may be using it")

// errImportedRuns: a VM that a resource was told to have restored, and maybe has not, is not powered off.
var errImportedRuns = errors.New("it was imported, so that nothing shows that it was restored from this backup, and it runs")

// errOtherDisks: a VM has disks that its restore didn't give it. They would be deleted with it, and may be the only copy
// of what is on them: somebody has added them, or attached those of another VM.
var errOtherDisks = errors.New("it has disks that its restore did not give it, which would be deleted with it")

// checkDisks returns an error that wraps errOtherDisks if a VM has disks other than those that were restored. Of one that
// was imported it isn't known which those are.
func (m *restoreModel) checkDisks(vm *hypervisor.VM) error {
	if m.Disks.IsNull() || m.Disks.IsUnknown() {
		return nil
	}
	restored := map[string]bool{} // by UUID and path: a disk that is moved keeps the one, one without a UUID the other
	for _, element := range m.Disks.Elements() {
		d, ok := element.(types.Object)
		if !ok {
			continue
		}
		for _, name := range []string{"uuid", "path"} {
			if value, _ := d.Attributes()[name].(types.String); value.ValueString() != "" { // which any other may have as well
				restored[strings.ToLower(value.ValueString())] = true
			}
		}
	}
	var others []string
	for _, d := range vm.Disks {
		if restored[strings.ToLower(d.UUID)] || restored[strings.ToLower(d.Path)] {
			continue
		}
		others = append(others, d.Label+" ("+d.Path+")")
	}
	if len(others) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errOtherDisks, strings.Join(others, ", "))
}

// takenUpKey marks, in the private state, that an import named the VM, however often the resource was changed since.
// Such a VM is deleted only if the configuration says so.
const takenUpKey = "taken_up"

func takenUp(ctx context.Context, private privateState) bool {
	value, _ := private.GetKey(ctx, takenUpKey)
	return string(value) == "true"
}

// inUse reports whether the VM of a state is complete although its restore ended with an error, and not off now.
func inUse(state restoreModel, now hypervisor.PowerState) bool {
	return state.StartFailed.ValueBool() && now != hypervisor.PoweredOff
}

// ownKey is, in the private state of a plan, the path of the VM that the resource has and would delete.
const ownKey = "own"

// privateWriter is the part of a resource's private state that can be written.
type privateWriter interface {
	SetKey(ctx context.Context, key string, value []byte) diag.Diagnostics
}

func noteOwn(ctx context.Context, private privateWriter, vmPath string) diag.Diagnostics {
	value, err := json.Marshal(vmPath)
	if err != nil {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Unable to Plan Restore", sentence(err.Error()))}
	}
	return private.SetKey(ctx, ownKey, value)
}

// ownPath is the path that noteOwn noted; empty: there is none.
func ownPath(ctx context.Context, private privateState) string {
	var vmPath string
	if value, _ := private.GetKey(ctx, ownKey); json.Unmarshal(value, &vmPath) != nil {
		return ""
	}
	return vmPath
}

// An owned VM is one that a resource restored and would delete.
type owned struct {
	made   string // what it was made from
	vmPath string
	inUse  bool
}

// made says what a VM is made from. Terraform plans what is tainted like a new resource, with neither
// state nor private state: this is all by which the two can be told to be one.
func (m *restoreModel) made() string {
	return m.BackupID.String() + m.NewVM.String() + m.OnlyDisks.String()
}

// own notes the VM of a resource that could not start it and would delete it. Without the first, it is
// either not tainted, and noteOwn notes it, or a person has tainted it, of which a provider learns nothing.
func (s *session) own(state restoreModel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned = append(s.owned, owned{
		made: state.made(), vmPath: state.VMPath.ValueString(),
		inUse: inUse(state, hypervisor.PowerState(state.PowerState.ValueString())),
	})
}

// judge judges a VM at a path that is in the way of a plan. It is no error if it is the resource's own,
// noted in the plan's private state or when the state was read, and would be deleted.
func (s *session) judge(plan restoreModel, vmPath, own string, err error) error {
	if vmPath == own {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.owned {
		switch {
		case o.vmPath != vmPath || o.made != plan.made():
		case o.inUse:
			return errors.Join(err, errInUse)
		default:
			return nil
		}
	}
	return err
}

// vmInTheWay is the path of the VM that an error is about because it is in the way; empty: it is about none.
func vmInTheWay(err error) string {
	var identity *hypervisor.IdentityInUseError
	var name *hypervisor.NameInUseError
	switch {
	case errors.As(err, &identity):
		return identity.VM
	case errors.As(err, &name):
		return name.Folder + "/" + name.Name
	default:
		return ""
	}
}

// existing says which past state is put back into which VMs that exist.
func (m *restoreModel) existing() string {
	return m.BackupID.String() + m.SnapshotID.String() + m.SnapshotIDs.String() + m.InPlace.String()
}

// lose notes that all VMs that a resource restored in place or reverted are gone.
func (s *session) lose(state restoreModel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = map[string]bool{}
	}
	s.lost[state.existing()] = true
}

// lostAll reports whether the VMs of a plan were noted to be gone.
func (s *session) lostAll(plan restoreModel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[plan.existing()]
}

// warnOfLost warns of a plan for VMs that were noted to be gone. Before it destroys, Terraform plans what a refresh
// has just dropped from the state: an error of that would keep it from destroying anything.
func warnOfLost(ctx context.Context, op operation, diags *diag.Diagnostics, err error) {
	op.leaving("It was restored or reverted, and is gone since: that can't be done again.").
		warn(ctx, diags, "Virtual Machine Is Gone", err)
}
