package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// QueryConfigOption tells what hardware a version can have.
func (e *environmentBrowser) QueryConfigOption(ctx *simulator.Context, r *types.QueryConfigOption) soap.HasFault {
	res := e.EnvironmentBrowser.QueryConfigOption(r)
	if body, ok := res.(*methods.QueryConfigOptionBody); ok && body.Res != nil {
		body.Res.Returnval = e.lab.configOption(ctx, body.Res.Returnval, r.Key)
	}
	return res
}

// QueryConfigOptionEx tells what hardware a version can have, for some guests.
func (e *environmentBrowser) QueryConfigOptionEx(ctx *simulator.Context, r *types.QueryConfigOptionEx) soap.HasFault {
	res := e.EnvironmentBrowser.QueryConfigOptionEx(r)
	if body, ok := res.(*methods.QueryConfigOptionExBody); ok && body.Res != nil {
		key := ""
		if r.Spec != nil {
			key = r.Spec.Key
		}
		body.Res.Returnval = e.lab.configOption(ctx, body.Res.Returnval, key)
	}
	return res
}

// configOption is the simulator's one, but of the version that was asked for; without one, of the newest.
func (l *Lab) configOption(
	ctx *simulator.Context, option *types.VirtualMachineConfigOption, key string,
) *types.VirtualMachineConfigOption {
	if option == nil {
		return nil
	}
	version, err := types.ParseHardwareVersion(key)
	if err != nil {
		version = l.newestHardware(ctx)
	}
	own := clone(option)
	own.Version = version.String()
	own.Description = version.String()
	own.HardwareOptions.HwVersion = int32(version)
	return own
}
