package vsphere

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// configFormat is the format of what capture writes. A change that older readers would misread gets
// another number.
const configFormat = "vsphere/1"

// A capture is everything about a VM but its disks: the envelope in hypervisor.Config.Data. The names of
// its fields are part of the format of backups. Objects of the inventory are kept by name, since a restore
// may go to another server.
type capture struct {
	Config json.RawMessage `json:"config"` // types.VirtualMachineConfigInfo, of the snapshot

	Name         string `json:"name"`
	Folder       string `json:"folder"`        // inventory path
	Datacenter   string `json:"datacenter"`    // inventory path
	ResourcePool string `json:"resource_pool"` // inventory path, of a vApp too
	Host         string `json:"host"`
	Cluster      string `json:"cluster,omitempty"`
	PowerState   string `json:"power_state"`

	Datastores       []capturedDatastore `json:"datastores"`
	Networks         []capturedNetwork   `json:"networks"`
	Tags             []capturedTag       `json:"tags,omitempty"`
	CustomAttributes map[string]string   `json:"custom_attributes,omitempty"`
	NVRAM            string              `json:"nvram,omitempty"` // file name, in the VM's directory

	// StoragePolicies are the names of storage policies by device key of a disk; the VM's own is under 0.
	StoragePolicies map[int32]string `json:"storage_policies,omitempty"`

	// DiskUsage is what each disk occupied, in bytes, by device key.
	DiskUsage map[int32]int64 `json:"disk_usage,omitempty"`

	config *types.VirtualMachineConfigInfo
	host   string // handle of the host, of use on this connection only
}

type capturedDatastore struct {
	Name string `json:"name"`
	Type string `json:"type"`
	URL  string `json:"url"`
}

// A capturedNetwork is what one network adapter was connected to.
type capturedNetwork struct {
	Device int32  `json:"device"` // key of the adapter
	Name   string `json:"name"`
	Kind   string `json:"kind"`             // "standard", "distributed" or "opaque"
	Switch string `json:"switch,omitempty"` // name of the distributed switch
	ID     string `json:"id,omitempty"`     // of an opaque network
	Type   string `json:"type,omitempty"`   // of an opaque network
}

type capturedTag struct {
	Category string `json:"category"`
	Name     string `json:"name"`
}

const (
	standardNetwork    = "standard"
	distributedNetwork = "distributed"
	opaqueNetwork      = "opaque"
)

// readCapture opens a captured configuration. Error: hypervisor.ErrConfigFormat.
func readCapture(config hypervisor.Config) (*capture, error) {
	if config.Format != configFormat {
		return nil, fmt.Errorf("%w: %q, this version reads %q", hypervisor.ErrConfigFormat, config.Format, configFormat)
	}
	var c capture
	if err := json.Unmarshal(config.Data, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrConfigFormat, err)
	}
	if len(c.Config) == 0 || string(c.Config) == "null" {
		return nil, fmt.Errorf("%w: it holds no configuration", hypervisor.ErrConfigFormat)
	}
	info, err := decodeConfig(c.Config)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrConfigFormat, err)
	}
	for _, d := range info.Hardware.Device {
		if isNil(d) {
			return nil, fmt.Errorf("%w: it has a device without properties", hypervisor.ErrConfigFormat)
		}
	}
	for _, o := range info.ExtraConfig {
		if isNil(o) {
			return nil, fmt.Errorf("%w: it has an option without properties", hypervisor.ErrConfigFormat)
		}
	}
	c.config = info
	return &c, nil
}

// isNil reports whether an interface holds nothing, or a pointer to nothing.
func isNil(v any) bool {
	return v == nil || reflect.ValueOf(v).Kind() == reflect.Pointer && reflect.ValueOf(v).IsNil()
}

// encode is the reverse of readCapture.
func (c *capture) encode() ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return data, nil
}

// devices are the captured devices.
func (c *capture) devices() object.VirtualDeviceList { return c.config.Hardware.Device }

