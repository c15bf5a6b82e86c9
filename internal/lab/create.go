package lab

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CreateVMTask starts a task that creates a VM.
func (f *folder) CreateVMTask(ctx *simulator.Context, r *types.CreateVM_Task) soap.HasFault {
	spec := jobSpec{method: "CreateVM_Task", entity: f.Folder, name: f.Name}
	task := f.lab.startJob(ctx, spec, func(j *job) (types.AnyType, types.BaseMethodFault) {
		vm, fault := f.lab.createVM(j.sim, f.Self, &r.Config, r.Pool, r.Host)
		if fault != nil {
			return nil, fault
		}
		return vm.Self, nil
	})
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: task}}
}

// createVM creates a VM as the API does, whoever asks: CreateVM_Task, an import, a clone, the seeding.
// host may be nil. Disks to be created have a file in the disk store afterwards. On a fault nothing is
// left behind.
func (l *Lab) createVM(
	ctx *simulator.Context, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference,
) (*simulator.VirtualMachine, types.BaseMethodFault) {
	return l.createCopy(ctx, folder, spec, pool, host, nil)
}

// createCopy creates a VM whose disks are copies of files, by the keys of the specification's devices.
func (l *Lab) createCopy(
	ctx *simulator.Context, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference, copies map[int32]string,
) (*simulator.VirtualMachine, types.BaseMethodFault) {
	l.creating.Lock() // names and UUIDs are taken one at a time
	defer l.creating.Unlock()
	spec = clone(spec)
	spec.Name = escapeName(spec.Name)
	f, fault := l.checkCreate(ctx, folder, spec, pool, host)
	if fault != nil {
		return nil, fault
	}
	config, p, fault := l.planCreate(ctx, spec, copies)
	if fault != nil {
		return nil, fault
	}
	bare := types.VirtualMachineConfigSpec{
		Name:    unescapeName(spec.Name), // the simulator escapes what is escaped once more
		GuestId: config.GuestId, Version: config.Version, Uuid: config.Uuid, InstanceUuid: config.InstanceUuid,
		Files: spec.Files, Crypto: spec.Crypto,
	}
	request := &types.CreateVM_Task{This: folder, Config: bare, Pool: pool, Host: host}
	body, ok := f.CreateVMTask(ctx, request).(*methods.CreateVM_TaskBody)
	if !ok {
		return nil, &types.NotSupported{}
	}
	result, fault := l.inner(ctx, body.Res.Returnval)
	if fault != nil {
		return nil, fault
	}
	ref, _ := result.(types.ManagedObjectReference)
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: ref}
	}
	ctx.WithLock(vm, func() { fault = l.finishCreate(ctx, vm, spec, config, p) })
	if fault != nil {
		_ = l.destroy(ctx, vm)
		return nil, fault
	}
	return vm, nil
}

// checkCreate refuses a VM that can't be.
func (l *Lab) checkCreate(
	ctx *simulator.Context, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference,
) (*simulator.Folder, types.BaseMethodFault) {
	f, ok := ctx.Map.Get(folder).(*simulator.Folder)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: folder}
	}
	if p := ctx.Map.Get(pool); p == nil {
		return nil, &types.ManagedObjectNotFound{Obj: pool}
	}
	if host != nil {
		if _, ok := ctx.Map.Get(*host).(*simulator.HostSystem); !ok {
			return nil, &types.ManagedObjectNotFound{Obj: *host}
		}
	}
	var dp object.DatastorePath
	switch {
	case spec.Name == "":
		return nil, &types.InvalidVmConfig{Property: "configSpec.name"}
	case spec.Files == nil || !dp.FromString(spec.Files.VmPathName):
		return nil, &types.InvalidDatastorePath{DatastorePath: ""}
	case l.datastoreOf(dp.String()) == nil:
		return nil, &types.InvalidDatastore{Name: dp.Datastore}
	}
	if filepath.Ext(dp.Path) == ".vmx" && l.exists(dp.String()) {
		return nil, &types.FileAlreadyExists{FileFault: fileFault(dp.String())}
	}
	if fault := l.checkName(ctx, &folder, spec.Name, types.ManagedObjectReference{}); fault != nil {
		return nil, fault
	}
	if o := spec.BootOptions; o != nil && isTrue(o.EfiSecureBootEnabled) &&
		spec.Firmware != string(types.GuestOsDescriptorFirmwareTypeEfi) {
		return nil, &types.InvalidVmConfig{Property: "configSpec.bootOptions.efiSecureBootEnabled"}
	}
	if fault := l.checkPolicies(spec); fault != nil {
		return nil, fault
	}
	return f, l.checkSpec(ctx, spec)
}

