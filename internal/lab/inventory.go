package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What every VM that the lab seeds has beside its own.
const (
	seedFolder    = "lab"
	seedCategory  = "environment"
	seedTag       = "production"
	seedAttribute = "owner"
)

// prepareInventory adds what the seeded VMs refer to: a folder, a tag, a custom attribute.
func (l *Lab) prepareInventory(ctx context.Context) error {
	l.formatDatastores(l.background())
	l.refreshDatastores(l.background())
	if l.options.ESX {
		return nil
	}
	client, err := vim25.NewClient(ctx, l.model.Service)
	if err != nil {
		return err
	}
	_, err = methods.CreateFolder(ctx, client, &types.CreateFolder{This: l.datacenter().VmFolder, Name: seedFolder})
	if err != nil {
		return err
	}
	_, err = methods.AddCustomFieldDef(ctx, client, &types.AddCustomFieldDef{
		This: *client.ServiceContent.CustomFieldsManager, Name: seedAttribute, MoType: "VirtualMachine",
	})
	if err != nil {
		return err
	}
	return l.withTags(ctx, func(m *tags.Manager) error {
		category, err := m.CreateCategory(ctx, &tags.Category{
			Name: seedCategory, Cardinality: "SINGLE", AssociableTypes: []string{"VirtualMachine"},
		})
		if err != nil {
			return err
		}
		_, err = m.CreateTag(ctx, &tags.Tag{Name: seedTag, CategoryID: category})
		return err
	})
}

// withTags runs fn with a session of the tag service.
func (l *Lab) withTags(ctx context.Context, fn func(*tags.Manager) error) error {
	u := *l.server.URL
	vim, err := vim25.NewClient(ctx, soap.NewClient(&u, true)) // the certificate may be anybody's, the server is ours
	if err != nil {
		return err
	}
	client := rest.NewClient(vim)
	if err := client.Login(ctx, u.User); err != nil {
		return err
	}
	err = fn(tags.NewManager(client))
	return errors.Join(err, client.Logout(ctx))
}

// tagsOf lists an object's tags as "category/tag".
func (l *Lab) tagsOf(ref types.ManagedObjectReference) []string {
	list := []string{}
	service := l.tagService()
	if service == nil {
		return list
	}
	ids, _ := service.AttachedTags(ref)
	for _, id := range ids {
		if category, name, fault := service.GetTagCategoryAndName(id); fault == nil {
			list = append(list, categoryName(service, category)+"/"+name)
		}
	}
	slices.Sort(list)
	return list
}

// datacenter is the only one.
func (l *Lab) datacenter() *simulator.Datacenter {
	dc, _ := l.model.Map().Any("Datacenter").(*simulator.Datacenter)
	return dc
}

// findEntity finds an object by type and name. No object's lock may be held.
func (l *Lab) findEntity(kind, name string) mo.Entity {
	ctx := l.background()
	for _, entity := range l.model.Map().All(kind) {
		found := false
		ctx.WithLock(entity, func() { found = entity.Entity().Name == name })
		if found {
			return entity
		}
	}
	return nil
}

// AddVM adds a VM to the running lab. Errors: the name is taken, a disk can't be read.
func (l *Lab) AddVM(ctx context.Context, spec VMSpec) error {
	if err := l.addVM(ctx, spec); err != nil {
		return fmt.Errorf("add VM %q: %w", spec.Name, err)
	}
	return nil
}

func (l *Lab) addVM(ctx context.Context, spec VMSpec) error {
	spec.Name = escapeName(spec.Name) // which names its files too
	place, err := l.seedPlace()
	if err != nil {
		return err
	}
	config, err := l.seedConfig(spec, place)
	if err != nil {
		return err
	}
	sim := l.background()
	vm, fault := l.createVM(sim, place.folder, config, place.pool, place.host)
	if fault != nil {
		return errors.New(faultMessage(fault))
	}
	for i, raw := range spec.Disks {
		name := seedDisk(place, spec.Name, i)
		if err := l.store.Remove(name); err != nil { // the empty disk that was made at creation
			return err
		}
		if err := l.store.Seed(name, raw); err != nil {
			return err
		}
	}
	l.finishSeed(sim, vm, spec)
	return l.decorate(ctx, sim, vm)
}

