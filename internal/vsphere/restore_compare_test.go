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
