package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

const (
	// maxScreenshot bounds a picture, in bytes. A screen of 4K in true colour has some 30 MB before compression.
	maxScreenshot = 64 << 20

	// screenshotCleanup bounds the removal of the picture.
	screenshotCleanup = time.Minute
)

// Screenshot implements hypervisor.Screenshooter. The server puts the picture into the directory of the VM
// (VirtualMachine.CreateScreenshot_Task), from where it is fetched and removed.
func (c *Client) Screenshot(ctx context.Context, vm hypervisor.VMID) ([]byte, error) {
	picture, err := c.screenshot(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("take a screenshot of %s: %w", vm, classify(err))
	}
	return picture, nil
}

func (c *Client) screenshot(ctx context.Context, vm hypervisor.VMID) (picture []byte, err error) {
	line, err := c.ancestors(ctx, vmRef(vm))
	if err != nil {
		return nil, err
	}
	info, err := c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		res, err := methods.CreateScreenshot_Task(ctx, c.vim, &types.CreateScreenshot_Task{This: vmRef(vm)})
		if err != nil {
			return nil, err
		}
		return object.NewTask(c.vim, res.Returnval), nil
	})
	file, ok := taskFile(info)
	if ok {
		defer func() {
			if removeErr := c.removeScreenshot(ctx, line, file); removeErr != nil {
				err = errors.Join(err, fmt.Errorf("the picture %s stays on the server: %w", file, removeErr))
			}
		}()
	}
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errors.New("the server doesn't say where the picture is")
	}
	if picture, err = c.readFile(ctx, line.datacenterPath(), file, maxScreenshot); err != nil {
		return nil, err
	}
	if _, err := png.DecodeConfig(bytes.NewReader(picture)); err != nil {
		return nil, fmt.Errorf("what the server has as %s is no picture: %w", file, err)
	}
	return picture, nil
}

// taskFile is the datastore path that a task has for its result.
func taskFile(info *types.TaskInfo) (string, bool) {
	if info == nil {
		return "", false
	}
	file, ok := info.Result.(string)
	return file, ok && file != ""
}

func (c *Client) removeScreenshot(ctx context.Context, line lineage, file string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), screenshotCleanup)
	defer cancel()
	dc := line.datacenter()
	if dc == nil {
		return errors.New("the VM is in no datacenter")
	}
	return c.tryDeleteFile(ctx, dc.Self, file)
}