// vmProperties are what capture reads of the VM itself; the rest comes from the snapshot.
var vmProperties = []string{
	"name", "parent", "parentVApp", "resourcePool", "runtime.host", "runtime.powerState", "datastore", "network",
	"config.files", "layoutEx", "customValue", "availableField",
}

// capture reads the configuration of a VM as of a snapshot, and what surrounds the VM. What can't be
// read without being essential is left out with a warning.
func (c *Client) capture(
	ctx context.Context, vm types.ManagedObjectReference, config *types.VirtualMachineConfigInfo,
) (*capture, []byte, []string, error) {
	var props mo.VirtualMachine
	if err := c.properties(ctx, vm, vmProperties, &props); err != nil {
		return nil, nil, nil, err
	}
	out := &capture{config: config, Name: unescapeName(props.Name), PowerState: string(props.Runtime.PowerState)}
	var err error
	if out.Config, err = encodeConfig(config); err != nil {
		return nil, nil, nil, err
	}
	if err := c.captureLocation(ctx, &props, out); err != nil {
		return nil, nil, nil, err
	}
	if out.Datastores, err = c.captureDatastores(ctx, props.Datastore); err != nil {
		return nil, nil, nil, err
	}
	var warnings []string
	if out.Networks, warnings, err = c.captureNetworks(ctx, out.devices(), props.Network); err != nil {
		return nil, nil, nil, err
	}
	out.CustomAttributes = customAttributes(&props)
	out.DiskUsage = diskUsage(props.LayoutEx, out.devices())
	around, err := c.captureAround(ctx, vm, &props, out)
	if err != nil {
		return nil, nil, nil, err
	}
	nvram, missing, err := c.captureNVRAM(ctx, &props, out)
	if err != nil {
		return nil, nil, nil, err
	}
	return out, nvram, slices.Concat(warnings, around, missing, uncaptured(config)), nil
}

// captureAround reads what is kept beside a VM's configuration. A backup without it is better than none: what
// can't be read, or can't be captured, is named in warnings.
func (c *Client) captureAround(
	ctx context.Context, vm types.ManagedObjectReference, props *mo.VirtualMachine, out *capture,
) (warnings []string, err error) {
	for _, part := range []struct {
		what string
		read func() (warnings []string, err error)
	}{
		{"tags", func() (_ []string, err error) {
			out.Tags, err = c.captureTags(ctx, vm)
			return nil, err
		}},
		{"storage policies", func() (_ []string, err error) {
			out.StoragePolicies, err = c.capturePolicies(ctx, vm, out.devices())
			return nil, err
		}},
		{"the cluster's rules", func() ([]string, error) { return c.clusterWarnings(ctx, vm, props.Runtime.Host) }},
		{"the permissions on the VM", func() ([]string, error) { return c.permissionWarnings(ctx, vm) }},
	} {
		named, err := part.read()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("capture %s: %w", part.what, context.Cause(ctx))
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s could not be captured: %v", part.what, err))
		}
		warnings = append(warnings, named...)
	}
	return warnings, nil
}

// captureNVRAM reads the firmware's variables. A BIOS VM has nothing in them that the firmware can't do without.
func (c *Client) captureNVRAM(
	ctx context.Context, props *mo.VirtualMachine, out *capture,
) (nvram []byte, warnings []string, err error) {
	file := nvramFile(props, out.config)
	nvram, err = c.readNVRAM(ctx, out.Datacenter, file)
	if nvram != nil {
		out.NVRAM = path.Base(file)
	}
	switch {
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("capture NVRAM: %w", context.Cause(ctx))
	case err == nil, out.config.Firmware != string(types.GuestOsDescriptorFirmwareTypeEfi):
		return nvram, nil, nil
	case errors.Is(err, hypervisor.ErrLost): // it is there, and the next attempt may get it
		return nil, nil, fmt.Errorf("capture NVRAM: %w", err)
	}
	return nvram, []string{fmt.Sprintf("NVRAM could not be captured: %v", err)}, nil
}