// planCreate makes the configuration of a VM before it exists.
func (l *Lab) planCreate(
	ctx *simulator.Context, spec *types.VirtualMachineConfigSpec, copies map[int32]string,
) (*types.VirtualMachineConfigInfo, *plan, types.BaseMethodFault) {
	config := defaultConfig(l.newestHardware(ctx))
	if spec.Firmware == "" && spec.GuestId == string(types.VirtualMachineGuestOsIdentifierWindows11_64Guest) {
		config.Firmware = string(types.GuestOsDescriptorFirmwareTypeEfi)
	}
	applySpec(&config, spec)
	config.Uuid = uuid.NewString()
	if id, err := parseUUID(spec.Uuid); err == nil {
		config.Uuid = id.String()
	}
	config.InstanceUuid = l.instanceUUID(types.ManagedObjectReference{}, spec.InstanceUuid)
	config.LocationId = "564d" + uuid.NewString()[4:]
	now := time.Now()
	config.CreateDate = &now

	// The directory isn't known before the simulator has made it; for the check any will do.
	p := &plan{lab: l, ctx: ctx, name: spec.Name, dir: l.newDirectory(spec), devices: clone(esx.VirtualDevice), copies: copies}
	p.init()
	if fault := p.change(spec.DeviceChange); fault != nil {
		return nil, nil, fault
	}
	return &config, p, p.bootOrder(config.BootOptions, spec.BootOptions)
}

// newDirectory is the directory that a new VM gets, and makes it the one that is asked for.
func (l *Lab) newDirectory(spec *types.VirtualMachineConfigSpec) string {
	var dp object.DatastorePath
	dp.FromString(spec.Files.VmPathName)
	if filepath.Ext(dp.Path) == ".vmx" {
		return directory(dp.String())
	}
	base := dp
	if base.Path == "" || base.Path == "/" {
		base.Path = spec.Name
	}
	free := base
	for i := 1; l.exists(free.String()); i++ {
		free.Path = base.Path + "_" + string(rune('0'+i%10))
	}
	dp = free
	dp.Path += "/" + spec.Name + ".vmx"
	spec.Files.VmPathName = dp.String()
	return free.String()
}

// finishCreate gives a VM that the simulator has made its configuration and its files.
func (l *Lab) finishCreate(
	ctx *simulator.Context, vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec,
	config *types.VirtualMachineConfigInfo, p *plan,
) types.BaseMethodFault {
	p.vm = vm.Self
	for _, d := range disksOf(p.devices) {
		if b := backing(d); b != nil {
			d.DiskObjectId = ""
			p.describeDisk(d, b)
		}
	}
	if fault := p.perform(); fault != nil {
		return fault
	}
	rest := *spec
	rest.Crypto = nil // dealt with at creation
	if fault := l.simulated(ctx, vm, &rest); fault != nil {
		return fault
	}
	config.Name, config.Files = vm.Config.Name, vm.Config.Files
	config.Hardware.Device = p.devices
	config.VAppConfig, config.KeyId = vm.Config.VAppConfig, vm.Config.KeyId
	applyVApp(config, spec.VAppConfig)
	l.attachPolicies(vm.Self, spec, p.keys)
	applyExtraConfig(config, serverOptions(config))
	l.setConfig(ctx, vm, config)
	none := string(types.VirtualMachineToolsVersionStatusGuestToolsNotInstalled)
	ctx.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsVersionStatus2", Val: none},
		{Name: "guest.guestState", Val: "notRunning"},
		{Name: "summary.guest.toolsVersionStatus2", Val: none},
		{Name: "capability", Val: capability()},
	})
	l.writeNVRAM(vm)
	l.refreshLayout(ctx, vm)
	return nil
}

