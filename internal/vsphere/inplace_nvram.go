package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// replaceNVRAM brings the firmware's variables back. The VM's own are kept in a file until the end. That they
// can't be replaced is a warning, as long as the VM has its own.
func (r *inPlace) replaceNVRAM(ctx context.Context) (warnings []string, err error) {
	data := r.plan.spec.Config.NVRAM
	if len(data) == 0 {
		return nil, nil
	}
	kept, err := r.writeOverNVRAM(ctx, data)
	if err != nil && kept && ctx.Err() == nil {
		return []string{fmt.Sprintf("the firmware's variables were not restored: %v.", err)}, nil
	}
	return nil, err
}

// writeOverNVRAM tells whether the VM has its own variables in the case of an error.
func (r *inPlace) writeOverNVRAM(ctx context.Context, data []byte) (kept bool, err error) {
	c, dc, run := r.client, r.plan.line.datacenterPath(), r.plan.spec.RunID
	file := nvramFile(r.plan.vm, r.plan.vm.Config)
	own, err := c.readNVRAM(ctx, dc, file)
	switch {
	case errors.Is(err, errNoFile):
		return true, c.rewriteNVRAM(ctx, dc, file, data)
	case err != nil || bytes.Equal(own, data):
		return true, err
	}
	next := r.journal.as(r.journal.Phase)
	next.NVRAM = file + ".before-restore"
	if err := r.write(ctx, run, next, nil); err != nil {
		return true, err
	}
	if err := c.rewriteNVRAM(ctx, dc, next.NVRAM, own); err != nil {
		return true, err
	}
	switch saved, err := c.readNVRAM(ctx, dc, next.NVRAM); { // soon it is the only one
	case err != nil:
		return true, err
	case !bytes.Equal(saved, own):
		return true, fmt.Errorf("%s, a copy of the VM's own, has other bytes", next.NVRAM)
	}
	next = r.journal.as(r.journal.Phase)
	next.NVRAMSaved = true
	if err := r.write(ctx, run, next, nil); err != nil {
		return true, err
	}
	if err := c.rewriteNVRAM(ctx, dc, file, data); err != nil {
		if heldErr := r.tenure.check(ctx); heldErr != nil {
			return false, errors.Join(err, heldErr)
		}
		return c.rewriteNVRAM(ctx, dc, file, own) == nil, err
	}
	return false, nil
}

// rewriteNVRAM writes a file as often as it takes: half of it would be worse than nothing.
func (c *Client) rewriteNVRAM(ctx context.Context, datacenter, file string, data []byte) error {
	for attempt := 1; ; attempt++ {
		err := c.writeNVRAM(ctx, datacenter, file, data)
		again := errors.Is(err, hypervisor.ErrLost) && attempt < readAttempts
		if !again || pause(ctx, backoff(attempt)) != nil {
			return err
		}
	}
}

// putBackNVRAM brings back the VM's own firmware variables from the file that keeps them. Until that is whole
// they are not replaced.
func (c *Client) putBackNVRAM(ctx context.Context, id hypervisor.VMID, line lineage, j *journal) error {
	if j.NVRAM == "" || !j.NVRAMSaved {
		return nil
	}
	own, err := c.readNVRAM(ctx, line.datacenterPath(), j.NVRAM)
	if err != nil {
		return err
	}
	vm, err := c.readTarget(ctx, id)
	if err != nil {
		return err
	}
	return c.rewriteNVRAM(ctx, line.datacenterPath(), nvramFile(vm, vm.Config), own)
}
