package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// subtypes are the types of objects that clients may also refer to by a more general type: a real server
// goes by an object's ID and whether it is of the type.
var subtypes = map[string][]string{
	"ComputeResource":          {"ClusterComputeResource"},
	"ResourcePool":             {"VirtualApp"},
	"Folder":                   {"StoragePod"},
	"Network":                  {"DistributedVirtualPortgroup", "OpaqueNetwork"},
	"DistributedVirtualSwitch": {"VmwareDistributedVirtualSwitch"},
}

// correctTypes gives the references of a call the types of the objects that have these IDs.
func correctTypes(ctx *simulator.Context, call *simulator.Method) {
	correctType(ctx, &call.This)
	var specs []types.PropertyFilterSpec
	switch body := call.Body.(type) {
	case *types.RetrievePropertiesEx:
		specs = body.SpecSet
	case *types.RetrieveProperties:
		specs = body.SpecSet
	case *types.CreateFilter:
		specs = []types.PropertyFilterSpec{body.Spec}
	}
	for _, spec := range specs {
		for i := range spec.ObjectSet {
			correctType(ctx, &spec.ObjectSet[i].Obj)
		}
	}
}

func correctType(ctx *simulator.Context, ref *types.ManagedObjectReference) {
	if ctx.Map.Get(*ref) != nil || ctx.Session != nil && ctx.Session.Registry.Get(*ref) != nil {
		return
	}
	for _, kind := range subtypes[ref.Type] {
		other := types.ManagedObjectReference{Type: kind, Value: ref.Value}
		if ctx.Map.Get(other) != nil {
			*ref = other
			return
		}
	}
}