// serverOptions are options that a server sets for a new VM, wherever it comes from.
func serverOptions(config *types.VirtualMachineConfigInfo) []types.BaseOptionValue {
	return []types.BaseOptionValue{
		&types.OptionValue{Key: "nvram", Value: nvramName(config.Files.VmPathName)},
		&types.OptionValue{Key: "svga.present", Value: "TRUE"},
		&types.OptionValue{Key: "pciBridge0.present", Value: "TRUE"},
	}
}

// capability is what a VM can do.
func capability() types.VirtualMachineCapability {
	return types.VirtualMachineCapability{
		SnapshotOperationsSupported: true, MultipleSnapshotsSupported: true, SnapshotConfigSupported: true,
		PoweredOffSnapshotsSupported: true, MemorySnapshotsSupported: true, RevertToSnapshotSupported: true,
		QuiescedSnapshotsSupported: true, DisableSnapshotsSupported: false, LockSnapshotsSupported: false,
		ConsolePreferencesSupported: false, CpuFeatureMaskSupported: true, S1AcpiManagementSupported: true,
		SettingScreenResolutionSupported: false, ToolsAutoUpdateSupported: false, VmNpivWwnSupported: true,
		NpivWwnOnNonRdmVmSupported: true, VmNpivWwnDisableSupported: true, VmNpivWwnUpdateSupported: true,
		SwapPlacementSupported: true, ToolsSyncTimeSupported: true, VirtualMmuUsageSupported: true,
		DiskSharesSupported: true, BootOptionsSupported: true, SettingVideoRamSizeSupported: true,
		ChangeTrackingSupported: true, NestedHVSupported: true, VPMCSupported: true,
		SecureBootSupported: types.NewBool(true),
		PerVmEvcSupported:   types.NewBool(true), DiskOnlySnapshotOnSuspendedVMSupported: types.NewBool(false),
	}
}

// writeNVRAM fills the file that holds a VM's firmware variables. It has the name of the vmx file, whatever
// the VM is called later.
func (l *Lab) writeNVRAM(vm *simulator.VirtualMachine) {
	vmx := vm.Config.Files.VmPathName
	file, ok := l.path(directory(vmx) + "/" + nvramName(vmx))
	if !ok {
		return
	}
	if other := vm.Config.Name + ".nvram"; other != nvramName(vmx) {
		l.removeFile(directory(vmx) + "/" + other) // the simulator goes by the VM's name
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		_ = os.WriteFile(file, nvram(vm.Config.Uuid, vm.Config.Firmware), 0o600)
	}
}

// nvramName is the name of the file with a VM's firmware variables.
func nvramName(vmx string) string {
	return strings.TrimSuffix(path.Base(vmx), ".vmx") + ".nvram"
}

// nvramSize is about what a real host writes.
const nvramSize = 264 << 10

// nvram is content that is the same only for the same VM.
func nvram(seed, firmware string) []byte {
	p := make([]byte, nvramSize)
	head := copy(p, "MRVN"+firmware+seed)
	state := uint32(2166136261)
	for _, c := range []byte(seed) {
		state = (state ^ uint32(c)) * 16777619
	}
	for i := head; i < len(p)/4; i++ { // most of it is empty
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		p[i] = byte(state)
	}
	return p
}
