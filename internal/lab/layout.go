package lab

import (
	"errors"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// refreshLayout recomputes what a VM says about its files. The VM's lock is held.
func (l *Lab) refreshLayout(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	vm.RefreshStorageInfo(ctx, nil)
}

// storeFault is the fault for an error of the disk store.
func storeFault(name string, err error) types.BaseMethodFault {
	switch {
	case errors.Is(err, diskstore.ErrExist):
		return &types.FileAlreadyExists{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrNotExist):
		return &types.FileNotFound{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrInUse), errors.Is(err, diskstore.ErrFrozen):
		return &types.FileLocked{FileFault: fileFault(name)}
	case errors.Is(err, diskstore.ErrCapacity):
		return &types.InvalidArgument{InvalidProperty: "capacityInBytes"}
	}
	return &types.CannotAccessFile{FileFault: fileFault(name)}
}
