package vsphere

import (
	"context"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// clusterWarnings names what a cluster is told about a VM. It is kept with the cluster under the VM's
// managed object ID, which a restored VM doesn't have, and isn't captured.
func (c *Client) clusterWarnings(
	ctx context.Context, vm types.ManagedObjectReference, host *types.ManagedObjectReference,
) ([]string, error) {
	if host == nil {
		return nil, nil
	}
	var on mo.HostSystem
	if err := c.properties(ctx, *host, []string{"parent"}, &on); err != nil {
		return nil, err
	}
	if on.Parent == nil || on.Parent.Type != "ClusterComputeResource" {
		return nil, nil
	}
	var cluster mo.ClusterComputeResource
	if err := c.properties(ctx, *on.Parent, []string{"configurationEx"}, &cluster); err != nil {
		return nil, err
	}
	config, ok := cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
	if !ok {
		return nil, nil
	}
	return clusterSettings(config, vm), nil
}

func clusterSettings(config *types.ClusterConfigInfoEx, vm types.ManagedObjectReference) []string {
	var out []string
	for _, rule := range config.Rule {
		var members []types.ManagedObjectReference
		switch r := rule.(type) {
		case *types.ClusterAffinityRuleSpec:
			members = r.Vm
		case *types.ClusterAntiAffinityRuleSpec:
			members = r.Vm
		}
		if slices.Contains(members, vm) {
			out = append(out, fmt.Sprintf("the DRS rule %q, which the VM is part of, is not captured.", rule.GetClusterRuleInfo().Name))
		}
	}
	for _, group := range config.Group {
		if g, ok := group.(*types.ClusterVmGroup); ok && slices.Contains(g.Vm, vm) {
			out = append(out, fmt.Sprintf("membership in the cluster's group %q is not captured.", g.Name))
		}
	}
	if slices.ContainsFunc(config.DrsVmConfig, func(o types.ClusterDrsVmConfigInfo) bool { return o.Key == vm }) {
		out = append(out, "the cluster's DRS override for the VM is not captured.")
	}
	if slices.ContainsFunc(config.DasVmConfig, func(o types.ClusterDasVmConfigInfo) bool { return o.Key == vm }) {
		out = append(out, "the cluster's HA override for the VM is not captured.")
	}
	if slices.ContainsFunc(config.VmOrchestration, func(o types.ClusterVmOrchestrationInfo) bool { return o.Vm == vm }) {
		out = append(out, "the cluster's restart order override for the VM is not captured.")
	}
	return out
}
