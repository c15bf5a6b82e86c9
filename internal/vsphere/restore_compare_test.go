package vsphere

import (
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// wholeRebuild restores all disks of capturedConfig as they were.
func wholeRebuild() rebuild {
	r := testRebuild(hypervisor.IdentityOriginal)
	r.disks[2017] = "[ds3]"
	return r
}

// TestCompareRestored_secrets has passwords differ.
func TestCompareRestored_secrets(t *testing.T) {
	t.Parallel()
	secrets := func(value string) *types.VirtualMachineConfigInfo {
		config := capturedConfig()
		for _, key := range []string{"guestinfo.userdata", "odd[key].x"} {
			config.ExtraConfig = append(config.ExtraConfig, &types.OptionValue{Key: key, Value: value})
		}
		config.VAppConfig = &types.VmConfigInfo{
			Property: []types.VAppPropertyInfo{{Id: "password", Value: value, DefaultValue: value}},
		}
		for _, d := range config.Hardware.Device {
			if uri, ok := d.GetVirtualDevice().Backing.(*types.VirtualSerialPortURIBackingInfo); ok {
				uri.ServiceURI, uri.ProxyURI = "telnet://"+value, "telnet://"+value
			}
		}
		return config
	}
	warnings, err := compareRestored(secrets("hunter2"), secrets("swordfish"), wholeRebuild())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(warnings, "\n")
	for _, want := range []string{
		"extraConfig[guestinfo.userdata] differs.", "extraConfig[odd[key].x] differs.", "vAppConfig.property[0].value differs.",
		"vAppConfig.property[0].defaultValue differs.", ".backing.serviceURI differs.", ".backing.proxyURI differs.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwithout %s", text, want)
		}
	}
	if strings.Contains(text, "hunter2") || strings.Contains(text, "swordfish") {
		t.Errorf("got\n%s\nwhich repeats a password", text)
	}
	if i := slices.IndexFunc(warnings, func(w string) bool { return !strings.HasSuffix(w, " differs.") }); i >= 0 {
		t.Errorf("got %q as well", warnings[i])
	}
}

func TestCompareRestored_case(t *testing.T) {
	t.Parallel()
	restored := capturedConfig()
	restored.Uuid, restored.InstanceUuid = strings.ToUpper(restored.Uuid), strings.ToUpper(restored.InstanceUuid)
	captured := capturedConfig()
	for _, config := range []*types.VirtualMachineConfigInfo{captured, restored} {
		for _, d := range config.Hardware.Device {
			if n, ok := d.(types.BaseVirtualEthernetCard); ok {
				n.GetVirtualEthernetCard().MacAddress = "00:50:56:aa:bb:cc"
				if config == restored {
					n.GetVirtualEthernetCard().MacAddress = "00:50:56:AA:BB:CC"
				}
			}
			if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && config == restored {
				b.Uuid = strings.ToUpper(b.Uuid)
			}
		}
	}
	warnings, err := compareRestored(captured, restored, wholeRebuild())
	if err != nil || len(warnings) > 0 {
		t.Errorf("got %q and %v", warnings, err)
	}
	restored.Annotation = strings.ToUpper(restored.Annotation)
	if warnings, err = compareRestored(captured, restored, wholeRebuild()); err != nil || len(warnings) != 1 {
		t.Errorf("got %q and %v, want a warning of the annotation", warnings, err)
	}
}

func TestCompareRestored(t *testing.T) {
	t.Parallel()
	r := testRebuild(hypervisor.IdentityOriginal)
	r.disks[2017] = "[ds3]"
	for _, test := range []struct {
		name   string
		change func(*types.VirtualMachineConfigInfo)
		want   string // nothing: it may differ
		copy   bool
	}{
		{name: "same", change: func(*types.VirtualMachineConfigInfo) {}},
		{name: "bookkeeping", change: func(c *types.VirtualMachineConfigInfo) {
			c.ChangeVersion, c.LocationId, c.Files.VmPathName, c.Tools.ToolsVersion = "9", "x", "[ds9] x/x.vmx", 1
		}},
		{name: "keys", change: func(c *types.VirtualMachineConfigInfo) {
			for _, d := range c.Hardware.Device {
				if disk, ok := d.(*types.VirtualDisk); ok {
					disk.Key += 5
				}
			}
			order := c.BootOptions.BootOrder
			for _, e := range order {
				if b, ok := e.(*types.VirtualMachineBootOptionsBootableDiskDevice); ok {
					b.DeviceKey += 5
				}
			}
		}},
		{name: "annotation", change: func(c *types.VirtualMachineConfigInfo) { c.Annotation = "" }, want: "annotation is unset instead of note."},
		{name: "CPUs", change: func(c *types.VirtualMachineConfigInfo) { c.Hardware.NumCPU = 2 }, want: "hardware.numCPU is 2 instead of 4."},
		{name: "option", change: func(c *types.VirtualMachineConfigInfo) { c.ExtraConfig = c.ExtraConfig[1:] },
			want: "extraConfig[guestinfo.role] differs."},
		{name: "transient option", change: func(c *types.VirtualMachineConfigInfo) { c.ExtraConfig = c.ExtraConfig[:3] }},
		{name: "boot order", change: func(c *types.VirtualMachineConfigInfo) { slices.Reverse(c.BootOptions.BootOrder[:2]) },
			want: "bootOptions.bootOrder[0] is disk VirtualDisk@ParaVirtualSCSIController1:0"},
		{name: "BIOS UUID", change: func(c *types.VirtualMachineConfigInfo) { c.Uuid = "x" }, want: "uuid is x instead of bios-uuid."},
		{name: "BIOS UUID of a copy", change: func(c *types.VirtualMachineConfigInfo) { c.Uuid = "x" }, copy: true},
		{name: "disk UUID", change: func(c *types.VirtualMachineConfigInfo) {
			for _, d := range c.Hardware.Device {
				if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && b.Uuid != "" {
					b.Uuid = "x"
				}
			}
		}, want: "hardware.device[VirtualDisk@ParaVirtualSCSIController1:0].backing.uuid is x instead of disk-uuid-1."},
		{name: "adapter gone", change: func(c *types.VirtualMachineConfigInfo) {
			c.Hardware.Device = slices.DeleteFunc(c.Hardware.Device, func(d types.BaseVirtualDevice) bool { return deviceKind(d) == "VirtualVmxnet3" })
		}, want: "macAddress is unset instead of 00:50:56:00:00:01."},
		{name: "address", change: func(c *types.VirtualMachineConfigInfo) {
			for _, d := range c.Hardware.Device {
				if n, ok := d.(*types.VirtualVmxnet3); ok {
					n.MacAddress = "x"
				}
			}
		}, want: "hardware.device[VirtualVmxnet3@VirtualPCIController0:7].macAddress is x instead of 00:50:56:00:00:01."},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			restored := capturedConfig()
			test.change(restored)
			r := r
			if test.copy {
				r.identity = hypervisor.IdentityCopy
			}
			warnings, err := compareRestored(capturedConfig(), restored, r)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case test.want == "" && len(warnings) > 0:
				t.Errorf("warnings %q, want none", warnings)
			case test.want != "" && !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, test.want) }):
				t.Errorf("warnings %q, want %q", warnings, test.want)
			}
		})
	}
}
