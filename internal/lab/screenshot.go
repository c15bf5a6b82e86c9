package lab

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CreateScreenshotTask starts a task that puts a picture of the running VM's screen into its directory. The path of
// the file is the task's result. It stays when the VM is destroyed.
func (vm *virtualMachine) CreateScreenshotTask(ctx *simulator.Context, _ *types.CreateScreenshot_Task) soap.HasFault {
	spec := vm.job("CreateScreenshot_Task")
	spec.busy = nil // nothing of the VM changes
	task := vm.lab.startJob(ctx, spec, func(j *job) (result types.AnyType, fault types.BaseMethodFault) {
		j.sim.WithLock(vm.VirtualMachine, func() { result, fault = vm.lab.takeScreenshot(vm.VirtualMachine) })
		return result, fault
	})
	return &methods.CreateScreenshot_TaskBody{Res: &types.CreateScreenshot_TaskResponse{Returnval: task}}
}

// takeScreenshot writes the picture of a VM whose lock is held.
func (l *Lab) takeScreenshot(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
	if state := vm.Runtime.PowerState; state != poweredOn {
		return nil, &types.InvalidPowerState{RequestedState: poweredOn, ExistingState: state}
	}
	picture, err := drawScreen(vm.Config.InstanceUuid, toolsRun(vm))
	if err != nil {
		return nil, &types.GenericVmConfigFault{Reason: err.Error()}
	}
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s/%s-%d.png", directory(vm.Config.Files.VmPathName), vm.Config.Name, n)
		file, ok := l.path(name)
		if !ok {
			return nil, &types.InvalidDatastorePath{DatastorePath: name}
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if os.IsExist(err) {
			continue
		}
		if err == nil {
			_, err = f.Write(picture)
			if closeErr := f.Close(); err == nil {
				err = closeErr
			}
		}
		if err != nil {
			return nil, &types.CannotCreateFile{FileFault: fileFault(name)}
		}
		return name, nil
	}
}

// drawScreen makes a picture that is a VM's own, in the size of a text console, with a green band if its guest is up.
func drawScreen(instance string, up bool) ([]byte, error) {
	const width, height, cell = 720, 400, 40
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(instance)) // never fails
	pattern := sum.Sum64()
	screen := image.NewPaletted(image.Rect(0, 0, width, height), color.Palette{
		color.Black, color.Gray{0x80}, color.RGBA{G: 0xc0, A: 0xff},
	})
	for y := range height {
		for x := range width {
			switch {
			case y < cell && up:
				screen.SetColorIndex(x, y, 2)
			case pattern>>((x/cell+y/cell*7)%64)&1 == 1:
				screen.SetColorIndex(x, y, 1)
			}
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, screen)
	return b.Bytes(), err
}
