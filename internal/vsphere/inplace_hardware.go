package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// configure brings back what the swap could not: the boot order, which names disks by keys that are given
// out anew, and the captured hardware if that was asked for. It ends with the journal's last phase.
func (r *inPlace) configure(ctx context.Context) (warnings []string, err error) {
	if r.journal.Phase == phaseDone {
		return nil, nil
	}
	if !r.plan.spec.Hardware {
		return nil, r.reshape(ctx, phaseDone, bootSpecOf(r.journal.Boot))
	}
	c, id := r.client, r.plan.spec.VM
	warnings, err = r.replaceNVRAM(ctx)
	if err != nil {
		return nil, err
	}
	networks, missing, err := c.inPlaceNetworks(ctx, r.plan)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, missing...)
	want := hardware{config: r.plan.captured.config, networks: networks}
	err = r.reshape(ctx, phaseDone, want.spec)
	if isRefusal(ctx, err) {
		var refused []string
		refused, err = r.reshapeByParts(ctx, want)
		warnings = append(warnings, refused...)
	}
	if err != nil {
		return nil, fmt.Errorf("bring back the hardware: %w", err)
	}
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return nil, err
	}
	differences, err := compareInPlace(r.plan.captured.config, vm.Config)
	if err != nil {
		return nil, err
	}
	for _, d := range differences {
		warnings = append(warnings, d.String())
	}
	return warnings, nil
}

// unconfigure takes back what configure has done.
func (r *inPlace) unconfigure(ctx context.Context) error {
	if !r.plan.spec.Hardware {
		return nil
	}
	if err := r.client.putBackNVRAM(ctx, r.plan.spec.VM, r.plan.line, r.journal); err != nil {
		return err
	}
	return r.reshape(ctx, phaseSwapped, hardware{config: r.before, networks: networksOf(r.before)}.spec)
}

// A specBuilder says what to change about a VM as it is.
type specBuilder func(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error)

// reshape changes the VM's settings and leads to a phase.
func (r *inPlace) reshape(ctx context.Context, to phase, build specBuilder) error {
	return r.write(ctx, r.plan.spec.RunID, r.journal.as(to), build)
}

