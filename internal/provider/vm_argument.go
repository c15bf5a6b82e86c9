package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const vmDescription = "The virtual machine: a managed object ID (`vm-42`), a BIOS UUID (what " +
	"`vsphere_virtual_machine.x.id` is), an instance UUID, an inventory path (`/DC/vm/folder/name`) or a name. More " +
	"than one match is an error that lists the matches."

// vmAttribute is the vm argument of a resource. A change of it is judged in ModifyPlan, by identity.
func vmAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		MarkdownDescription: vmDescription + " Another way to write the same virtual machine is no change.",
		Required:            true,
		Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
	}
}

// A vmRecord is what the state knows of a VM.
type vmRecord struct {
	Written      string // the vm argument
	InstanceUUID string
	BIOSUUID     string
	Name, Path   string // empty where the state doesn't have them
}

// sameVM reports whether a reference means the VM of the record. A reference that resolves is judged
// by what it resolves to; one that doesn't, because the VM is gone, by what is written. Nothing is
// concluded from one that is neither: a slip of the pen must not replace a snapshot.
func (s *session) sameVM(ctx context.Context, ref string, record vmRecord) (bool, error) {
	if ref == record.Written {
		return true, nil
	}
	hv, err := s.hypervisor(ctx)
	if err != nil {
		return false, err
	}
	vm, err := hv.FindVM(ctx, hypervisor.VMRef(ref))
	var notFound *hypervisor.VMNotFoundError
	switch {
	case err == nil:
		return strings.EqualFold(vm.InstanceUUID, record.InstanceUUID), nil
	case errors.As(err, &notFound) && record.matches(ref):
		return true, nil
	default:
		return false, fmt.Errorf("compare %q with the virtual machine in the state: %w", ref, err)
	}
}

// matches reports whether the reference is one of the ways in which the recorded VM could be written.
func (r vmRecord) matches(ref string) bool {
	for _, known := range []string{r.InstanceUUID, r.BIOSUUID} {
		if known != "" && strings.EqualFold(ref, known) {
			return true
		}
	}
	return ref != "" && (ref == r.Name || ref == r.Path)
}

// stillUnknown reports whether an error is no reason to stop a plan: what is needed is not known yet.
func stillUnknown(err error) bool {
	var unknown *unknownError
	return errors.As(err, &unknown)
}

// failPlan reports what is wrong with a plan. A VM that isn't there is only a warning where it is
// given by name: another resource may create it in the same run. A UUID is known only of what exists. Where something is
// replaced, it is an error whatever the VM is called: what there is goes first, and may be all that is left of a VM that was
// renamed or lost.
func (o operation) failPlan(ctx context.Context, diags *diag.Diagnostics, err error) {
	var notFound *hypervisor.VMNotFoundError
	switch {
	case stillUnknown(err):
	case errors.As(err, &notFound) && replaces(ctx):
		o.leaving("Nothing is replaced: what there is would go first, and nothing could take its place.").fail(ctx, diags, err)
	case errors.As(err, &notFound) && !isUUID(notFound.Ref):
		at, ok := o.paths[argVM]
		if !ok {
			at = path.Root("vm")
		}
		diags.AddAttributeWarning(at, "Virtual Machine Not Found Yet", sentence(err.Error())+
			"\n\nIt must exist when the plan is applied.")
	default:
		o.fail(ctx, diags, err)
	}
}

func isUUID(ref string) bool {
	_, err := uuid.Parse(ref)
	return err == nil
}

// planVM judges a change of the vm argument: another way to write the same VM keeps the value in the
// state, so that nothing is planned because of it; another VM replaces.
func (s *session) planVM(
	ctx context.Context, planned types.String, record vmRecord, op operation,
	req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse,
) {
	switch {
	case planned.IsUnknown():
		resp.RequiresReplace.Append(path.Root("vm"))
	case planned.ValueString() != record.Written:
		same, err := s.sameVM(ctx, planned.ValueString(), record)
		switch {
		case err != nil:
			op.fail(ctx, &resp.Diagnostics, err)
		case !same:
			resp.RequiresReplace.Append(path.Root("vm"))
		default:
			resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root("vm"), record.Written)...)
		}
	}
	// What is written in another way than before is nothing to read anew for.
	if len(resp.RequiresReplace) == 0 && sameArguments(resp.Plan, req.State) {
		resp.Plan.Raw = req.State.Raw
	}
}

// sameArguments reports whether a plan differs from the state in computed attributes alone.
func sameArguments(plan tfsdk.Plan, state tfsdk.State) bool {
	var planned, prior map[string]tftypes.Value
	if plan.Raw.As(&planned) != nil || state.Raw.As(&prior) != nil {
		return false
	}
	for name, a := range plan.Schema.GetAttributes() {
		if (a.IsRequired() || a.IsOptional()) && !planned[name].Equal(prior[name]) {
			return false
		}
	}
	for name := range plan.Schema.GetBlocks() {
		if !planned[name].Equal(prior[name]) {
			return false
		}
	}
	return true
}
