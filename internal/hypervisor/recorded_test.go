package hypervisor_test

import (
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

func TestFindRecorded(t *testing.T) {
	t.Parallel()
	errBroken := errors.New("broken on purpose")
	for name, tt := range map[string]struct {
		change func(f *hypervisortest.Fake, vm hypervisor.VM)
		last   hypervisor.VMID // instead of what was recorded
		gone   bool
		is     error
	}{
		"there":    {change: func(*hypervisortest.Fake, hypervisor.VM) {}},
		"gone":     {change: func(f *hypervisortest.Fake, vm hypervisor.VM) { f.Lose(vm.ID) }, gone: true},
		"hidden":   {change: func(f *hypervisortest.Fake, vm hypervisor.VM) { f.Hide(vm.ID) }, is: hypervisor.ErrOutOfReach},
		"other ID": {change: func(*hypervisortest.Fake, hypervisor.VM) {}, last: "vm-4711"},
		"other identity": {change: func(f *hypervisortest.Fake, vm hypervisor.VM) {
			f.Edit(vm.ID, func(vm *hypervisor.VM) { vm.InstanceUUID = "5005a8a0-0000-4000-8000-000000000001" })
		}, is: hypervisor.ErrOutOfReach},
		"search fails": {change: func(f *hypervisortest.Fake, _ hypervisor.VM) {
			f.Fail(hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID, Err: errBroken})
		}, is: errBroken},
		"look fails": {change: func(f *hypervisortest.Fake, vm hypervisor.VM) {
			f.Lose(vm.ID)
			f.Fail(hypervisortest.Fault{At: hypervisortest.BeforeVMExists, Err: errBroken})
		}, is: errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := hypervisortest.NewFake(t)
			vm := f.AddVM(hypervisortest.VMSpec{Name: "web"})
			tt.change(f, vm)
			last := vm.ID
			if tt.last != "" {
				last = tt.last
			}
			got, err := hypervisor.FindRecorded(t.Context(), f, vm.InstanceUUID, last)
			var gone *hypervisor.VMNotFoundError
			if errors.As(err, &gone) != tt.gone || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %+v and %v", got, err)
			}
			if tt.is == nil && !tt.gone && (err != nil || got.ID != vm.ID) {
				t.Errorf("got %+v and %v, want %s", got, err, vm.ID)
			}
		})
	}
	f := hypervisortest.NewFake(t)
	if _, err := hypervisor.FindRecorded(t.Context(), f, "5005a8a0-0000-4000-8000-000000000001", ""); !errors.Is(err, hypervisor.ErrOutOfReach) {
		t.Errorf("without a handle: got %v", err)
	}
}
