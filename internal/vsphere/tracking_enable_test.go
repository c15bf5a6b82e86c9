package vsphere

import (
	"context"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// hostVersion makes the VM's host be of a version.
func (b *bench) hostVersion(version, build string) {
	b.Helper()
	b.client.vim.ServiceContent.About.Version = "6.7.0" // which may have such hosts
	b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
		host, ok := ctx.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
		if !ok {
			b.Fatal("the VM has no host")
		}
		ctx.WithLock(host, func() {
			product := *host.Summary.Config.Product
			product.Version, product.Build = version, build
			host.Summary.Config.Product = &product
		})
	})
}

// TestTracking_enable switches tracking on exactly where that is safe, and says when it didn't.
func TestTracking_enable(t *testing.T) {
	t.Parallel()
	want := hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable}
	for name, test := range map[string]struct {
		off     bool // the VM is powered off
		prepare func(t *testing.T, b *bench)
		warning string
	}{
		"running":     {},
		"powered off": {off: true},
		"snapshots": {warning: "has snapshots", prepare: func(t *testing.T, b *bench) {
			t.Helper()
			if _, err := b.client.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "kept"}); err != nil {
				t.Fatal(err)
			}
		}},
		"not allowed": {warning: "could not be switched on", prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "call:NoPermission"})
		}},
		"fails": {warning: "could not be switched on", prepare: func(_ *testing.T, b *bench) {
			b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "GenericVmConfigFault"})
		}},
		"not supported": {warning: "hardware version", prepare: func(_ *testing.T, b *bench) {
			b.model(func(ctx *simulator.Context, vm *simulator.VirtualMachine) {
				capability := vm.Capability
				capability.ChangeTrackingSupported = false
				ctx.Update(vm, []types.PropertyChange{{Name: "capability", Val: capability}})
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 2<<20)
			config := labConfig(b.lab)
			config.Transports = nil
			b.client = dial(t, config)
			if test.off {
				if err := b.client.PowerOff(t.Context(), b.vm.ID); err != nil {
					t.Fatal(err)
				}
			}
			if test.prepare != nil {
				test.prepare(t, b)
			}
			f := &follower{bench: b, granularity: 1 << 20}
			plan, captured := f.step(want)
			b.find()
			if enabled := test.warning == ""; b.vm.ChangeTracking != enabled || (plan.Tracking != "") != enabled {
				t.Errorf("tracking is on: %t, plan %+v", b.vm.ChangeTracking, plan)
			}
			if all := strings.Join(captured.Warnings, "\n"); !strings.Contains(all, test.warning) || test.warning == "" && strings.Contains(all, "racking") {
				t.Errorf("warnings %q", captured.Warnings)
			}
			if test.warning != "" {
				return
			}
			if err := b.lab.WriteDisk(benchVM, 0, 0, []byte("changed")); err != nil {
				t.Fatal(err)
			}
			if plan, _ = f.step(want); plan.Areas == nil || plan.Areas.Bytes() != 1<<20 {
				t.Errorf("plan %+v", plan)
			}
		})
	}
}

// TestTracking_enabledButNot finds that tracking doesn't run although the setting says so.
func TestTracking_enabledButNot(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 1<<20)
	b.lab.OnCall("QueryChangedDiskAreas", func(context.Context) { t.Error("the server was asked nevertheless") })
	p := &pointInTime{client: b.client, vm: b.vm.ID, tracking: tracking{wanted: hypervisor.TrackingEnable}}
	p.disks = []*pointDisk{{label: "Hard disk 1", capacity: 1 << 20, backing: diskBacking{uuid: "u", base: "[ds] a"}}}
	p.warnOfTracking(t.Context())
	if got := p.Config().Warnings; len(got) != 1 || !strings.Contains(got[0], "Hard disk 1: Change tracking is on, but doesn't run") {
		t.Errorf("warnings %q", got)
	}
	if p.token(p.disks[0]) != nil {
		t.Error("a token without a change ID")
	}
}
