package lab

import (
	"encoding/xml"
	"strconv"
	"strings"
	"text/template"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ovfManager turns OVF descriptors into import specifications.
type ovfManager struct {
	*simulator.OvfManager
}

// CreateImportSpec names the files to upload as the lease will: by controller and unit.
func (m *ovfManager) CreateImportSpec(ctx *simulator.Context, r *types.CreateImportSpec) soap.HasFault {
	res := m.OvfManager.CreateImportSpec(ctx, r)
	body, ok := res.(*methods.CreateImportSpecBody)
	if !ok || body.Res == nil {
		return res
	}
	spec, ok := body.Res.Returnval.ImportSpec.(*types.VirtualMachineImportSpec)
	if !ok {
		return res
	}
	var devices object.VirtualDeviceList
	for _, change := range spec.ConfigSpec.DeviceChange {
		devices = append(devices, change.GetVirtualDeviceConfigSpec().Device)
	}
	prefix := "/" + r.Cisp.GetOvfCreateImportSpecParams().EntityName + "/"
	for i := range body.Res.Returnval.FileItem {
		item := &body.Res.Returnval.FileItem[i]
		kind, number, _ := strings.Cut(strings.TrimPrefix(item.DeviceId, prefix), ":")
		if d := nth(devices, kind, number); d != nil {
			item.DeviceId = prefix + slot(devices, d)
		}
	}
	return res
}

// nth is the device that the simulator calls "disk:0" or "cdrom:1": it numbers each kind in order.
func nth(devices object.VirtualDeviceList, kind, number string) types.BaseVirtualDevice {
	left, err := strconv.Atoi(number)
	if err != nil {
		return nil
	}
	for _, d := range devices {
		if devices.Type(d) != kind {
			continue
		}
		if left == 0 {
			return d
		}
		left--
	}
	return nil
}

// CreateDescriptor describes a VM as OVF, with the files that the client has exported.
func (m *ovfManager) CreateDescriptor(ctx *simulator.Context, r *types.CreateDescriptor) soap.HasFault {
	body := new(methods.CreateDescriptorBody)
	vm, ok := ctx.Map.Get(r.Obj).(*simulator.VirtualMachine)
	if !ok {
		body.Fault_ = simulator.Fault("only a VM can be described", &types.InvalidArgument{InvalidProperty: "obj"})
		return body
	}
	var text strings.Builder
	var err error
	ctx.WithLock(vm, func() { err = descriptorOVF.Execute(&text, describe(vm, &r.Cdp)) })
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), &types.RuntimeFault{})
		return body
	}
	body.Res = &types.CreateDescriptorResponse{Returnval: types.OvfCreateDescriptorResult{OvfDescriptor: text.String()}}
	return body
}

// What a descriptor says. Instance IDs count from 1; 1 and 2 are processors and memory.
type (
	ovfVM struct {
		Name, Guest, Version string
		CPUs                 int32
		MemoryMB             int32
		Controllers          []ovfItem
		Disks                []ovfItem
	}
	ovfItem struct {
		Instance, Parent, Address int32
		Sectors, Size             int64
		File                      string
	}
)

// describe collects what a descriptor says of a VM whose lock is held.
func describe(vm *simulator.VirtualMachine, params *types.OvfCreateDescriptorParams) ovfVM {
	v := ovfVM{
		Name: vm.Name, Guest: vm.Config.GuestId, Version: vm.Config.Version,
		CPUs: vm.Config.Hardware.NumCPU, MemoryMB: vm.Config.Hardware.MemoryMB,
	}
	if params.Name != "" {
		v.Name = params.Name
	}
	devices := vm.Config.Hardware.Device
	instance := map[int32]int32{}
	next := int32(3)
	for _, d := range devices {
		if c, ok := d.(types.BaseVirtualSCSIController); ok {
			key := d.GetVirtualDevice().Key
			instance[key] = next
			v.Controllers = append(v.Controllers, ovfItem{Instance: next, Address: c.GetVirtualSCSIController().BusNumber})
			next++
		}
	}
	for _, d := range disksOf(devices) {
		parent, ok := instance[d.ControllerKey]
		if !ok || d.UnitNumber == nil {
			continue
		}
		for _, f := range params.OvfFiles {
			if f.DeviceId != "/"+vm.Self.Value+"/"+slot(devices, d) {
				continue
			}
			v.Disks = append(v.Disks, ovfItem{
				Instance: next, Parent: parent, Address: *d.UnitNumber, Sectors: d.CapacityInBytes / 512, Size: f.Size, File: f.Path,
			})
			next++
		}
	}
	return v
}

// descriptorOVF is an OVF 1.1 envelope (DMTF DSP0243). Resource types are those of
// CIM_ResourceAllocationSettingData: 3 processor, 4 memory, 6 SCSI controller, 17 disk.
var descriptorOVF = template.Must(template.New("ovf").Funcs(template.FuncMap{"xml": escapeXML}).Parse(
	`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"` +
		` xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"` +
		` xmlns:vmw="http://www.vmware.com/schema/ovf"` +
		` xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>{{range .Disks}}
    <File ovf:href="{{xml .File}}" ovf:id="file{{.Instance}}" ovf:size="{{.Size}}"/>{{end}}
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>{{range .Disks}}
    <Disk ovf:capacity="{{.Sectors}}" ovf:capacityAllocationUnits="byte * 2^9" ovf:diskId="disk{{.Instance}}" ovf:fileRef="file{{.Instance}}"` +
		` ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>{{end}}
  </DiskSection>
  <VirtualSystem ovf:id="{{xml .Name}}">
    <Info>A virtual machine</Info>
    <Name>{{xml .Name}}</Name>
    <OperatingSystemSection ovf:id="1" vmw:osType="{{xml .Guest}}">
      <Info>The kind of installed guest operating system</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{{xml .Name}}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>{{xml .Version}}</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:ElementName>{{.CPUs}} virtual CPU(s)</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.CPUs}}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>{{.MemoryMB}}MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.MemoryMB}}</rasd:VirtualQuantity>
      </Item>{{range .Controllers}}
      <Item>
        <rasd:Address>{{.Address}}</rasd:Address>
        <rasd:ElementName>SCSI controller {{.Address}}</rasd:ElementName>
        <rasd:InstanceID>{{.Instance}}</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>{{end}}{{range .Disks}}
      <Item>
        <rasd:AddressOnParent>{{.Address}}</rasd:AddressOnParent>
        <rasd:ElementName>Disk {{.Instance}}</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk{{.Instance}}</rasd:HostResource>
        <rasd:InstanceID>{{.Instance}}</rasd:InstanceID>
        <rasd:Parent>{{.Parent}}</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>{{end}}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`))

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder never fails
	return b.String()
}
