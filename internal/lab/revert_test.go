package lab_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/vmware/govmomi/vim25/types"
)

func (e *env) hasFile(name string) bool {
	return slices.ContainsFunc(e.Status().Files, func(f lab.FileStatus) bool { return f.Name == name })
}

// TestRevert_configuration checks that a revert brings back what a configuration consists of, down to the
// devices, and drops what came later.
func TestRevert_configuration(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	e.must(e.wait(e.vm.PowerOff(e.ctx)))
	option := func(key, value string) types.BaseOptionValue { return &types.OptionValue{Key: key, Value: value} }
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{
		Annotation: "good", ExtraConfig: []types.BaseOptionValue{option("guestinfo.a", "1"), option("guestinfo.b", "2")},
	})))
	s := e.snapshot("good")
	want, devices := e.properties().Config, fmt.Sprint(labels(e))

	later := newDisk(2, extraDisk, 1<<20)
	e.must(e.reconfigure(opAdd, create, later))
	e.write(2, 4096, "kept")
	e.must(e.reconfigure(opRemove, noFile, e.devices().FindByKey(4001)))
	card := &types.VirtualE1000{}
	card.Backing = e.devices().FindByKey(4000).GetVirtualDevice().Backing
	e.must(e.reconfigure(opAdd, noFile, card))
	e.must(e.wait(e.vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{
		Annotation: "bad", NumCPUs: 8, BootOptions: &types.VirtualMachineBootOptions{BootDelay: 5000},
		ExtraConfig: []types.BaseOptionValue{option("guestinfo.a", "3"), option("guestinfo.b", ""), option("guestinfo.c", "4")},
	})))
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, true)))

	now := e.properties()
	if got := fmt.Sprint(labels(e)); got != devices {
		t.Errorf("devices %s, want %s", got, devices)
	}
	if c := now.Config; c.Annotation != "good" || c.Hardware.NumCPU != want.Hardware.NumCPU ||
		fmt.Sprint(options(c)) != fmt.Sprint(options(want)) || c.BootOptions.BootDelay != want.BootOptions.BootDelay {
		t.Errorf("annotation %q, %d CPUs, options %v, want %v, boot %+v", c.Annotation, c.Hardware.NumCPU, options(c), options(want), c.BootOptions)
	}
	if now.Summary.Config.NumEthernetCards != 2 || now.Summary.Config.NumVirtualDisks != 2 {
		t.Errorf("summary %+v", now.Summary.Config)
	}
	// The disk is detached, and its file is as it was.
	if !e.hasFile(extraDisk) {
		t.Fatal("the file of the disk that came later is gone")
	}
	e.must(e.reconfigure(opAdd, noFile, newDisk(2, extraDisk, 0)))
	if got := e.read(2, 4096, 4); got != "kept" {
		t.Errorf("the detached disk holds %q", got)
	}
}

func labels(e *env) (out []string) {
	for _, d := range e.devices() {
		v := d.GetVirtualDevice()
		mac := ""
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			mac = card.GetVirtualEthernetCard().MacAddress
		}
		out = append(out, fmt.Sprint(v.Key, v.DeviceInfo.GetDescription().Label, mac))
	}
	return out
}

func options(c *types.VirtualMachineConfigInfo) map[string]any {
	out := map[string]any{}
	for _, o := range c.ExtraConfig {
		out[o.GetOptionValue().Key] = o.GetOptionValue().Value
	}
	return out
}

// TestRevert_laterSnapshot reverts over a snapshot that has a disk that the older one doesn't. What runs on
// top of it goes, the snapshot keeps what it has.
func TestRevert_laterSnapshot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	one := e.snapshot("one")
	e.must(e.reconfigure(opAdd, create, newDisk(2, extraDisk, 1<<20)))
	e.write(2, 0, "two")
	two := e.snapshot("two")
	e.write(2, 0, "---")
	running := e.status("web01").Disks[2].File
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, one.Value, true)))
	if e.hasFile(running) || !e.hasFile(extraDisk) || len(e.status("web01").Disks) != 2 {
		t.Errorf("files %+v", e.Status().Files)
	}
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, two.Value, true)))
	if got := e.read(2, 0, 3); got != "two" {
		t.Errorf("the disk holds %q", got)
	}
}

func TestRevert_independentDisk(t *testing.T) {
	t.Parallel()
	e := newEnv(t, lab.Options{})
	d := newDisk(2, extraDisk, 1<<20)
	flat(d).DiskMode = string(types.VirtualDiskModeIndependent_persistent)
	e.must(e.reconfigure(opAdd, create, d))
	s := e.snapshot("one")
	e.write(2, 0, "stays")
	e.must(e.reconfigure(opRemove, noFile, e.disk(2002)))
	e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, true)))
	if got := e.read(2, 0, 5); got != "stays" {
		t.Errorf("the disk that comes back holds %q", got)
	}
}

// TestRevert_power checks where reverts lead to, by what the snapshot holds and what is asked.
func TestRevert_power(t *testing.T) {
	t.Parallel()
	const on, off, asleep = types.VirtualMachinePowerStatePoweredOn, types.VirtualMachinePowerStatePoweredOff,
		types.VirtualMachinePowerStateSuspended
	for _, c := range []struct {
		memory, suspend, suppress bool
		want                      types.VirtualMachinePowerState
	}{
		{want: off}, {suppress: true, want: off},
		{memory: true, want: on}, {memory: true, suppress: true, want: asleep},
		{suspend: true, want: asleep}, {suspend: true, suppress: true, want: asleep},
	} {
		for _, before := range []types.VirtualMachinePowerState{on, off, asleep} {
			t.Run(fmt.Sprintf("%+v/%s", c, before), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t, lab.Options{})
				if c.suspend {
					e.must(e.wait(e.vm.Suspend(e.ctx)))
				}
				s, err := e.trySnapshot("s", c.memory, false)
				e.must(err)
				if c.suspend {
					e.must(e.wait(e.vm.PowerOn(e.ctx)))
				}
				switch before {
				case off:
					e.must(e.wait(e.vm.PowerOff(e.ctx)))
				case asleep:
					e.must(e.wait(e.vm.Suspend(e.ctx)))
				}
				e.must(e.wait(e.vm.RevertToSnapshot(e.ctx, s.Value, c.suppress)))
				vm := e.properties()
				running := vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
				if vm.Runtime.PowerState != c.want || running != (c.want == on) {
					t.Errorf("the VM is %s, and its Tools are %s", vm.Runtime.PowerState, vm.Guest.ToolsRunningStatus)
				}
				if e.hasFile("[LocalDS_0] web01/web01.vmss") != (c.want == asleep) {
					t.Error("the memory of a suspended VM is there or not at the wrong time")
				}
				if st := e.status("web01"); !st.Snapshots[0].Current {
					t.Errorf("%+v", st.Snapshots)
				}
			})
		}
	}
}
