package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Status is what is in a lab.
type Status struct {
	VMs      []VMStatus      `json:"vms"`
	Leases   []LeaseStatus   `json:"leases"`
	Sessions []SessionStatus `json:"sessions"`
	Tasks    []TaskStatus    `json:"tasks"`
	Files    []FileStatus    `json:"files"`
}

// VMStatus is one VM.
type VMStatus struct {
	ID               string            `json:"id"` // managed object ID
	Name             string            `json:"name"`
	BIOSUUID         string            `json:"bios_uuid"`
	InstanceUUID     string            `json:"instance_uuid"`
	PowerState       string            `json:"power_state"` // as the API writes it: poweredOn, poweredOff, suspended
	Template         bool              `json:"template"`
	Snapshots        []SnapshotStatus  `json:"snapshots"` // parents before their children
	Disks            []DiskStatus      `json:"disks"`
	NICs             []NICStatus       `json:"nics"`
	Tags             []string          `json:"tags"` // "category/tag"
	CustomAttributes map[string]string `json:"custom_attributes"`
	Folder           string            `json:"folder"`        // inventory path
	ResourcePool     string            `json:"resource_pool"` // inventory path; empty for a template
	Host             string            `json:"host"`
	Config           json.RawMessage   `json:"config"` // VirtualMachineConfigInfo
}

// SnapshotStatus is one snapshot.
type SnapshotStatus struct {
	ID          string    `json:"id"` // managed object ID
	Parent      string    `json:"parent,omitempty"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Created     time.Time `json:"created"`
	State       string    `json:"state"`
	Quiesced    bool      `json:"quiesced"`
	Current     bool      `json:"current"`
}

// DiskStatus is one virtual disk.
type DiskStatus struct {
	Key        int32    `json:"key"`
	Label      string   `json:"label"`
	Controller string   `json:"controller"` // "ParaVirtualSCSIController0:0"
	UUID       string   `json:"uuid"`
	Capacity   int64    `json:"capacity"` // bytes
	Allocated  int64    `json:"allocated"`
	File       string   `json:"file"`
	Chain      []string `json:"chain"` // the file and its parents
	Mode       string   `json:"mode"`
}

// NICStatus is one network adapter.
type NICStatus struct {
	Key     int32  `json:"key"`
	Type    string `json:"type"`
	Label   string `json:"label"`
	MAC     string `json:"mac"`
	Network string `json:"network"`
}

// LeaseStatus is one lease that is neither complete nor failed.
type LeaseStatus struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"` // "export" or "import"
	Entity string `json:"entity"`
	State  string `json:"state"`
}

// SessionStatus is one session.
type SessionStatus struct {
	User  string    `json:"user"`
	Agent string    `json:"agent"`
	Login time.Time `json:"login"`
}

// TaskStatus is one task, running or ended.
type TaskStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Entity string `json:"entity"`
	State  string `json:"state"`
	Error  string `json:"error,omitempty"`
}

// FileStatus is one file of a datastore.
type FileStatus struct {
	Name string `json:"name"` // "[LocalDS_0] web01/web01.vmdk"
	Size int64  `json:"size"` // bytes that it takes
	VM   string `json:"vm,omitempty"`
}