// reshapeByParts brings back each setting on its own, and returns a warning for each that the server refuses.
// The last phase comes first: should the process be killed now, the VM has the restored disks and some of its
// hardware, which is better than its own disks with some of the other hardware.
func (r *inPlace) reshapeByParts(ctx context.Context, want hardware) ([]string, error) {
	if err := r.reshape(ctx, phaseDone, nil); err != nil {
		return nil, err
	}
	vm, err := r.client.readTarget(ctx, r.plan.spec.VM)
	if err != nil {
		return nil, err
	}
	whole, err := want.spec(vm)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, part := range parts(whole) {
		err := r.reshape(ctx, phaseDone, func(*mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) { return part.spec, nil })
		if isRefusal(ctx, err) {
			warnings = append(warnings, fmt.Sprintf("%s could not be brought back: %v.", part.name, err))
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// isRefusal tells whether the server understood a change and doesn't want to make it.
func isRefusal(ctx context.Context, err error) bool {
	var gone *hypervisor.VMNotFoundError
	return err != nil && ctx.Err() == nil && !isAmbiguous(err) && !errors.As(err, &gone) &&
		!errors.Is(err, errNoJournal) && !errors.Is(err, hypervisor.ErrTakenOver) && !fault.Is(err, &types.ConcurrentAccess{}) &&
		!fault.Is(err, &types.NotAuthenticated{}) &&
		faultOrPermission(err)
}

func faultOrPermission(err error) bool {
	var denied *hypervisor.PermissionError
	return errors.As(err, &denied) || faultName(err) != ""
}

// A part is one setting of a specification.
type part struct {
	name string
	spec types.VirtualMachineConfigSpec
}

// parts takes a specification apart: setting by setting, and device by device.
func parts(whole types.VirtualMachineConfigSpec) []part {
	var out []part
	from := reflect.ValueOf(whole)
	for i := range from.NumField() {
		field := from.Type().Field(i)
		if from.Field(i).IsZero() || field.Name == "DynamicData" || field.Name == "DeviceChange" {
			continue
		}
		p := part{name: strings.ToLower(field.Name[:1]) + field.Name[1:]}
		reflect.ValueOf(&p.spec).Elem().Field(i).Set(from.Field(i))
		out = append(out, p)
	}
	for _, change := range whole.DeviceChange {
		out = append(out, part{
			name: deviceLabel(change.GetVirtualDeviceConfigSpec().Device),
			spec: types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{change}},
		})
	}
	return out
}

// hardware is a configuration that a VM is brought back to.
type hardware struct {
	config   *types.VirtualMachineConfigInfo
	networks map[int32]types.BaseVirtualDeviceBackingInfo // of adapters, by their keys in config
}

// spec is what has to change about a VM, as far as a VM can be changed: only what differs, since whatever is
// asked for may be refused. UUIDs, addresses, and the version of the virtual hardware stay as they are.
func (h hardware) spec(vm *mo.VirtualMachine) (types.VirtualMachineConfigSpec, error) {
	want, err := settingsOf(h.config)
	if err != nil {
		return want, err
	}
	have, err := settingsOf(vm.Config)
	if err != nil {
		return want, err
	}
	keepChanges(&want, have)
	want.ExtraConfig = optionsBack(h.config.ExtraConfig, vm.Config.ExtraConfig)
	want.VAppConfig = vAppBack(h.config.VAppConfig, vm.Config.VAppConfig)
	config, err := copyConfig(h.config)
	if err != nil {
		return want, err
	}
	now, err := copyConfig(vm.Config)
	if err != nil {
		return want, err
	}
	matched := matchDevices(config.Hardware.Device, now.Hardware.Device)
	want.DeviceChange = h.deviceChanges(config.Hardware.Device, matched)
	addBootOrder(&want, config, now, matched)
	return want, nil
}

// settingsOf is what a configuration would ask for of a new VM, without its devices and lists.
func settingsOf(config *types.VirtualMachineConfigInfo) (types.VirtualMachineConfigSpec, error) {
	bare, err := copyConfig(config)
	if err != nil {
		return types.VirtualMachineConfigSpec{}, err
	}
	bare.Hardware.Device, bare.ExtraConfig, bare.VAppConfig = nil, nil, nil
	if bare.BootOptions != nil {
		bare.BootOptions.BootOrder = nil
	}
	spec, _, err := creationSpec(bare, rebuild{identity: hypervisor.IdentityCopy})
	spec.Name, spec.Version, spec.Files, spec.CpuFeatureMask = "", "", nil, nil
	return spec, err
}

// keepChanges leaves in want what differs from have.
func keepChanges(want *types.VirtualMachineConfigSpec, have types.VirtualMachineConfigSpec) {
	w, h := reflect.ValueOf(want).Elem(), reflect.ValueOf(have)
	for i := range w.NumField() {
		if reflect.DeepEqual(w.Field(i).Interface(), h.Field(i).Interface()) {
			w.Field(i).SetZero()
		}
	}
}

// optionsBack brings extraConfig back. Options that came since are removed.
func optionsBack(want, have []types.BaseOptionValue) []types.BaseOptionValue {
	values := func(options []types.BaseOptionValue) map[string]any {
		out := map[string]any{}
		for _, o := range rewriteExtraConfig(options) {
			v := o.GetOptionValue()
			out[v.Key] = v.Value
		}
		return out
	}
	wanted, had := values(want), values(have)
	var changes []types.BaseOptionValue
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if value, ok := had[key]; !ok || !reflect.DeepEqual(value, wanted[key]) {
			changes = append(changes, &types.OptionValue{Key: key, Value: wanted[key]})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(had)) {
		if _, ok := wanted[key]; !ok {
			changes = append(changes, &types.OptionValue{Key: key, Value: ""})
		}
	}
	return changes
}

// vAppBack brings back the values of vApp properties. Those that came since are removed.
func vAppBack(want, have types.BaseVmConfigInfo) types.BaseVmConfigSpec {
	var wanted, had []types.VAppPropertyInfo
	if want != nil {
		wanted = want.GetVmConfigInfo().Property
	}
	if have != nil {
		had = have.GetVmConfigInfo().Property
	}
	var spec types.VmConfigSpec
	change := func(op types.ArrayUpdateOperation, p types.VAppPropertyInfo) {
		spec.Property = append(spec.Property, types.VAppPropertySpec{
			ArrayUpdateSpec: types.ArrayUpdateSpec{Operation: op}, Info: &p,
		})
	}
	for _, p := range wanted {
		i := slices.IndexFunc(had, func(h types.VAppPropertyInfo) bool { return h.Key == p.Key })
		switch {
		case i < 0:
			change(types.ArrayUpdateOperationAdd, p)
		case !reflect.DeepEqual(had[i], p):
			change(types.ArrayUpdateOperationEdit, p)
		}
	}
	for _, p := range had {
		if !slices.ContainsFunc(wanted, func(w types.VAppPropertyInfo) bool { return w.Key == p.Key }) {
			spec.Property = append(spec.Property, types.VAppPropertySpec{
				ArrayUpdateSpec: types.ArrayUpdateSpec{
					Operation: types.ArrayUpdateOperationRemove, RemoveKey: p.Key,
				},
			})
		}
	}
	if len(spec.Property) == 0 {
		return nil
	}
	return &spec
}