// place is where seeded VMs live.
type place struct {
	datastore string
	folder    types.ManagedObjectReference
	pool      types.ManagedObjectReference
	host      *types.ManagedObjectReference
}

func (l *Lab) seedPlace() (place, error) {
	p := place{datastore: "LocalDS_0"}
	if l.options.ESX {
		host := l.model.Map().Any("HostSystem")
		pool := l.model.Map().Any("ResourcePool")
		if host == nil || pool == nil {
			return p, errors.New("the host has no resource pool")
		}
		ref := host.Reference()
		p.folder, p.pool, p.host = l.datacenter().VmFolder, pool.Reference(), &ref
		return p, nil
	}
	folder := l.findEntity("Folder", seedFolder)
	cluster, ok := l.findEntity("ClusterComputeResource", "DC0_C0").(*simulator.ClusterComputeResource)
	if folder == nil || !ok || len(cluster.Host) == 0 {
		return p, errors.New("the inventory has no cluster DC0_C0")
	}
	p.folder, p.pool, p.host = folder.Reference(), *cluster.ResourcePool, &cluster.Host[0]
	return p, nil
}

func seedDisk(p place, vm string, index int) string {
	if index == 0 {
		return fmt.Sprintf("[%s] %s/%s.vmdk", p.datastore, vm, vm)
	}
	return fmt.Sprintf("[%s] %s/%s_%d.vmdk", p.datastore, vm, vm, index)
}

// seedConfig is the hardware and the settings of a seeded VM.
func (l *Lab) seedConfig(spec VMSpec, p place) (*types.VirtualMachineConfigSpec, error) {
	devices, err := l.seedDevices(spec, p)
	if err != nil {
		return nil, err
	}
	vmx := fmt.Sprintf("[%s] %s/%s.vmx", p.datastore, spec.Name, spec.Name)
	order := []types.BaseVirtualMachineBootOptionsBootableDevice{
		&types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: 4000},
	}
	if len(spec.Disks) > 0 {
		order = append([]types.BaseVirtualMachineBootOptionsBootableDevice{
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2000},
		}, order...)
	}
	return &types.VirtualMachineConfigSpec{
		Name:                  spec.Name,
		GuestId:               string(types.VirtualMachineGuestOsIdentifierUbuntu64Guest),
		Version:               "vmx-19",
		Firmware:              string(types.GuestOsDescriptorFirmwareTypeEfi),
		Uuid:                  uuid.NewString(),
		InstanceUuid:          uuid.NewString(),
		Annotation:            "Seeded by vm-lab.\nOwner: platform team",
		NumCPUs:               2,
		NumCoresPerSocket:     types.NewInt32(2),
		MemoryMB:              2048,
		Files:                 &types.VirtualMachineFileInfo{VmPathName: vmx},
		DeviceChange:          devices,
		BootOptions:           &types.VirtualMachineBootOptions{BootOrder: order, BootDelay: 1000},
		ChangeTrackingEnabled: types.NewBool(spec.ChangeTracking),
		CpuHotAddEnabled:      types.NewBool(true),
		MemoryHotAddEnabled:   types.NewBool(true),
		ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "disk.EnableUUID", Value: "TRUE"},
			&types.OptionValue{Key: "guestinfo.metadata.encoding", Value: "base64"},
			&types.OptionValue{Key: "guestinfo.role", Value: "web"},
		},
	}, nil
}