// Status tells what is in the lab.
func (l *Lab) Status() Status {
	ctx := l.background()
	status := Status{
		VMs: []VMStatus{}, Leases: l.leaseStatus(), Sessions: l.sessionStatus(), Tasks: []TaskStatus{}, Files: l.fileStatus(),
	}
	for _, entity := range ctx.Map.All("VirtualMachine") {
		if vm, ok := entity.(*simulator.VirtualMachine); ok {
			ctx.WithLock(vm, func() { status.VMs = append(status.VMs, l.vmStatus(ctx, vm)) })
		}
	}
	slices.SortFunc(status.VMs, func(a, b VMStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, object := range ctx.Map.AllReference("Task") {
		task, ok := object.(*simulator.Task)
		if !ok {
			continue
		}
		ctx.WithLock(task, func() {
			t := TaskStatus{ID: task.Self.Value, Name: task.Info.Name, Entity: task.Info.EntityName, State: string(task.Info.State)}
			if task.Info.Error != nil {
				t.Error = faultMessage(task.Info.Error.Fault)
			}
			status.Tasks = append(status.Tasks, t)
		})
	}
	slices.SortFunc(status.Tasks, func(a, b TaskStatus) int { return strings.Compare(a.ID, b.ID) })
	return status
}

// vmStatus describes a VM whose lock is held.
func (l *Lab) vmStatus(ctx *simulator.Context, vm *simulator.VirtualMachine) VMStatus {
	s := VMStatus{
		ID: vm.Self.Value, Name: vm.Name, BIOSUUID: vm.Config.Uuid, InstanceUUID: vm.Config.InstanceUuid,
		PowerState: string(vm.Runtime.PowerState), Template: vm.Config.Template,
		Snapshots: []SnapshotStatus{}, Disks: []DiskStatus{}, NICs: []NICStatus{}, Tags: l.tagsOf(vm.Self),
		CustomAttributes: customAttributes(ctx, vm), Folder: inventoryPath(ctx, vm.Parent),
		ResourcePool: inventoryPath(ctx, vm.ResourcePool), Host: inventoryPath(ctx, vm.Runtime.Host),
	}
	if vm.Snapshot != nil {
		s.Snapshots = snapshotStatus(vm.Snapshot.RootSnapshotList, "", vm.Snapshot.CurrentSnapshot, s.Snapshots)
	}
	for _, device := range vm.Config.Hardware.Device {
		switch d := device.(type) {
		case *types.VirtualDisk:
			s.Disks = append(s.Disks, l.diskStatus(vm.Config.Hardware.Device, d))
		case types.BaseVirtualEthernetCard:
			s.NICs = append(s.NICs, nicStatus(ctx, d))
		}
	}
	var config bytes.Buffer
	if err := types.NewJSONEncoder(&config).Encode(vm.Config); err == nil {
		s.Config = bytes.TrimSpace(config.Bytes())
	}
	return s
}

func snapshotStatus(
	trees []types.VirtualMachineSnapshotTree, parent string, current *types.ManagedObjectReference, list []SnapshotStatus,
) []SnapshotStatus {
	for _, t := range trees {
		list = append(list, SnapshotStatus{
			ID: t.Snapshot.Value, Parent: parent, Name: t.Name, Description: t.Description, Created: t.CreateTime,
			State: string(t.State), Quiesced: t.Quiesced, Current: current != nil && *current == t.Snapshot,
		})
		list = snapshotStatus(t.ChildSnapshotList, t.Snapshot.Value, current, list)
	}
	return list
}

func (l *Lab) diskStatus(devices []types.BaseVirtualDevice, d *types.VirtualDisk) DiskStatus {
	s := DiskStatus{Key: d.Key, Capacity: d.CapacityInBytes, Controller: slot(devices, d)}
	if d.DeviceInfo != nil {
		s.Label = d.DeviceInfo.GetDescription().Label
	}
	if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		s.UUID, s.File, s.Mode = b.Uuid, b.FileName, b.DiskMode
	}
	s.Chain = chain(d)
	for _, file := range s.Chain {
		if info, err := l.store.Stat(file); err == nil {
			s.Allocated += info.AllocatedBytes
		}
	}
	return s
}

func nicStatus(ctx *simulator.Context, device types.BaseVirtualEthernetCard) NICStatus {
	card := device.GetVirtualEthernetCard()
	s := NICStatus{Key: card.Key, Type: strings.TrimPrefix(fmt.Sprintf("%T", device), "*types."), MAC: card.MacAddress}
	if card.DeviceInfo != nil {
		s.Label = card.DeviceInfo.GetDescription().Label
	}
	switch b := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		s.Network = b.DeviceName
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}
		if pg, ok := ctx.Map.Get(ref).(*simulator.DistributedVirtualPortgroup); ok {
			s.Network = pg.Name
		}
	}
	return s
}

// sessions are the sessions that are logged in.
func (l *Lab) sessions() []types.UserSession {
	view := &simulator.Session{Registry: simulator.NewRegistry(), Map: l.model.Map()}
	manager, ok := view.Get(l.model.Map().SessionManager().Self).(*simulator.SessionManager)
	if !ok {
		return nil
	}
	return manager.SessionList
}

func (l *Lab) sessionStatus() []SessionStatus {
	list := []SessionStatus{}
	for _, s := range l.sessions() {
		list = append(list, SessionStatus{User: s.UserName, Agent: s.UserAgent, Login: s.LoginTime})
	}
	slices.SortFunc(list, func(a, b SessionStatus) int { return a.Login.Compare(b.Login) })
	return list
}

func customAttributes(ctx *simulator.Context, vm *simulator.VirtualMachine) map[string]string {
	values := map[string]string{}
	if ctx.Map.IsESX() {
		return values // has no custom attributes
	}
	fields := ctx.Map.CustomFieldsManager()
	for _, value := range vm.CustomValue {
		v, ok := value.(*types.CustomFieldStringValue)
		if !ok {
			continue
		}
		for _, field := range fields.Field {
			if field.Key == v.Key {
				values[field.Name] = v.Value
			}
		}
	}
	return values
}

// inventoryPath is an object's path from the root folder, "" for none.
func inventoryPath(ctx *simulator.Context, ref *types.ManagedObjectReference) string {
	path := ""
	for ref != nil {
		entity, ok := ctx.Map.Get(*ref).(mo.Entity)
		if !ok {
			break
		}
		e := entity.Entity()
		if e.Parent == nil {
			break // the root folder has no name in a path
		}
		path = "/" + e.Name + path
		ref = e.Parent
	}
	return path
}
