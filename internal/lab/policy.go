package lab

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/pbm/methods"
	pbm "github.com/vmware/govmomi/pbm/simulator"
	pbmtypes "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// policies are the storage policies and what they are attached to.
type policies struct {
	mu       sync.Mutex
	profiles []pbmtypes.PbmCapabilityProfile
	attached map[string]string // policy IDs by the object's key: "vm-7", "vm-7:2000"
}

// defaultPolicy is the policy that every vCenter has, with its ID.
const defaultPolicy, defaultPolicyID = "vSAN Default Storage Policy", "aa6d5a82-1c88-45da-85d3-3d74b91a5bad"

// A profileManager keeps policies and their attachments, which the simulator has none of.
type profileManager struct {
	*pbm.ProfileManager
	lab *Lab
}

// installPolicies puts the lab's policies before the simulator's, which several labs share.
func (l *Lab) installPolicies() {
	if l.options.ESX {
		return
	}
	l.policies.attached = map[string]string{}
	l.policies.add(defaultPolicy, defaultPolicyID)
	registry := pbm.New()
	ref := types.ManagedObjectReference{Type: "PbmProfileProfileManager", Value: "ProfileManager"}
	if m, ok := registry.Get(ref).(*pbm.ProfileManager); ok {
		registry.Put(&profileManager{ProfileManager: m, lab: l})
	}
	l.model.Service.RegisterSDK(registry)
}

// viewPolicies is the privilege that seeing storage policies takes.
const viewPolicies = "StorageProfile.View"

// refused is the fault for a user who lacks a privilege on the server, nil if it is there.
func (m *profileManager) refused(ctx *simulator.Context, id string) *soap.Fault {
	if ctx.Session == nil || ctx.Session.UserName == userName {
		return nil
	}
	fault := m.lab.denied(m.lab.background(), ctx.Session.UserName, []demand{{*m.lab.rootFolder(), []string{id}}})
	if fault == nil {
		return nil
	}
	return simulator.Fault("", fault)
}

func (p *policies) add(name, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.profiles = append(p.profiles, pbmtypes.PbmCapabilityProfile{
		PbmProfile: pbmtypes.PbmProfile{
			ProfileId: pbmtypes.PbmProfileId{UniqueId: id}, Name: name, CreationTime: now, LastUpdatedTime: now,
		},
		ProfileCategory: string(pbmtypes.PbmProfileCategoryEnumREQUIREMENT),
		ResourceType:    pbmtypes.PbmProfileResourceType{ResourceType: string(pbmtypes.PbmProfileResourceTypeEnumSTORAGE)},
		Constraints:     &pbmtypes.PbmCapabilitySubProfileConstraints{},
	})
}

func (p *policies) has(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.profiles, func(o pbmtypes.PbmCapabilityProfile) bool { return o.ProfileId.UniqueId == id })
}

// PbmCreate makes a policy.
func (m *profileManager) PbmCreate(ctx *simulator.Context, r *pbmtypes.PbmCreate) soap.HasFault {
	if fault := m.refused(ctx, "StorageProfile.Update"); fault != nil {
		return &methods.PbmCreateBody{Fault_: fault}
	}
	id := uuid.NewString()
	m.lab.policies.add(r.CreateSpec.Name, id)
	return &methods.PbmCreateBody{Res: &pbmtypes.PbmCreateResponse{Returnval: pbmtypes.PbmProfileId{UniqueId: id}}}
}

// PbmQueryProfile lists policies.
func (m *profileManager) PbmQueryProfile(ctx *simulator.Context, r *pbmtypes.PbmQueryProfile) soap.HasFault {
	if fault := m.refused(ctx, viewPolicies); fault != nil {
		return &methods.PbmQueryProfileBody{Fault_: fault}
	}
	p := &m.lab.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	res := new(pbmtypes.PbmQueryProfileResponse)
	for _, o := range p.profiles {
		if o.ResourceType == r.ResourceType && (r.ProfileCategory == "" || r.ProfileCategory == o.ProfileCategory) {
			res.Returnval = append(res.Returnval, o.ProfileId)
		}
	}
	return &methods.PbmQueryProfileBody{Res: res}
}