// uncaptured names what a VM has that a backup of it doesn't.
func uncaptured(config *types.VirtualMachineConfigInfo) []string {
	var warnings []string
	for _, d := range config.Hardware.Device {
		if _, ok := d.(*types.VirtualNVDIMM); ok {
			warnings = append(warnings,
				fmt.Sprintf("the content of %s is not captured: it is persistent memory.", deviceLabel(d)))
		}
	}
	return warnings
}

// captureLocation finds folder, pool, host and cluster.
func (c *Client) captureLocation(ctx context.Context, props *mo.VirtualMachine, out *capture) error {
	parent := props.Parent
	if parent == nil {
		parent = props.ParentVApp // a VM in a vApp has no folder of its own
	}
	if parent != nil {
		line, err := c.ancestors(ctx, *parent)
		if err != nil {
			return err
		}
		out.Folder, out.Datacenter = line.path(), line.datacenterPath()
		if parent.Type != "Folder" {
			out.Folder = ""
		}
	}
	if pool := props.ResourcePool; pool != nil {
		if props.ParentVApp != nil {
			pool = props.ParentVApp
		}
		line, err := c.ancestors(ctx, *pool)
		if err != nil {
			return err
		}
		out.ResourcePool = line.path()
	}
	if host := props.Runtime.Host; host != nil {
		out.host = host.Value
		line, err := c.ancestors(ctx, *host)
		if err != nil {
			return err
		}
		for _, e := range line {
			switch e.Self.Type {
			case "HostSystem":
				out.Host = e.Name
			case "ClusterComputeResource":
				out.Cluster = e.Name
			}
		}
	}
	return nil
}

func (c *Client) captureDatastores(
	ctx context.Context, refs []types.ManagedObjectReference,
) ([]capturedDatastore, error) {
	var out []capturedDatastore
	for _, ref := range refs {
		var ds mo.Datastore
		if err := c.properties(ctx, ref, []string{"name", "summary.type", "summary.url"}, &ds); err != nil {
			return nil, err
		}
		out = append(out, capturedDatastore{Name: ds.Name, Type: ds.Summary.Type, URL: ds.Summary.Url})
	}
	return out, nil
}

func customAttributes(props *mo.VirtualMachine) map[string]string {
	names := map[int32]string{}
	for _, f := range props.AvailableField {
		names[f.Key] = f.Name
	}
	out := map[string]string{}
	for _, v := range props.CustomValue {
		if s, ok := v.(*types.CustomFieldStringValue); ok && names[s.Key] != "" && s.Value != "" {
			out[names[s.Key]] = s.Value
		}
	}
	return out
}

// diskUsage adds up the files of every disk's chain.
func diskUsage(layout *types.VirtualMachineFileLayoutEx, devices object.VirtualDeviceList) map[int32]int64 {
	if layout == nil {
		return nil
	}
	sizes := map[int32]int64{}
	for _, f := range layout.File {
		sizes[f.Key] = f.Size
	}
	usage := map[int32]int64{}
	for _, d := range layout.Disk {
		disk, ok := devices.FindByKey(d.Key).(*types.VirtualDisk)
		if !ok {
			continue
		}
		var n int64
		for _, unit := range d.Chain {
			for _, key := range unit.FileKey {
				n += sizes[key]
			}
		}
		usage[d.Key] = min(n, diskCapacity(disk))
	}
	return usage
}

// splitPath takes "[datastore] directory/file" apart.
func splitPath(name string) (datastore, file string) {
	var p object.DatastorePath
	if !p.FromString(name) {
		return "", name
	}
	return p.Datastore, p.Path
}

// joinPath is the reverse of splitPath.
func joinPath(datastore, file string) string {
	p := object.DatastorePath{Datastore: datastore, Path: file}
	return p.String()
}

// optionValue is the value of an extraConfig key, or "".
func optionValue(options []types.BaseOptionValue, key string) string {
	i := slices.IndexFunc(options, func(o types.BaseOptionValue) bool {
		return strings.EqualFold(o.GetOptionValue().Key, key)
	})
	if i < 0 {
		return ""
	}
	s, _ := options[i].GetOptionValue().Value.(string)
	return s
}