func (l *Lab) seedDevices(spec VMSpec, p place) ([]types.BaseVirtualDeviceConfigSpec, error) {
	controller := &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
		SharedBus:          types.VirtualSCSISharingNoSharing,
		VirtualController:  types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1000}},
		HotAddRemove:       types.NewBool(true),
		ScsiCtlrUnitNumber: 7,
	}}
	devices := []types.BaseVirtualDevice{controller}
	for i, raw := range spec.Disks {
		info, err := os.Stat(raw)
		if err != nil {
			return nil, err
		}
		unit := int32(i)
		if unit >= 7 {
			unit++ // the controller's own
		}
		devices = append(devices, &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{
				Key: 2000 + unit, ControllerKey: controller.Key, UnitNumber: &unit,
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: seedDisk(p, spec.Name, i)},
					DiskMode:                     string(types.VirtualDiskModePersistent),
					ThinProvisioned:              types.NewBool(true),
					Uuid:                         uuid.NewString(),
				},
			},
			CapacityInBytes: info.Size(),
			CapacityInKB:    info.Size() / 1024,
		})
	}
	for i, backing := range l.seedNetworks() {
		unit := int32(7 + i)
		devices = append(devices, &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{
			VirtualEthernetCard: types.VirtualEthernetCard{
				VirtualDevice: types.VirtualDevice{
					Key: 4000 + int32(i), ControllerKey: 100, UnitNumber: &unit, Backing: backing,
					Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true, Connected: true},
				},
				AddressType:      string(types.VirtualEthernetCardMacTypeAssigned),
				WakeOnLanEnabled: types.NewBool(true),
			},
		}})
	}
	specs := make([]types.BaseVirtualDeviceConfigSpec, len(devices))
	for i, d := range devices {
		change := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d}
		if _, ok := d.(*types.VirtualDisk); ok {
			change.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
		}
		specs[i] = change
	}
	return specs, nil
}

// seedNetworks are the networks of a seeded VM: a standard one and, on a vCenter, a distributed one.
func (l *Lab) seedNetworks() []types.BaseVirtualDeviceBackingInfo {
	standard := &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"},
	}
	backings := []types.BaseVirtualDeviceBackingInfo{standard}
	for _, entity := range l.model.Map().All("DistributedVirtualPortgroup") {
		pg, ok := entity.(*simulator.DistributedVirtualPortgroup)
		if !ok || pg.Name != "DC0_DVPG0" || pg.Config.DistributedVirtualSwitch == nil {
			continue
		}
		if dvs, ok := l.model.Map().Get(*pg.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch); ok {
			backings = append(backings, &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
				Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: dvs.Uuid, PortgroupKey: pg.Key},
			})
		}
	}
	return backings
}

// finishSeed sets what is no part of a specification: Tools and power.
func (l *Lab) finishSeed(ctx *simulator.Context, vm *simulator.VirtualMachine, spec VMSpec) {
	ctx.WithLock(vm, func() {
		if !spec.ToolsNotRunning {
			ctx.Update(vm, toolsInstalled())
		}
		state := poweredOn
		if spec.PoweredOff {
			state = poweredOff
		}
		l.setPower(ctx, vm, state)
		l.refreshLayout(ctx, vm)
	})
}

// decorate attaches a tag and a custom attribute.
func (l *Lab) decorate(ctx context.Context, sim *simulator.Context, vm *simulator.VirtualMachine) error {
	if l.options.ESX {
		return nil
	}
	service := l.tagService()
	tag, fault := service.GetTagByCategoryAndName(seedCategory, seedTag)
	if fault == nil {
		fault = service.AttachTag(vm.Self, tag)
	}
	if fault != nil {
		return errors.New(faultMessage(fault))
	}
	manager := sim.Map.CustomFieldsManager()
	for _, field := range manager.Field {
		if field.Name != seedAttribute {
			continue
		}
		_, err := methods.SetField(ctx, l.model.Service, &types.SetField{
			This: manager.Self, Entity: vm.Self, Key: field.Key, Value: "platform",
		})
		return err
	}
	return nil
}