// PbmRetrieveContent describes policies.
func (m *profileManager) PbmRetrieveContent(ctx *simulator.Context, r *pbmtypes.PbmRetrieveContent) soap.HasFault {
	body := new(methods.PbmRetrieveContentBody)
	if body.Fault_ = m.refused(ctx, viewPolicies); body.Fault_ != nil {
		return body
	}
	if len(r.ProfileIds) == 0 {
		body.Fault_ = simulator.Fault("", &types.InvalidRequest{})
		return body
	}
	p := &m.lab.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	res := new(pbmtypes.PbmRetrieveContentResponse)
	for _, id := range r.ProfileIds {
		i := slices.IndexFunc(p.profiles, func(o pbmtypes.PbmCapabilityProfile) bool { return o.ProfileId == id })
		if i < 0 {
			body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "profileIds"})
			return body
		}
		profile := p.profiles[i]
		res.Returnval = append(res.Returnval, &profile)
	}
	body.Res = res
	return body
}

// PbmQueryAssociatedProfile says which policy an object has.
func (m *profileManager) PbmQueryAssociatedProfile(ctx *simulator.Context, r *pbmtypes.PbmQueryAssociatedProfile) soap.HasFault {
	if fault := m.refused(ctx, viewPolicies); fault != nil {
		return &methods.PbmQueryAssociatedProfileBody{Fault_: fault}
	}
	return &methods.PbmQueryAssociatedProfileBody{
		Res: &pbmtypes.PbmQueryAssociatedProfileResponse{Returnval: m.lab.policies.of(r.Entity)},
	}
}

// PbmQueryAssociatedProfiles says which policies objects have; those without one are not listed.
func (m *profileManager) PbmQueryAssociatedProfiles(ctx *simulator.Context, r *pbmtypes.PbmQueryAssociatedProfiles) soap.HasFault {
	if fault := m.refused(ctx, viewPolicies); fault != nil {
		return &methods.PbmQueryAssociatedProfilesBody{Fault_: fault}
	}
	res := new(pbmtypes.PbmQueryAssociatedProfilesResponse)
	for _, entity := range r.Entities {
		if ids := m.lab.policies.of(entity); len(ids) > 0 {
			res.Returnval = append(res.Returnval, pbmtypes.PbmQueryProfileResult{Object: entity, ProfileId: ids})
		}
	}
	return &methods.PbmQueryAssociatedProfilesBody{Res: res}
}

func (p *policies) of(entity pbmtypes.PbmServerObjectRef) []pbmtypes.PbmProfileId {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.attached[entity.Key]
	if !ok {
		return nil
	}
	return []pbmtypes.PbmProfileId{{UniqueId: id}}
}

// checkPolicies refuses policies that don't exist.
func (l *Lab) checkPolicies(spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	profiles := slices.Clone(spec.VmProfile)
	for _, change := range spec.DeviceChange {
		profiles = append(profiles, change.GetVirtualDeviceConfigSpec().Profile...)
	}
	for _, profile := range profiles {
		if p, ok := profile.(*types.VirtualMachineDefinedProfileSpec); ok && !l.policies.has(p.ProfileId) {
			return &types.InvalidArgument{InvalidProperty: "profile"}
		}
	}
	return nil
}

// attachPolicies gives a VM and its devices the policies of a specification. keys are those that the devices
// got, by those that a client gave them.
func (l *Lab) attachPolicies(
	vm types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec, keys map[int32]int32,
) {
	p := &l.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	attach := func(object string, profiles []types.BaseVirtualMachineProfileSpec) {
		for _, profile := range profiles {
			if defined, ok := profile.(*types.VirtualMachineDefinedProfileSpec); ok {
				p.attached[object] = defined.ProfileId
			} else {
				delete(p.attached, object)
			}
		}
	}
	attach(vm.Value, spec.VmProfile)
	for _, change := range spec.DeviceChange { // first, as with devices: what is added may get the same key
		if c := change.GetVirtualDeviceConfigSpec(); c.Operation == types.VirtualDeviceConfigSpecOperationRemove && c.Device != nil {
			delete(p.attached, fmt.Sprintf("%s:%d", vm.Value, c.Device.GetVirtualDevice().Key))
		}
	}
	for _, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		if c.Device == nil || c.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		key := c.Device.GetVirtualDevice().Key
		if to, ok := keys[key]; ok {
			key = to
		}
		attach(fmt.Sprintf("%s:%d", vm.Value, key), c.Profile)
	}
}
